"""The client: a connection to whatever answers, and the driver that streams through it.

In code of your own::

    async with await WebSocketConnection.open("ws://127.0.0.1:8765") as connection:
        audio = AudioFile(Path("talk.wav"), paced=False)
        transcript = TimedTranscript.untimed("…", audio.duration_ms)
        async for message in stream(connection, audio, transcript):
            if isinstance(message, UtteranceFinal):
                ...

A `Connection` carries messages to a server (`WebSocketConnection`) or to the engine in this process
(`cnerta.streamer.client.local.LocalConnection`). All after it is the same for both.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self, TypeVar
from urllib.parse import urlsplit

import websockets.exceptions
from websockets.asyncio.client import ClientConnection, connect

from cnerta.streamer.audio.source import AudioSource
from cnerta.streamer.errors import ServerUnreachableError, SessionRefusedError
from cnerta.streamer.sources import LiveAudio, Revision, TranscriptSource
from cnerta.streamer.wire.addresses import is_loopback
from cnerta.streamer.wire.codec import decode_server, encode
from cnerta.streamer.wire.errors import NewerMessageError, ProtocolError
from cnerta.streamer.wire.messages import (
    ClientMessage,
    ErrorMessage,
    Keepalive,
    ServerMessage,
    SessionFinish,
    SessionReady,
    SessionStart,
    SessionSummary,
    Transcript,
    UtteranceFinal,
)
from cnerta.streamer.wire.parts import GlossaryEntry, Limits

__all__ = [
    "Connection",
    "StreamOptions",
    "StreamWatcher",
    "WebSocketConnection",
    "stream",
]

log = logging.getLogger(__name__)

_T = TypeVar("_T")

DEFAULT_PATH = "/v1/stream"
OPEN_TIMEOUT_S = 10.0
AHEAD_SHARE = 0.5
"""Of the lead over real time that the server allows, how much is used."""
MAX_MESSAGE_BYTES = 8 * 2**20
"""Longest message accepted from a server: an `utterance.final` with every character's times
fits."""


@dataclass(frozen=True, slots=True)
class StreamOptions:
    """What is wanted of the session; the fields of ``session.start`` with the same names."""

    labels: tuple[str, ...] | None = None
    nested: bool = True
    interim: bool = True
    max_delay_ms: int = 700
    readings: bool = False
    glossary: tuple[GlossaryEntry, ...] = ()


class StreamWatcher(Protocol):
    """Is told what the client sends, which the server's messages do not repeat."""

    def on_audio(self, block: bytes, heard_ms: float) -> None:
        """`block` was sent; with it `heard_ms` of audio."""
        ...

    def on_revision(self, revision: Revision) -> None:
        """`revision` was sent."""
        ...


class Connection(Protocol):
    """Carries messages to and from whatever answers. Closed by leaving it as a context manager."""

    async def send(self, message: ClientMessage) -> None:
        """Send one message.

        Raises:
            ServerUnreachableError: The connection is closed.
        """
        ...

    async def send_audio(self, block: bytes) -> None:
        """Send raw samples; waits while the other side does not keep up.

        Raises:
            ServerUnreachableError: The connection is closed.
        """
        ...

    async def receive(self) -> ServerMessage:
        """Wait for the next message.

        Raises:
            ServerUnreachableError: The connection is closed.
        """
        ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


class WebSocketConnection:
    """A `Connection` to a server.

    Use `open` to make one.
    """

    def __init__(self, url: str, socket: ClientConnection) -> None:
        self._url = url
        self._socket = socket
        self._greeted = self._noted = False

    @classmethod
    async def open(cls, url: str) -> WebSocketConnection:
        """Connect to a server.

        Args:
            url: ``ws://host:port`` or ``wss://…``; without a path, the protocol's own is taken.

        Raises:
            ServerUnreachableError: The address is none, nothing answers there, or not with a
                WebSocket.
        """
        address = urlsplit(url)
        if address.scheme not in ("ws", "wss") or not address.hostname:
            raise ServerUnreachableError(
                f"expected a server's address such as ws://127.0.0.1:8765, got {url!r}"
            )
        if address.path in ("", "/"):
            address = address._replace(path=DEFAULT_PATH)
        url = address.geturl()
        try:
            socket = await connect(
                url,
                open_timeout=OPEN_TIMEOUT_S,
                max_size=MAX_MESSAGE_BYTES,
                # Deflating raw audio costs time on both sides and saves next to nothing.
                compression=None,
                # A proxy set for the outside world cannot know this machine's own addresses.
                proxy=None if is_loopback(address.hostname or "") else True,
            )
        except TimeoutError as error:
            raise ServerUnreachableError(
                f"expected a server at {url}, got no answer in {OPEN_TIMEOUT_S:g} s"
            ) from error
        except (OSError, ValueError, websockets.exceptions.WebSocketException) as error:
            # Some say nothing of themselves, such as a TLS greeting that met a plain server.
            reason = str(error) or type(error).__name__
            raise ServerUnreachableError(f"expected a server at {url}, got: {reason}") from error
        return cls(url, socket)

    async def send(self, message: ClientMessage) -> None:
        """Send one message as a text frame."""
        with self._explained():
            await self._socket.send(encode(message), text=True)

    async def send_audio(self, block: bytes) -> None:
        """Send raw samples as a binary frame; waits while the server does not read."""
        with self._explained():
            await self._socket.send(block)

    async def receive(self) -> ServerMessage:
        """Wait for the next message, passing over those that only newer servers have."""
        with self._explained():
            while True:
                try:
                    message = decode_server(await self._socket.recv())
                except NewerMessageError as error:
                    # What greets in another way speaks another protocol, not a newer version.
                    if not self._greeted:
                        raise
                    level = logging.DEBUG if self._noted else logging.WARNING
                    log.log(level, "passing over a message of a newer server: %s", error.detail)
                    self._noted = True
                else:
                    self._greeted = True
                    return message

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except websockets.exceptions.ConnectionClosed as error:
            raise ServerUnreachableError(
                f"expected {self._url} to stay until the summary, got: {error}"
            ) from error
        except ProtocolError as error:
            raise ServerUnreachableError(
                f"expected messages of protocol version 1 from {self._url}, got one with {error}"
            ) from error

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._socket.close()


async def stream(
    connection: Connection,
    audio: AudioSource,
    transcript: TranscriptSource,
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
        transcript: What to send beside it.
        options: What is wanted of the session.
        stop: Set it to end the session early.
        watcher: Told of everything that is sent.

    Raises:
        SessionRefusedError: The server sent an error; the error message was yielded before.
        ServerUnreachableError: The connection broke.
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
        max_delay_ms=options.max_delay_ms,
        readings=options.readings,
        glossary=list(options.glossary),
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
                sender.answered()
            yield message
            if isinstance(message, ErrorMessage):
                raise SessionRefusedError(
                    message.code, message.name, message.detail, retryable=message.retryable
                )
            if isinstance(message, SessionSummary):
                break
        if sending is not None:
            await sending
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


class _Sender:
    """The sending half of one session."""

    def __init__(
        self,
        connection: Connection,
        audio: AudioSource,
        transcript: TranscriptSource,
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

    def answered(self) -> None:
        """Note that a final transcript has its answer."""
        self._room_for_finals.release()

    async def run(self, limits: Limits) -> None:
        """Send everything, then finish the session.

        Raises:
            ClientError: The audio or the transcript failed; the session is finished all the same.
        """
        # Half of what the server keeps open, since utterances that are not final yet count too.
        self._room_for_finals = asyncio.Semaphore(max(1, limits.max_open_utterances // 2))
        # First, so that a recogniser hears the audio from its beginning.
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
                    self._watcher.on_audio(block, self._live.heard_ms)
                if not self._audio.paced:
                    # Whatever was waiting for this moment of the audio goes out before the next.
                    elapsed_ms = 1_000 * (loop.time() - started)
                    await asyncio.sleep(self._early_ms(limits, elapsed_ms) / 1_000)
        await self._live.end()

    def _early_ms(self, limits: Limits, elapsed_ms: float) -> float:
        """How long to wait so as not to be further ahead of real time than the server takes."""
        if limits.max_audio_ahead_ms is None:
            return 0.0
        ahead_ms = self._live.heard_ms - elapsed_ms
        return max(0.0, ahead_ms - AHEAD_SHARE * limits.max_audio_ahead_ms)

    async def _send_transcript(self) -> None:
        async with _closing(self._transcript.revisions(self._live)) as revisions:
            async for revision in revisions:
                if revision.final:
                    await self._room_for_finals.acquire()
                await self._connection.send(
                    Transcript(
                        utterance=revision.utterance,
                        revision=revision.revision,
                        final=revision.final,
                        text=revision.text,
                        start_ms=revision.start_ms,
                        end_ms=revision.end_ms,
                    )
                )
                if self._watcher is not None:
                    self._watcher.on_revision(revision)
        self._live.detach()

    async def _keep_alive(self, limits: Limits) -> None:
        if limits.idle_timeout_ms is None:
            return
        while True:
            await asyncio.sleep(limits.idle_timeout_ms / 3_000)
            await self._connection.send(Keepalive())
