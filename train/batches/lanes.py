"""Streams of examples: which pieces an epoch reads, and one lane's part of them as batches.

A step takes ``accumulate`` batches, and each of them comes from a lane of its own, which reads
pieces of its own from front to back. A process has some of the lanes, so processes divide the
pieces; and since lanes belong to the recipe, what a step is made of does not depend on how many
processes there are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Final

import numpy as np

from cnerta.train.batches.batch import Clip, plan_clips
from cnerta.train.data.audio import AudioCache
from cnerta.train.data.example import Example
from cnerta.train.data.streams import Piece
from cnerta.train.recipe import Stage

__all__ = ["epoch_pieces", "lane_batches", "lane_examples"]

_OPEN: Final = 4
"""Pieces that a lane reads at a time: neighbours in one are often of one speaker."""


def epoch_pieces(count: int, epoch: int, shards: int, seed: Sequence[int]) -> list[int]:
    """Numbers of the pieces that an epoch reads, in its order.

    Pass by pass all pieces are read in a random order; an epoch is the next ``shards`` of them.

    Args:
        count: How many pieces there are.
        epoch: Number of the epoch, from 0.
        shards: Pieces of an epoch; 0 for all.
        seed: Decides the order.
    """
    size = shards or count
    places = range(epoch * size, (epoch + 1) * size)
    passes = {p // count for p in places}
    orders = {n: np.random.default_rng([*seed, n]).permutation(count) for n in passes}
    return [int(orders[p // count][p % count]) for p in places]


def lane_examples(
    pieces: Sequence[Piece], lane: int, lanes: int, generator: np.random.Generator
) -> Iterator[Example]:
    """One lane's examples: every ``lanes``-th piece, a few of them at a time in turn.

    Where there are fewer pieces than lanes, each lane reads all of them and takes every
    ``lanes``-th example.

    Args:
        pieces: Of the epoch, in its order.
        lane: Number of the lane.
        lanes: How many there are.
        generator: Draws from which of the open pieces the next one is.
    """
    if len(pieces) >= lanes:
        waiting = (piece.read(True) for piece in pieces[lane::lanes])
    else:
        waiting = (islice(piece.read(True), lane, None, lanes) for piece in pieces)
    open_pieces = list(islice(waiting, _OPEN))
    while open_pieces:
        place = int(generator.integers(len(open_pieces)))
        example = next(open_pieces[place], None)
        if example is not None:
            yield example
            continue
        following = next(waiting, None)
        if following is None:
            del open_pieces[place]
        else:
            open_pieces[place] = following


def lane_batches(
    examples: Iterator[Example], stage: Stage, cache: AudioCache, generator: np.random.Generator
) -> Iterator[list[Clip]]:
    """Batches of similar length (or of any): ``shuffle`` examples are held and used up at a time.

    Args:
        examples: Of the lane.
        stage: Its settings.
        cache: Recordings.
        generator: Draws.
    """
    while batches := _held_batches(examples, stage, cache, generator):
        # Each is given away, so that its recordings are gone when it has been used.
        while batches:
            yield batches.pop()


def _held_batches(
    examples: Iterator[Example], stage: Stage, cache: AudioCache, generator: np.random.Generator
) -> list[list[Clip]]:
    clips = [(example,) for example in islice(examples, stage.shuffle)]
    return plan_clips(clips, stage, cache, generator)
