"""A client that speaks the protocol's messages to a real server, and remembers what it was told."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from cnerta.streamer.wire.codec import decode_server, encode
from cnerta.streamer.wire.messages import ClientMessage, ServerMessage

__all__ = ["Client", "client"]

SECONDS = 20


class Client:
    """One connection; ``seen`` is all that came."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.seen: list[ServerMessage] = []

    async def send(self, *messages: ClientMessage | bytes | str) -> Client:
        for message in messages:
            raw = isinstance(message, bytes | str)
            await self.socket.send(message if raw else encode(message), text=None if raw else True)
        return self

    async def receive(self) -> ServerMessage:
        async with asyncio.timeout(SECONDS):
            message = decode_server(await self.socket.recv())
        self.seen.append(message)
        return message

    async def until(self, kind: type) -> Any:
        while not isinstance(message := await self.receive(), kind):
            pass
        return message

    async def rest(self) -> list[ServerMessage]:
        """Everything until the connection closes."""
        messages: list[ServerMessage] = []
        with contextlib.suppress(ConnectionClosed):
            while True:
                messages.append(await self.receive())
        return messages

    @property
    def last_seq(self) -> int:
        return max((m.seq for m in self.seen if hasattr(m, "seq")), default=0)

    def vanish(self) -> None:
        self.socket.transport.abort()


@contextlib.asynccontextmanager
async def client(port: int, token: str | None = None, **options: Any) -> AsyncIterator[Client]:
    """Connect to a server of this machine; options are those of the library."""
    if token is not None:
        options["additional_headers"] = {"Authorization": f"Bearer {token}"}
    url = f"ws://127.0.0.1:{port}/v1/stream"
    async with connect(url, proxy=None, compression=None, **options) as socket:
        yield Client(socket)
