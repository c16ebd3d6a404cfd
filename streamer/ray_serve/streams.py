"""A WebSocket of an ASGI application, carried to a server and back.

The server gets a connection of its own, and frames go through it as they are, either way. So all
that it knows of a connection holds here too: who may open it, how much it may send, how it is
closed, when it is parked.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from typing import Final

from websockets.asyncio.client import ClientConnection, connect
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException
from websockets.typing import Subprotocol

from cnerta.streamer.ray_serve.asgi import (
    Message,
    Receive,
    Scope,
    Send,
    headers_of,
    host_of,
    target_of,
)

__all__ = ["carry_stream"]

_OPEN_TIMEOUT_S: Final = 10.0
_CLOSE_TIMEOUT_S: Final = 5.0
_BROKEN: Final = 1006
"""What is said of a connection that ended without a word."""
_NO_CODE: Final = 1005
_INTERNAL: Final = 1011
_KEPT: Final = frozenset({"dg-request-id"})
"""Headers of the server's answer that its client is told."""


async def carry_stream(
    scope: Scope, receive: Receive, send: Send, reach: Callable[[], socket.socket]
) -> None:
    """Carry one, from its opening to its close.

    Args:
        scope: Of the WebSocket.
        receive: Tells what its client does.
        send: Tells its client.
        reach: Makes a connection to the server.
    """
    opening = await receive()
    assert opening["type"] == "websocket.connect", f"expected a WebSocket, got {opening['type']}"
    host = host_of(scope)
    if host is None:
        await _refuse(scope, send, 400, Headers(), b"expected one host name, got another\n")
        return
    try:
        inner = await _open(scope, host, reach())
    except InvalidStatus as refused:
        answer = refused.response
        await _refuse(scope, send, answer.status_code, answer.headers, bytes(answer.body or b""))
        return
    except (OSError, TimeoutError, WebSocketException):
        # It stops: it takes no connection any more.
        headers = Headers({"Retry-After": "1"})
        await _refuse(scope, send, 503, headers, b"expected to go on, got a shutdown\n")
        return
    try:
        await _carry(inner, receive, send)
    finally:
        inner.transport.abort()


async def _open(scope: Scope, host: bytes, end: socket.socket) -> ClientConnection:
    return await connect(
        f"ws://{host.decode('ascii')}{target_of(scope)}",
        sock=end,
        additional_headers=[
            (name.decode("latin-1"), value.decode("latin-1")) for name, value in headers_of(scope)
        ],
        subprotocols=[Subprotocol(each) for each in scope.get("subprotocols", ())] or None,
        user_agent_header=None,
        proxy=None,
        compression=None,
        # The server has bounds of its own, and pings what is there for certain.
        max_size=None,
        ping_interval=None,
        open_timeout=_OPEN_TIMEOUT_S,
        close_timeout=_CLOSE_TIMEOUT_S,
    )


async def _carry(inner: ClientConnection, receive: Receive, send: Send) -> None:
    assert inner.response is not None, "it is open"
    kept = [
        (name.encode("ascii"), value.encode("latin-1"))
        for name, value in inner.response.headers.raw_items()
        if name.lower() in _KEPT
    ]
    await send({"type": "websocket.accept", "subprotocol": inner.subprotocol, "headers": kept})
    taking = asyncio.create_task(_take(inner, receive))
    try:
        await _tell(inner, send)
        # Whoever has gone is told nothing more.
        if not (taking.done() and taking.exception() is None and taking.result()):
            close: Message = {"type": "websocket.close", "code": inner.close_code or _INTERNAL}
            if inner.close_code in (_BROKEN, _NO_CODE):
                close["code"] = _INTERNAL if inner.close_code == _BROKEN else 1000
            await send({**close, "reason": inner.close_reason or ""})
    finally:
        taking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await taking


async def _take(inner: ClientConnection, receive: Receive) -> bool:
    """What the client sends goes to the server. Returns whether the client has gone first."""
    try:
        while True:
            message = await receive()
            if message["type"] == "websocket.disconnect":
                await _leave(inner, message.get("code", _BROKEN), message.get("reason") or "")
                return True
            data = message.get("bytes")
            await inner.send(message["text"] if data is None else data)
    except ConnectionClosed:
        return False


async def _leave(inner: ClientConnection, code: int, reason: str) -> None:
    """End it as the client has: the server parks what was not closed in order.

    An ASGI server says 1005 both of a close without a code and of a connection that broke. Whoever
    broke off may come back; whoever does not costs a parked session for a while.
    """
    if code in (1000, 1001) or 3000 <= code < 5000:
        await inner.close(code, reason)
    else:
        inner.transport.abort()


async def _tell(inner: ClientConnection, send: Send) -> None:
    """What the server sends goes to the client, until the server says no more."""
    with contextlib.suppress(ConnectionClosed):
        async for frame in inner:
            kind = "text" if isinstance(frame, str) else "bytes"
            await send({"type": "websocket.send", kind: frame})


async def _refuse(scope: Scope, send: Send, status: int, headers: Headers, body: bytes) -> None:
    if "websocket.http.response" not in scope.get("extensions", {}):
        await send({"type": "websocket.close", "code": 1008, "reason": ""})
        return
    named = [(name.lower().encode(), value.encode()) for name, value in headers.raw_items()]
    kept = [(name, value) for name, value in named if name != b"connection"]
    await send({"type": "websocket.http.response.start", "status": status, "headers": kept})
    await send({"type": "websocket.http.response.body", "body": body})
