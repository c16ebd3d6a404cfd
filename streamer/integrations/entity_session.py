"""A session beside a framework that has the audio and the transcript already.

The framework pushes what it has, and never waits: audio as it comes, the text as it grows, the text
that is final. Entities come back through a callback, and as the answer to each final text. What is
wrong with the server never stops the framework: its transcripts then go on without entities, and
the server is tried again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Final, TypeAlias

import msgspec

from cnerta.models.errors import CnertaError
from cnerta.streamer.client.connection import Connection
from cnerta.streamer.client.stream import StreamOptions, stream
from cnerta.streamer.errors import ServerUnreachableError, SessionRefusedError
from cnerta.streamer.sources import LiveAudio, Revision
from cnerta.streamer.wire.messages import (
    MAX_TEXT_CHARACTERS,
    EntityRetract,
    EntityUpsert,
    ServerMessage,
    UtteranceFinal,
)
from cnerta.streamer.wire.parts import AudioFormat, Entity

__all__ = ["DEFAULT_OPTIONS", "Connect", "EntitySession", "Found"]

log = logging.getLogger(__name__)

Connect: TypeAlias = Callable[[], Awaitable[Connection]]
"""Opens a connection, as ``lambda: WebSocketConnection.open("ws://…")`` does."""

DEFAULT_OPTIONS: Final = StreamOptions()
FIRST_RETRY_S: Final = 0.5
LAST_RETRY_S: Final = 30.0
SETTLE_S: Final = 0.01
"""The answers to one revision come one by one; they are told of together."""
MOST_WAITING_MS: Final = 60_000
"""Audio that waits for a server that does not keep up; what comes then is left out."""


@dataclass(frozen=True, slots=True)
class Found:
    """The entities of one utterance as they stand.

    Attributes:
        utterance: Its name, unique in the session.
        text: The text that they are in.
        entities: In the order of the text; ``start_ms`` and ``end_ms`` count from the first audio.
        final: Whether this is the complete answer to the final text.
        audio_used: Whether the final answer rests on audio too.
    """

    utterance: str
    text: str
    entities: tuple[Entity, ...] = ()
    final: bool = False
    audio_used: bool = False


async def _nobody(found: Found) -> None:
    pass


class EntitySession:
    """Finds the entities in what a framework hears. It starts by itself, and runs in a task.

    Args:
        connect: Opens the connection, and another one after a failure.
        options: What is wanted of the model.
        on_change: Told of the entities of an utterance whenever they have changed.
        paced: Whether the audio comes at the pace of speech.
    """

    def __init__(
        self,
        connect: Connect,
        options: StreamOptions = DEFAULT_OPTIONS,
        *,
        on_change: Callable[[Found], Awaitable[None]] = _nobody,
        paced: bool = True,
    ) -> None:
        self._connect = connect
        self._options = options
        self._on_change = on_change
        self._paced = paced
        self._feed: _Feed | None = None
        """Of the connection there is; None until the first audio or text, and after a failure."""
        self._format = AudioFormat(sample_rate=16_000)
        self._audio_ms = 0.0
        self._utterance, self._revision = 1, 0
        self._texts: dict[str, str] = {}
        self._entities: dict[str, dict[str, Entity]] = {}
        self._owed: dict[str, asyncio.Future[Found | None]] = {}
        self._changed: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._running: asyncio.Task[None] | None = None
        self._warned = False

    # --- what the framework has -------------------------------------------------------------------

    def add_audio(self, block: bytes, audio_format: AudioFormat) -> None:
        """Take audio. It has to be in one format; what is in another is left out.

        Args:
            block: Raw samples.
            audio_format: Their encoding, rate and channels.
        """
        if self._audio_ms == 0 and audio_format != self._format:
            self._format = audio_format
            self._begin_anew()
        if audio_format != self._format:
            self._warn_once(f"expected audio in one format, {self._format}, got {audio_format}")
            return
        self._start()
        if self._feed is not None:
            if self._feed.waiting_ms > MOST_WAITING_MS:
                self._warn_once("the entity server does not keep up: audio is left out")
                return
            self._feed.add_audio(block)
        self._audio_ms += len(block) / _bytes_per_ms(self._format)

    def revise(
        self, text: str, *, start_ms: float | None = None, end_ms: float | None = None
    ) -> Found | None:
        """Take the text of the current utterance as it is now; what is known of it already.

        Args:
            text: All of it so far.
            start_ms: Where it starts, counted from the first audio, if that is known.
            end_ms: Up to where it reaches.

        Returns:
            Entities of revisions before that are still in the text; None while there is no
            connection, or where the text is none that a session takes.
        """
        utterance = f"u{self._utterance}"
        if not self._send(utterance, text, (start_ms, end_ms), final=False):
            return None
        return self._found(utterance)

    def conclude(
        self, text: str, *, start_ms: float | None = None, end_ms: float | None = None
    ) -> asyncio.Future[Found | None]:
        """Take the final text of the current utterance; what comes next is another.

        Args:
            text: All of it.
            start_ms: Where it starts, counted from the first audio, if that is known.
            end_ms: Up to where it reaches.

        Returns:
            Done when it is answered, or will not be: with None then.
        """
        answer: asyncio.Future[Found | None] = asyncio.get_running_loop().create_future()
        utterance = f"u{self._utterance}"
        if self._send(utterance, text, (start_ms, end_ms), final=True):
            self._owed[utterance] = answer
        else:
            answer.set_result(None)
        self._utterance, self._revision = self._utterance + 1, 0
        return answer

    async def finish(self, patience_s: float) -> None:
        """Wait for the answers that are owed, but no longer than `patience_s`; then close."""
        if self._running is not None and self._feed is not None:
            self._feed.end()
            await asyncio.wait({self._running}, timeout=patience_s)
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connection; what is owed is answered with None."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        self._give_up_answers()

    # --- the connection ---------------------------------------------------------------------------

    def _start(self) -> None:
        if self._running is None:
            self._feed = _Feed(self._format, self._audio_ms, paced=self._paced)
            self._running = asyncio.create_task(self._run())
            self._tasks |= {self._running, asyncio.create_task(self._tell())}

    def _begin_anew(self) -> None:
        """Leave a session that has had text only: its audio would be of another format."""
        if self._running is not None:
            for task in self._tasks:
                task.cancel()
            self._running = self._feed = None
            self._give_up_answers()

    async def _run(self) -> None:
        pause_s = FIRST_RETRY_S
        while self._feed is not None:
            feed = self._feed
            try:
                async with await self._connect() as connection:
                    async for message in stream(connection, feed, feed, self._options):
                        pause_s = FIRST_RETRY_S
                        await self._receive(message, feed.began_ms)
                return
            except CnertaError as error:
                may_help = isinstance(error, ServerUnreachableError) or (
                    isinstance(error, SessionRefusedError) and error.retryable
                )
                log.log(
                    logging.WARNING if may_help else logging.ERROR,
                    "transcripts go on without entities: %s",
                    error,
                )
                self._disconnected()
                if not may_help:
                    return
            except Exception:  # A bug of ours is no reason for an agent to fall silent.
                log.exception("transcripts go on without entities")
                self._disconnected()
                return
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, LAST_RETRY_S)
            self._feed = _Feed(self._format, self._audio_ms, paced=self._paced)

    def _disconnected(self) -> None:
        self._feed = None
        self._give_up_answers()

    def _send(
        self,
        utterance: str,
        text: str,
        times_ms: tuple[float | None, float | None],
        *,
        final: bool,
    ) -> bool:
        """Send a revision; whether that is possible."""
        if not text.strip() or len(text) > MAX_TEXT_CHARACTERS:
            return False
        self._start()
        if self._feed is None:
            return False
        self._revision += 1
        start_ms, end_ms = (self._feed.on_its_clock(time_ms) for time_ms in times_ms)
        if start_ms is not None and end_ms is not None and end_ms < start_ms:
            start_ms = end_ms = None
        self._texts[utterance] = text
        self._feed.add_revision(
            Revision(utterance, self._revision, text, final, start_ms=start_ms, end_ms=end_ms)
        )
        return True

    async def _receive(self, message: ServerMessage, began_ms: float) -> None:
        match message:
            case EntityUpsert(utterance=utterance, entity=entity):
                if utterance in self._texts:
                    known = self._entities.setdefault(utterance, {})
                    known[entity.id] = _later(entity, began_ms)
                    self._changed.add(utterance)
            case EntityRetract(utterance=utterance):
                self._entities.get(utterance, {}).pop(message.id, None)
                self._changed.add(utterance)
            case UtteranceFinal(utterance=utterance):
                found = Found(
                    utterance,
                    message.text,
                    tuple(_later(entity, began_ms) for entity in message.entities),
                    final=True,
                    audio_used=message.audio_used,
                )
                self._forget(utterance)
                answer = self._owed.pop(utterance, None)
                if answer is not None and not answer.done():
                    answer.set_result(found)
                await self._on_change(found)
            case _:
                pass

    async def _tell(self) -> None:
        while True:
            await asyncio.sleep(SETTLE_S)
            for utterance in sorted(self._changed & self._texts.keys()):
                self._changed.discard(utterance)
                await self._on_change(self._found(utterance))
            self._changed.clear()

    def _found(self, utterance: str) -> Found:
        text = self._texts[utterance]
        fitting = (
            entity
            for entity in self._entities.get(utterance, {}).values()
            if text[entity.start : entity.end] == entity.text
        )
        ordered = sorted(fitting, key=lambda entity: (entity.start, -entity.end))
        return Found(utterance, text, tuple(ordered))

    def _forget(self, utterance: str) -> None:
        self._texts.pop(utterance, None)
        self._entities.pop(utterance, None)
        self._changed.discard(utterance)

    def _give_up_answers(self) -> None:
        for answer in self._owed.values():
            if not answer.done():
                answer.set_result(None)
        self._owed.clear()
        self._texts.clear()
        self._entities.clear()
        self._changed.clear()

    def _warn_once(self, warning: str) -> None:
        if not self._warned:
            log.warning("%s", warning)
        self._warned = True


class _Feed:
    """What one connection is fed with: an audio source and a transcript source.

    Args:
        audio_format: Of all audio.
        began_ms: Audio that went before this connection.
        paced: Whether the audio comes at the pace of speech.
    """

    endless = False

    def __init__(self, audio_format: AudioFormat, began_ms: float, *, paced: bool) -> None:
        self.format = audio_format
        self.paced = paced
        self.began_ms = began_ms
        self._blocks: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._revisions: asyncio.Queue[tuple[Revision, float] | None] = asyncio.Queue()
        self._bytes = self._bytes_taken = 0

    @property
    def waiting_ms(self) -> float:
        """Audio that the connection has not taken."""
        return (self._bytes - self._bytes_taken) / _bytes_per_ms(self.format)

    def on_its_clock(self, time_ms: float | None) -> int | None:
        """A time of the whole session as one of this connection; None if it is before."""
        if time_ms is None or time_ms < self.began_ms:
            return None
        return round(time_ms - self.began_ms)

    def add_audio(self, block: bytes) -> None:
        self._bytes += len(block)
        self._blocks.put_nowait(block)

    def add_revision(self, revision: Revision) -> None:
        self._revisions.put_nowait((revision, self._bytes / _bytes_per_ms(self.format)))

    def end(self) -> None:
        self._blocks.put_nowait(None)
        self._revisions.put_nowait(None)

    async def blocks(self) -> AsyncIterator[bytes]:
        """The audio, as it comes."""
        while (block := await self._blocks.get()) is not None:
            self._bytes_taken += len(block)
            yield block

    async def revisions(self, audio: LiveAudio) -> AsyncIterator[Revision]:
        """The transcript, each revision after the audio that came before it."""
        while (waiting := await self._revisions.get()) is not None:
            revision, at_ms = waiting
            await audio.reached(at_ms)
            yield revision


def _bytes_per_ms(audio_format: AudioFormat) -> float:
    return audio_format.sample_rate * audio_format.frame_bytes / 1_000


def _later(entity: Entity, by_ms: float) -> Entity:
    """The entity with its times counted from an earlier moment."""
    if not by_ms or entity.start_ms is None or entity.end_ms is None:
        return entity
    shift = round(by_ms)
    return msgspec.structs.replace(
        entity, start_ms=entity.start_ms + shift, end_ms=entity.end_ms + shift
    )
