"""Scores: precision, recall and F1 of whole entities, and what kinds of error there are.

An entity counts as right if start, end and type are. ``nested`` scores all entities, ``flat`` the
outermost of gold and of prediction alike. Boundary and type errors are those of the paper's
Table 5: a predicted entity that overlaps a gold one of its type without being it, and one with a
gold entity's exact boundaries but another type.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cnerta.models.labels import Span, outermost

__all__ = [
    "EntityScores",
    "HomographScores",
    "Scores",
    "score_entities",
    "score_homographs",
    "sentence_counts",
]


@dataclass(frozen=True, slots=True)
class Scores:
    """Counts, and the usual figures in percent."""

    correct: int
    predicted: int
    gold: int
    boundary_errors: int
    type_errors: int

    @property
    def precision(self) -> float:
        """Share of predicted entities that are right, in percent; 0 if there are none."""
        return 100.0 * self.correct / self.predicted if self.predicted else 0.0

    @property
    def recall(self) -> float:
        """Share of gold entities that were found, in percent; 0 if there are none."""
        return 100.0 * self.correct / self.gold if self.gold else 0.0

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall, in percent."""
        total = self.predicted + self.gold
        return 200.0 * self.correct / total if total else 0.0


@dataclass(frozen=True, slots=True)
class EntityScores:
    """Flat and nested scores of one set of sentences."""

    sentences: int
    flat: Scores
    nested: Scores


def score_entities(
    gold: Sequence[Iterable[Span]], predicted: Sequence[Iterable[Span]]
) -> EntityScores:
    """Score predictions, sentence by sentence.

    Raises:
        ValueError: Not as many predictions as gold sentences.
    """
    pairs = [(set(g), set(p)) for g, p in zip(gold, predicted, strict=True)]
    flat = [(set(outermost(g)), set(outermost(p))) for g, p in pairs]
    return EntityScores(len(pairs), _score(flat), _score(pairs))


def sentence_counts(
    gold: Sequence[Iterable[Span]], predicted: Sequence[Iterable[Span]], *, flat: bool
) -> npt.NDArray[np.int64]:
    """Correct, predicted and gold entities of each sentence.

    Args:
        gold: Annotated entities of each sentence.
        predicted: Those that were found.
        flat: Count the outermost entities only.

    Returns:
        shape: (sentences, 3)

    Raises:
        ValueError: Not as many predictions as gold sentences.
    """
    keep = outermost if flat else list[Span]
    pairs = [(set(keep(g)), set(keep(p))) for g, p in zip(gold, predicted, strict=True)]
    counts = [(len(g & p), len(p), len(g)) for g, p in pairs]
    return np.array(counts, np.int64).reshape(-1, 3)


@dataclass(frozen=True, slots=True)
class HomographScores:
    """Texts that are read in several ways, which only the audio tells apart.

    Attributes:
        texts: How many.
        right: Those whose readings all have exactly the gold entities. What answers from the text
            alone has none: it says the same of each reading.
        told_apart: Those whose readings do not all get the same answer.
    """

    texts: int
    right: int
    told_apart: int


def score_homographs(
    texts: Sequence[str], gold: Sequence[Iterable[Span]], predicted: Sequence[Iterable[Span]]
) -> HomographScores:
    """Score the texts that occur with different annotations, each as a whole.

    Raises:
        ValueError: Not as many texts as gold sentences or predictions.
    """
    readings: dict[str, list[tuple[frozenset[Span], frozenset[Span]]]] = {}
    for text, g, p in zip(texts, gold, predicted, strict=True):
        readings.setdefault(text, []).append((frozenset(g), frozenset(p)))
    homographs = [r for r in readings.values() if len({g for g, _ in r}) > 1]
    return HomographScores(
        texts=len(homographs),
        right=sum(all(g == p for g, p in r) for r in homographs),
        told_apart=sum(len({p for _, p in r}) > 1 for r in homographs),
    )


def _score(pairs: Sequence[tuple[set[Span], set[Span]]]) -> Scores:
    boundary = types = 0
    for gold, predicted in pairs:
        for span in predicted - gold:
            same_stretch = [g for g in gold if (g.start, g.end) == (span.start, span.end)]
            overlapping = [g for g in gold if g.start < span.end and span.start < g.end]
            if same_stretch:
                types += 1
            elif any(g.label == span.label for g in overlapping):
                boundary += 1
    return Scores(
        correct=sum(len(g & p) for g, p in pairs),
        predicted=sum(len(p) for _, p in pairs),
        gold=sum(len(g) for g, _ in pairs),
        boundary_errors=boundary,
        type_errors=types,
    )
