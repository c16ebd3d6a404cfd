"""What a stage with streamed sources trains on: its pieces, checked as they are read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from cnerta.models.errors import ConfigError, DataError
from cnerta.train.batches.batch import Clip
from cnerta.train.batches.lanes import epoch_pieces, lane_batches, lane_examples
from cnerta.train.data.audio import AudioCache
from cnerta.train.data.example import Example
from cnerta.train.data.streams import Piece, Read, StreamSize, stream_size
from cnerta.train.recipe import Stage

__all__ = ["StreamedStage", "streamed_stage"]


@dataclass(frozen=True, slots=True)
class StreamedStage:
    """The pieces of a stage.

    Attributes:
        stage: Its settings.
        pieces: Of all its sources.
        size: What an epoch reads, about.
        cache: Recordings.
        seed: Of the stage.
    """

    stage: Stage
    pieces: Sequence[Piece]
    size: StreamSize
    cache: AudioCache
    seed: Sequence[int]

    def batches(self, epoch: int, lane: int) -> Iterator[list[Clip]]:
        """One lane's batches of an epoch."""
        numbers = epoch_pieces(len(self.pieces), epoch, self.stage.shards, (*self.seed, 1))
        generator = np.random.default_rng([*self.seed, epoch, lane, 2])
        examples = lane_examples(
            [self.pieces[n] for n in numbers], lane, self.stage.accumulate, generator
        )
        return lane_batches(examples, self.stage, self.cache, generator)


def streamed_stage(
    stage: Stage,
    pieces: Sequence[Piece],
    check: Callable[[Sequence[Example]], None],
    cache: AudioCache,
    seed: Sequence[int],
) -> StreamedStage:
    """Prepare a stage; what has no index is counted.

    Args:
        stage: Its settings.
        pieces: Of all its sources.
        check: Raises where the model cannot be taught an example.
        cache: Recordings.
        seed: Of the stage.

    Raises:
        ConfigError: A setting needs all examples at once.
        DataError: There is no example.
    """
    if stage.exchange_names:
        raise ConfigError(
            f"stage {stage.name!r}: expected no exchange_names with sources that are streamed, "
            f"whose names are not known, got {stage.exchange_names:g}"
        )
    checked = [replace(p, read=partial(_teaching, p.read, stage, check)) for p in pieces]
    size = stream_size(checked, lambda e: cache.seconds(e.audio) if e.audio else 0.0, seed[0])
    if stage.shards:
        share = stage.shards / len(pieces)
        size = StreamSize(
            round(size.utterances * share), round(size.spoken * share), size.seconds * share
        )
    return StreamedStage(stage, checked, size, cache, seed)


def _teaching(
    read: Read, stage: Stage, check: Callable[[Sequence[Example]], None], recordings: bool
) -> Iterator[Example]:
    """The examples that a stage can learn from."""
    for example in read(recordings):
        if stage.task == "acoustic":
            if recordings and example.audio is None:
                raise DataError(
                    f"stage {stage.name!r}: expected recordings in every source, got a text alone: "
                    f"{example.text[:20]!r}"
                )
        elif example.spans is None:
            continue
        else:
            check([example])
        yield example
