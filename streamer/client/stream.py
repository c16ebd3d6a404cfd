"""The driver of a session: streams audio and its transcript through a connection.

In code of your own::

    async with await WebSocketConnection.open("ws://127.0.0.1:8765") as connection:
        audio = AudioFile(Path("talk.wav"), paced=False)
        transcript = TimedTranscript.untimed("…", audio.duration_ms)
        async for message in stream(connection, audio, transcript):
            if isinstance(message, UtteranceFinal):
                ...

It is the same whatever answers: a server (`WebSocketConnection`), one of several servers that may
come and go (`cnerta.streamer.client.reconnecting.ReconnectingConnection`), or the engine in this
process (`cnerta.streamer.client.local.LocalConnection`).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from typing import Final, Protocol, TypeVar

from msgspec import UNSET

from cnerta.streamer.audio.source import AudioSource
from cnerta.streamer.client.connection import Connection
from cnerta.streamer.errors import ServerUnreachableError, SessionRefusedError, Unanswered
from cnerta.streamer.sources import LiveAudio, Revision, TranscriptSource
from cnerta.streamer.wire.messages import (
    ErrorMessage,
    Keepalive,
    RecognisedTranscript,
    ServerMessage,
    SessionFinish,
    SessionReady,
    SessionStart,
    SessionSummary,
    UtteranceFinal,
)
from cnerta.streamer.wire.parts import GlossaryEntry, Limits, MinStatus

__all__ = [
    "StreamOptions",
    "StreamWatcher",
    "stream",
]

_T = TypeVar("_T")

AHEAD_SHARE: Final = 0.5
"""Of the lead over real time that the server allows, how much is used."""


@dataclass(frozen=True, slots=True)
class StreamOptions:
    """What is wanted of the session; the fields of ``session.start`` with the same names."""

    labels: tuple[str, ...] | None = None
    nested: bool = True
    interim: bool = True
    min_status: MinStatus = "tentative"
    max_delay_ms: int = 700
    hold_ms: int | None = None
    readings: bool = False
    glossary: tuple[GlossaryEntry, ...] = ()
    apply_suggestions: bool = False


class StreamWatcher(Protocol):
    """Is told what the client sends, and every transcript, whoever writes it."""

    def on_audio(self, block: bytes, audio_ms: float) -> None:
        """`block` was sent; with it `audio_ms` of audio."""
        ...

    def on_revision(self, revision: Revision) -> None:
        """`revision` was sent, or the server's recogniser wrote it."""
        ...


async def stream(
    connection: Connection,
    audio: AudioSource,
    transcript: TranscriptSource | None,
    options: StreamOptions = StreamOptions(),
    *,
    stop: asyncio.Event | None = None,
    watcher: StreamWatcher | None = None,
) -> AsyncIterator[ServerMessage]:
    """Run one session: send the audio and its transcript, and yield everything that comes back.

    The session ends by itself when the transcript has ended and the audio too (unless that is
    endless), or when `stop` is set. Either way it is finished in order: what was sent final is
    answered, and the summary is the last message.

    Args:
        connection: An open connection without a session.
        audio: What to send.
        transcript: What to send beside it; None: the server's recogniser writes it.
        options: What is wanted of the session.
        stop: Set it to end the session early.
        watcher: Told of everything that is sent.

    Raises:
        SessionRefusedError: The server sent an error; the error message was yielded before.
        ServerUnreachableError: The connection broke. As in the error before, ``unanswered`` tells
            what was sent in vain.
        ClientError: The audio or the transcript failed; raised after the summary, so that what was
            sent until then is answered.
    """
    sender = _Sender(connection, audio, transcript, stop or asyncio.Event(), watcher)
    sending: asyncio.Task[None] | None = None
    labels = None if options.labels is None else list(options.labels)
    start = SessionStart(
        audio=audio.format,
        labels=labels,
        nested=options.nested,
        interim=options.interim,
        min_status=options.min_status,
        max_delay_ms=options.max_delay_ms,
        hold_ms=options.hold_ms,
        readings=options.readings,
        glossary=list(options.glossary),
        apply_suggestions=options.apply_suggestions,
        transcript="client" if transcript is not None else "server",
    )
    # If the server has closed already, what it said before is still to be received, and tells more.
    with contextlib.suppress(ServerUnreachableError):
        await connection.send(start)
    try:
        while True:
            message = await connection.receive()
            if isinstance(message, SessionReady):
                sending = asyncio.create_task(sender.run(message.limits))
            elif isinstance(message, UtteranceFinal):
                sender.answered(message.utterance)
            elif isinstance(message, RecognisedTranscript) and watcher is not None:
                watcher.on_revision(_revision(message))
            yield message
            if isinstance(message, ErrorMessage):
                raise SessionRefusedError(
                    message.code, message.name, message.detail, retryable=message.retryable
                )
            if isinstance(message, SessionSummary):
                break
        if sending is not None:
            await sending
    except (ServerUnreachableError, SessionRefusedError) as error:
        error.unanswered = error.unanswered or sender.unanswered
        raise
    finally:
        if sending is not None:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)


@contextlib.asynccontextmanager
async def _closing(iterator: AsyncIterator[_T]) -> AsyncIterator[AsyncIterator[_T]]:
    """Close a generator at once when its loop is left; other iterators have nothing to close."""
    try:
        yield iterator
    finally:
        if isinstance(iterator, AsyncGenerator):
            await iterator.aclose()


def _revision(message: RecognisedTranscript) -> Revision:
    return Revision(
        message.utterance,
        message.revision,
        message.text,
        message.final,
        message.start_ms,
        message.end_ms,
        None if message.speaker is UNSET else message.speaker,
        None if message.channel is UNSET else message.channel,
    )


class _Sender:
    """The sending half of one session."""

    def __init__(
        self,
        connection: Connection,
        audio: AudioSource,
        transcript: TranscriptSource | None,
        stop: asyncio.Event,
        watcher: StreamWatcher | None,
    ) -> None:
        self._connection = connection
        self._audio = audio
        self._transcript = transcript
        self._stop = stop
        self._watcher = watcher
        self._live = LiveAudio(audio.format, paced=audio.paced)
        self._room_for_finals = asyncio.Semaphore()
        self._finals: dict[str, None] = {}
        self._audio_over = asyncio.Event()

    def answered(self, utterance: str) -> None:
        """Note that a final transcript has its answer."""
        self._finals.pop(utterance, None)
        self._room_for_finals.release()

    @property
    def unanswered(self) -> Unanswered:
        """What was sent, and which of it has no answer."""
        return Unanswered(tuple(self._finals), self._live.audio_ms)

    async def run(self, limits: Limits) -> None:
        """Send everything, then finish the session.

        Raises:
            ClientError: The audio or the transcript failed; the session is finished all the same.
        """
        # Half of what the server keeps open, since utterances that are not final yet count too.
        self._room_for_finals = asyncio.Semaphore(max(1, limits.max_open_utterances // 2))
        # First, so that a recogniser gets the audio from its beginning.
        transcript = asyncio.create_task(self._send_transcript())
        audio = asyncio.create_task(self._send_audio(limits))
        keepalive = asyncio.create_task(self._keep_alive(limits))
        stop = asyncio.create_task(self._stop.wait())
        tasks = {audio, transcript, keepalive, stop}
        failure: Exception | None = None
        try:
            while not stop.done():
                if transcript.done() and (self._audio.endless or audio.done()):
                    break
                done, _ = await asyncio.wait(
                    {task for task in tasks if not task.done()},
                    return_when=asyncio.FIRST_COMPLETED,
                )
                for task in done:
                    task.result()
        except Exception as error:  # kept until the session is finished
            failure = error
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        await self._connection.send(SessionFinish())
        if failure is not None:
            raise failure

    async def _send_audio(self, limits: Limits) -> None:
        loop = asyncio.get_running_loop()
        started = loop.time()
        async with _closing(self._audio.blocks()) as blocks:
            async for block in blocks:
                for start in range(0, len(block), limits.max_frame_bytes):
                    await self._connection.send_audio(block[start : start + limits.max_frame_bytes])
                await self._live.push(block)
                if self._watcher is not None:
                    self._watcher.on_audio(block, self._live.audio_ms)
                if not self._audio.paced:
                    # Whatever was waiting for this moment of the audio goes out before the next.
                    elapsed_ms = 1_000 * (loop.time() - started)
                    await asyncio.sleep(self._early_ms(limits, elapsed_ms) / 1_000)
        await self._live.end()
        self._audio_over.set()

    def _early_ms(self, limits: Limits, elapsed_ms: float) -> float:
        """How long to wait so as not to be further ahead of real time than the server takes."""
        if limits.max_audio_ahead_ms is None:
            return 0.0
        ahead_ms = self._live.audio_ms - elapsed_ms
        return max(0.0, ahead_ms - AHEAD_SHARE * limits.max_audio_ahead_ms)

    async def _send_transcript(self) -> None:
        if self._transcript is None:
            await self._audio_over.wait()
            return
        async with _closing(self._transcript.revisions(self._live)) as revisions:
            async for revision in revisions:
                if revision.final:
                    await self._room_for_finals.acquire()
                    self._finals[revision.utterance] = None
                await self._connection.send(revision.message())
                if self._watcher is not None:
                    self._watcher.on_revision(revision)
        self._live.detach()

    async def _keep_alive(self, limits: Limits) -> None:
        if limits.idle_timeout_ms is None:
            return
        while True:
            await asyncio.sleep(limits.idle_timeout_ms / 3_000)
            await self._connection.send(Keepalive())
