"""Threads that share cores, and in each process the GIL: a discrete-event simulation.

What SimPy's resources cannot say is that a thread gets slower the more others run. So time flows
here: between two events everything that runs gets its share of the machine::

    host ─► processes ─► threads ─► jobs, one after the other ─► segments: with the GIL, or without

A host with so many cores serves up to that many units of demand at full speed. All segments of one
process that hold the GIL are one unit together, each without it is one by itself. Two cores may be
two threads of one real core: ``slowdown`` says how much longer work takes when all are busy.
All times in seconds.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

__all__ = ["Clock", "Host", "Segment", "Thread"]


@dataclass(frozen=True, slots=True)
class Segment:
    """A part of a job.

    Attributes:
        seconds: How long it takes on a core of its own.
        has_gil: Whether it holds the GIL meanwhile.
    """

    seconds: float
    has_gil: bool = True


class Clock:
    """What happens when.

    Attributes:
        now: In seconds.
        hosts: Those that work.
    """

    def __init__(self) -> None:
        self.now = 0.0
        self.hosts: list[Host] = []
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()

    def at(self, when: float, do: Callable[[], None]) -> None:
        """Have something done at a time."""
        heapq.heappush(self._due, (when, next(self._order), do))

    def after(self, delay: float, do: Callable[[], None]) -> None:
        """Have something done later."""
        self.at(self.now + delay, do)

    def run(self, until: float = math.inf) -> None:
        """Let time pass, to its end or until nothing is left to happen."""
        while True:
            host = min(self.hosts, key=lambda each: each.next_at, default=None)
            host_at = math.inf if host is None else host.next_at
            due_at = self._due[0][0] if self._due else math.inf
            when = min(host_at, due_at)
            if when > until or when == math.inf:
                return
            self.now = when
            if host is not None and host_at <= due_at:
                host.complete()
            else:
                heapq.heappop(self._due)[2]()


@dataclass(eq=False, slots=True)
class Thread:
    """Does jobs in the order they come.

    Attributes:
        host: Where it runs.
        process: Threads of one process share the GIL.
    """

    host: Host
    process: object
    _jobs: deque[tuple[Sequence[Segment], Callable[[], None]]] = field(default_factory=deque)
    _segments: deque[Segment] = field(default_factory=deque)
    _then: Callable[[], None] | None = None
    left: float = 0.0
    has_gil: bool = False

    def do(self, segments: Sequence[Segment], then: Callable[[], None]) -> None:
        """Queue a job.

        Args:
            segments: What it takes.
            then: Called when it is done.
        """
        self._jobs.append((segments, then))
        if self._then is None:
            self._begin()

    @property
    def is_idle(self) -> bool:
        """Whether it has nothing to do."""
        return self._then is None

    def _begin(self) -> None:
        segments, self._then = self._jobs.popleft()
        self._segments = deque(segments)
        self._next_segment()

    def _next_segment(self) -> None:
        while self._segments:
            segment = self._segments.popleft()
            if segment.seconds > 0:
                self.left, self.has_gil = segment.seconds, segment.has_gil
                self.host.start(self)
                return
        then, self._then = self._then, None
        assert then is not None, "expected a job"
        # First the next job: whatever follows from this one queues behind those that wait.
        if self._jobs:
            self._begin()
        then()

    def finish_segment(self) -> None:
        """The host has done what was to do."""
        self._next_segment()


class Host:
    """A machine.

    Attributes:
        next_at: When the next segment ends, if nothing else begins before.
        cpu_s: CPU time of each process so far, as an operating system counts it: a thread that
            gets slower because the other core is busy counts for longer, one that waits for the
            GIL does not count.
    """

    def __init__(self, clock: Clock, cores: int, slowdown: float = 1.0) -> None:
        """Switch it on.

        Args:
            clock: What goes on.
            cores: How many threads run at once.
            slowdown: How many times longer a segment takes when all cores are busy.
        """
        self.next_at = math.inf
        self.cpu_s: dict[object, float] = {}
        self._clock = clock
        self._cores = cores
        self._slowdown = slowdown
        self._running: dict[Thread, float] = {}
        """The rate of each: seconds of work done in a second."""
        self._settled_at = 0.0
        self._speed = 1.0  # seconds of work a CPU second
        clock.hosts.append(self)

    def thread(self, process: object) -> Thread:
        """A new thread."""
        return Thread(self, process)

    def start(self, thread: Thread) -> None:
        """A thread has something to do."""
        self._settle()
        self._running[thread] = 0.0
        self._share()

    def complete(self) -> None:
        """The time has come when a segment ends."""
        self._settle()
        first = min(self._running, key=lambda each: each.left / self._running[each])
        del self._running[first]
        self._share()
        first.finish_segment()

    def _settle(self) -> None:
        """All that runs has got its share since it was looked at last."""
        passed = self._clock.now - self._settled_at
        self._settled_at = self._clock.now
        if passed > 0:
            for thread, rate in self._running.items():
                thread.left = max(0.0, thread.left - passed * rate)
                used = self.cpu_s.get(thread.process, 0.0)
                self.cpu_s[thread.process] = used + passed * rate / self._speed

    def _share(self) -> None:
        """Divide the machine among what runs."""
        if not self._running:
            self.next_at = math.inf
            return
        holders: dict[int, int] = {}
        units = 0
        for thread in self._running:
            if thread.has_gil:
                holders[id(thread.process)] = holders.get(id(thread.process), 0) + 1
            else:
                units += 1
        units += len(holders)
        used = min(units, self._cores)
        crowding = (used - 1) / (self._cores - 1) if self._cores > 1 else 0.0
        self._speed = 1 / (1 + (self._slowdown - 1) * crowding)
        unit_rate = self._speed * used / units
        soonest = math.inf
        for thread in self._running:
            rate = unit_rate / (holders[id(thread.process)] if thread.has_gil else 1)
            self._running[thread] = rate
            soonest = min(soonest, thread.left / rate)
        self.next_at = self._clock.now + soonest
