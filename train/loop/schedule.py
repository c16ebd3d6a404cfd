"""Which process computes what: an epoch's batches, divided into optimiser steps and processes.

A step takes ``accumulate`` batches of the plan. Where that is no multiple of the processes, each of
the batches is divided by rows into as many shares as it takes. So a recipe means the same whatever
it runs on; every process knows the whole plan, and its own part of each step follows from its
number alone.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

import numpy as np

from cnerta.train.batches.batch import Batch, BatchBuilder, Clip
from cnerta.train.recipe import Stage

__all__ = ["BatchSchedule", "Part", "build_part"]


@dataclass(frozen=True, slots=True)
class Part:
    """A batch, or a share of one, that one process computes.

    Attributes:
        clips: What it holds.
        batch: As tensors.
        chunk: Frames a chunk of the acoustic encoder; None for full context.
        seed: Of what torch draws (dropout, SpecAugment).
    """

    clips: tuple[Clip, ...]
    batch: Batch
    chunk: int | None
    seed: int


class BatchSchedule:
    """The parts of one epoch for one process.

    Args:
        plan: The epoch's batches, the same in all processes.
        stage: Says how many batches make a step.
        builder: Makes tensors.
        seed: Everything random about a batch follows from this and its place in the plan.
        chunks: Least and greatest chunk to draw; None for full context.
        process: Number of this process.
        processes: How many there are.
        workers: Threads that build batches ahead.
    """

    def __init__(
        self,
        plan: Sequence[Sequence[Clip]],
        stage: Stage,
        builder: BatchBuilder,
        seed: Sequence[int],
        chunks: tuple[int, int] | None,
        *,
        process: int = 0,
        processes: int = 1,
        workers: int = 1,
    ) -> None:
        self._plan = plan
        self._stage = stage
        self._builder = builder
        self._seed = seed
        self._chunks = chunks
        self._process = process
        self._processes = processes
        self._workers = workers
        self._shares = processes // math.gcd(stage.accumulate, processes)

    def __len__(self) -> int:
        """Optimiser steps."""
        return -(-len(self._plan) // self._stage.accumulate)

    def parts(self, step: int) -> list[tuple[int, int]]:
        """Batch and share of each part of a step that is this process's; there may be none."""
        first = step * self._stage.accumulate
        batches = range(first, min(first + self._stage.accumulate, len(self._plan)))
        every = [(b, s) for b in batches for s in range(self._shares)]
        mine = every[self._process :: self._processes]
        # A batch with fewer rows than shares leaves some processes without a part.
        return [(b, s) for b, s in mine if s < len(self._plan[b])]

    def steps(self, first: int) -> Iterator[list[Part]]:
        """This process's parts of each step from ``first`` on, built some ahead in threads."""
        todo = (p for step in range(first, len(self)) for p in self.parts(step))
        with ThreadPoolExecutor(self._workers) as workers:
            ahead: deque[Future[Part]] = deque(
                workers.submit(self._build, *p) for p in islice(todo, 2 * self._workers)
            )
            for step in range(first, len(self)):
                parts = []
                for _ in self.parts(step):
                    parts.append(ahead.popleft().result())
                    ahead.extend(workers.submit(self._build, *p) for p in islice(todo, 1))
                yield parts

    def _build(self, batch: int, share: int) -> Part:
        return build_part(
            self._builder, self._stage, self._plan[batch], (*self._seed, batch + 1),
            chunks=self._chunks, share=share, shares=self._shares,
        )  # fmt: skip


def build_part(
    builder: BatchBuilder,
    stage: Stage,
    clips: Sequence[Clip],
    seed: Sequence[int],
    *,
    chunks: tuple[int, int] | None,
    share: int = 0,
    shares: int = 1,
) -> Part:
    """Make tensors of a batch or of a share of its rows.

    Args:
        builder: Makes them.
        stage: What is left out at random.
        clips: The whole batch.
        seed: Everything random about it follows from this.
        chunks: Least and greatest chunk to draw; None for full context.
        share: Which share.
        shares: How many there are.
    """
    generator = np.random.default_rng([*seed])
    chunk = None
    if chunks is not None:
        chunk = int(generator.integers(chunks[0], chunks[1] + 1))
    seeds = generator.integers(2**62, size=share + 1)
    rows = slice(share, None, shares)
    built = builder.build(
        clips,
        generator,
        drop_audio=stage.drop_audio,
        drop_characters=stage.drop_characters,
        rows=rows,
    )
    return Part(tuple(clips[rows]), built, chunk, int(seeds[share]))
