"""Scores: precision, recall and F1 of whole entities, and what kinds of error there are.

An entity counts as right if start, end and type are. ``nested`` scores all entities, ``flat`` the
outermost of gold and of prediction alike.

Every entity that is found but not right is one of the two errors of the paper's Table 5:

* type error: the boundaries of a gold entity, but another type,
* boundary error: every other.

Ours: a boundary error that overlaps no gold entity of its type is spurious. A gold entity that was
not found is missed, unless an error is about it: one of its type that overlaps it, or a type error.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from cnerta.models.runtime.labels import Span, outermost

__all__ = [
    "EntityScores",
    "HomographScores",
    "Scores",
    "score_entities",
    "score_homographs",
    "score_spans",
    "sentence_counts",
]


@dataclass(frozen=True, slots=True)
class Scores:
    """Counts, and the usual figures in percent.

    Attributes:
        correct: Entities that were found.
        predicted: All that the model says.
        gold: All that there are.
        boundary_errors: See the module. With the type errors, all that is predicted wrongly.
        type_errors: See the module.
        spurious: Those of the boundary errors that overlap no gold entity of their type.
        missed: See the module.
    """

    correct: int
    predicted: int
    gold: int
    boundary_errors: int
    type_errors: int
    spurious: int
    missed: int

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
    return EntityScores(len(pairs), score_spans(flat), score_spans(pairs))


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
        outermost_right: Those of which the same is so of the outermost entities.
        told_apart: Those whose readings do not all get the same answer.
    """

    texts: int
    right: int
    outermost_right: int
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
        outermost_right=sum(all(outermost(g) == outermost(p) for g, p in r) for r in homographs),
        told_apart=sum(len({p for _, p in r}) > 1 for r in homographs),
    )


def score_spans(
    pairs: Sequence[tuple[set[Span], set[Span]]],
    where: Callable[[int, Span], bool] = lambda _sentence, _span: True,
) -> Scores:
    """Score some of the entities: those of one type, say.

    What kind of error an entity is does not depend on which are chosen.

    Args:
        pairs: Gold and predicted entities of each sentence.
        where: Whether an entity of the sentence with this index counts, gold or predicted.
    """
    counts: Counter[str] = Counter()
    for index, (gold, predicted) in enumerate(pairs):
        chosen_gold = {s for s in gold if where(index, s)}
        chosen = {s for s in predicted if where(index, s)}
        counts["correct"] += len(chosen_gold & chosen)
        counts["predicted"] += len(chosen)
        counts["gold"] += len(chosen_gold)
        for span in chosen - gold:
            if any(_same_stretch(span, g) for g in gold):
                counts["type_errors"] += 1
                continue
            counts["boundary_errors"] += 1
            if not any(_same_type_overlaps(span, g) for g in gold):
                counts["spurious"] += 1
        wrong = predicted - gold
        for span in chosen_gold - predicted:
            if not any(_same_stretch(span, p) or _same_type_overlaps(span, p) for p in wrong):
                counts["missed"] += 1
    return Scores(**{f.name: counts[f.name] for f in fields(Scores)})


def _same_stretch(first: Span, second: Span) -> bool:
    return (first.start, first.end) == (second.start, second.end)


def _same_type_overlaps(first: Span, second: Span) -> bool:
    return first.label == second.label and first.start < second.end and second.start < first.end
