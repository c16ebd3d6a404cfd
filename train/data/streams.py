"""Sources that are read as streams: in pieces, each from front to back, never all at once.

A piece is a shard, a manifest of cuts, or a stretch of a data set. What is known of a source before
it is read is the order and the size of its pieces.
"""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Final

import numpy as np

from cnerta.models.errors import DataError
from cnerta.models.runtime.labels import Span
from cnerta.train.data.example import Example
from cnerta.train.data.examples import shaped
from cnerta.train.data.huggingface import Table, open_table, read_table
from cnerta.train.data.lhotse_cuts import cut_manifests, read_cuts
from cnerta.train.data.shards import ShardSize, read_shard, shard_files, shard_sizes
from cnerta.train.recipe import Source

__all__ = [
    "Piece",
    "Read",
    "StreamSize",
    "entity_shapes",
    "memory_pieces",
    "pieces_digest",
    "representative",
    "stream_pieces",
    "stream_size",
]

logger = logging.getLogger(__name__)

_ROWS: Final = 500
"""Rows of a piece of what is read by rows."""
_PIECES_LOOKED_AT: Final = 10
_LOOKED_AT: Final = 200
"""Recordings whose length tells how long the others are."""
_OCCURRENCES: Final = 10
"""Of a character in what stands for all: its readings are counted."""


@dataclass(frozen=True, slots=True)
class StreamSize:
    """How much there is.

    Attributes:
        utterances: With a recording and without.
        spoken: With a recording.
        seconds: Of speech.
    """

    utterances: int
    spoken: int
    seconds: float


Read = Callable[[bool], Iterator[Example]]
"""Gives the examples of something, with their recordings or, which costs less, without."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a source that is read from front to back.

    Attributes:
        name: What it is called.
        read: Its examples.
        size: How much it holds, where an index says so.
    """

    name: str
    read: Read
    size: StreamSize | None = None


def stream_pieces(source: Source, data_root: Path, unwanted: Iterable[Example] = ()) -> list[Piece]:
    """The pieces of a source, ``repeat`` times.

    Args:
        source: One with ``stream``.
        data_root: Folder that its path is relative to.
        unwanted: Its examples have neither the text nor the recording of one of these.

    Raises:
        DataError: There is no such source.
    """
    excluded = list(unwanted)
    unwanted_texts = {e.text for e in excluded} - {""}
    unwanted_names = {e.name for e in excluded} - {""}

    def kept(read: Read, recordings: bool) -> Iterator[Example]:
        for example in shaped(read(recordings), source):
            if example.text not in unwanted_texts and example.name not in unwanted_names:
                yield example

    pieces = _raw_pieces(source, data_root)
    return [replace(p, read=partial(kept, p.read)) for p in pieces] * source.repeat


def _raw_pieces(source: Source, data_root: Path) -> list[Piece]:
    path = data_root / source.path
    if source.format == "shards":
        files = shard_files(path)
        sizes = shard_sizes(files)
        return [
            Piece(
                str(f), partial(_shard, f, source), _known(sizes.get(f)) if source.speech else None
            )
            for f in files
        ]
    if source.format == "lhotse":
        return [Piece(str(m), partial(_manifest, m, source)) for m in cut_manifests(path)]
    table = open_table(source, data_root)
    return [
        Piece(f"{table.name}/{start}", partial(_rows, table, source, start))
        for start in range(0, len(table), _ROWS)
    ]


def _shard(file: Path, source: Source, recordings: bool) -> Iterator[Example]:
    return read_shard(file, source, streamed=True, recordings=recordings)


def _manifest(manifest: Path, source: Source, recordings: bool) -> Iterator[Example]:
    return read_cuts(manifest, speech=source.speech and recordings)


def _rows(table: Table, source: Source, start: int, recordings: bool) -> Iterator[Example]:
    return _silent(read_table(table, source, start, start + _ROWS), recordings)


def _known(size: ShardSize | None) -> StreamSize | None:
    # Another's index may not tell of seconds.
    if size is None or (size.spoken == 0 and size.seconds == 0):
        return None
    return StreamSize(size.nsamples, size.spoken, size.seconds)


def _silent(examples: Iterable[Example], recordings: bool) -> Iterator[Example]:
    for example in examples:
        yield example if recordings else replace(example, audio=None)


def memory_pieces(name: str, examples: Sequence[Example]) -> list[Piece]:
    """Pieces of a source that is in memory, so that it can go along with streams."""
    return [
        Piece(f"{name}/{start}", partial(_silent, examples[start : start + _ROWS]))
        for start in range(0, len(examples), _ROWS)
    ]


def stream_size(
    pieces: Sequence[Piece], seconds: Callable[[Example], float], seed: int
) -> StreamSize:
    """About how much pieces hold.

    Those without an index are read once, without their recordings; of these a few at the start of
    some pieces are looked at.

    Args:
        pieces: The pieces.
        seconds: Length of an example's recording.
        seed: Decides which are looked at.

    Raises:
        DataError: A piece cannot be read, or there is no example.
    """
    known = [p.size for p in pieces if p.size is not None]
    unknown = [p for p in pieces if p.size is None]
    utterances = sum(s.utterances for s in known)
    spoken = sum(s.spoken for s in known)
    total = sum(s.seconds for s in known)
    if unknown:
        logger.info("%d pieces have no index: they are counted", len(unknown))
        counts = {}
        for piece in unknown:
            if piece.name not in counts:
                counts[piece.name] = sum(1 for _ in piece.read(False))
        count = sum(counts[p.name] for p in unknown)
        order = np.random.default_rng(seed).permutation(len(unknown))[:_PIECES_LOOKED_AT]
        each = -(-_LOOKED_AT // len(order))
        looked = [e for i in order for e in islice(unknown[i].read(True), each)]
        lengths = [seconds(e) for e in looked if e.audio is not None]
        share = len(lengths) / max(1, len(looked))
        utterances += count
        spoken += round(count * share)
        total += count * share * float(np.mean(lengths or [0.0]))
    if not utterances:
        raise DataError(f"expected examples in {', '.join(p.name for p in pieces[:3])}, got none")
    return StreamSize(utterances, spoken, total)


def pieces_digest(pieces: Sequence[Piece]) -> str:
    """Hash of the names of files and of how much their index says they hold."""
    told = [(Path(p.name).name, p.size) for p in pieces]
    return hashlib.sha256(repr(told).encode()).hexdigest()


def representative(pieces: Sequence[Piece], least: int, spoken: int) -> list[Example]:
    """A few examples that have every character and every kind of entity of all.

    A vocabulary, and the tags of a label scheme, are the same of these as of all. Every piece is
    read once, without its recordings.

    Args:
        pieces: What is read.
        least: How often a kind of entity has to be there, where there are as many.
        spoken: So many examples from the start come with their recordings, where they have some.

    Raises:
        DataError: A piece cannot be read.
    """
    characters: Counter[str] = Counter()
    shapes: Counter[tuple[tuple[int, int, str], ...]] = Counter()
    chosen: list[Example] = []
    for piece in {p.name: p for p in pieces}.values():
        for example in piece.read(False):
            own, kinds = set(example.text + example.corpus), entity_shapes(example.spans or ())
            is_new = any(characters[c] < _OCCURRENCES for c in own)
            if is_new or any(shapes[k] < least for k in kinds):
                characters.update(own)
                shapes.update(kinds)
                chosen.append(example)
    read = (e for piece in pieces for e in piece.read(True))
    return chosen + [e for e in islice(read, spoken) if e.audio is not None]


def entity_shapes(spans: Iterable[Span]) -> list[tuple[tuple[int, int, str], ...]]:
    """What entities look like that lie in one another, each group counted from its beginning.

    The joint tags of a text are those of its groups.
    """
    groups: list[list[Span]] = []
    end = 0
    for span in sorted(spans, key=lambda s: (s.start, -s.end)):
        if not groups or span.start >= end:
            groups.append([])
        groups[-1].append(span)
        end = max(end, span.end) if len(groups[-1]) > 1 else span.end
    return [tuple((s.start - g[0].start, s.end - g[0].start, s.label) for s in g) for g in groups]
