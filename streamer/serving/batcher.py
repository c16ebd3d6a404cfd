"""Brings many sessions' work to one engine, in batches across sessions.

The engine has three lanes, for audio, for texts and for what has to be prepared, each with a worker
thread of its own, so that an answer that is waited for never queues behind a large batch of audio
or a long glossary; everything here runs in the event loop. There is no queue of work: a session
that may have some is noted, and when a lane is free, a batch is collected from the noted sessions
there and then. So a revision that a newer one has overtaken never reaches the engine, waiting costs
nothing and a batch is as large as what came in while the lane was busy: no artificial delay. What
waits is bounded by what each session may hold.

Sessions that owe an answer to a final transcript come first, but for every fourth place. That is
for sessions whose viewers have seen nothing of an utterance for half a second, so finals never
starve first revisions.
Each session has at most one piece of work away in each lane, so none can crowd out the others. A
batch that does not come back in time fails its sessions; the thread that it hangs in is given up
and another one takes its place.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, Protocol

from cnerta.streamer.serving.engine import Engine, describe_failure
from cnerta.streamer.serving.worker import Worker
from cnerta.streamer.session.work import Lane, Result, Work
from cnerta.streamer.wire.errors import ProtocolError

__all__ = ["BatchObserver", "Batcher", "WorkSource"]

logger = logging.getLogger(__name__)

_OVERLOADED_S: Final = 1.0
_RECOVERY_S: Final = 10.0
"""For so long after a batch that never came back no new sessions are taken."""
_EVERY: Final = 4
"""Of so many places one is for a session that is overdue, if there is any."""
_MOST_HANGING: Final = 4
"""With so many threads left behind it is time for another process."""

Outcome = Result | Exception


class BatchHungError(Exception):
    """A batch did not come back in time."""


class WorkSource(Protocol):
    """A session as the batcher sees it; :class:`ServerProtocol` is one."""

    @property
    def is_urgent(self) -> bool:
        """Whether a final transcript waits for its answer."""
        ...

    def is_overdue(self, now: float) -> bool:
        """Whether an utterance has waited for its first answer for too long."""
        ...

    def lanes(self) -> Sequence[Lane]:
        """The lanes that may have work for it."""
        ...

    def next_work(self, lane: Lane, now: float) -> Work | None:
        """What the lane is to do for it next, if anything."""
        ...

    def work_done(self, work: Work, result: Outcome, now: float) -> None:
        """Take back the result."""
        ...

    def fail_internally(self) -> None:
        """The session itself met a fault."""
        ...


class BatchObserver(Protocol):
    """Is told of every batch; for metrics."""

    def on_batch(self, lane: Lane, items: int, waited_s: float) -> None:
        """A batch of so many items begins; the oldest has waited for ``waited_s``."""
        ...

    def on_failures(self, lane: Lane, items: int) -> None:
        """So many items could not be done."""
        ...


@dataclass(frozen=True, slots=True)
class _Item:
    source: WorkSource
    work: Work


@dataclass(eq=False, slots=True)
class _LaneState:
    """One of the engine's ways.

    Attributes:
        name: Which.
        run: Does a batch; in the worker's thread.
        worker: The thread.
        waiting: Sessions that may have work, since when.
        running: The batch that is away.
        waited_s: How long the oldest item of the last batch had waited.
    """

    name: Lane
    run: Callable[[Sequence[Any]], Sequence[Outcome]]
    worker: Worker
    waiting: dict[WorkSource, float] = field(default_factory=dict)
    running: asyncio.Future[Sequence[Outcome]] | None = None
    waited_s: float = 0.0

    def waits_s(self, now: float) -> float:
        """How long work waits in this lane."""
        oldest = next(iter(self.waiting.values()), None)
        still = 0.0 if oldest is None or self.running is None else now - oldest
        return max(self.waited_s, still)


class Batcher:
    """The engine's event-loop side.

    Attributes:
        engine: What runs the batches.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        max_batch: int = 16,
        observer: BatchObserver | None = None,
        timeout_s: float = 30.0,
    ) -> None:
        """Start the worker threads.

        Args:
            engine: What runs the batches.
            max_batch: Most sessions served in one batch.
            observer: Is told of every batch.
            timeout_s: How long a batch may take.
        """
        self.engine = engine
        self._max_batch = max_batch
        self._observer = observer
        self._timeout_s = timeout_s
        run: dict[Lane, Callable[[Sequence[Any]], Sequence[Outcome]]] = {
            "text": engine.tag,
            "preparation": engine.prepare,
            "audio": engine.encode,
        }
        self._lanes = {name: _LaneState(name, run[name], _new_worker(name)) for name in run}
        self._stalled_at: float | None = None
        self._left_behind: list[Worker] = []
        self._closed = False

    def notify(self, source: WorkSource) -> None:
        """A session may have work; to be called after everything that happens to it."""
        self._note(source, _now())
        self._start_batches()

    def _note(self, source: WorkSource, now: float) -> None:
        for name in source.lanes():
            self._lanes[name].waiting.setdefault(source, now)

    def forget(self, source: WorkSource) -> None:
        """A session has ended."""
        for lane in self._lanes.values():
            lane.waiting.pop(source, None)

    @property
    def is_overloaded(self) -> bool:
        """Whether work waits too long, or hung too lately, for new sessions to be taken."""
        return self.is_stalled or self.wait_s > _OVERLOADED_S

    @property
    def wait_s(self) -> float:
        """How long work waits for the engine, in the lane where that is longest."""
        now = _now()
        return max(lane.waits_s(now) for lane in self._lanes.values())

    @property
    def is_stalled(self) -> bool:
        """Whether a batch hung lately, or too many threads still hang."""
        if self.hanging >= _MOST_HANGING:
            return True
        return self._stalled_at is not None and _now() - self._stalled_at < _RECOVERY_S

    def count_waiting(self, lane: Lane) -> int:
        """How many sessions may have work for a lane."""
        return len(self._lanes[lane].waiting)

    @property
    def hanging(self) -> int:
        """Threads that were left behind, and still hang."""
        self._left_behind = [worker for worker in self._left_behind if worker.is_alive]
        return len(self._left_behind)

    async def check(self) -> None:
        """Have the model compare itself with its golden answers, in an engine's thread.

        Raises:
            BundleError: It says something else, or nothing that makes sense.
            BatchHungError: It does not come back.
        """
        # Not in the lane that answers wait for.
        lane = self._lanes["preparation"]
        worker = lane.worker
        running = worker.submit(self.engine.model.check)
        done, _ = await asyncio.wait([running], timeout=self._timeout_s)
        if not done:
            if lane.worker is worker:
                self._replace_worker(lane)
            raise BatchHungError(f"expected a self-test within {self._timeout_s:g} s")
        running.result()

    async def close(self, timeout_s: float = 5.0) -> None:
        """Let the batches that run end, and start no other.

        Args:
            timeout_s: How long they may take; what hangs for longer is left behind.
        """
        self._closed = True
        running = [lane.running for lane in self._lanes.values() if lane.running is not None]
        if running:
            _, late = await asyncio.wait(running, timeout=timeout_s)
            if late:
                logger.error("%d batches did not end in time and are left behind", len(late))
                self._left_behind += [
                    lane.worker for lane in self._lanes.values() if lane.running in late
                ]
        for lane in self._lanes.values():
            lane.worker.stop()
        for lane in self._lanes.values():
            if lane.running is None or lane.running.done():
                ended = await asyncio.to_thread(lane.worker.join, timeout_s)
                if not ended:
                    self._left_behind.append(lane.worker)

    def _start_batches(self) -> None:
        for lane in self._lanes.values():
            self._start_batch(lane)

    def _start_batch(self, lane: _LaneState) -> None:
        if lane.running is not None or self._closed:
            return
        items = self._collect(lane)
        if not items:
            lane.waited_s = 0.0
            return
        if self._observer is not None:
            self._observer.on_batch(lane.name, len(items), lane.waited_s)
        running = lane.worker.submit(partial(lane.run, [item.work for item in items]))
        lane.running = running
        deadline = asyncio.get_running_loop().call_later(
            self._timeout_s, self._give_up, lane, running
        )
        running.add_done_callback(lambda _: deadline.cancel())
        running.add_done_callback(lambda future: self._finish_batch(lane, items, future))

    def _collect(self, lane: _LaneState) -> list[_Item]:
        """Take work from the sessions that wait, in their order."""
        items: list[_Item] = []
        if not lane.waiting:
            return items
        now = oldest = _now()
        for source in _in_order(lane.waiting, now):
            if len(items) >= self._max_batch:
                break
            since = lane.waiting.pop(source)
            try:
                work = source.next_work(lane.name, now)
            except Exception as error:
                self._blame(source, error)
                continue
            if work is not None:
                items.append(_Item(source, work))
                oldest = min(oldest, since)
        lane.waited_s = now - oldest
        return items

    def _give_up(self, lane: _LaneState, running: asyncio.Future[Sequence[Outcome]]) -> None:
        """A batch takes too long: its thread is left to itself."""
        if running.done():
            return
        logger.error("a batch of the lane %s hangs: another thread takes its place", lane.name)
        self._stalled_at = _now()
        self._replace_worker(lane)
        running.set_exception(BatchHungError(f"expected a batch within {self._timeout_s:g} s"))

    def _replace_worker(self, lane: _LaneState) -> None:
        lane.worker.stop()
        self._left_behind.append(lane.worker)
        lane.worker = _new_worker(lane.name)
        # Whatever hangs in the old sessions of the runtime, nobody else shall wait for it.
        reopening = lane.worker.submit(self.engine.model.reopen)
        reopening.add_done_callback(_log_failure)

    def _finish_batch(
        self, lane: _LaneState, items: Sequence[_Item], future: asyncio.Future[Sequence[Outcome]]
    ) -> None:
        lane.running = None
        if future.cancelled():
            return
        now = _now()
        outcomes: Sequence[Outcome]
        try:
            outcomes = future.result()
            assert len(outcomes) == len(items), "expected a result for each piece of work"
        except Exception as error:
            # The batch failed as a whole: none of its sessions gets its work back.
            logger.error("a batch of %d failed: %s", len(items), describe_failure(error))
            outcomes = [error] * len(items)
        failures = sum(_is_failure(outcome) for outcome in outcomes)
        if failures and self._observer is not None:
            self._observer.on_failures(lane.name, failures)
        for item, outcome in zip(items, outcomes, strict=True):
            try:
                if isinstance(outcome, BatchHungError):
                    # Nobody knows which item hangs, and once more would hang again.
                    item.source.fail_internally()
                else:
                    item.source.work_done(item.work, outcome, now)
            except Exception as error:
                self._blame(item.source, error)
            # What came back may be what another lane waited for.
            self._note(item.source, now)
        self._start_batches()

    def _blame(self, source: WorkSource, error: Exception) -> None:
        """A bug that one session met ends this session and no other."""
        logger.error("a session failed: %s", describe_failure(error))
        source.fail_internally()


def _in_order(waiting: Iterable[WorkSource], now: float) -> Iterator[WorkSource]:
    """The urgent first, every fourth place for one that is overdue, then the others.

    Those of a kind keep their order.
    """
    urgent: deque[WorkSource] = deque()
    overdue: deque[WorkSource] = deque()
    others: list[WorkSource] = []
    for source in waiting:
        if source.is_urgent:
            urgent.append(source)
        elif source.is_overdue(now):
            overdue.append(source)
        else:
            others.append(source)
    while urgent or overdue:
        for _ in range(min(_EVERY - 1, len(urgent))):
            yield urgent.popleft()
        if overdue:
            yield overdue.popleft()
    yield from others


def _log_failure(future: asyncio.Future[None]) -> None:
    error = None if future.cancelled() else future.exception()
    if error is not None:
        logger.error("the graphs could not be opened again: %s", describe_failure(error))


def _is_failure(outcome: Outcome) -> bool:
    # A ProtocolError is of the client.
    return isinstance(outcome, Exception) and not isinstance(outcome, ProtocolError)


def _new_worker(lane: Lane) -> Worker:
    return Worker(f"cnerta-{lane}")


def _now() -> float:
    return asyncio.get_running_loop().time()
