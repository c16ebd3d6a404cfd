"""What a corpus holds (the paper's Table 1), and what two of them have in common."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import msgspec
import numpy as np

from cnerta.models.runtime.labels import Span, outermost
from cnerta.models.text.normalisation import normalise
from cnerta.train.data.examples import Example

__all__ = ["Overlap", "Spread", "Statistics", "corpus_statistics", "find_overlap"]


class Spread(msgspec.Struct, frozen=True):
    """Least, mean and greatest of something; zeros where there is nothing."""

    least: float
    mean: float
    greatest: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Of these values."""
        if not values:
            return cls(0.0, 0.0, 0.0)
        return cls(float(min(values)), float(np.mean(values)), float(max(values)))


class Statistics(msgspec.Struct, frozen=True):
    """What a corpus holds.

    Attributes:
        sentences: How many.
        annotated: Those with annotation, which may say that there is no entity.
        with_entities: Those with at least one entity.
        nested_sentences: Those with an entity inside another.
        characters: In all sentences together.
        lengths: Characters a sentence.
        spoken: Sentences with a recording.
        hours: Of recordings.
        seconds: Of a recording.
        speakers: Different ones, where they are known.
        entities: Of each type, each once.
        duplicates: Rows of the annotation that repeat an entity; the paper counts them.
        repeated_in: The sentences that have them, by the name of their recording or their text.
        nested_entities: Entities inside another one, of each type.
        entity_lengths: Characters an entity.
        depth: Entities inside one another, at most; 1 where none is nested.
    """

    sentences: int
    annotated: int
    with_entities: int
    nested_sentences: int
    characters: int
    lengths: Spread
    spoken: int
    hours: float
    seconds: Spread
    speakers: int
    entities: dict[str, int]
    duplicates: int
    repeated_in: list[str]
    nested_entities: dict[str, int]
    entity_lengths: Spread
    depth: int

    @property
    def nested_share(self) -> float:
        """Sentences with nested entities among those with any, in percent."""
        return 100.0 * self.nested_sentences / self.with_entities if self.with_entities else 0.0

    @property
    def nested_entity_share(self) -> float:
        """Entities inside another among all, in percent."""
        total = sum(self.entities.values())
        return 100.0 * sum(self.nested_entities.values()) / total if total else 0.0


def corpus_statistics(
    examples: Sequence[Example], seconds: Callable[[Example], float]
) -> Statistics:
    """Count.

    Args:
        examples: The corpus.
        seconds: Duration of an example with a recording.
    """
    durations = [seconds(e) for e in examples if e.audio is not None]
    spans = [set(e.spans) for e in examples if e.spans]
    inner = [found - set(outermost(found)) for found in spans]
    entities = [s for found in spans for s in found]
    return Statistics(
        sentences=len(examples),
        annotated=sum(e.spans is not None for e in examples),
        with_entities=len(spans),
        nested_sentences=sum(map(bool, inner)),
        characters=sum(len(e.text) for e in examples),
        lengths=Spread.of([len(e.text) for e in examples]),
        spoken=len(durations),
        hours=sum(durations) / 3600,
        seconds=Spread.of(durations),
        speakers=len({e.speaker for e in examples} - {""}),
        entities=_by_type(entities),
        duplicates=sum(e.duplicates for e in examples),
        repeated_in=[e.name or e.text for e in examples if e.duplicates],
        nested_entities=_by_type([s for found in inner for s in found]),
        entity_lengths=Spread.of([s.end - s.start for s in entities]),
        depth=max((_depth(found) for found in spans), default=0),
    )


def _by_type(spans: Sequence[Span]) -> dict[str, int]:
    return dict(sorted(Counter(s.label for s in spans).items()))


def _depth(spans: set[Span]) -> int:
    """How many entities are inside one another, the outer one included."""
    deepest: dict[Span, int] = {}
    # Shorter ones first: what is inside an entity is known when its turn comes.
    for span in sorted(spans, key=lambda s: (s.end - s.start, s)):
        inside = [d for s, d in deepest.items() if span.start <= s.start and s.end <= span.end]
        deepest[span] = 1 + max(inside, default=0)
    return max(deepest.values())


class Overlap(msgspec.Struct, frozen=True):
    """What two corpora have in common: what a score on one says little about if the other trained.

    Attributes:
        texts: Sentences both have, as the model sees them.
        recordings: Names of recordings both have.
        speakers: Speakers both have.
    """

    texts: list[str]
    recordings: list[str]
    speakers: list[str]


def find_overlap(first: Sequence[Example], second: Sequence[Example]) -> Overlap:
    """Compare two corpora; words without a text and speakers without a name are not counted."""

    def common(value: Callable[[Example], str]) -> list[str]:
        return sorted(({value(e) for e in first} & {value(e) for e in second}) - {""})

    return Overlap(
        texts=common(lambda e: normalise(e.text).text),
        recordings=common(lambda e: e.name),
        speakers=common(lambda e: e.speaker),
    )
