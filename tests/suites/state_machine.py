"""The protocol's rules over whatever may happen to connections, in whatever order.

    python -m tests.suites.state_machine --steps 100000

Hypothesis draws what clients send, when time passes, when the engine takes and brings back work (or
fails), how much arrives, when connections break with whatever is on the way, and when clients come
back; ``ProtocolRules`` checks every message that arrives.
What the answers have to be is checked in tests/streamer/session/test_session_properties.py.
"""

from __future__ import annotations

import gc
import time
from collections import Counter, deque
from math import inf
from typing import Annotated, Any, ClassVar, Final

import hypothesis
import pytest
import typer
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from cnerta.streamer.session.limits import ConnectionLimits, SessionLimits
from cnerta.streamer.session.outgoing.resumption import ResumeTerms
from cnerta.streamer.session.work import LANES, Lane, Work
from cnerta.streamer.wire.errors import ProtocolError
from cnerta.streamer.wire.messages import (
    Keepalive,
    ServerMessage,
    SessionFinish,
    SessionReady,
    SessionStart,
    SessionUpdate,
    Transcript,
)
from cnerta.streamer.wire.parts import AudioFormat, GlossaryEntry

from ..streamer.conftest import Driver, FakeModel, silence, speak
from .protocol_rules import ProtocolRules
from .report import progress, run, table

__all__ = ["ConnectionMachine", "main", "run_machine"]

_PIECES: Final = ("北京", "北京大学", "上海", "张三", "南京市长江大桥", "他", "在", "，", " ", "𠀀")
_texts = st.lists(st.sampled_from((*_PIECES, "2024年", "3.5%", "長江大橋")), max_size=6).map(
    "".join
)
_labels = st.sampled_from(["PER", "LOC", "ORG"])
_lanes = st.sampled_from(LANES)
_LIMITS: Final = ConnectionLimits(
    max_audio_ahead_ms=40_000,
    waiting_bytes=8_000,
    history_bytes=6_000,
    session=SessionLimits(
        retained_ms=4_000, late_ms=1_000, backlog_ms=30_000, open_utterances=4, pending_finals=3
    ),
)
"""Small, so that what happens beyond them happens often."""
_BAD: Final = (
    "{", "[]", '{"type":"x"}', '{"type":"keepalive","x":1}', '{"type":"session.start","version":2}',
    '{"type":"session.update","labels":["XYZ"]}', '{"type":"session.start"}',
    '{"type":"transcript","utterance":"a","revision":1,"final":true,"text":"","start_ms":2,'
    '"end_ms":1}', "\x00", "x" * (_LIMITS.max_frame_bytes + 1),
)  # fmt: skip


class ConnectionMachine(RuleBasedStateMachine):
    """Connections one after the other, each to its end."""

    steps: ClassVar[int] = 0
    happened: ClassVar[Counter[str]] = Counter()

    @initialize()
    def begin(self) -> None:
        self.model = FakeModel()
        self._connect()

    def _connect(self) -> None:
        self.driver = Driver(self.model, limits=_LIMITS)
        self.driver.protocol.offer_resume(ResumeTerms("secret", 60, "epoch"))
        self.rules = ProtocolRules()
        self.wire: deque[ServerMessage] = deque()  # on the way to the client
        self.away: dict[Lane, Work] = {}
        self.finals: dict[str, Transcript] = {}
        self.is_started = self.is_gone = self.is_finished = self.is_leaving = False
        self.is_parked = False

    # --- what the client does ---------------------------------------------------------------------

    @precondition(lambda self: not self.is_started)
    @rule(
        interim=st.booleans(),
        nested=st.booleans(),
        labels=st.none() | st.lists(_labels, max_size=2),
        max_delay_ms=st.sampled_from([0, 200, 700]),
        rate=st.sampled_from([16_000, 16_000, 48_000]),
    )
    def start(
        self, interim: bool, nested: bool, labels: list[str] | None, max_delay_ms: int, rate: int
    ) -> None:
        self._send(
            SessionStart(
                interim=interim,
                nested=nested,
                labels=labels,
                max_delay_ms=max_delay_ms,
                audio=AudioFormat(sample_rate=rate),
            )
        )
        self.is_started = True

    @precondition(lambda self: self.is_started)
    @rule(
        utterance=st.sampled_from("abcdef"),
        revision=st.integers(0, 12),
        text=_texts,
        final=st.sampled_from([False, False, True]),
        times=st.none() | st.tuples(st.integers(0, 8_000), st.integers(0, 3_000)),
    )
    def revise(
        self, utterance: str, revision: int, text: str, final: bool, times: tuple[int, int] | None
    ) -> None:
        start, length = times or (0, 0)
        transcript = Transcript(
            utterance=utterance,
            revision=revision,
            final=final,
            text=text,
            start_ms=None if times is None else start,
            end_ms=None if times is None else start + length,
        )
        if not self.is_finished and self._is_heard:
            self.rules.on_sent(transcript)
            if final:
                self.finals.setdefault(utterance, transcript)
        self._send(transcript)

    @precondition(lambda self: self.is_started)
    @rule(text=_texts, odd=st.sampled_from([b"", b"", b"\x01"]))
    def speak(self, text: str, odd: bytes) -> None:
        self._send(speak(text) + odd)

    @precondition(lambda self: self.is_started)
    @rule(milliseconds=st.sampled_from([40, 300, 5_000, 20_000]))
    def be_silent(self, milliseconds: int) -> None:
        self._send(silence(milliseconds))

    @precondition(lambda self: self.is_started)
    @rule(
        labels=st.none() | st.lists(_labels, max_size=2),
        nested=st.booleans(),
        interim=st.booleans(),
    )
    def update(self, labels: list[str] | None, nested: bool, interim: bool) -> None:
        self._send(SessionUpdate(labels=labels, nested=nested, interim=interim))

    @precondition(lambda self: self.is_started)
    @rule(names=st.lists(st.tuples(st.sampled_from(["上海", "尚海", "背景"]), _labels), max_size=2))
    def expect(self, names: list[tuple[str, str]]) -> None:
        self._send(SessionUpdate(glossary=[GlossaryEntry(text=t, label=n) for t, n in names]))

    @rule()
    def keep_alive(self) -> None:
        self._send(Keepalive())

    @precondition(lambda self: self.is_started)
    @rule()
    def finish(self) -> None:
        if self._is_heard:
            self.is_finished = self.is_finished or not self.is_leaving
        self._send(SessionFinish())

    @rule(number=st.integers(0, len(_BAD) - 1), really=st.sampled_from([False] * 7 + [True]))
    def break_a_rule(self, number: int, really: bool) -> None:
        if really:
            self._send(_BAD[number])

    @precondition(lambda self: not self.is_parked and not self.is_gone)
    @rule(really=st.sampled_from([False] * 3 + [True]))
    def hang_up(self, really: bool) -> None:
        """The connection breaks, and what is on the way is lost."""
        if really:
            self.wire.clear()
            self._lose_connection()

    @precondition(lambda self: self.is_parked)
    @rule(repeats=st.booleans())
    def come_back(self, repeats: bool) -> None:
        """The client goes on with its session, and may send again what is not answered."""
        protocol, now = self.driver.protocol, self.driver.now
        with pytest.raises(ProtocolError):
            protocol.loss(10_000)
        if not protocol.is_resumable or protocol.loss(self.rules.seq) is not None:
            self.happened["gone when the client came back"] += 1
            protocol.disconnect()
            self.is_gone, self.is_parked = True, False
            return
        self.happened["resumed"] += 1
        protocol.resume(self.rules.seq, now)
        self.is_parked = False
        self.rules.on_resumed()
        ready = protocol.next_message()
        assert isinstance(ready, SessionReady), "session.ready is first"
        assert ready.recovered
        self.rules.on_message(ready)
        for utterance in list(self.rules.owed) if repeats else ():
            self._send(self.finals[utterance])

    @rule(count=st.sampled_from([1, 5, 100]))
    def flow(self, count: int) -> None:
        """Messages leave the server."""
        for _ in range(count):
            message = self._next_message()
            if message is None:
                return
            self.wire.append(message)

    @rule(count=st.sampled_from([1, 5, 100]))
    def read(self, count: int) -> None:
        """They arrive."""
        self.flow(count)
        # Over the bound of what waits, changes go that the final will tell of.
        self.rules.changes_were_dropped |= self.driver.protocol._outbox.dropped_changes > 0
        for _ in range(min(count, len(self.wire))):
            self.rules.on_message(self.wire.popleft())

    # --- what the engine and the clock do ---------------------------------------------------------

    @rule(
        word=st.sampled_from(["北京", "上海", "京大", "四年北京", "三点"]),
        label=_labels | st.none(),
    )
    def relearn(self, word: str, label: str | None) -> None:
        if label is None:
            self.model.lexicon.pop(word, None)
        else:
            self.model.lexicon[word] = label

    @rule(lane=_lanes)
    def take(self, lane: Lane) -> None:
        if lane not in self.away:
            work = self.driver.protocol.next_work(lane, self.driver.now)
            if work is not None:
                self.away[lane] = work

    @rule(lane=_lanes)
    def give(self, lane: Lane) -> None:
        work = self.away.pop(lane, None)
        if work is not None:
            result = self.driver.engine.run(work)
            self.driver.protocol.work_done(work, result, self.driver.now)

    @rule(lane=_lanes, really=st.sampled_from([False, False, True]))
    def fail(self, lane: Lane, really: bool) -> None:
        work = self.away.pop(lane, None) if really else None
        if work is not None:
            self.driver.protocol.work_done(work, RuntimeError("lost"), self.driver.now)

    @rule(rounds=st.integers(1, 20))
    def work(self, rounds: int) -> None:
        for _ in range(rounds):
            for lane in LANES:
                self.take(lane)
                self.give(lane)

    @rule(seconds=st.sampled_from([0.05, 0.4, 1.0, 1.0, 3.0, 3.0, 11.0, 31.0]))
    def wait(self, seconds: float) -> None:
        self.driver.now += seconds
        self.driver.protocol.tick(self.driver.now)
        parting = self.driver.protocol.parting
        if parting is not None:  # the connection is to end, not the session
            self.happened[f"{parting.name.code} {parting.name.wire_name}, to be resumed"] += 1
            self.read(100)
            self.rules.on_message(parting.message())
            self.rules.on_close(parting.name.code)
            self._lose_connection()

    @rule(really=st.sampled_from([False] * 9 + [True]))
    def go_away(self, really: bool) -> None:
        if really and not self.is_parked:
            self.driver.protocol.go_away("shutdown")
            self.is_leaving = True

    @precondition(lambda self: self.driver.protocol.is_closed and not self.is_parked)
    @rule()
    def connect_anew(self) -> None:
        self._end()
        self._connect()

    # --- what must hold ---------------------------------------------------------------------------

    @invariant()
    def count(self) -> None:
        type(self).steps += 1

    def teardown(self) -> None:
        """Whatever is open is finished: what is owed comes."""
        if not hasattr(self, "driver"):
            return
        if self.is_parked:
            self.come_back(repeats=True)
        if not self.driver.protocol.is_closed and self.is_started:
            self.finish()
            for _ in range(2_000):
                self.driver.now += 0.1  # a budget of characters may have to fill again
                self.driver.protocol.tick(self.driver.now)
                self.work(1)
                self.read(100)
                if self.driver.protocol.is_closed:
                    break
            assert self.driver.protocol.is_closed, "a session that finishes comes to its end"
        self._end()
        del self.driver, self.away
        gc.collect()  # a session is part of a cycle, and holds its audio until then

    def _end(self) -> None:
        """A connection that is closed has said why."""
        self.read(10_000)
        protocol = self.driver.protocol
        if not protocol.is_closed or self.is_gone:
            return
        close = protocol.close
        assert close is not None, "a connection that the server ends has a code"
        self.rules.on_close(close.code)
        self.happened[f"{close.code} {close.reason}"] += 1
        if close.code in (1000, 1001):
            assert not self.rules.owed, "every final is answered before an orderly end"

    # --- helpers ----------------------------------------------------------------------------------

    @property
    def _is_heard(self) -> bool:
        """Whether what the client sends arrives."""
        return not (self.is_parked or self.is_gone or self.driver.protocol.is_closed)

    def _send(self, message: Any) -> None:
        if not self.is_parked:
            self.driver.send(message)

    def _next_message(self) -> ServerMessage | None:
        message: ServerMessage | None = self.driver.protocol.next_message()
        assert message is None or not (self.is_gone or self.is_parked), "nobody is there to read"
        return message

    def _lose_connection(self) -> None:
        """As the server does it: what can be resumed waits."""
        protocol = self.driver.protocol
        if protocol.is_resumable:
            protocol.park()
            self.is_parked = True
        else:
            protocol.disconnect()
            self.is_gone = True


def run_machine(steps: int, *, examples: int = 200, length: int = 100, most_s: float = inf) -> None:
    """Run it until so many steps were taken, or for so many seconds, with other seeds each time."""
    ends_at = time.monotonic() + most_s
    ConnectionMachine.steps = 0
    ConnectionMachine.happened.clear()
    seed = 0
    gc.collect()
    gc.freeze()  # so that what there is already is not looked through again and again
    with progress("state machine", steps) as move:
        shown = 0
        while ConnectionMachine.steps < steps and time.monotonic() < ends_at:
            seeded = hypothesis.seed(seed)(ConnectionMachine)
            run_state_machine_as_test(
                seeded,
                settings=settings(
                    max_examples=examples,
                    stateful_step_count=length,
                    deadline=None,
                    database=None,
                    phases=[Phase.generate, Phase.shrink],
                    suppress_health_check=list(HealthCheck),
                ),
            )
            seed += 1
            move(ConnectionMachine.steps - shown, "")
            shown = ConnectionMachine.steps
    gc.unfreeze()


def report(seconds: float) -> str:
    """What happened."""
    ends = ConnectionMachine.happened
    rows = [
        ["steps", f"{ConnectionMachine.steps:,}"],
        ["connections that ended, or began again", f"{ends.total():,}"],
        ["seconds", f"{seconds:.0f}"],
        ["rules broken", 0],
    ]
    return "\n\n".join(
        [table(["end", "connections"], ends.most_common()), table(["state machine", "found"], rows)]
    )


def main(
    steps: Annotated[int, typer.Option(help="How many.")] = 100_000,
    most_minutes: Annotated[
        float, typer.Option(help="End after so many minutes, however many were taken.")
    ] = inf,
) -> None:
    """Run the state machine; a rule that is broken ends it with the shortest way to it."""
    began = time.monotonic()
    run_machine(steps, examples=min(50, max(10, steps // 100)), most_s=60 * most_minutes)
    print(report(time.monotonic() - began))


if __name__ == "__main__":
    run(main)
