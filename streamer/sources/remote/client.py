"""A recogniser's server as a transcript source: whatever it speaks, the connection is the same.

Audio goes out as it comes, and text comes back when the server likes. A connection that breaks is
made again, a few times and ever more slowly; what was being said is ended with the text it had.
Audio that cannot be sent waits, ten seconds of it at most if it comes at the pace of speech (then
the oldest is left out, which the times allow for), and holds up the stream otherwise.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import random
import ssl
from bisect import bisect_right
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any, Final, NoReturn
from urllib.parse import urlsplit

import msgspec
import numpy as np
import numpy.typing as npt
import websockets.exceptions
from websockets.asyncio.client import ClientConnection, connect
from websockets.typing import Subprotocol

from cnerta.streamer.errors import RecogniserError, TranscriptError
from cnerta.streamer.sources.base import LiveAudio, Revision
from cnerta.streamer.sources.mono_audio import MonoAudio
from cnerta.streamer.sources.remote.dialect import Dialect, ServiceError, UnknownMessageError
from cnerta.streamer.sources.script import Script, script_writer
from cnerta.streamer.sources.utterances import Hypothesis, Utterances
from cnerta.streamer.wire.addresses import is_loopback, parse_address, redact

__all__ = ["RemoteOptions", "ServerTranscript", "check_url"]

log = logging.getLogger(__name__)

Floats = npt.NDArray[np.float32]

OPEN_TIMEOUT_S: Final = 10.0
CLOSE_TIMEOUT_S: Final = 2.0
WAITING_MS: Final = 10_000
MAX_MESSAGE_BYTES: Final = 2**20
UNKNOWN_IN_A_ROW: Final = 10
"""So many messages that are not understood, and the server is taken to speak something else."""
FIRST_WAIT_S: Final = 0.5
LONGEST_WAIT_S: Final = 8.0
LOOK_EVERY_S: Final = 0.1
SHOWN_CHARACTERS: Final = 120
REFUSALS: Final = frozenset({1002, 1003, 1007, 1008, 1009, 1010})
"""Close codes after which the same would only be closed again; and all from 4000 on."""


class RemoteOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What can be said of every server.

    Attributes:
        retries: How often in a row a broken connection is tried again.
        patience: How long the server may take to say the rest after the end, in seconds.
        speed: Audio that comes faster than speech, as from a file, is sent at so many times the
            pace of speech, which is what live recognisers expect.
        insecure: Whether a certificate that nobody has signed will do, for wss addresses.
        silence: An utterance that has not changed for so many seconds is final; 0: the server says.
        longest: An utterance is ended after so many seconds in any case.
        script: Of the text, see :func:`cnerta.streamer.sources.script.script_writer`.
    """

    retries: int = 5
    patience: float = 10.0
    speed: float = 1.0
    insecure: bool = False
    silence: float = 0.0
    longest: float = 40.0
    script: Script = "auto"

    @property
    def spoken(self) -> str | None:
        """The language, where the server is told."""
        return None


def check_url(url: str, example: str) -> str:
    """Return the address of a server, if it is one.

    Raises:
        TranscriptError: It is not.
    """
    if parse_address(url, ("ws", "wss")) is None:
        raise TranscriptError(
            f"expected a recogniser's address such as {example}, got {redact(url)!r}"
        )
    return url


class ServerTranscript:
    """A `TranscriptSource` that lets a server recognise.

    Args:
        make_dialect: Makes the dialect of one connection.
        options: How to deal with the server.
    """

    def __init__(self, make_dialect: Callable[[], Dialect], options: RemoteOptions) -> None:
        self._make_dialect = make_dialect
        self._options = options

    async def revisions(self, audio: LiveAudio) -> AsyncIterator[Revision]:
        """Yield what the server says, until it has said the rest after the end of the audio.

        Raises:
            RecogniserError: The server cannot be reached, refuses, speaks something else, or does
                not come back.
        """
        options = self._options
        utterances = Utterances(
            silence_ms=1_000 * options.silence or None,
            longest_ms=1_000 * options.longest,
            write=script_writer(options.script, options.spoken),
        )
        dialect = self._make_dialect()
        feed = _Feed(audio, dialect.sample_rate, dialect.block_ms, options.speed)
        feeding = asyncio.create_task(feed.fill())
        failures = 0
        try:
            for tries in itertools.count():
                conversation = _Conversation(dialect, options, feed, utterances)
                try:
                    async for revision in conversation.revisions(first=tries == 0):
                        yield revision
                    break
                except _BrokenError as broken:
                    failures = 1 if conversation.is_understood else failures + 1
                    for revision in utterances.close_all():
                        yield revision
                    utterances.forget()
                    if failures > options.retries:
                        raise RecogniserError(
                            f"expected {conversation.called} to come back, got {failures} failures "
                            f"in a row, the last one: {broken}"
                        ) from broken
                    wait_s = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2 ** (failures - 1))
                    log.warning("%s: %s; trying again", conversation.called, broken)
                    await asyncio.sleep(wait_s * random.uniform(0.5, 1))
                    dialect = self._make_dialect()
            for revision in utterances.close_all():
                yield revision
            feeding.result()  # it has ended, or failed, which is to be told
        finally:
            feeding.cancel()
            await asyncio.gather(feeding, return_exceptions=True)


class _BrokenError(Exception):
    """A connection could not be made or has broken; another may do."""


class _EndedError(Exception):
    """The server has closed the connection after all was said."""


class _Feed:
    """The audio that waits to be sent, whatever becomes of the connection.

    Attributes:
        sent_ms: Up to where on the stream's clock it has been sent.
    """

    def __init__(self, audio: LiveAudio, sample_rate: int, block_ms: int, speed: float) -> None:
        self._audio = audio
        self._mono = MonoAudio(audio, sample_rate, sample_rate * block_ms // 1_000)
        self._sample_rate = sample_rate
        self._speed = speed
        self._waiting: deque[tuple[float, Floats]] = deque()
        self._most = max(1, WAITING_MS // block_ms)
        self._changed = asyncio.Event()
        self._room = asyncio.Event()
        self._over = False
        self._lost_ms = 0.0
        self.sent_ms = 0.0

    async def fill(self) -> None:
        """Take all the audio."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        samples = 0
        try:
            async for block in self._mono.blocks():
                at_ms = self._mono.start_ms + 1_000 * samples / self._sample_rate
                samples += len(block)
                self._waiting.append((at_ms, block))
                self._changed.set()
                if self._audio.paced:
                    self._leave_out()
                    continue
                while len(self._waiting) >= self._most:
                    self._room.clear()
                    await self._room.wait()
                ahead_s = samples / self._sample_rate / self._speed - (loop.time() - started)
                await asyncio.sleep(max(0.0, ahead_s))
        finally:
            self._over = True
            self._changed.set()

    def _leave_out(self) -> None:
        while len(self._waiting) > self._most:
            _, block = self._waiting.popleft()
            if not self._lost_ms:
                log.warning("the recogniser does not keep up: it misses some audio")
            self._lost_ms += 1_000 * len(block) / self._sample_rate

    async def next_block(self) -> tuple[float, Floats] | None:
        """Wait for audio: where on the stream's clock it begins, and its samples; None at the end.

        The block stays the first to wait until `sent` is called.
        """
        while not self._waiting:
            if self._over:
                return None
            self._changed.clear()
            await self._changed.wait()
        return self._waiting[0]

    def sent(self, block: tuple[float, Floats]) -> None:
        """Note that a block is on its way, unless it was left out meanwhile."""
        if self._waiting and self._waiting[0] is block:
            self._waiting.popleft()
        self.sent_ms = block[0] + 1_000 * len(block[1]) / self._sample_rate
        self._room.set()


class _Clock:
    """Puts a server's times, which count what it was sent, on the stream's clock."""

    def __init__(self) -> None:
        self._sent_ms = [0.0]
        self._stream_ms = [0.0]

    def sent(self, before_ms: float, at_ms: float) -> None:
        """Note that what was sent after `before_ms` of audio is from `at_ms` of the stream."""
        if abs(self._stream_ms[-1] + before_ms - self._sent_ms[-1] - at_ms) > 1:
            self._sent_ms.append(before_ms)
            self._stream_ms.append(at_ms)

    def stream_ms(self, sent_ms: float | None) -> float | None:
        """Where on the stream's clock it is."""
        if sent_ms is None:
            return None
        place = max(0, bisect_right(self._sent_ms, sent_ms) - 1)
        return self._stream_ms[place] + sent_ms - self._sent_ms[place]


class _Conversation:
    """One connection.

    Attributes:
        called: What messages call the server: nothing of its address that might be secret.
        is_understood: Whether the server has said anything that was understood.
    """

    def __init__(
        self,
        dialect: Dialect,
        options: RemoteOptions,
        feed: _Feed,
        utterances: Utterances,
    ) -> None:
        self.called = f"{dialect.name} at {redact(dialect.address.url)}"
        self.is_understood = False
        self._dialect = dialect
        self._options = options
        self._feed = feed
        self._utterances = utterances
        self._clock = _Clock()
        self._unknown = 0
        self._sent_all = False
        self._said_something = asyncio.Event()

    async def revisions(self, *, first: bool) -> AsyncIterator[Revision]:
        """Yield what comes of this connection.

        Args:
            first: Whether it is the first one; if that cannot be made, there is no other.

        Raises:
            RecogniserError: Another connection would not help.
            _BrokenError: It might.
        """
        try:
            socket = await self._connect()
        except _BrokenError as error:
            if first:
                raise RecogniserError(f"expected {self.called}, got: {error}") from error
            raise
        sending = asyncio.create_task(self._send(socket))
        receiving: asyncio.Task[Any] | None = None
        loop = asyncio.get_running_loop()
        deadline: float | None = None
        try:
            while not self._dialect.over:
                receiving = receiving or asyncio.create_task(socket.recv())
                await asyncio.wait({receiving}, timeout=LOOK_EVERY_S)
                if sending.done() and deadline is None:
                    self._check_sent(sending)
                    deadline = loop.time() + self._options.patience
                if receiving.done():
                    task, receiving = receiving, None
                    for hypothesis in self._understand(task):
                        if deadline is not None:  # the patience is for silence only
                            deadline = loop.time() + self._options.patience
                        for revision in self._utterances.update(hypothesis, self._feed.sent_ms):
                            yield revision
                elif deadline is not None and loop.time() >= deadline:
                    log.warning(
                        "%s has not said the rest within %g s", self.called, self._options.patience
                    )
                    break
                for revision in self._utterances.overdue(self._feed.sent_ms):
                    yield revision
        except _EndedError:
            pass
        finally:
            tasks = [task for task in (sending, receiving) if task is not None]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(socket.close(), CLOSE_TIMEOUT_S)

    async def _connect(self) -> ClientConnection:
        try:
            address = await asyncio.to_thread(self._dialect.locate)
        except ServiceError as error:
            told = redact(str(error))
            if error.is_final:
                raise RecogniserError(f"expected {self.called}, got: {told}") from error
            raise _BrokenError(told) from error
        host = urlsplit(address.url)
        secure = ssl.create_default_context() if host.scheme == "wss" else None
        if secure is not None and self._options.insecure:
            secure.check_hostname = False
            secure.verify_mode = ssl.CERT_NONE
        try:
            return await connect(
                address.url,
                additional_headers=address.headers,
                subprotocols=[Subprotocol(name) for name in address.subprotocols] or None,
                open_timeout=OPEN_TIMEOUT_S,
                max_size=MAX_MESSAGE_BYTES,
                compression=None,
                proxy=None if is_loopback(host.hostname or "") else True,
                ssl=secure,
            )
        except TimeoutError as error:
            raise _BrokenError(f"no answer in {OPEN_TIMEOUT_S:g} s") from error
        except websockets.exceptions.InvalidStatus as error:
            status = error.response.status_code
            said = error.response.body[:SHOWN_CHARACTERS].decode(errors="replace").strip()
            told = f"HTTP status {status}" + (f": {said}" if said else "")
            if status in (408, 425, 429) or status >= 500:
                raise _BrokenError(told) from error
            raise RecogniserError(f"expected {self.called}, got: {told}") from error
        except ssl.SSLCertVerificationError as error:
            raise RecogniserError(
                f"expected a certificate that can be verified from {self.called}, got: "
                f"{error.verify_message}; insecure=true takes any"
            ) from error
        except (OSError, ValueError, websockets.exceptions.WebSocketException) as error:
            raise _BrokenError(redact(str(error)) or type(error).__name__) from error

    async def _send(self, socket: ClientConnection) -> None:
        for message in self._dialect.opening():
            await socket.send(message)
        while not self._dialect.is_ready:
            self._said_something.clear()
            await self._said_something.wait()
        sent = 0
        while (block := await self._feed.next_block()) is not None:
            at_ms, samples = block
            self._clock.sent(1_000 * sent / self._dialect.sample_rate, at_ms)
            self._feed.sent(block)
            sent += len(samples)
            for message in self._dialect.messages(samples):
                await socket.send(message)
        self._sent_all = True
        for message in self._dialect.closing():
            await socket.send(message)

    def _check_sent(self, sending: asyncio.Task[None]) -> None:
        error = sending.exception()
        if error is not None and not isinstance(error, websockets.exceptions.ConnectionClosed):
            raise error  # a closed connection is seen by the receiving half, with its reason

    def _understand(self, receiving: asyncio.Task[str | bytes]) -> list[Hypothesis]:
        try:
            message = receiving.result()
        except websockets.exceptions.ConnectionClosed as error:
            self._explain(error)
        try:
            said = list(self._dialect.read(message))
        except UnknownMessageError as error:
            self._unknown += 1
            shown = message[:SHOWN_CHARACTERS]
            if not self.is_understood or self._unknown >= UNKNOWN_IN_A_ROW:
                raise RecogniserError(
                    f"expected messages of {self._dialect.name} from {self.called}, got {shown!r}: "
                    f"{error}"
                ) from error
            log.warning("%s sent what is not understood (%s): %r", self.called, error, shown)
            return []
        self.is_understood = True
        self._unknown = 0
        self._said_something.set()
        return [
            replace(
                hypothesis,
                start_ms=self._clock.stream_ms(hypothesis.start_ms),
                end_ms=self._clock.stream_ms(hypothesis.end_ms),
            )
            for hypothesis in said
        ]

    def _explain(self, error: websockets.exceptions.ConnectionClosed) -> NoReturn:
        """Raise what a closed connection means."""
        received = error.rcvd
        said = f"{error}"
        if self._dialect.server_error:
            said = f"{self._dialect.server_error} ({said})"
        if received is not None and (received.code in REFUSALS or received.code >= 4_000):
            raise RecogniserError(f"expected {self.called} to listen, got: {said}") from error
        if self._sent_all and received is not None and received.code in (1000, 1001, 1005):
            raise _EndedError from error
        raise _BrokenError(said) from error
