"""Brings many sessions' work to one engine, in batches across sessions.

The engine has two lanes, audio and text, each with a worker thread of its own, so that an answer
that is waited for never queues behind a large batch of audio; everything here runs in the event
loop. There is no queue of work: a session that may have some is noted, and when a lane is free, a
batch is collected from the noted sessions there and then. So a revision that a newer one has
overtaken never reaches the engine, waiting costs nothing and a batch is as large as what came in
while the lane was busy: no artificial delay. What waits is bounded by what each session may hold.

Sessions that owe an answer to a final transcript come first. Each session has at most one chunk
and one text away, so none can crowd out the others.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, Generic, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from cnerta.models.runtime.inference import AcousticState, Tagged
from cnerta.streamer.serving.engine import Encoded, Engine, TaggedWork, describe_failure
from cnerta.streamer.session.work import EncodeWork, TagWork

__all__ = ["BatchObserver", "Batcher", "WorkSource"]

logger = logging.getLogger(__name__)

_W = TypeVar("_W")
_R = TypeVar("_R")

_OVERLOADED_S: Final = 1.0


class WorkSource(Protocol):
    """A session as the batcher sees it; :class:`ServerProtocol` is one."""

    @property
    def is_urgent(self) -> bool:
        """Whether a final transcript waits for its answer."""
        ...

    def take_encode(self) -> EncodeWork | None:
        """The next chunk, if any."""
        ...

    def take_tag(self, now: float) -> TagWork | None:
        """The next text, if any."""
        ...

    def encoded(self, frames: npt.NDArray[np.float32], state: AcousticState | None) -> None:
        """Take back a chunk's result."""
        ...

    def tagged(self, results: Sequence[Tagged], now: float) -> None:
        """Take back a text's result."""
        ...

    def work_failed(self) -> None:
        """The engine, or the session itself, failed."""
        ...


class BatchObserver(Protocol):
    """Is told of every batch; for metrics."""

    def on_batch(self, encodes: int, tags: int, waited_s: float) -> None:
        """A batch of so many chunks and texts begins; the oldest has waited for ``waited_s``."""
        ...


class _Lane(Generic[_W, _R]):
    """One kind of work: who may have some, and the thread that does it.

    Attributes:
        waiting: Sessions that may have work, and since when; the order is first come, first served.
        running: The batch that is away.
        waited_s: How long the oldest item of the last batch had waited.
    """

    def __init__(
        self,
        name: str,
        take: Callable[[WorkSource, float], _W | None],
        run: Callable[[Sequence[_W]], list[_R | Exception]],
        give: Callable[[WorkSource, _R, float], None],
    ) -> None:
        """A lane.

        Args:
            name: Of the thread.
            take: Asks a session for work.
            run: Does a batch of it, in the thread.
            give: Brings a result back.
        """
        self.take = take
        self.give = give
        self.run = run
        self.waiting: dict[WorkSource, float] = {}
        self.running: asyncio.Future[list[_R | Exception]] | None = None
        self.waited_s = 0.0
        self.worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"cnerta-{name}")

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
        self, engine: Engine, *, max_batch: int = 16, observer: BatchObserver | None = None
    ) -> None:
        """Start the worker threads.

        Args:
            engine: What runs the batches.
            max_batch: Most sessions served in one batch.
            observer: Is told of every batch.
        """
        self.engine = engine
        self._max_batch = max_batch
        self._observer = observer
        self._texts: _Lane[TagWork, TaggedWork] = _Lane(
            "text",
            lambda source, now: source.take_tag(now),
            engine.tag,
            lambda source, result, now: source.tagged(result.results, now),
        )
        self._audio: _Lane[EncodeWork, Encoded] = _Lane(
            "audio",
            lambda source, _: source.take_encode(),
            engine.encode,
            lambda source, result, _: source.encoded(result.frames, result.state),
        )
        self._closed = False

    def notify(self, source: WorkSource) -> None:
        """A session may have work; to be called after everything that happens to it."""
        now = _now()
        self._texts.waiting.setdefault(source, now)
        self._audio.waiting.setdefault(source, now)
        self._start_batches()

    def forget(self, source: WorkSource) -> None:
        """A session has ended."""
        self._texts.waiting.pop(source, None)
        self._audio.waiting.pop(source, None)

    @property
    def is_overloaded(self) -> bool:
        """Whether work waits too long for new sessions to be taken."""
        now = _now()
        return max(self._texts.waits_s(now), self._audio.waits_s(now)) > _OVERLOADED_S

    async def close(self) -> None:
        """Let the batches that run end, and start no other."""
        self._closed = True
        running = [f for f in (self._texts.running, self._audio.running) if f is not None]
        if running:
            await asyncio.wait(running)
        self._texts.worker.shutdown(wait=True)
        self._audio.worker.shutdown(wait=True)

    def _start_batches(self) -> None:
        self._start_batch(self._texts)
        self._start_batch(self._audio)

    def _start_batch(self, lane: _Lane[_W, _R]) -> None:
        if lane.running is not None or self._closed or not lane.waiting:
            return
        sources, work = self._collect(lane)
        if not work:
            lane.waited_s = 0.0
            return
        if self._observer is not None:
            encodes, tags = (0, len(work)) if lane is self._texts else (len(work), 0)
            self._observer.on_batch(encodes, tags, lane.waited_s)
        lane.running = asyncio.get_running_loop().run_in_executor(lane.worker, lane.run, work)
        lane.running.add_done_callback(lambda future: self._finish_batch(lane, sources, future))

    def _collect(self, lane: _Lane[_W, _R]) -> tuple[list[WorkSource], list[_W]]:
        """Take work from the sessions that wait, the urgent first."""
        now = oldest = _now()
        sources: list[WorkSource] = []
        work: list[_W] = []
        # The sort keeps the order of those that are as urgent.
        for source in sorted(lane.waiting, key=lambda s: not s.is_urgent):
            if len(work) >= self._max_batch:
                break
            since = lane.waiting.pop(source)
            try:
                item = lane.take(source, now)
            except Exception as error:
                self._blame(source, error)
                continue
            if item is None and lane is self._texts:
                # What the text waits for may be audio that is asked for only now.
                self._audio.waiting.setdefault(source, now)
            if item is not None:
                sources.append(source)
                work.append(item)
                oldest = min(oldest, since)
        lane.waited_s = now - oldest
        return sources, work

    def _finish_batch(
        self,
        lane: _Lane[_W, _R],
        sources: Sequence[WorkSource],
        future: asyncio.Future[list[_R | Exception]],
    ) -> None:
        lane.running = None
        if future.cancelled():
            return
        now = _now()
        try:
            pairs = list(zip(sources, future.result(), strict=True))
        except Exception as error:
            # The batch failed as a whole: none of its sessions gets its work back.
            logger.error("a batch of %d failed: %s", len(sources), describe_failure(error))
            pairs = [(source, error) for source in sources]
        for source, result in pairs:
            try:
                if isinstance(result, Exception):
                    source.work_failed()
                else:
                    lane.give(source, result, now)
            except Exception as error:
                self._blame(source, error)
            # What came back may be what the other lane waited for.
            self._texts.waiting.setdefault(source, now)
            self._audio.waiting.setdefault(source, now)
        self._start_batches()

    def _blame(self, source: WorkSource, error: Exception) -> None:
        """A bug that one session met ends this session and no other."""
        logger.error("a session failed: %s", describe_failure(error))
        source.work_failed()


def _now() -> float:
    return asyncio.get_running_loop().time()
