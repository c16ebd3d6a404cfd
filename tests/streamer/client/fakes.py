"""What a client streams in tests, and a connection without a server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Self

from cnerta.streamer.sources import LiveAudio, Revision
from cnerta.streamer.wire.messages import (
    ClientMessage,
    ServerMessage,
    SessionFinish,
    SessionStart,
    Transcript,
)
from cnerta.streamer.wire.parts import AudioFormat

from .. import server_messages as wire

BLOCK = bytes(640)  # 20 ms of 16 kHz


class Silence:
    """An audio source of so many blocks, or one without end."""

    def __init__(self, blocks: int, *, endless: bool = False, failure: Exception | None = None):
        self.format = AudioFormat(sample_rate=16_000)
        self.paced = endless
        self.endless = endless
        self._blocks = blocks
        self._failure = failure
        self.closed = False

    async def blocks(self) -> AsyncIterator[bytes]:
        try:
            sent = 0
            while self.endless or sent < self._blocks:
                yield BLOCK
                sent += 1
                if self.endless:
                    await asyncio.sleep(0.001)
            if self._failure is not None:
                raise self._failure
        finally:
            self.closed = True


class Said:
    """A transcript source of given revisions."""

    def __init__(self, *revisions: Revision) -> None:
        self._revisions = revisions

    async def revisions(self, audio: LiveAudio) -> AsyncIterator[Revision]:
        for revision in self._revisions:
            yield revision


class FakeConnection:
    """The other side: answers finals (unless told not to), and finishes when asked."""

    def __init__(self, *, answers: bool = True, **limits: int) -> None:
        self.sent: list[ClientMessage | bytes] = []
        self.to_client: asyncio.Queue[ServerMessage] = asyncio.Queue()
        self._answers = answers
        self._limits = limits
        self._finals = 0

    async def send(self, message: ClientMessage) -> None:
        self.sent.append(message)
        match message:
            case SessionStart():
                self.to_client.put_nowait(wire.ready(**self._limits))
            case Transcript(final=True):
                self._finals += 1
                if self._answers:
                    self.answer(message)
            case SessionFinish():
                self.to_client.put_nowait(wire.summary(self._finals))

    def answer(self, message: Transcript) -> None:
        self.to_client.put_nowait(wire.final(message.utterance, message.revision, message.text))

    async def send_audio(self, block: bytes) -> None:
        self.sent.append(block)

    async def receive(self) -> ServerMessage:
        return await self.to_client.get()

    def of(self, *types: type[ClientMessage] | type[bytes]) -> list[ClientMessage | bytes]:
        return [message for message in self.sent if isinstance(message, types)]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        pass


def said(utterance: int, text: str = "好") -> Revision:
    return Revision(f"u{utterance}", 1, text, final=True)
