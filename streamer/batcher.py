"""Brings many sessions' work to one engine, in batches across sessions.

The engine runs in one worker thread; everything here runs in the event loop. There is no queue of
work: a session that may have some is noted, and when the engine is free, a batch is collected
from the noted sessions there and then. So a revision that a newer one has overtaken never
reaches the engine, waiting costs nothing and a batch is as large as what came in while the engine
was busy: no artificial delay. What waits is bounded by what each session may hold.

Sessions that owe an answer to a final transcript come first. Each session has at most one chunk
and one text in a batch, so none can crowd out the others.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

from cnerta.models.inference import AcousticState, Tagged
from cnerta.streamer.engine import Encoded, Engine, TaggedWork, describe_failure
from cnerta.streamer.session import EncodeWork, TagWork

__all__ = ["BatchObserver", "Batcher", "WorkSource"]

logger = logging.getLogger(__name__)

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

    def encoded(self, frames: npt.NDArray[np.float32], state: AcousticState) -> None:
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


@dataclass(frozen=True, slots=True)
class _Batch:
    encode_sources: list[WorkSource]
    encode_work: list[EncodeWork]
    tag_sources: list[WorkSource]
    tag_work: list[TagWork]

    def __bool__(self) -> bool:
        return bool(self.encode_work or self.tag_work)


@dataclass(frozen=True, slots=True)
class _Results:
    encoded: list[Encoded | Exception]
    tagged: list[TaggedWork | Exception]


class Batcher:
    """The engine's event-loop side.

    Attributes:
        engine: What runs the batches.
    """

    def __init__(
        self, engine: Engine, *, max_batch: int = 32, observer: BatchObserver | None = None
    ) -> None:
        """Start the worker thread.

        Args:
            engine: What runs the batches.
            max_batch: Most sessions served in one batch.
            observer: Is told of every batch.
        """
        self.engine = engine
        self._max_batch = max_batch
        self._observer = observer
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="cnerta-engine")
        # Sessions that may have work, and since when; the order is first come, first served.
        self._waiting: dict[WorkSource, float] = {}
        self._running: asyncio.Future[_Results] | None = None
        self._waited_s = 0.0
        self._closed = False

    def notify(self, source: WorkSource) -> None:
        """A session may have work; to be called after everything that happens to it."""
        self._waiting.setdefault(source, _now())
        self._start_batch()

    def forget(self, source: WorkSource) -> None:
        """A session has ended."""
        self._waiting.pop(source, None)

    @property
    def is_overloaded(self) -> bool:
        """Whether work waits too long for new sessions to be taken."""
        oldest = next(iter(self._waiting.values()), None)
        waits_s = 0.0 if oldest is None or self._running is None else _now() - oldest
        return max(self._waited_s, waits_s) > _OVERLOADED_S

    async def close(self) -> None:
        """Let the batch that runs end, and start no other."""
        self._closed = True
        if self._running is not None:
            await asyncio.wait([self._running])
        self._worker.shutdown(wait=True)

    def _start_batch(self) -> None:
        if self._running is not None or self._closed:
            return
        batch = self._collect()
        if not batch:
            self._waited_s = 0.0
            return
        loop = asyncio.get_running_loop()
        self._running = loop.run_in_executor(self._worker, self._run, batch)
        self._running.add_done_callback(lambda future: self._finish_batch(batch, future))

    def _collect(self) -> _Batch:
        """Take work from the sessions that wait, the urgent first."""
        now = _now()
        batch = _Batch([], [], [], [])
        urgent = [s for s in self._waiting if s.is_urgent]
        others = [s for s in self._waiting if not s.is_urgent]
        oldest = now
        for source in urgent + others:
            if len(batch.encode_work) >= self._max_batch or len(batch.tag_work) >= self._max_batch:
                break
            since = self._waiting.pop(source)
            if self._take(source, batch, now):
                oldest = min(oldest, since)
        if batch:
            self._waited_s = now - oldest
            if self._observer is not None:
                self._observer.on_batch(len(batch.encode_work), len(batch.tag_work), now - oldest)
        return batch

    def _take(self, source: WorkSource, batch: _Batch, now: float) -> bool:
        try:
            encode, tag = source.take_encode(), source.take_tag(now)
        except Exception as error:
            self._blame(source, error)
            return False
        if encode is not None:
            batch.encode_sources.append(source)
            batch.encode_work.append(encode)
        if tag is not None:
            batch.tag_sources.append(source)
            batch.tag_work.append(tag)
        return encode is not None or tag is not None

    def _run(self, batch: _Batch) -> _Results:
        """In the worker thread."""
        # Texts first: their answers are waited for.
        tagged = self.engine.tag(batch.tag_work)
        return _Results(self.engine.encode(batch.encode_work), tagged)

    def _finish_batch(self, batch: _Batch, future: asyncio.Future[_Results]) -> None:
        self._running = None
        if future.cancelled():
            return
        results = future.result()
        now = _now()
        for source, tagged in zip(batch.tag_sources, results.tagged, strict=True):
            try:
                if isinstance(tagged, Exception):
                    source.work_failed()
                else:
                    source.tagged(tagged.results, now)
            except Exception as error:
                self._blame(source, error)
        for source, encoded in zip(batch.encode_sources, results.encoded, strict=True):
            try:
                if isinstance(encoded, Exception):
                    source.work_failed()
                else:
                    source.encoded(encoded.frames, encoded.state)
            except Exception as error:
                self._blame(source, error)
        for source in (*batch.tag_sources, *batch.encode_sources):
            self._waiting.setdefault(source, now)
        self._start_batch()

    def _blame(self, source: WorkSource, error: Exception) -> None:
        """A bug that one session met ends this session and no other."""
        logger.error("a session failed: %s", describe_failure(error))
        source.work_failed()


def _now() -> float:
    return asyncio.get_running_loop().time()
