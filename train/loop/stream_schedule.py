"""The steps of an epoch over streams, see :mod:`cnerta.train.batches.lanes`."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from cnerta.models.errors import ConfigError
from cnerta.train.batches.batch import BatchBuilder, Clip
from cnerta.train.data.streams import StreamSize
from cnerta.train.loop.schedule import Part, build_part
from cnerta.train.recipe import Stage

__all__ = ["StreamSchedule", "about_steps", "check_lanes"]


def check_lanes(stage: Stage, processes: int) -> None:
    """Raise where lanes cannot be divided between processes.

    Raises:
        ConfigError: They cannot.
    """
    if stage.accumulate % processes:
        raise ConfigError(
            f"stage {stage.name!r}: expected accumulate to be a multiple of the {processes} "
            f"processes, each of which reads shards of its own, got {stage.accumulate}: with "
            f"accumulate = {processes} and a batch_size that is as much smaller, steps stay as "
            "large"
        )


def about_steps(stage: Stage, size: StreamSize) -> int:
    """About how many steps an epoch has.

    Args:
        stage: Its settings.
        size: What the epoch reads.
    """
    batches = size.spoken / stage.batch_size
    if stage.batch_seconds:
        batches = max(batches, size.seconds / stage.batch_seconds)
    batches += (size.utterances - size.spoken) / stage.batch_size
    return max(1, -(-round(batches) // stage.accumulate))


class StreamSchedule:
    """The parts of one epoch for one process.

    Args:
        batches: Gives the batches of a lane.
        stage: Says how many batches make a step.
        builder: Makes tensors.
        seed: Everything random about a batch follows from this, its step and its lane.
        chunks: Least and greatest chunk to draw; None for full context.
        about: How many steps there are, about.
        is_anywhere: Whether something is true in any process. Each asks as often as the others.
        process: Number of this process.
        processes: How many there are.
        workers: Threads that build batches ahead.
    """

    def __init__(
        self,
        batches: Callable[[int], Iterator[list[Clip]]],
        stage: Stage,
        builder: BatchBuilder,
        seed: Sequence[int],
        chunks: tuple[int, int] | None,
        *,
        about: int,
        is_anywhere: Callable[[bool], bool],
        process: int = 0,
        processes: int = 1,
        workers: int = 1,
    ) -> None:
        check_lanes(stage, processes)
        self._batches = batches
        self._stage = stage
        self._builder = builder
        self._seed = seed
        self._chunks = chunks
        self._about = about
        self._is_anywhere = is_anywhere
        self._lanes = range(process, stage.accumulate, processes)
        self._workers = workers

    def __len__(self) -> int:
        """Optimiser steps, about."""
        return self._about

    def steps(self, first: int) -> Iterator[list[Part]]:
        """This process's parts of each step from ``first`` on, built some ahead in threads.

        What comes before is read and passed over. A lane may end before others do: then steps have
        fewer parts, until all have ended, in every process.
        """
        planned = self._planned(first)
        depth = -(-2 * self._workers // len(self._lanes))
        ahead: deque[list[Future[Part]]] = deque()
        with ThreadPoolExecutor(self._workers) as workers:
            while True:
                while len(ahead) < depth and (own := next(planned, None)) is not None:
                    ahead.append([workers.submit(self._build, *batch) for batch in own])
                parts = [part.result() for part in ahead.popleft()] if ahead else []
                if not self._is_anywhere(bool(parts)):
                    return
                yield parts

    def _planned(self, first: int) -> Iterator[list[tuple[int, list[Clip]]]]:
        """Number and clips of each batch of a step, as long as a lane of this process goes on."""
        lanes = {lane: self._batches(lane) for lane in self._lanes}
        step = 0
        while lanes:
            own = []
            for lane, batches in list(lanes.items()):
                clips = next(batches, None)
                if clips is None:
                    del lanes[lane]
                elif step >= first:
                    own.append((step * self._stage.accumulate + lane, clips))
            if own:
                yield own
            step += 1

    def _build(self, number: int, clips: list[Clip]) -> Part:
        return build_part(
            self._builder, self._stage, clips, (*self._seed, number + 1), chunks=self._chunks
        )
