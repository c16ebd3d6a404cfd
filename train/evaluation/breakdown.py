"""Scores taken apart: by type, by depth, seen and unseen entities, which types are confused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from cnerta.models.runtime.labels import Span, outermost
from cnerta.train.evaluation.metrics import Scores, score_spans, sentence_counts
from cnerta.train.evaluation.predictions import Prediction
from cnerta.train.evaluation.significance import Difference, bootstrap_interval, paired_bootstrap

__all__ = [
    "Breakdown",
    "DepthScores",
    "KnownEntities",
    "break_down",
    "compare",
    "known_entities",
]

KnownEntities = frozenset[tuple[str, str]]
"""Surface and type of the entities of the training data."""


@dataclass(frozen=True, slots=True)
class DepthScores:
    """Entities at one depth: inside so many others.

    A right entity may be deeper or less deep among the gold ones than among those that were
    predicted, so precision and recall each count by their own depth.

    Attributes:
        depth: 0 for what is inside no other.
        gold: Gold entities at this depth.
        found: Those of them that were predicted.
        predicted: Predicted entities at this depth among the predicted ones.
        right: Those of them that are gold.
    """

    depth: int
    gold: int
    found: int
    predicted: int
    right: int

    @property
    def precision(self) -> float:
        """In percent; 0 where nothing is predicted."""
        return 100.0 * self.right / self.predicted if self.predicted else 0.0

    @property
    def recall(self) -> float:
        """In percent; 0 where there is nothing."""
        return 100.0 * self.found / self.gold if self.gold else 0.0


@dataclass(frozen=True, slots=True)
class Breakdown:
    """Flat or nested scores of one model on one set of sentences.

    Attributes:
        scores: Of all entities.
        interval: 95 % interval of their F1, see :func:`bootstrap_interval`.
        types: Of the entities of each type.
        depths: By depth; of flat scores depth 0 only.
        seen: Of entities that occur with their type in the training data; None if it is unknown.
        unseen: Of the others.
        confusions: Type errors as (gold type, predicted type, count), most frequent first.
    """

    scores: Scores
    interval: tuple[float, float]
    types: dict[str, Scores]
    depths: tuple[DepthScores, ...]
    seen: Scores | None
    unseen: Scores | None
    confusions: tuple[tuple[str, str, int], ...]


def known_entities(annotated: Iterable[tuple[str, Iterable[Span]]]) -> KnownEntities:
    """Surface and type of every entity of the training data: texts with their entities."""
    return frozenset((t[s.start : s.end], s.label) for t, spans in annotated for s in spans)


def break_down(
    predictions: Sequence[Prediction], *, flat: bool, known: KnownEntities | None = None
) -> Breakdown:
    """Score predictions as a whole, by type, by depth, and seen and unseen entities.

    Args:
        predictions: With gold entities.
        flat: Score outermost entities only.
        known: Entities of the training data; none: seen and unseen are not told apart.

    Raises:
        ValueError: There are no sentences.
    """
    keep = outermost if flat else list[Span]
    pairs = [(set(keep(p.gold or ())), set(keep(p.found))) for p in predictions]
    types = sorted({s.label for sides in pairs for side in sides for s in side})
    seen = unseen = None
    if known is not None:

        def is_known(index: int, span: Span) -> bool:
            return (predictions[index].text[span.start : span.end], span.label) in known

        seen = score_spans(pairs, is_known)
        unseen = score_spans(pairs, lambda i, s: not is_known(i, s))
    return Breakdown(
        scores=score_spans(pairs),
        interval=bootstrap_interval(_counts(predictions, flat=flat)),
        types={t: score_spans(pairs, lambda _, s, t=t: s.label == t) for t in types},  # type: ignore[misc]
        depths=_by_depth(pairs),
        seen=seen,
        unseen=unseen,
        confusions=_confusions(pairs),
    )


def compare(ours: Sequence[Prediction], theirs: Sequence[Prediction], *, flat: bool) -> Difference:
    """F1 of one model above another's, with its interval.

    Raises:
        ValueError: They are not about the same sentences, or about none.
    """
    if [(p.text, p.gold) for p in ours] != [(p.text, p.gold) for p in theirs]:
        raise ValueError("expected predictions of the same sentences, got others")
    return paired_bootstrap(_counts(ours, flat=flat), _counts(theirs, flat=flat))


def _counts(predictions: Sequence[Prediction], *, flat: bool) -> np.ndarray:
    """shape: (1, sentences, 3)."""
    gold = [p.gold or () for p in predictions]
    return sentence_counts(gold, [p.found for p in predictions], flat=flat)[None]


def _by_depth(pairs: Sequence[tuple[set[Span], set[Span]]]) -> tuple[DepthScores, ...]:
    gold: Counter[int] = Counter()
    found: Counter[int] = Counter()
    predicted: Counter[int] = Counter()
    right: Counter[int] = Counter()
    for annotated, answer in pairs:
        for span, depth in _depths(annotated):
            gold[depth] += 1
            found[depth] += span in answer
        for span, depth in _depths(answer):
            predicted[depth] += 1
            right[depth] += span in annotated
    deepest = max((*gold, *predicted), default=-1)
    return tuple(
        DepthScores(d, gold[d], found[d], predicted[d], right[d]) for d in range(deepest + 1)
    )


def _depths(spans: set[Span]) -> list[tuple[Span, int]]:
    """Each span and how many others contain it."""
    return [(s, sum(o.contains(s) for o in spans)) for s in spans]


def _confusions(
    pairs: Sequence[tuple[set[Span], set[Span]]],
) -> tuple[tuple[str, str, int], ...]:
    counts = Counter(
        (g.label, p.label)
        for gold, predicted in pairs
        for p in predicted - gold
        for g in gold - predicted
        if (g.start, g.end) == (p.start, p.end)
    )
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return tuple((g, p, count) for (g, p), count in ordered)
