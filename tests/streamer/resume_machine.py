"""A server's protocol and a client's bookkeeping against each other, over a network that breaks.

Both are the real ones, without sockets, threads or clock: :class:`ServerProtocol` on one side,
:class:`SentLog` and :class:`Continuity` on the other. Between them are two lists, what is on its
way up and down. A cut empties them wherever they are, so what was sent may never arrive, on either
side, and nobody is told. What holds at every step: events are numbered without gaps as the
application sees them, and every final transcript that it handed over is answered once.
"""

from __future__ import annotations

from collections import Counter

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from cnerta.streamer.client.continuity import Continuity
from cnerta.streamer.client.sent_log import SentLog
from cnerta.streamer.serving.engine import Engine
from cnerta.streamer.session.connection import ServedModel, ServerProtocol
from cnerta.streamer.session.limits import ConnectionLimits
from cnerta.streamer.session.outgoing.resumption import ResumeTerms, lost_history
from cnerta.streamer.session.work import LANES, Lane, Work
from cnerta.streamer.wire.codec import decode_server, encode
from cnerta.streamer.wire.errors import ErrorName
from cnerta.streamer.wire.messages import (
    EntityRetract,
    EntityUpsert,
    ErrorMessage,
    ServerMessage,
    SessionReady,
    SessionStart,
    SessionSummary,
    Transcript,
    UtteranceFinal,
    WarningMessage,
)
from cnerta.streamer.wire.parts import AudioFormat, Entity, ResumeRequest

from .conftest import FakeModel, silence, speak

__all__ = ["ResumeMachine"]

_TTL_S = 60
_TEXTS = st.text("他在北京上海张三", min_size=0, max_size=6)
_SENTENCES = ("他在北京", "北京大学", "她去上海", "张三在北京大学")
_RARELY = st.sampled_from([False] * 7 + [True])
_NAMES = tuple(f"u{n}" for n in range(4))
_FRAME_BYTES = 1_280
# A client that was cut off while it streamed sends all it has at once.
_LIMITS = ConnectionLimits(max_audio_ahead_ms=None, history_bytes=3_000)


class ResumeMachine(RuleBasedStateMachine):
    """See the module."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1_000.0
        self.engine = Engine(FakeModel())
        self.token_count = 0
        # The server's side; None: there is no such process.
        self.server: ServerProtocol | None = None
        self.away: dict[Lane, Work] = {}
        self.parked_at: float | None = None
        # The client's.
        self.sent = SentLog(AudioFormat())
        self.continuity = Continuity()
        self.token = ""
        self.is_connected = self.is_ready = self.was_ready = False
        self.round = 0
        self.revisions: dict[str, int] = {}
        self.finals: dict[str, str] = {}
        self.is_finished = False
        # What is on its way: frames up, encoded messages down.
        self.up: list[str | bytes] = []
        self.down: list[bytes] = []
        # What the application has seen.
        self.seen: list[ServerMessage] = []
        self.answered: Counter[str] = Counter()
        self.shown: dict[str, Entity] = {}
        self.seq = 0
        self.is_summed_up = False

    # --- the application --------------------------------------------------------------------------

    @initialize()
    def connect_first(self) -> None:
        self.connect()

    @precondition(lambda self: not self.is_finished)
    @rule(name=st.sampled_from(_NAMES), text=_TEXTS, final=st.booleans(), timed=st.booleans())
    def say(self, name: str, text: str, final: bool, timed: bool) -> None:
        self._say(name, text, final, timed)

    def _say(self, name: str, text: str, final: bool, timed: bool) -> None:
        utterance = f"{name}.{self.round}"
        while utterance in self.finals:
            self.round += 1
            utterance = f"{name}.{self.round}"
        revision = self.revisions.get(utterance, 0) + 1
        self.revisions[utterance] = revision
        end_ms = int(self.sent.audio_ms)
        times = {"start_ms": max(0, end_ms - 160 * len(text)), "end_ms": end_ms} if timed else {}
        self.sent.add_transcript(
            Transcript(utterance=utterance, revision=revision, final=final, text=text, **times)
        )
        if final:
            self.finals[utterance] = text

    @precondition(lambda self: not self.is_finished)
    @rule(text=_TEXTS)
    def speak(self, text: str) -> None:
        self.sent.add_audio(speak(text) + silence(80))

    @precondition(lambda self: not self.is_finished)
    @rule(lucky=_RARELY)
    def finish(self, lucky: bool) -> None:
        if lucky:
            self.is_finished = True
            self.sent.add_finish()

    # --- the client -------------------------------------------------------------------------------

    @precondition(lambda self: not self.is_connected and not self.is_summed_up)
    @rule()
    def connect(self) -> None:
        self.is_connected, self.is_ready = True, False
        resume = None
        if self.was_ready:
            resume = ResumeRequest(token=self.token, last_seq=self.continuity.last_seq)
        self.up = [encode(SessionStart(resume=resume)).decode()]
        self.down = []

    @precondition(lambda self: self.is_ready)
    @rule(count=st.integers(1, 12))
    def client_sends(self, count: int) -> None:
        for _ in range(count):
            item = self.sent.next(_FRAME_BYTES)
            if item is None:
                return
            if isinstance(item, Transcript):
                base_ms = self.continuity.base_ms
                item = Transcript(
                    utterance=item.utterance,
                    revision=item.revision,
                    final=item.final,
                    text=item.text,
                    start_ms=None if item.start_ms is None else max(0, item.start_ms - base_ms),
                    end_ms=None if item.end_ms is None else max(0, item.end_ms - base_ms),
                )
            self.up.append(item if isinstance(item, bytes) else encode(item).decode())

    @precondition(lambda self: self.down)
    @rule(count=st.integers(1, 12))
    def client_receives(self, count: int) -> None:
        for data in self.down[:count]:
            self._client_takes(decode_server(data))
        del self.down[:count]

    def _client_takes(self, message: ServerMessage) -> None:
        assert not isinstance(message, ErrorMessage), message
        if isinstance(message, WarningMessage):
            # A repeat is taken without a word.
            assert message.name not in ("utterance_already_final", "revision_not_newer"), message
            assert message.name != "after_finish", message
        if isinstance(message, SessionReady):
            assert message.resume is not None
            self.token = message.resume.token
            if message.recovered:
                assert self.was_ready
                self.sent.resume(self.continuity.base_samples + message.audio_received_samples)
            elif self.was_ready:
                self._show(self.continuity.new_session(*self.sent.start_again()))
            self.is_ready = self.was_ready = True
            return
        if isinstance(message, UtteranceFinal) and message.seq > self.continuity.last_seq:
            heard_ms = None
            if message.audio_used and message.time_source == "alignment" and message.characters:
                heard_ms = message.characters[-1][1] + self.continuity.base_ms
            self.sent.answered(message.utterance, heard_ms)
        self._show(self.continuity.received(message))

    def _show(self, messages: list[ServerMessage]) -> None:
        for message in messages:
            self.seen.append(message)
            if isinstance(message, EntityUpsert | EntityRetract | UtteranceFinal):
                assert message.seq == self.seq + 1, "no gaps"
                self.seq = message.seq
            match message:
                case EntityUpsert(entity=entity):
                    before = self.shown.get(entity.id)
                    assert before is None or before.version < entity.version
                    assert before is None or before.status != "final"
                    assert entity.parent is None or entity.parent in self.shown
                    self.shown[entity.id] = entity
                case EntityRetract():
                    assert self.shown.pop(message.id).status != "final"
                case UtteranceFinal():
                    self.answered[message.utterance] += 1
                    assert message.text == self.finals[message.utterance]
                    for entity in message.entities:
                        assert self.shown[entity.id] == entity
                case SessionSummary():
                    self.is_summed_up = True
                    assert message.utterances == len(self.finals)
                    assert self.answered == Counter(self.finals.keys())
                    assert message.audio_ms == int(self.sent.audio_ms)
                case _:
                    pass

    @rule(count=st.integers(1, 6), rounds=st.integers(1, 3))
    def exchange(self, count: int, rounds: int) -> None:
        """For a while all is well, or as well as it is."""
        self._exchange(count, rounds)

    @precondition(lambda self: not self.is_summed_up)
    @rule(
        count=st.integers(1, 6),
        rounds=st.integers(1, 3),
        stage=st.integers(0, 4),
        arrives=st.tuples(st.integers(0, 3), st.integers(0, 3)),
        said=st.lists(st.tuples(st.sampled_from(_SENTENCES), st.booleans()), max_size=3),
    )
    def cut_in_the_middle(
        self,
        count: int,
        rounds: int,
        stage: int,
        arrives: tuple[int, int],
        said: list[tuple[str, bool]],
    ) -> None:
        """All is well until much is on its way, and then the connection breaks."""
        self._exchange(count, rounds)
        for text, timed in () if self.is_finished else said:
            self.sent.add_audio(speak(text) + silence(80))
            self._say("s", text[:3], False, False)
            self._say("s", text, True, timed)
        if self.is_ready and stage > 0:
            self.client_sends(20)
        if stage > 1:
            self.server_receives(20)
        if stage > 2:
            self.work(list(LANES), True)
            self.work(list(LANES), True)
        if self.is_connected and stage > 3:
            self.server_sends(20)
        if self.is_connected:
            self.cut(*arrives)

    def _exchange(self, count: int, rounds: int) -> None:
        if not self.is_connected and not self.is_summed_up:
            self.connect()
        for _ in range(rounds):
            if self.is_ready:
                self.client_sends(count)
            self.server_receives(count)
            self.work(list(LANES), True)
            if self.is_connected:
                self.server_sends(count)
            self.client_receives(count)

    # --- the network ------------------------------------------------------------------------------

    @precondition(lambda self: self.is_connected)
    @rule(arrives_up=st.integers(0, 3), arrives_down=st.integers(0, 3))
    def cut(self, arrives_up: int, arrives_down: int) -> None:
        """A part of what is on its way still arrives."""
        self.server_receives(arrives_up)
        if self.down and arrives_down:
            self.client_receives(arrives_down)
        self.is_connected = self.is_ready = False
        self.up, self.down = [], []
        if self.server is None:
            return
        if self.server.is_resumable:
            self.server.park()
            self.parked_at = self.now
        else:
            self._end_server()

    # --- the server -------------------------------------------------------------------------------

    @precondition(lambda self: self.up)
    @rule(count=st.integers(1, 12))
    def server_receives(self, count: int) -> None:
        frames, self.up = self.up[:count], self.up[count:]
        for frame in frames:
            if self.server is None or self.parked_at is not None:
                self._greet(frame)
            else:
                self.server.receive(frame, self.now)

    def _greet(self, frame: str | bytes) -> None:
        """A connection begins with a session of its own, and asks for another."""
        fresh = self._new_protocol()
        fresh.receive(frame, self.now)
        request = fresh.resume_request
        old, expected = self.server, f"token {self.token_count - 1}"
        if request is None:
            self._end_server()
            self.server = fresh
            return
        if old is not None and request.token == expected and old.is_resumable:
            lost = old.loss(request.last_seq)
            if lost is None:
                self.token_count -= 1  # the fresh one's is never told
                self.parked_at = None
                old.resume(request.last_seq, self.now)
                return
        else:
            lost = lost_history("unknown_token")
        self._end_server()
        self.server = fresh
        fresh.start_anew(lost)

    def _new_protocol(self) -> ServerProtocol:
        self.token_count += 1
        model = self.engine.model
        protocol = ServerProtocol(ServedModel(model.bundle, "fake"), _LIMITS, "s", self.now)
        protocol.offer_resume(ResumeTerms(f"token {self.token_count}", _TTL_S, "epoch"))
        return protocol

    def _end_server(self) -> None:
        if self.server is not None:
            self.server.disconnect()
        self.server, self.parked_at, self.away = None, None, {}

    @rule(lanes=st.lists(st.sampled_from(LANES), max_size=6), gives=st.booleans())
    def work(self, lanes: list[Lane], gives: bool) -> None:
        """Lanes take work and bring it back, not always at once."""
        for lane in lanes:
            if self.server is None:
                return
            if lane not in self.away:
                work = self.server.next_work(lane, self.now)
                if work is not None:
                    self.away[lane] = work
            if gives and lane in self.away:
                work = self.away.pop(lane)
                self.server.work_done(work, self.engine.run(work), self.now)

    @precondition(lambda self: self.is_connected and self.server is not None)
    @rule(count=st.integers(1, 8))
    def server_sends(self, count: int) -> None:
        for _ in range(count):
            message = None if self.server is None else self.server.next_message()
            if message is None:
                return
            self.down.append(encode(message))

    @rule(lucky=_RARELY)
    def kill(self, lucky: bool) -> None:
        """The process dies: with all that it knew, and all connections."""
        if lucky:
            self.is_connected = self.is_ready = False
            self.up, self.down = [], []
            self._end_server()

    @rule(seconds=st.sampled_from([0.05, 0.5, 5.0, 61.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        if self.parked_at is not None and self.now - self.parked_at > _TTL_S:
            self._end_server()
        elif self.server is not None:
            self._tick()

    def _tick(self) -> None:
        assert self.server is not None
        self.server.tick(self.now)
        if self.server.parting is not None:
            assert self.server.parting.name is ErrorName.IDLE
            self.cut(0, len(self.down))

    # --- what holds -------------------------------------------------------------------------------

    @invariant()
    def every_final_at_most_once(self) -> None:
        assert all(count == 1 for count in self.answered.values())
        assert set(self.answered) <= set(self.finals)

    @invariant()
    def the_log_is_bounded(self) -> None:
        assert self.sent._kept_bytes <= max(self.sent.keep_bytes, self.sent.unsent_bytes) + 2**16

    def teardown(self) -> None:
        """In the end, on a network that holds, everything is answered."""
        if not self.is_finished:
            self.is_finished = True
            self.sent.add_finish()
        for _ in range(3_000):
            if self.is_summed_up:
                break
            if not self.is_connected:
                self.connect()
            if self.is_ready:
                self.client_sends(50)
            self.server_receives(50)
            self.work(list(LANES), True)
            self.now += 0.01
            if self.server is not None and self.parked_at is None:
                self._tick()
                self.server_sends(50)
            self.client_receives(50)
        assert self.is_summed_up, "expected an end"
        assert self.answered == Counter(self.finals.keys())
