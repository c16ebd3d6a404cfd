"""Streams, workers and their lanes, simulated: what finals wait under a load, from what work costs.

The rules are those of the server (``streamer/serving/batcher.py``, ``streamer/session``): three
threads a worker, no queue of work but sessions that are noted, batches of at most 16, finals first,
one piece of work away a session and lane, audio in chunks, an interim that is overtaken or older
than 2 s never computed. The load is that of ``live.py``: every stream loops clips and sends frames
of audio, growing interims and one final. Its generator is a process of its own on the same cores,
or elsewhere. What work costs is measured: :class:`Costs`. All times in seconds.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from shared_cores import Clock, Host, Segment, Thread

__all__ = ["Batch", "Clip", "Costs", "Load", "Outcome", "Said", "Site", "percentile", "simulate"]

FRAME_S = 0.04
CHUNK_FRAMES = 8
MAX_BATCH = 16
TURN_S = 0.0002
"""How long a thread of the server keeps the GIL while others want it."""
PATIENCE_S = 2.0
RECONNECT_S = 0.25
"""A client notices a broken connection at once and comes back within so long."""


@dataclass(frozen=True, slots=True)
class Batch:
    """What a batch costs.

    Attributes:
        fixed_s: Whatever its size.
        item_s: For each item.
        gil_share: How much of it holds the GIL.
        turns: How often a batch of 16 lets go of the GIL and wants it back. Each time it waits
            for as long as a thread may keep it, if the event loop has anything to do.
    """

    fixed_s: float
    item_s: float
    gil_share: float
    turns: float = 0.0

    def segments(self, items: int) -> tuple[Segment, Segment]:
        """What a thread does for so many items."""
        seconds = self.fixed_s + items * self.item_s
        return (
            Segment((1 - self.gil_share) * seconds, has_gil=False),
            Segment(self.gil_share * seconds),
        )


@dataclass(frozen=True, slots=True)
class Costs:
    """What work costs on a core of its own.

    Attributes:
        encode: A batch of chunks.
        tag: A batch of texts.
        frame_s: The event loop, for a frame of audio: socket, WebSocket, session.
        revision_s: The same for a transcript.
        encoded_s: The same to take a chunk back.
        answer_s: The same to take a text back, and to send what follows from it.
        client_frame_s: The load generator, for a frame and its share of the rest.
        slowdown: How many times longer work takes when all cores are busy.
    """

    encode: Batch
    tag: Batch
    frame_s: float
    revision_s: float
    encoded_s: float
    answer_s: float
    client_frame_s: float
    slowdown: float = 1.0


@dataclass(frozen=True, slots=True)
class Said:
    """A revision of a clip's transcript.

    Attributes:
        at_s: When it is sent, from the clip's start.
        is_final: Whether it is the final one.
        entities: How many entities its text has.
    """

    at_s: float
    is_final: bool
    entities: int


@dataclass(frozen=True, slots=True)
class Clip:
    """What a stream says, and the silence after it."""

    length_s: float
    revisions: tuple[Said, ...]


@dataclass(frozen=True, slots=True)
class Load:
    """Who streams.

    Attributes:
        streams: How many at once.
        seconds: For how long clips begin.
        clips: What is said, in random order.
        spread_s: Within which time they begin; 1 s is that of ``live.py``, which lets all streams
            finish their sentences in the same second, as people would not.
        seed: Of all chance.
    """

    streams: int
    seconds: float
    clips: tuple[Clip, ...]
    spread_s: float = 1.0
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Site:
    """What serves.

    Attributes:
        hosts: Machines.
        cores: Of each.
        workers: Processes on each.
        generator_beside: Whether the load generator runs on the first of them.
        fails_at_s: When the first machine is lost; None: never.
        overdue_s: For so long an utterance waits for its first answer; then an interim takes every
            fourth place before finals and goes without its audio. None: interims wait until they
            are dropped, as in servers before that rule.
    """

    hosts: int = 1
    cores: int = 2
    workers: int = 1
    generator_beside: bool = True
    fails_at_s: float | None = None
    overdue_s: float | None = 0.5


@dataclass(slots=True)
class Outcome:
    """What streams saw, in seconds.

    Attributes:
        finals: From each final to its answer.
        finals_after: The same of those that were sent after a machine was lost.
        first_entities: From the revision to the first answer that has an entity.
        sent: Finals that were sent.
        answered_interims: Interims that were answered.
        audio_s: Audio that was streamed.
        cpu_s: CPU time of the servers.
    """

    finals: list[float] = field(default_factory=list)
    finals_after: list[float] = field(default_factory=list)
    first_entities: list[float] = field(default_factory=list)
    sent: int = 0
    answered_interims: int = 0
    audio_s: float = 0.0
    cpu_s: float = 0.0


@dataclass(eq=False, slots=True)
class _Revision:
    said: Said
    utterance: int
    sent_s: float
    arrived_s: float = 0.0
    needs: int = 0  # frames


@dataclass(eq=False, slots=True)
class _Session:
    """A stream as its worker sees it; frames are counted from the session's start."""

    stream: _Stream
    received: int = 0
    encoded: int = 0
    committed: int = 0
    chunk_away: int = 0
    is_tagging: bool = False
    waiting: _Revision | None = None
    waits_since: float | None = None
    heard: int = 0  # the last utterance of which an interim was answered
    finals: deque[_Revision] = field(default_factory=deque)
    is_gone: bool = False

    @property
    def is_urgent(self) -> bool:
        return bool(self.finals)

    def add(self, revision: _Revision, now: float) -> None:
        revision.arrived_s, revision.needs = now, self.received
        if revision.said.is_final:
            self.waiting = self.waits_since = None
            self.finals.append(revision)
            self.committed = self.received
        else:
            self.waiting = revision
            if self.waits_since is None and self.heard != revision.utterance:
                self.waits_since = now

    def is_overdue(self, now: float, overdue_s: float | None) -> bool:
        if overdue_s is None or self.waiting is None or self.waits_since is None:
            return False
        return now - self.waits_since > overdue_s

    def may_have(self, lane: str) -> bool:
        if lane == "text":
            return not self.is_tagging and (bool(self.finals) or self.waiting is not None)
        return not self.chunk_away and (
            self.received - self.encoded >= CHUNK_FRAMES or self.committed > self.encoded
        )

    def take_chunk(self) -> bool:
        if not self.may_have("audio"):
            return False
        waits = self.received - self.encoded
        self.chunk_away = (
            CHUNK_FRAMES if waits >= CHUNK_FRAMES else min(waits, self.committed - self.encoded)
        )
        return True

    def take_text(self, now: float, overdue_s: float | None) -> _Revision | None:
        if self.is_tagging:
            return None
        if self.finals:
            due = self.finals[0] if self.encoded >= self.finals[0].needs else None
        else:
            due = self.waiting
            if due is not None and now - due.arrived_s > PATIENCE_S:
                self.waiting = due = None
            is_encoded = due is not None and due.needs - self.encoded < CHUNK_FRAMES
            if not (is_encoded or self.is_overdue(now, overdue_s)):
                due = None
        if due is not None:
            self.is_tagging = True
            if not due.said.is_final:
                self.waiting, self.waits_since, self.heard = None, None, due.utterance
        return due


def _in_order(
    waiting: Iterable[_Session], now: float, overdue_s: float | None
) -> Iterator[_Session]:
    """Finals first, every fourth place for one that is overdue, then the others."""
    urgent: deque[_Session] = deque()
    overdue: deque[_Session] = deque()
    others: list[_Session] = []
    for session in waiting:
        if session.is_urgent:
            urgent.append(session)
        elif session.is_overdue(now, overdue_s):
            overdue.append(session)
        else:
            others.append(session)
    while urgent or overdue:
        for _ in range(min(3, len(urgent))):
            yield urgent.popleft()
        if overdue:
            yield overdue.popleft()
    yield from others


class _Worker:
    """A process that serves: its event loop, and a thread for each lane."""

    def __init__(self, clock: Clock, host: Host, costs: Costs, overdue_s: float | None) -> None:
        self._overdue_s = overdue_s
        self.sessions: set[_Session] = set()
        self.is_alive = True
        self._clock = clock
        self._costs = costs
        self._loop = host.thread(self)
        self._lanes: dict[str, Thread] = {
            "text": host.thread(self),
            "audio": host.thread(self),
        }
        self._running: set[str] = set()
        self._waiting: dict[str, dict[_Session, None]] = {"text": {}, "audio": {}}

    def hear(self, session: _Session, revision: _Revision | None, frames: int = 1) -> None:
        """Something comes in: frames of audio or a transcript."""
        costs = self._costs
        seconds = frames * costs.frame_s if revision is None else costs.revision_s

        def heard() -> None:
            if session.is_gone or not self.is_alive:
                return
            if revision is None:
                session.received += frames
            else:
                session.add(revision, self._clock.now)
            self._note(session)
            self._start()

        self._loop.do((Segment(seconds),), heard)

    def _note(self, session: _Session) -> None:
        for lane, waiting in self._waiting.items():
            if session.may_have(lane):
                waiting.setdefault(session)

    def _start(self) -> None:
        for lane in self._lanes:
            if lane not in self._running and self.is_alive:
                self._start_batch(lane)

    def _start_batch(self, lane: str) -> None:
        items: list[tuple[_Session, _Revision | None]] = []
        waiting = self._waiting[lane]
        for session in _in_order(waiting, self._clock.now, self._overdue_s):
            if len(items) >= MAX_BATCH:
                break
            del waiting[session]
            if session.is_gone:
                continue
            if lane == "audio":
                if session.take_chunk():
                    items.append((session, None))
            else:
                revision = session.take_text(self._clock.now, self._overdue_s)
                if revision is not None:
                    items.append((session, revision))
        if not items:
            return
        self._running.add(lane)
        is_audio = lane == "audio"
        batch = self._costs.encode if is_audio else self._costs.tag
        back_s = self._costs.encoded_s if is_audio else self._costs.answer_s

        def finish() -> None:
            self._running.discard(lane)
            for session, revision in items:
                if session.is_gone:
                    continue
                if revision is None:
                    session.encoded += session.chunk_away
                    session.chunk_away = 0
                else:
                    session.is_tagging = False
                    if revision.said.is_final:
                        session.finals.popleft()
                    session.stream.answered(revision)
                self._note(session)
            self._start()

        def compute() -> None:
            self._lanes[lane].do(
                batch.segments(len(items)),
                lambda: self._loop.do((Segment(back_s * len(items)),), finish),
            )

        turns = batch.turns * len(items) / MAX_BATCH
        self._clock.after(0.0 if self._loop.is_idle else TURN_S * turns, compute)


class _Stream:
    """A client: it speaks, and remembers what it has no answer to."""

    def __init__(self, number: int, world: _World) -> None:
        self._world = world
        self._chance = random.Random(f"{world.load.seed} {number}")
        self.session: _Session | None = None
        self.worker: _Worker | None = None
        self._utterance = 0
        self._shown = 0
        self._frames_since_answer = 0
        self._newest: _Revision | None = None
        self._owed: deque[_Revision] = deque()
        self._began_s = self._chance.uniform(0, world.load.spread_s)
        world.clock.at(self._began_s, self._next_clip)

    def _next_clip(self) -> None:
        clock, load = self._world.clock, self._world.load
        if clock.now - self._began_s >= load.seconds - 1e-6:
            return
        clip = self._chance.choice(load.clips)
        self._utterance += 1
        self._shown = 0
        self._world.outcome.audio_s += clip.length_s
        began, frames = clock.now, round(clip.length_s / FRAME_S)
        due = deque(clip.revisions)
        utterance = self._utterance

        def step(number: int) -> None:
            said = None
            if due and due[0].at_s <= number * FRAME_S + 1e-9:
                said = due.popleft()
            self._send(None, utterance)
            if said is not None:
                self._send(said, utterance)
            if number < frames:
                clock.at(began + (number + 1) * FRAME_S, lambda: step(number + 1))
            else:
                clock.at(began + clip.length_s, self._next_clip)

        clock.at(began + FRAME_S, lambda: step(1))

    def _send(self, said: Said | None, utterance: int) -> None:
        """The generator has something to send, and gets to it when it can."""
        world = self._world

        def sent() -> None:
            revision = None
            if said is None:
                self._frames_since_answer += 1
            else:
                revision = _Revision(said, utterance, world.clock.now)
                world.outcome.sent += said.is_final
                if said.is_final:
                    self._newest = None
                    self._owed.append(revision)
                else:
                    self._newest = revision
            if self.worker is not None and self.session is not None:
                self.worker.hear(self.session, revision)

        # The clock of a revision starts before it is sent, as in live.py.
        world.generator.do((Segment(world.costs.client_frame_s if said is None else 0.0),), sent)

    def answered(self, revision: _Revision) -> None:
        """The server has sent an answer."""
        world = self._world

        def received() -> None:
            if revision.said.is_final:
                if revision not in self._owed:
                    return  # its second answer, after another server was told of it again
                self._owed.remove(revision)
                self._frames_since_answer = 0
                waited = world.clock.now - revision.sent_s
                world.outcome.finals.append(waited)
                if world.lost_at is not None and revision.sent_s >= world.lost_at:
                    world.outcome.finals_after.append(waited)
            else:
                world.outcome.answered_interims += 1
            if revision.utterance == self._utterance and revision.said.entities > self._shown:
                found = revision.said.entities - self._shown
                self._shown = revision.said.entities
                waited = world.clock.now - revision.sent_s
                world.outcome.first_entities += [waited] * found

        world.generator.do((Segment(0.0),), received)

    def come_back(self) -> None:
        """The worker is gone: go to another one and send what has no answer, all at once."""
        self.session = self.worker = None

        def again() -> None:
            self._world.place(self)
            assert self.worker is not None
            assert self.session is not None
            if self._frames_since_answer:
                self.worker.hear(self.session, None, self._frames_since_answer)
            for revision in (*self._owed, self._newest):
                if revision is not None:
                    self.worker.hear(self.session, revision)

        self._world.clock.after(self._chance.uniform(0, RECONNECT_S), again)


class _World:
    def __init__(self, load: Load, site: Site, costs: Costs) -> None:
        self.load, self.costs = load, costs
        self.clock = Clock()
        self.outcome = Outcome()
        self.lost_at: float | None = None
        self._hosts = [Host(self.clock, site.cores, costs.slowdown) for _ in range(site.hosts)]
        self._workers = {
            host: [_Worker(self.clock, host, costs, site.overdue_s) for _ in range(site.workers)]
            for host in self._hosts
        }
        beside = self._hosts[0] if site.generator_beside else Host(self.clock, 1)
        self.generator = beside.thread("generator")
        streams = [_Stream(number, self) for number in range(load.streams)]
        for stream in streams:
            self.place(stream)
        if site.fails_at_s is not None:
            self.clock.at(site.fails_at_s, self._lose_first)

    def place(self, stream: _Stream) -> None:
        """Give a stream to the worker that has the fewest."""
        alive = [w for workers in self._workers.values() for w in workers if w.is_alive]
        stream.worker = min(alive, key=lambda worker: len(worker.sessions))
        stream.session = _Session(stream)
        stream.worker.sessions.add(stream.session)

    def _lose_first(self) -> None:
        self.lost_at = self.clock.now
        workers = self._workers[self._hosts[0]]
        for worker in workers:
            worker.is_alive = False
        for worker in workers:
            for session in sorted(worker.sessions, key=lambda each: each.stream._began_s):
                session.is_gone = True
                session.stream.come_back()
            worker.sessions.clear()

    def run(self) -> Outcome:
        self.clock.run()
        self.outcome.cpu_s = sum(
            host.cpu_s.get(worker, 0.0)
            for host, workers in self._workers.items()
            for worker in workers
        )
        return self.outcome


def simulate(load: Load, site: Site, costs: Costs) -> Outcome:
    """Stream so much to that, and see what comes back.

    Raises:
        ValueError: A machine is to be lost, and no other is there or the generator is on it.
    """
    if site.fails_at_s is not None and (site.hosts < 2 or site.generator_beside):
        raise ValueError(
            "expected another machine and a generator elsewhere where one is to be lost, "
            f"got {site}"
        )
    return _World(load, site, costs).run()


def percentile(values: Sequence[float], share: float) -> float:
    """The nearest rank."""
    ordered = sorted(values)
    return ordered[max(0, round(share * len(ordered)) - 1)]
