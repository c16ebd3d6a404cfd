"""What chance may have done to a score, or to a difference: bootstrap over sentences."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["Difference", "bootstrap_interval", "paired_bootstrap"]

SAMPLES = 5000
# Drawn at once: numbers in memory, not samples, so that long test sets cost time only.
_AT_ONCE = 4_000_000

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Difference:
    """By how much one model's F1 is above another's, in points.

    Attributes:
        value: On the sentences as they are.
        low: Lower end of the interval.
        high: Upper end.
        p_value: Two-sided: how often chance alone would give a difference as clear as this.
    """

    value: float
    low: float
    high: float
    p_value: float


def paired_bootstrap(
    ours: Counts,
    theirs: Counts,
    *,
    samples: int = SAMPLES,
    level: float = 0.95,
    seed: int = 0,
) -> Difference:
    """Compare two models on the same sentences (Koehn 2004; Efron and Tibshirani 1993, ch. 13).

    Sentences are drawn with replacement, the same ones for both models, and both are scored on
    them; the interval is that of the percentiles of the differences. Of a model trained with
    several seeds the mean of their F1 counts. The interval therefore tells what other sentences
    might have given, not what other seeds might.

    Args:
        ours: Correct, predicted and gold entities of each sentence, see
            :func:`cnerta.train.evaluation.metrics.sentence_counts`. shape: (seeds, sentences, 3)
        theirs: The same of the other model, with as many or fewer or more seeds.
            shape: (seeds, sentences, 3)
        samples: How many draws.
        level: Of the interval, 0 to 1.
        seed: Of the draws: the same figures come out every time.

    Raises:
        ValueError: The models were not scored on the same sentences, or on none.
    """
    sentences = ours.shape[1]
    if theirs.shape[1] != sentences or not sentences:
        raise ValueError(f"expected the same sentences, got {sentences} and {theirs.shape[1]}")
    if (ours[0, :, 2] != theirs[0, :, 2]).any():
        raise ValueError("expected the same gold entities in every sentence, got others")
    differences = np.concatenate(
        [_mean_f1(w, ours) - _mean_f1(w, theirs) for w in _drawings(sentences, samples, seed)]
    )
    once = np.ones((1, sentences), np.int64)
    low, high = _ends(differences, level)
    # One is added, so that no finite number of draws claims certainty.
    rarer = min(int((differences <= 0).sum()), int((differences >= 0).sum()))
    return Difference(
        value=float((_mean_f1(once, ours) - _mean_f1(once, theirs))[0]),
        low=low,
        high=high,
        p_value=min(1.0, 2 * (rarer + 1) / (samples + 1)),
    )


def bootstrap_interval(
    counts: Counts, *, samples: int = SAMPLES, level: float = 0.95, seed: int = 0
) -> tuple[float, float]:
    """Interval of a model's F1, in percent, over drawings of its sentences with replacement.

    Args:
        counts: As of :func:`paired_bootstrap`. shape: (seeds, sentences, 3)
        samples: How many draws.
        level: Of the interval, 0 to 1.
        seed: Of the draws.

    Raises:
        ValueError: There are no sentences.
    """
    sentences = counts.shape[1]
    if not sentences:
        raise ValueError("expected sentences, got none")
    drawings = _drawings(sentences, samples, seed)
    return _ends(np.concatenate([_mean_f1(w, counts) for w in drawings]), level)


def _drawings(sentences: int, samples: int, seed: int) -> Iterator[Counts]:
    """How often each sentence is drawn, a few drawings at a time. shape: (some, sentences)."""
    generator = np.random.default_rng(seed)
    step = max(1, _AT_ONCE // sentences)
    for first in range(0, samples, step):
        count = min(step, samples - first)
        drawn = generator.integers(sentences, size=(count, sentences))
        drawn += sentences * np.arange(count)[:, None]
        weights = np.bincount(drawn.ravel(), minlength=count * sentences)
        yield weights.reshape(count, sentences)


def _ends(values: Floats, level: float) -> tuple[float, float]:
    tail = (1 - level) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return float(low), float(high)


def _mean_f1(weights: Counts, counts: Counts) -> Floats:
    """F1 in percent, mean over seeds, of each drawing of sentences.

    Args:
        weights: How often each sentence was drawn. shape: (samples, sentences)
        counts: shape: (seeds, sentences, 3)

    Returns:
        shape: (samples,)
    """
    # shape: (seeds, samples, 3); as floats, because matrix products of whole numbers are slow
    sums = weights.astype(float) @ counts.astype(float)
    total = sums[..., 1] + sums[..., 2]
    f1: Floats = 200 * sums[..., 0] / np.maximum(total, 1)
    mean: Floats = f1.mean(axis=0)
    return mean
