"""A request of an ASGI application, carried to a server, and the answer back."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from typing import Final

import h11

from cnerta.streamer.ray_serve.asgi import (
    Receive,
    Scope,
    Send,
    headers_of,
    host_of,
    target_of,
)

__all__ = ["carry_request"]

_READ_BYTES: Final = 2**16


async def carry_request(
    scope: Scope, receive: Receive, send: Send, reach: Callable[[], socket.socket]
) -> None:
    """Carry one, with its answer.

    Args:
        scope: Of the request.
        receive: Gives its content.
        send: Takes the answer.
        reach: Makes a connection to the server.
    """
    host = host_of(scope)
    if host is None:
        await _answer(send, 400, b"expected one host name, got another\n")
        return
    reader, writer = await asyncio.open_connection(sock=reach())
    connection = h11.Connection(h11.CLIENT)
    head = h11.Request(
        method=scope["method"],
        target=target_of(scope),
        headers=[(b"host", host), *headers_of(scope), (b"connection", b"close")],
    )
    asking = asyncio.create_task(_ask(connection, head, receive, writer))
    try:
        if not await _tell(connection, reader, send):
            # It stops: it takes no connection any more.
            await _answer(send, 503, b"expected to go on, got a shutdown\n")
    finally:
        asking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asking
        writer.transport.abort()


async def _ask(
    connection: h11.Connection, head: h11.Request, receive: Receive, writer: asyncio.StreamWriter
) -> None:
    """Send the request; an answer may come before its end, and then there is no end."""
    with contextlib.suppress(OSError, h11.LocalProtocolError):
        writer.write(connection.send(head) or b"")
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                writer.transport.abort()
                return
            if message.get("body"):
                writer.write(connection.send(h11.Data(data=message["body"])) or b"")
                await writer.drain()
            if not message.get("more_body", False):
                writer.write(connection.send(h11.EndOfMessage()) or b"")
                return


async def _tell(connection: h11.Connection, reader: asyncio.StreamReader, send: Send) -> bool:
    """Pass the answer on. Returns whether there is one."""
    has_begun = False
    while True:
        try:
            event = connection.next_event()
        except h11.RemoteProtocolError:
            return has_begun
        if event is h11.NEED_DATA:
            with contextlib.suppress(OSError):
                connection.receive_data(await reader.read(_READ_BYTES))
        elif isinstance(event, h11.Response):
            has_begun = True
            headers = [(name, value) for name, value in event.headers if name != b"connection"]
            start = {"type": "http.response.start", "status": event.status_code}
            await send({**start, "headers": headers})
        elif isinstance(event, h11.Data):
            body = {"type": "http.response.body", "body": bytes(event.data)}
            await send({**body, "more_body": True})
        elif isinstance(event, h11.EndOfMessage):
            await send({"type": "http.response.body", "body": b""})
            return True


async def _answer(send: Send, status: int, body: bytes) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"retry-after", b"1")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
