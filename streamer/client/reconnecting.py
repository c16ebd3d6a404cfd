"""A connection that survives its server: it comes back, and goes on where the stream was.

To whoever uses it, it is one connection with one session. Beneath it may be several: after a
disconnect it returns to the same server with the session's token, or goes to the next address. What
a balancer there says of the replica that it chose is repeated, so that it chooses the same again. A
session that is still there goes on (``recovered``); else a new one is given all that has no answer
yet. Either way every final transcript is answered once, and events are numbered without gaps::

    send, send_audio ──► SentLog ──► the task that sends, on whatever connection there is
    receive ◄── Continuity ◄── the connection; here it is noticed that it broke, and made anew
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, NoReturn, Self

from msgspec import UNSET, structs

from cnerta.streamer.client.affinity import Affinity
from cnerta.streamer.client.backoff import Backoff
from cnerta.streamer.client.connection import WebSocketConnection
from cnerta.streamer.client.connection_change import (
    ConnectionChange,
    ConnectionState,
    ConnectionWatcher,
)
from cnerta.streamer.client.continuity import Continuity
from cnerta.streamer.client.pace import Pace
from cnerta.streamer.client.sent_log import SentLog
from cnerta.streamer.errors import (
    ServerUnreachableError,
    SessionRefusedError,
    StreamLostError,
    Unanswered,
)
from cnerta.streamer.wire.messages import (
    ClientMessage,
    ErrorMessage,
    Keepalive,
    ServerMessage,
    SessionFinish,
    SessionGoingAway,
    SessionReady,
    SessionStart,
    SessionSummary,
    SessionUpdate,
    Transcript,
    UtteranceFinal,
)
from cnerta.streamer.wire.parts import Limits, ResumeOffer, ResumeRequest

__all__ = ["ReconnectOptions", "ReconnectingConnection"]

log = logging.getLogger(__name__)

_READY_S: Final = 10.0
"""How long a server may take to answer session.start."""
_WELL_S: Final = 5.0
"""A session that has gone on for so long counts as well, whatever it has answered."""
_AHEAD_SHARE: Final = 0.8
"""Of the lead over real time that the server allows, how much is used to catch up."""
_UNSENT_BYTES: Final = 2**15
"""Audio that may wait to be sent while there is a connection; then whoever sends waits."""


@dataclass(frozen=True, slots=True)
class ReconnectOptions:
    """How a stream survives disconnects.

    Attributes:
        give_up_s: For how long a way back is looked for, in seconds.
        silence_s: Silence after which a server counts as gone, in seconds.
        first_pause_s: Bound of the first pause between attempts.
        longest_pause_s: Bound of all of them.
    """

    give_up_s: float = 60.0
    silence_s: float = 5.0
    first_pause_s: float = 0.25
    longest_pause_s: float = 5.0


class ReconnectingConnection:
    """A `Connection` to one of several servers. Use `open` to make one.

    A block of audio or a message that was handed over is sent, also if the wait was cancelled.
    """

    def __init__(
        self,
        urls: Sequence[str],
        connection: WebSocketConnection,
        *,
        token: str | None = None,
        options: ReconnectOptions = ReconnectOptions(),
        watcher: ConnectionWatcher | None = None,
        affinity: Affinity | None = None,
    ) -> None:
        """Begin with a connection that is open.

        Args:
            urls: All addresses, that of the open connection first.
            connection: To the first of them.
            token: Sent to all.
            options: How to come back.
            watcher: Told what becomes of the connection.
            affinity: What was told when it was opened; None: nothing.
        """
        self._urls = deque(urls)
        self._affinity = Affinity() if affinity is None else affinity
        self._connection: WebSocketConnection | None = connection
        self._token = token
        self._options = options
        self._watcher = watcher
        self._backoff = Backoff(options.first_pause_s, options.longest_pause_s)
        self._continuity = Continuity()
        self._log: SentLog | None = None
        self._start: SessionStart | None = None
        self._offer: ResumeOffer | None = None
        self._pace = Pace(None)
        self._to_app: deque[ServerMessage] = deque()
        self._sending: asyncio.Task[None] | None = None
        self._news, self._room = asyncio.Event(), asyncio.Event()
        self._is_ready = False  # the connection has its session
        self._was_ready = False  # the application has its session
        self._update: SessionUpdate | None = None  # all of them, as one
        self._has_answered = False  # the connection, beyond beginning a session
        self._is_over = False
        self._refusal: ErrorMessage | None = None
        self._failure: Exception | None = None
        self._unwell_since: float | None = None
        self._ready_at = 0.0

    @classmethod
    async def open(
        cls,
        urls: Sequence[str],
        *,
        token: str | None = None,
        options: ReconnectOptions = ReconnectOptions(),
        watcher: ConnectionWatcher | None = None,
    ) -> ReconnectingConnection:
        """Connect to the first server that answers; each is tried once.

        Args:
            urls: Addresses as `WebSocketConnection.open` takes them, the preferred first.
            token: Sent to each as ``Authorization: Bearer``.
            options: How to come back after a disconnect.
            watcher: Told what becomes of the connection.

        Raises:
            ServerUnreachableError: None of them answers.
        """
        if not urls:
            raise ServerUnreachableError("expected a server's address, got none", retryable=False)
        left, affinity = deque(urls), Affinity()
        failure: ServerUnreachableError | None = None
        for url in urls:
            try:
                connection = await WebSocketConnection.open(
                    url,
                    token=token,
                    silence_s=options.silence_s,
                    watcher=watcher,
                    affinity=affinity,
                )
            except ServerUnreachableError as error:
                failure = failure or error
                left.rotate(-1)
            else:
                return cls(
                    left,
                    connection,
                    token=token,
                    options=options,
                    watcher=watcher,
                    affinity=affinity,
                )
        assert failure is not None, "expected at least one address"
        raise failure

    @property
    def shown(self) -> str:
        """What messages call the server; empty while there is none."""
        return "" if self._connection is None else self._connection.shown

    # --- sending ----------------------------------------------------------------------------------

    async def send(self, message: ClientMessage) -> None:
        """Send one message, now or as soon as there is a connection.

        Raises:
            ServerUnreachableError: There was no way back.
        """
        self._check()
        match message:
            case SessionStart():
                self._start = message
                self._log = SentLog(message.audio)
                self._continuity.names_utterances = message.transcript == "server"
                await self._try_to_send(message)
            case Transcript() if self._log is not None:
                self._log.add_transcript(message)
                self._news.set()
            case SessionFinish() if self._log is not None:
                self._log.add_finish()
                self._news.set()
            case SessionUpdate() if self._start is not None:
                self._start = _updated(self._start, message)
                self._update = structs.replace(self._update or message, **_changes(message))
                await self._try_to_send(message)
            case _:
                await self._try_to_send(message)

    async def send_audio(self, block: bytes) -> None:
        """Send raw samples; waits while the server does not keep up, or too much waits for one.

        Raises:
            ServerUnreachableError: There was no way back.
        """
        self._check()
        if self._log is None:
            if self._connection is not None:
                await self._connection.send_audio(block)
            return
        self._log.add_audio(block)
        self._news.set()
        while self._log.unsent_bytes > (_UNSENT_BYTES if self._is_ready else self._log.keep_bytes):
            self._room.clear()
            await self._room.wait()
            self._check()

    async def _try_to_send(self, message: ClientMessage) -> None:
        """Send what is of no use to another connection; whoever receives notices a failure."""
        if self._connection is None or (isinstance(message, Keepalive) and not self._is_ready):
            return
        try:
            await self._connection.send(message)
        except ServerUnreachableError as error:
            log.debug("not sent: %s", error)

    async def _send_on(
        self, connection: WebSocketConnection, limits: Limits, update: SessionUpdate | None
    ) -> None:
        """Send what is in the log, as long as the connection stands."""
        assert self._log is not None, "expected a session"
        assert self._start is not None, "expected a session"
        audio = self._start.audio
        bytes_per_ms = audio.frame_bytes * audio.sample_rate / 1_000
        loop = asyncio.get_running_loop()
        try:
            if update is not None:
                await connection.send(update)
            while True:
                item = self._log.next(limits.max_frame_bytes)
                self._room.set()
                if item is None:
                    self._news.clear()
                    await self._news.wait()
                elif isinstance(item, bytes):
                    await asyncio.sleep(self._pace.wait_s(len(item) / bytes_per_ms, loop.time()))
                    await connection.send_audio(item)
                else:
                    await connection.send(self._placed(item))
        except ServerUnreachableError as error:
            log.debug("cannot send: %s", error)  # whoever receives notices it too

    def _placed(self, message: ClientMessage) -> ClientMessage:
        """A message of the stream, on the clock of the session at hand."""
        base_ms = self._continuity.base_ms
        if not isinstance(message, Transcript) or not base_ms:
            return message
        start_ms, end_ms = message.start_ms, message.end_ms
        return structs.replace(
            message,
            start_ms=None if start_ms is None else max(0, start_ms - base_ms),
            end_ms=None if end_ms is None else max(0, end_ms - base_ms),
        )

    # --- receiving --------------------------------------------------------------------------------

    async def receive(self) -> ServerMessage:
        """Wait for the next message; meanwhile the connection may break and be made anew.

        Raises:
            StreamLostError: There was no way back.
            ServerUnreachableError: The session is over, or the server does not speak the protocol.
            SessionRefusedError: No server has taken the session in time.
        """
        while not self._to_app:
            self._check()
            if self._connection is None:
                await self._connect()
                continue
            try:
                async with asyncio.timeout(None if self._is_ready or not self._start else _READY_S):
                    message = await self._connection.receive()
            except TimeoutError:
                await self._lose(
                    ServerUnreachableError(f"expected a session within {_READY_S:g} s, got none")
                )
            except ServerUnreachableError as error:
                await self._lose(error)
            else:
                self._take(message)
        return self._to_app.popleft()

    def _take(self, message: ServerMessage) -> None:
        match message:
            case SessionReady() if self._log is not None:
                self._begin(message, self._log)
            case ErrorMessage() if message.retryable:
                self._refusal = message  # the close follows
            case SessionGoingAway():
                self._go_elsewhere()
            case _:
                self._has_answered = True
                if isinstance(message, UtteranceFinal):
                    self._note_answer(message)
                self._is_over = self._is_over or isinstance(message, SessionSummary)
                self._to_app += self._continuity.received(message)

    def _note_answer(self, final: UtteranceFinal) -> None:
        assert self._log is not None, "expected a session"
        heard_ms = None
        if final.audio_used and final.time_source == "alignment" and final.characters:
            heard_ms = final.characters[-1][1] + self._continuity.base_ms
        if final.seq > self._continuity.last_seq:
            if self._continuity.names_utterances:
                self._log.heard(heard_ms or 0)
            else:
                self._log.answered(final.utterance, heard_ms)
            self._is_well()

    def _begin(self, ready: SessionReady, sent: SentLog) -> None:
        """A connection has its session: send what that lacks."""
        assert self._connection is not None, "expected a connection"
        limits, update = ready.limits, None
        ahead_ms = limits.max_audio_ahead_ms
        fresh = Pace(None if ahead_ms is None else _AHEAD_SHARE * ahead_ms)
        sent.limit(limits.retained_audio_ms, limits.max_open_utterances)
        if not self._was_ready:
            self._was_ready = True
            self._to_app.append(ready)
            self._pace = fresh
        elif ready.recovered:
            sent.resume(self._continuity.base_samples + ready.audio_received_samples)
            update = self._update
            self._tell("resumed", "nothing is lost", is_recorded=ready.recorded is True)
        else:
            base_samples, base_ms = sent.start_again()
            self._to_app += self._continuity.new_session(base_samples, base_ms)
            self._pace = fresh
            again_s = sent.unsent_bytes / sent.bytes_per_s
            self._tell(
                "restarted",
                f"{sent.open_utterances} utterances and {again_s:.1f} s of audio are sent again",
                is_recorded=ready.recorded is True,
            )
        self._offer = ready.resume
        self._is_ready, self._refusal = True, None
        self._ready_at = asyncio.get_running_loop().time()
        self._sending = asyncio.create_task(self._send_on(self._connection, limits, update))

    # --- the way back -----------------------------------------------------------------------------

    async def _lose(self, error: ServerUnreachableError) -> None:
        """The connection is gone."""
        now = asyncio.get_running_loop().time()
        if self._is_ready and now - self._ready_at > _WELL_S:
            self._is_well()
        if self._unwell_since is None:
            self._unwell_since = now
        elif not self._has_answered:
            # It was given its chance to go on with the session.
            self._go_elsewhere()
        await self._drop_connection()
        if self._is_over or not (error.retryable or self._refusal):
            self._fail(error)
        why = str(error)
        if self._refusal is not None:
            why = f"{self._refusal.code} {self._refusal.name}: {self._refusal.detail}"
        self._tell("lost", why)

    def _go_elsewhere(self) -> None:
        """The next attempt is for another server, or another one behind the same address."""
        self._urls.rotate(-1)
        self._affinity.forget()

    def _is_well(self) -> None:
        self._unwell_since = None
        self._backoff.reset()

    async def _connect(self) -> None:
        """Make one attempt, after a pause."""
        now = asyncio.get_running_loop().time()
        give_up_at = (self._unwell_since or now) + self._options.give_up_s
        pause_s = max(self._backoff.next_pause_s(), self._wanted_pause_s())
        if now >= give_up_at:
            self._give_up("nothing")
            return
        await asyncio.sleep(min(pause_s, give_up_at - now))
        url = self._urls[0]
        try:
            connection = await WebSocketConnection.open(
                url,
                token=self._token,
                silence_s=self._options.silence_s,
                watcher=self._watcher,
                affinity=self._affinity,
            )
        except ServerUnreachableError as error:
            if error.retryable:
                self._urls.rotate(-1)
            else:
                self._urls.popleft()
                if not self._urls:
                    self._fail(error)
            if asyncio.get_running_loop().time() >= give_up_at:
                self._give_up(str(error))
                return
            self._tell("waiting", str(error), retry_in_s=error.retry_after_s)
            return
        self._connection, self._has_answered = connection, False
        if self._start is not None:
            resume = None
            if self._offer is not None:
                token, last_seq = self._offer.token, self._continuity.last_seq
                resume = ResumeRequest(token=token, last_seq=last_seq)
            await self._try_to_send(structs.replace(self._start, resume=resume))

    def _wanted_pause_s(self) -> float:
        """How long the server asks to wait."""
        wanted_ms = UNSET if self._refusal is None else self._refusal.retry_after_ms
        return 0.0 if wanted_ms is UNSET else wanted_ms / 1_000

    def _give_up(self, last: str) -> None:
        refusal, left = self._refusal, self.unanswered
        if refusal is not None and not self._was_ready:
            self._failure = SessionRefusedError(
                refusal.code, refusal.name, refusal.detail, retryable=True, unanswered=left
            )
            self._to_app.append(refusal)  # whoever streams says so by itself
            return
        if refusal is not None:
            last = f"{refusal.code} {refusal.name}: {refusal.detail}"
        self._fail(
            StreamLostError(
                f"expected a server within {self._options.give_up_s:g} s after a disconnect, got: "
                f"{last}; {left}",
                unanswered=left,
            )
        )

    @property
    def unanswered(self) -> Unanswered:
        """What was handed over, and which of it has no answer."""
        if self._log is None:
            return Unanswered((), 0.0)
        return Unanswered(self._log.unanswered, self._log.audio_ms)

    def _fail(self, error: Exception) -> NoReturn:
        self._failure = error
        self._room.set()
        raise error

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _tell(
        self,
        state: ConnectionState,
        detail: str,
        *,
        retry_in_s: float = 0.0,
        is_recorded: bool = False,
    ) -> None:
        server = "" if self._connection is None else self._connection.shown
        change = ConnectionChange(state, server, detail, retry_in_s, is_recorded)
        log.info("%s", change)
        if self._watcher is not None:
            self._watcher.on_connection(change)

    async def _drop_connection(self) -> None:
        connection, self._connection = self._connection, None
        sending, self._sending = self._sending, None
        self._is_ready = False
        if sending is not None:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
        if connection is not None:
            await connection.abort()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        connection = self._connection
        if self._sending is not None:
            self._sending.cancel()
            await asyncio.gather(self._sending, return_exceptions=True)
        if connection is not None:
            await connection.__aexit__(kind, error, trace)


def _updated(start: SessionStart, update: SessionUpdate) -> SessionStart:
    """What a new session begins with after an update."""
    if update.audio is not UNSET:
        raise ValueError("expected the audio's format to stay while a stream may have to go on")
    return structs.replace(start, **_changes(update))


def _changes(update: SessionUpdate) -> dict[str, Any]:
    """What an update says."""
    values = {name: getattr(update, name) for name in update.__struct_fields__}
    return {name: value for name, value in values.items() if value is not UNSET}
