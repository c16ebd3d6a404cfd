"""The server's side of one connection, without I/O.

Frames in, messages and at last a close code out; the time is passed in, in seconds, so every
fault can be replayed in a test. What the owner has to do::

    receive, tick, go_away, disconnect       tell it what happened
    next_work / work_done                    ask for work after each of these, run it, bring back
                                             the result
    next_message()                           send what it gives until None
    close                                    then close with this code, if there is one

Where the owner offers it (``offer_resume``), a session outlives its connection::

    parting                                  close the connection with this error, park the session
    park                                     the connection is gone
    resume_request                           the client wants to go on with another session:
                                             ``resume`` that one in the place of this one, or
                                             ``start_anew``

Where the owner has a recogniser (``offer_recognition``), it may write the transcript::

    is_recognised                            the client wants that: the recogniser gets its audio
    is_input_over                            there will be no more audio
    recognised, recognition_over             what was written, and that no more will be

    waiting ──session.start──► open ──session.finish──► finishing ──all answered──► closed (1000)
                                │
                                ├──go_away──► leaving ──finals answered──► closed (1001)
    any ──a rule is broken, or the engine fails──► closed (with the error's code)
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from msgspec import UNSET, UnsetType

from cnerta.models.runtime.bundle import SCHEMA_VERSION, Bundle
from cnerta.streamer.session.final_waits import TakenWaits
from cnerta.streamer.session.held_memory import SESSION_BYTES
from cnerta.streamer.session.limits import ConnectionLimits
from cnerta.streamer.session.outgoing.history import History
from cnerta.streamer.session.outgoing.outbox import Outbox
from cnerta.streamer.session.outgoing.resumption import ResumeTerms, lost_history
from cnerta.streamer.session.session import Session
from cnerta.streamer.session.work import Lane, Result, Work
from cnerta.streamer.wire.codec import decode_client
from cnerta.streamer.wire.errors import ErrorName, ProtocolError
from cnerta.streamer.wire.messages import (
    PROTOCOL_VERSION,
    ClientMessage,
    Keepalive,
    RecognisedTranscript,
    ServerMessage,
    SessionFinish,
    SessionGoingAway,
    SessionReady,
    SessionStart,
    SessionSummary,
    SessionUpdate,
    Transcript,
    WarningMessage,
)
from cnerta.streamer.wire.parts import AudioFormat, LostHistory, ModelInfo, ResumeRequest

__all__ = ["NORMAL_CLOSE", "Close", "ServedModel", "ServerProtocol"]

NORMAL_CLOSE: Final = 1000
_GLOSSARY_S: Final = 0.05
"""What a new glossary counts for: with a connection's twentieth of the loop, one a second."""
_MOST_OWED_BYTES: Final = 2**20
"""Messages that wait, or finals, of a session that must give memory up and can give no other."""


@dataclass(frozen=True, slots=True)
class ServedModel:
    """What a connection has to know of the model.

    Attributes:
        bundle: The bundle in use.
        device: The execution provider it runs on.
    """

    bundle: Bundle
    device: str

    def message(self) -> ModelInfo:
        """What the client is told of it."""
        return ModelInfo(
            name=self.bundle.name,
            schema_version=SCHEMA_VERSION,
            labels=list(self.bundle.scheme.types),
            nested=self.bundle.nested,
            device=self.device,
            readings=self.bundle.has_readings,
        )


@dataclass(frozen=True, slots=True)
class Close:
    """How the connection is to be closed once all messages are sent."""

    code: int
    reason: str


class _State(Enum):
    WAITING = auto()
    OPEN = auto()
    FINISHING = auto()
    LEAVING = auto()
    CLOSED = auto()


class ServerProtocol:
    """One connection.

    Attributes:
        session_id: Its name in messages and logs.
        close: How to close, once that is decided.
        parting: Why the connection is to be closed, with this error, although the session goes on.
        session: The stream, once it has started.
    """

    def __init__(
        self,
        model: ServedModel,
        limits: ConnectionLimits,
        session_id: str,
        now: float,
        *,
        is_recorded: bool = False,
    ) -> None:
        """Begin a connection.

        Args:
            model: What answers.
            limits: What the connection may hold.
            session_id: Its name.
            now: In seconds.
            is_recorded: Whether audio and text are kept, which the client is told.
        """
        self.session_id = session_id
        self._is_recorded = is_recorded
        self.close: Close | None = None
        self.parting: ProtocolError | None = None
        self.session: Session | None = None
        self._model = model
        self._limits = limits
        self._outbox = Outbox(limits.waiting_bytes)
        self._state = _State.WAITING
        self._opened_at = now
        self._heard_at = now
        # How far audio runs ahead of real time, as of the time beside it.
        self._ahead_ms = 0.0
        self._ahead_at = now
        self._warned_ahead = False
        self._terms: ResumeTerms | None = None
        self._asked: SessionStart | None = None
        self._is_parked = False
        self._was_resumed = self._returns = False
        self._summary: SessionSummary | None = None
        self._can_recognise = False
        self._owed_s = 0.0
        self._recognising = False
        self._audio_format = AudioFormat()

    # --- what happened ----------------------------------------------------------------------------

    def receive(self, data: str | bytes, now: float) -> None:
        """Take a frame: text is a message, bytes are audio."""
        if not self._listens:
            return
        self._heard_at = now
        try:
            self._check_size(data)
            if isinstance(data, bytes):
                self._take_audio(data, now)
            else:
                self._take_message(decode_client(data), now)
        except ProtocolError as error:
            self.fail(error)
        self._settle()

    def receive_message(self, message: ClientMessage, now: float) -> None:
        """Take a message that is decoded already."""
        if not self._listens:
            return
        self._heard_at = now
        try:
            self._take_message(message, now)
        except ProtocolError as error:
            self.fail(error)
        self._settle()

    def tick(self, now: float) -> None:
        """Let time pass; to be called several times a second."""
        if not self._listens:
            return
        if self.session is not None:
            self.session.tick(now)
        late = self._what_is_late(now)
        if late is not None:
            error = ProtocolError(ErrorName.IDLE, late)
            if self.is_resumable:
                self.parting = error
            else:
                self.fail(error)
        self._settle()

    def _what_is_late(self, now: float) -> str | None:
        """What should have come by now, if anything."""
        start_s, idle_s = self._limits.start_timeout_s, self._limits.idle_timeout_s
        if (
            self._state is _State.WAITING
            and start_s is not None
            and now - self._opened_at > start_s
        ):
            # Keepalives do not count: silent connections would hold places for ever.
            return f"expected session.start within {start_s:g} s, got none"
        if self._state not in (_State.WAITING, _State.OPEN) or idle_s is None:
            return None
        if now - self._heard_at > idle_s:
            return f"expected a frame or keepalive within {idle_s:g} s, got none"
        return None

    def go_away(self, reason: str) -> None:
        """The server stops: say so, give the answers still owed, then close."""
        if self._state in (_State.WAITING, _State.OPEN):
            if self.session is not None:
                offer = None if self._terms is None else self._terms.offer()
                self._outbox.put(SessionGoingAway(resume=offer, reason=reason))
            self._state = _State.LEAVING
        self._settle()

    def fail(self, error: ProtocolError) -> None:
        """End the connection with an error."""
        if self._state is _State.CLOSED:
            return
        self._outbox.put(error.message())
        self._close(error.name.code, error.name.wire_name)

    def release_memory(self, wanted_bytes: int, now: float) -> None:
        """See :meth:`Session.release_memory`.

        Where that is not enough, because much is owed that cannot be forgotten, the connection
        ends.
        """
        if self.session is None or self._state is _State.CLOSED:
            return
        before = self.held_bytes
        self.session.release_memory(wanted_bytes, now)
        if before - self.held_bytes < wanted_bytes:
            self._end_if_much_is_owed()
        self._settle()

    def _end_if_much_is_owed(self) -> None:
        session = self.session
        assert session is not None, "expected a session that holds something"
        if self._outbox.waiting_bytes > _MOST_OWED_BYTES:
            self._outbox.clear()
            self.fail(
                ProtocolError(
                    ErrorName.READER_TOO_SLOW,
                    f"expected at most {_MOST_OWED_BYTES} bytes to wait while the server is short "
                    "of memory, got more",
                )
            )
        elif session.finals_bytes > _MOST_OWED_BYTES:
            self.fail(
                ProtocolError(
                    ErrorName.TOO_MANY_FINALS,
                    f"expected unanswered final transcripts to take at most {_MOST_OWED_BYTES} "
                    "bytes while the server is short of memory, got more",
                )
            )

    def disconnect(self) -> None:
        """The connection is gone: nothing more can be said."""
        self._outbox.clear()
        self._state = _State.CLOSED

    # --- a recogniser of the owner ----------------------------------------------------------------

    def offer_recognition(self) -> None:
        """Let the client leave the transcript to us; to be called before anything is received."""
        self._can_recognise = True

    @property
    def is_recognised(self) -> bool:
        """Whether a recogniser is to write the transcript, or still does so."""
        return self._recognising and self._state is not _State.CLOSED

    @property
    def audio_format(self) -> AudioFormat:
        """Of the audio that is recognised."""
        return self._audio_format

    @property
    def is_input_over(self) -> bool:
        """Whether no more audio will come."""
        return self._state not in (_State.WAITING, _State.OPEN)

    def recognised(self, message: Transcript, now: float) -> None:
        """The recogniser has written something."""
        if self.session is None or self._state is _State.CLOSED:
            return
        if not self.session.is_holding:
            self._outbox.put(RecognisedTranscript.of(message))
        try:
            self.session.add_transcript(message, now)
        except ProtocolError as error:
            self.fail(error)
        self._settle()

    def recognition_over(self) -> None:
        """The recogniser will write no more."""
        self._recognising = False
        self._settle()

    # --- another connection -----------------------------------------------------------------------

    def offer_resume(self, terms: ResumeTerms) -> None:
        """Let the session be resumed; to be called before anything is received."""
        self._terms = terms
        self._outbox.keep_history(History(self._limits.history_bytes))

    def expect_return(self) -> None:
        """Begin no session: the client may only go on with another one, and has to ask for it."""
        self._returns = True

    @property
    def is_resumable(self) -> bool:
        """Whether the session can go on with another connection.

        One that has finished can: its summary may not have arrived.
        """
        if self._terms is None or self.session is None:
            return False
        return self.close is None or self.close.code == NORMAL_CLOSE

    @property
    def resume_request(self) -> ResumeRequest | None:
        """Which session the client wants to go on with, until that is decided."""
        return None if self._asked is None else self._asked.resume

    def park(self) -> None:
        """The connection is gone, and the session waits for another one."""
        self._is_parked = True
        self.parting = None
        self._outbox.park()
        if self.session is not None:
            self.session.park()

    def loss(self, last_seq: int) -> LostHistory | None:
        """What a client that has received all events up to a number cannot be told any more.

        Raises:
            ProtocolError: There is no event of that number yet.
        """
        if last_seq > self._outbox.seq:
            raise ProtocolError(
                ErrorName.INVALID_LAST_SEQ,
                f"expected last_seq of at most {self._outbox.seq}, got {last_seq}",
            )
        if self._outbox.can_replay(last_seq):
            return None
        return lost_history(
            "history_too_short",
            events=self._outbox.gone_after(last_seq),
            utterances=self.unsent_finals,
        )

    def resume(self, last_seq: int, now: float) -> None:
        """Go on with another connection, whose client has received all events up to a number.

        Args:
            last_seq: For which :meth:`loss` is none.
            now: In seconds.
        """
        assert self.session is not None, "expected a session that has begun"
        self._is_parked, self._was_resumed = False, True
        self.parting = None
        self._heard_at = now
        self.session.resume()
        self._outbox.replay(self._ready(recovered=True), last_seq)
        if self._summary is not None and not self._outbox.has_summary:
            self._outbox.put(self._summary)
        self._settle()

    def start_anew(self, lost: LostHistory) -> None:
        """Begin a new session in the place of the one that was asked for."""
        if self._asked is None or self._state is not _State.WAITING:
            return
        asked, self._asked = self._asked, None
        try:
            self._begin(asked, lost)
        except ProtocolError as error:
            self.fail(error)
        self._settle()

    @property
    def unsent_finals(self) -> tuple[str, ...]:
        """The utterances whose final answers have not left."""
        owed = () if self.session is None else self.session.owed
        return (*self._outbox.waiting_finals, *owed)

    @property
    def has_unfinished(self) -> bool:
        """Whether an utterance is in progress."""
        return self.session is not None and self.session.has_unfinished

    def fail_internally(self) -> None:
        """End the connection because of a fault of our own."""
        self.fail(ProtocolError(ErrorName.INTERNAL, "expected an answer, got an internal error"))

    # --- work for the engine ----------------------------------------------------------------------

    @property
    def is_urgent(self) -> bool:
        """Whether a final transcript waits for its answer."""
        return self.session is not None and self.session.is_urgent

    def is_overdue(self, now: float) -> bool:
        """Whether an utterance has waited for its first answer for too long."""
        return self.session is not None and self.session.is_overdue(now)

    def lanes(self) -> list[Lane]:
        """See :meth:`Session.lanes`."""
        if self.session is None or self._state is _State.CLOSED:
            return []
        return self.session.lanes()

    def next_work(self, lane: Lane, now: float) -> Work | None:
        """See :meth:`Session.next_work`."""
        if self.session is None or self._state is _State.CLOSED:
            return None
        return self.session.next_work(lane, now)

    def work_done(self, work: Work, result: Result | Exception, now: float) -> None:
        """See :meth:`Session.work_done`; what could not be done ends the connection."""
        if self.session is None or self._state is _State.CLOSED:
            return
        try:
            self.session.work_done(work, result, now)
        except ProtocolError as error:
            self.fail(error)
        self._settle()

    # --- what the owner wants to know -------------------------------------------------------------

    @property
    def is_closed(self) -> bool:
        """Whether nothing more will happen; what has been said may still have to be sent."""
        return self._state is _State.CLOSED

    @property
    def backlog_ms(self) -> float:
        """Audio that waits to be encoded."""
        return 0.0 if self.session is None else self.session.backlog_ms

    def take_final_waits(self, now: float) -> TakenWaits:
        """How long final transcripts waited for the engine since this was last asked.

        Nothing of whoever sends audio faster than it is spoken: that waits for its own backlog.
        """
        if self.session is None:
            return TakenWaits()
        taken = self.session.final_waits.take(now)
        is_ahead = self._ahead_ms > self._limits.warn_audio_ahead_ms / 2
        return TakenWaits() if is_ahead else taken

    @property
    def held_bytes(self) -> int:
        """Memory that the connection holds, about."""
        return SESSION_BYTES if self.session is None else self.session.held_bytes

    def take_owed_s(self) -> float:
        """What the client's messages cost beyond taking them, since this was last asked.

        Returns:
            Seconds of the event loop's time, for whoever counts that.
        """
        owed_s, self._owed_s = self._owed_s, 0.0
        return owed_s

    # --- what to send -----------------------------------------------------------------------------

    def next_message(self) -> ServerMessage | None:
        """The next message to send, if any; events get their number here."""
        return None if self._is_parked else self._outbox.pop()

    @property
    def has_messages(self) -> bool:
        """Whether messages wait to be sent, and can be."""
        return self.waiting_messages > 0 and not self._is_parked

    @property
    def waiting_messages(self) -> int:
        """How many messages wait to be sent."""
        return len(self._outbox)

    # --- inside -----------------------------------------------------------------------------------

    @property
    def _listens(self) -> bool:
        """Whether there is a connection that something may still come from."""
        return self._state is not _State.CLOSED and not self._is_parked and self.parting is None

    def _check_size(self, data: str | bytes) -> None:
        size = len(data)
        if isinstance(data, str) and size <= self._limits.max_frame_bytes and not data.isascii():
            size = len(data.encode(errors="surrogatepass"))
        if size > self._limits.max_frame_bytes:
            raise ProtocolError(
                ErrorName.FRAME_TOO_LARGE,
                f"expected at most {self._limits.max_frame_bytes} bytes, got {size}",
            )

    def _started(self, what: object) -> Session:
        if self.session is None:
            raise ProtocolError(ErrorName.NOT_STARTED, f"expected session.start first, got {what}")
        return self.session

    def _start(self, message: SessionStart) -> None:
        if message.version != PROTOCOL_VERSION:
            raise ProtocolError(
                ErrorName.UNSUPPORTED_VERSION,
                f"expected version {PROTOCOL_VERSION}, got {message.version}",
            )
        if self.session is not None:
            raise ProtocolError(
                ErrorName.ALREADY_STARTED, "expected one session.start, got another"
            )
        if message.resume is None and self._returns:
            raise ProtocolError(
                ErrorName.NOT_AUTHORISED,
                "expected to resume the session that this token has opened, got a new one",
            )
        if message.resume is not None and self._terms is None:
            raise ProtocolError(
                ErrorName.UNKNOWN_SESSION, "expected no resume where none is offered, got one"
            )
        if self._state is not _State.WAITING:
            return
        if message.resume is not None:
            self._asked = message
        else:
            self._begin(message)

    def _begin(self, message: SessionStart, lost: LostHistory | UnsetType = UNSET) -> None:
        if message.transcript == "server" and not self._can_recognise:
            raise ProtocolError(
                ErrorName.NO_RECOGNISER,
                "expected transcripts of the client, since this server has no recogniser, got "
                '"transcript": "server"',
            )
        self.session = Session(self._model.bundle, message, self._limits.session, self._outbox)
        self._state = _State.OPEN
        self._recognising = message.transcript == "server"
        self._audio_format = message.audio
        self._outbox.put(self._ready(lost=lost))

    def _ready(
        self, *, recovered: bool = False, lost: LostHistory | UnsetType = UNSET
    ) -> SessionReady:
        assert self.session is not None, "expected a session that has begun"
        terms = self._terms
        return SessionReady(
            session=self.session_id,
            resume=None if terms is None else terms.offer(),
            model=self._model.message(),
            limits=self._limits.message(),
            audio_received_ms=self.session.received_ms,
            audio_received_samples=self.session.received_samples,
            recovered=recovered,
            epoch=UNSET if terms is None else terms.epoch,
            lost=lost,
            recorded=True if self._is_recorded else UNSET,
        )

    def _take_message(self, message: ClientMessage, now: float) -> None:
        if isinstance(message, Keepalive):
            return
        if isinstance(message, SessionStart):
            self._start(message)
            return
        session = self._started(message.__struct_config__.tag)
        if self._state is _State.FINISHING:
            if not self._is_known(message, session):
                self._warn_after_finish()
        elif isinstance(message, Transcript):
            if self._recognising:
                raise ProtocolError(
                    ErrorName.TRANSCRIPT_NOT_TAKEN,
                    'expected no transcript after "transcript": "server", got one',
                )
            session.add_transcript(message, now)
        elif isinstance(message, SessionUpdate):
            if self._recognising and message.audio not in (UNSET, self._audio_format):
                raise ProtocolError(
                    ErrorName.FORMAT_FIXED,
                    'expected audio in one format after "transcript": "server", got another',
                )
            session.update(message)
            if message.glossary is not UNSET:
                self._owed_s += _GLOSSARY_S
        elif isinstance(message, SessionFinish) and self._state is _State.OPEN:
            session.finish_input()
            self._state = _State.FINISHING

    def _is_known(self, message: ClientMessage, session: Session) -> bool:
        """Whether a message has come before, and comes again because of a resume."""
        if isinstance(message, Transcript):
            return session.is_repeat(message)
        return isinstance(message, SessionFinish) and self._was_resumed

    def _take_audio(self, data: bytes, now: float) -> None:
        session = self._started("a binary frame")
        if self._state is _State.FINISHING:
            self._warn_after_finish()
            return
        self._check_pace(session.add_audio(data), now)

    def _check_pace(self, added_ms: int, now: float) -> None:
        """Keep a client from filling the server with audio faster than it is spoken."""
        passed_ms = 1000 * (now - self._ahead_at) * self._limits.audio_rate
        self._ahead_ms = max(0.0, self._ahead_ms - passed_ms) + added_ms
        self._ahead_at = now
        most = self._limits.max_audio_ahead_ms
        if most is None:
            return
        if self._ahead_ms > most:
            raise ProtocolError(
                ErrorName.AUDIO_TOO_FAST,
                f"expected audio at most {most} ms ahead of real time, got {self._ahead_ms:.0f}",
                retry_after_ms=round(self._ahead_ms / self._limits.audio_rate),
            )
        if self._ahead_ms < self._limits.warn_audio_ahead_ms / 2:
            self._warned_ahead = False
        elif self._ahead_ms > self._limits.warn_audio_ahead_ms and not self._warned_ahead:
            self._warned_ahead = True
            self._outbox.put(
                WarningMessage(
                    name="audio_ahead_of_realtime",
                    detail=f"expected audio at the pace of speech, got {self._ahead_ms:.0f} ms "
                    f"ahead; above {most} the session ends",
                )
            )

    def _warn_after_finish(self) -> None:
        self._outbox.put(
            WarningMessage(
                name="after_finish", detail="expected nothing after session.finish, got more"
            )
        )

    def _settle(self) -> None:
        """Close what has nothing left to do."""
        if self._state is not _State.CLOSED and not self._is_parked and self._outbox.is_over:
            self._outbox.clear()
            self.fail(
                ProtocolError(
                    ErrorName.READER_TOO_SLOW,
                    f"expected at most {self._limits.waiting_bytes} bytes to wait, got more",
                )
            )
        session = self.session
        if self._recognising:
            return  # What is still to be written is owed, too.
        if self._state is _State.FINISHING and session is not None and session.is_idle:
            self._summary = session.summary()
            self._outbox.put(self._summary)
            self._close(NORMAL_CLOSE, "finished")
        elif self._state is _State.LEAVING and (session is None or not session.is_urgent):
            self.fail(ProtocolError(ErrorName.GOING_AWAY, "expected to go on, got a shutdown"))

    def _close(self, code: int, reason: str) -> None:
        self._state = _State.CLOSED
        self.close = Close(code, reason)
