"""Which workers there are, who gets the next connection, and when one is replaced. No I/O.

Times are in seconds and arguments.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

from cnerta.streamer.workers.messages import Status

__all__ = ["Backoff", "Complaint", "Roster", "WorkerState"]

_FIRST_PAUSE_S: Final = 0.2
_LONGEST_PAUSE_S: Final = 10.0
_LONG_LIFE_S: Final = 60.0
_SILENT_S: Final = 30.0
_UNHEALTHY_S: Final = 30.0
"""A batch that hung makes a worker unhealthy for 10 s; after that another thread has taken over."""

Complaint = Literal["silent", "unhealthy"]


@dataclass(eq=False, slots=True)
class WorkerState:
    """What is known of a worker.

    Attributes:
        name: Its own, for good.
        place: Its number among those of the same time.
        generation: Of its nursery.
        born_at: When it was asked for.
        status: What it said last; None: it does not serve yet.
        heard_at: When.
        given: Connections that it was given.
        is_leaving: It gets no more of them.
        unhealthy_since: Since when it says that it is of no use.
        has_ended: It has said its last word.
    """

    name: str
    place: int
    generation: int
    born_at: float
    status: Status | None = None
    heard_at: float = 0.0
    given: int = 0
    is_leaving: bool = False
    unhealthy_since: float | None = None
    has_ended: bool = False

    @property
    def is_serving(self) -> bool:
        """Whether it may be given connections."""
        return self.status is not None and not self.is_leaving

    @property
    def load(self) -> tuple[bool, int]:
        """Whether it refuses sessions, and how many connections it has, those on their way too."""
        assert self.status is not None, "expected one that serves"
        on_their_way = self.given - self.status.taken
        return self.status.why_not_ready is not None, self.status.open + on_their_way

    def hear(self, status: Status, now: float) -> None:
        """It says how it is."""
        self.status, self.heard_at = status, now
        if status.why_not_healthy is None:
            self.unhealthy_since = None
        elif self.unhealthy_since is None:
            self.unhealthy_since = now

    def complaint(self, now: float) -> Complaint | None:
        """Why it has to be replaced, if so."""
        if self.status is None:
            return None
        if now - self.heard_at > _SILENT_S:
            return "silent"
        if self.unhealthy_since is not None and now - self.unhealthy_since > _UNHEALTHY_S:
            return "unhealthy"
        return None


class Roster:
    """All workers of a server."""

    def __init__(self) -> None:
        self._workers: dict[str, WorkerState] = {}
        self._born = 0

    def __iter__(self) -> Iterator[WorkerState]:
        """All there are, those that leave as well."""
        return iter(tuple(self._workers.values()))

    def __len__(self) -> int:
        """How many."""
        return len(self._workers)

    def find(self, name: str) -> WorkerState | None:
        """The worker of a name, if it lives."""
        return self._workers.get(name)

    def add(self, generation: int, now: float) -> WorkerState:
        """Another one is asked for."""
        self._born += 1
        taken = {worker.place for worker in self}
        place = next(n for n in range(len(taken) + 1) if n not in taken)
        worker = WorkerState(f"{self._born}", place, generation, now)
        self._workers[worker.name] = worker
        return worker

    def remove(self, worker: WorkerState) -> None:
        """It is gone."""
        self._workers.pop(worker.name, None)

    def least_loaded(self) -> WorkerState | None:
        """Who gets the next connection: of those that take sessions the one with the fewest.

        Where all refuse, somebody has to say so.
        """
        serving = [worker for worker in self if worker.is_serving]
        return min(serving, key=lambda worker: (*worker.load, worker.given), default=None)


@dataclass(slots=True)
class Backoff:
    """How long to wait before a worker that died is replaced: longer if it did not live long."""

    pause_s: float = 0.0

    def next_pause_s(self, lived_s: float) -> float:
        """One has died after so long."""
        if lived_s > _LONG_LIFE_S:
            self.pause_s = 0.0
        pause_s = self.pause_s
        self.pause_s = min(_LONGEST_PAUSE_S, max(_FIRST_PAUSE_S, 2 * pause_s))
        return pause_s
