"""How far confidences can be believed, and what makes them more so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cnerta.models.runtime.calibration import Calibration, log_odds

__all__ = ["ReliabilityBin", "expected_calibration_error", "fit_calibration", "reliability"]

_BINS = 10
_STEPS = 50
# A little pull towards no change, so that a handful of entities that are all right has a solution.
_PULL = 1e-3
_SMALLEST_STEP = 1e-9

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """Entities in one bin of confidences.

    Attributes:
        confidence: Their mean confidence, 0 to 1.
        accuracy: Share of them that is right, 0 to 1.
        count: How many.
    """

    confidence: float
    accuracy: float
    count: int


def reliability(confidences: Sequence[float], right: Sequence[bool]) -> list[ReliabilityBin]:
    """Ten bins of equal width, empty ones left out."""
    values, hits = np.asarray(confidences, float), np.asarray(right, float)
    bins = np.minimum((values * _BINS).astype(int), _BINS - 1)
    return [
        ReliabilityBin(float(values[own].mean()), float(hits[own].mean()), int(own.sum()))
        for own in (bins == k for k in range(_BINS))
        if own.any()
    ]


def expected_calibration_error(confidences: Sequence[float], right: Sequence[bool]) -> float:
    """Mean distance of confidence and accuracy over ten bins (Naeini et al. 2015), 0 to 1."""
    if not len(confidences):
        return 0.0
    distances = (b.count * abs(b.confidence - b.accuracy) for b in reliability(confidences, right))
    return sum(distances) / len(confidences)


def fit_calibration(confidences: Sequence[float], right: Sequence[bool]) -> Calibration:
    """The calibration under which what was found right and wrong is most likely (Platt 1999).

    Args:
        confidences: Of the entities that were found, not calibrated.
        right: Whether each of them is in the gold annotation.
    """
    odds = np.array([log_odds(c) for c in confidences])
    hits = np.asarray(right, float)
    inputs = np.stack([odds, np.ones_like(odds)], axis=1)
    prior = np.array([1.0, 0.0])

    def cost(parameters: Floats) -> float:
        score = inputs @ parameters
        unlikely = np.logaddexp(0.0, np.where(hits == 1, -score, score)).sum()
        return float(unlikely + _PULL / 2 * np.sum((parameters - prior) ** 2))

    parameters = prior.copy()
    for _ in range(_STEPS):
        probability = np.exp(-np.logaddexp(0.0, -(inputs @ parameters)))
        gradient = inputs.T @ (probability - hits) + _PULL * (parameters - prior)
        weight = probability * (1 - probability)
        curvature = (inputs * weight[:, None]).T @ inputs + _PULL * np.eye(2)
        step = np.linalg.solve(curvature, gradient)
        # Where the model is sure of everything the curvature is tiny and a whole step leads far
        # beyond the minimum, from where there is no way back.
        while cost(parameters - step) > cost(parameters) and np.abs(step).max() > _SMALLEST_STEP:
            step = step / 2
        parameters = parameters - step
        if np.abs(step).max() < _SMALLEST_STEP:
            break
    return Calibration(float(parameters[0]), float(parameters[1]))
