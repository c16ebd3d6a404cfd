"""What a transcript source is: what it yields, and what it may know of the audio.

All times are milliseconds on the stream's audio clock, which counts samples and starts at 0.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol

from msgspec import UNSET

from cnerta.streamer.wire.messages import Transcript
from cnerta.streamer.wire.parts import AudioFormat

__all__ = ["BLOCKS_WAITING", "LiveAudio", "Revision", "TranscriptSource"]

BLOCKS_WAITING = 256
"""How many audio blocks may wait for a source; then the stream waits for the source."""


@dataclass(frozen=True, slots=True)
class Revision:
    """The transcript of one utterance as it stands now.

    Attributes:
        utterance: A name for the utterance, the same in all its revisions.
        revision: Rises with every revision of the utterance.
        text: The whole text of the utterance so far, not what was added.
        final: Whether the text will not change any more.
        start_ms: Where the utterance starts in the audio, if known.
        end_ms: Up to where in the audio the text reaches, if known.
        speaker: Who speaks, if known.
        channel: In which channel of the recording, from 0, if known.
    """

    utterance: str
    revision: int
    text: str
    final: bool
    start_ms: int | None = None
    end_ms: int | None = None
    speaker: str | None = None
    channel: int | None = None

    def message(self) -> Transcript:
        """What a session is told of it."""
        return Transcript(
            utterance=self.utterance,
            revision=self.revision,
            final=self.final,
            text=self.text,
            start_ms=self.start_ms,
            end_ms=self.end_ms,
            # Left out where unknown: an older server refuses fields that it does not know.
            speaker=self.speaker or UNSET,
            channel=UNSET if self.channel is None else self.channel,
        )


class TranscriptSource(Protocol):
    """Anything that yields revisions while audio is streamed."""

    def revisions(self, audio: LiveAudio) -> AsyncIterator[Revision]:
        """Yield the transcript as it changes, until there is no more.

        Args:
            audio: The audio as it is streamed: its format, its clock, and its samples for those who
                recognise.
        """
        ...


class LiveAudio:
    """The audio as it is being streamed, as far as a transcript source may know it.

    Args:
        audio_format: Encoding, rate and channels of the samples.
        paced: Whether the audio comes at the pace of speech. If so, what is due after its end waits
            that long.
    """

    def __init__(self, audio_format: AudioFormat, *, paced: bool = True) -> None:
        self.format = audio_format
        self.paced = paced
        self._bytes_per_ms = audio_format.sample_rate * audio_format.frame_bytes / 1_000
        self._audio_bytes = 0
        self._ended = False
        self._ended_at = 0.0
        self._waiting: list[tuple[float, int, asyncio.Future[None]]] = []
        self._count = 0
        self._readers: list[asyncio.Queue[bytes | None]] = []

    @property
    def audio_ms(self) -> float:
        """How much audio has been streamed."""
        return self._audio_bytes / self._bytes_per_ms

    async def reached(self, at_ms: float) -> None:
        """Wait until the audio clock is at `at_ms`, or the audio has ended before."""
        if self.audio_ms < at_ms and not self._ended:
            future = asyncio.get_running_loop().create_future()
            self._count += 1
            heapq.heappush(self._waiting, (at_ms, self._count, future))
            await future
        if self._ended and self.paced and at_ms > self.audio_ms:
            # Several may be due after the end: each waits from the end, not from the one before it.
            now = asyncio.get_running_loop().time()
            await asyncio.sleep(self._ended_at + (at_ms - self.audio_ms) / 1_000 - now)

    def blocks(self) -> AsyncIterator[bytes]:
        """The audio from this call on, block by block, in its own format, until it ends."""
        queue: asyncio.Queue[bytes | None] = asyncio.Queue(BLOCKS_WAITING)
        if self._ended:
            queue.put_nowait(None)
        else:
            self._readers.append(queue)
        return _blocks(queue)

    async def push(self, block: bytes) -> None:
        """Tell that `block` has been streamed (for the stream, not for sources)."""
        self._audio_bytes += len(block)
        for queue in tuple(self._readers):
            await queue.put(block)
        self._wake()

    async def end(self) -> None:
        """Tell that there is no more audio (for the stream, not for sources)."""
        self._ended = True
        self._ended_at = asyncio.get_running_loop().time()
        for queue in tuple(self._readers):
            await queue.put(None)
        self._wake()

    def detach(self) -> None:
        """Tell that no source reads any more, so that none holds up the stream (for the stream)."""
        for queue in self._readers:
            while not queue.empty():  # lets a waiting `push` go on
                queue.get_nowait()
        self._readers.clear()

    def _wake(self) -> None:
        audio_ms = self.audio_ms
        while self._waiting and (self._ended or self._waiting[0][0] <= audio_ms):
            future = heapq.heappop(self._waiting)[2]
            if not future.done():
                future.set_result(None)


async def _blocks(queue: asyncio.Queue[bytes | None]) -> AsyncIterator[bytes]:
    while (block := await queue.get()) is not None:
        yield block
