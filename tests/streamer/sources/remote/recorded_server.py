"""A real WebSocket server that answers as it was written down, when it has heard enough."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from websockets.asyncio.server import Server, ServerConnection, serve

Said = dict[str, Any] | str | bytes


@dataclass
class Recording:
    """One side of an exchange, and what came from the other.

    Attributes:
        answers: What to say when so many milliseconds of audio have come.
        rest: What to say after the end of the audio.
        is_end: Tells the message that ends the audio.
        audio_of: Takes the audio out of a message; None if it has none.
        bytes_per_ms: Of that audio.
        closes: Whether to close after the rest.
        on_connect: What to say at once.
        texts: Messages without audio, as they came.
        audio: All audio that came.
        path: What was asked for, with its query.
        headers: Of the request.
    """

    answers: Sequence[tuple[float, Said]]
    rest: Sequence[Said]
    is_end: Callable[[str | bytes], bool]
    audio_of: Callable[[str | bytes], bytes | None] = field(
        default=lambda message: message if isinstance(message, bytes) else None
    )
    bytes_per_ms: float = 32.0
    closes: bool = True
    on_connect: Sequence[Said] = ()
    texts: list[str | bytes] = field(default_factory=list)
    audio: bytes = b""
    path: str = ""
    headers: dict[str, str] = field(default_factory=dict)

    async def serve_one(self, connection: ServerConnection) -> None:
        assert connection.request is not None
        self.path = connection.request.path
        self.headers = dict(connection.request.headers.raw_items())
        await self._say(connection, self.on_connect)
        waiting = list(self.answers)
        async for message in connection:
            heard = self.audio_of(message)
            if heard is None:
                self.texts.append(message)
                if self.is_end(message):
                    break
                continue
            self.audio += heard
            while waiting and waiting[0][0] <= len(self.audio) / self.bytes_per_ms:
                await self._say(connection, [waiting.pop(0)[1]])
        await self._say(connection, [said for _, said in waiting])
        await self._say(connection, self.rest)
        if not self.closes:
            await connection.wait_closed()

    async def _say(self, connection: ServerConnection, sayings: Sequence[Said]) -> None:
        for said in sayings:
            text = json.dumps(said, ensure_ascii=False) if isinstance(said, dict) else said
            await connection.send(text)


@contextlib.asynccontextmanager
async def listening(
    handler: Callable[[ServerConnection], Any], **options: Any
) -> AsyncIterator[tuple[str, Server]]:
    """Serve; the address, and the server to stop it."""
    async with serve(handler, "127.0.0.1", 0, **options) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        yield f"ws://127.0.0.1:{port}", server
        server.close(close_connections=True)
        await asyncio.sleep(0)
