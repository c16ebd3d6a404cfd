"""From the CRF's probability of an entity to how often such an entity is right.

A CRF that was trained to the end is too sure of itself. Two numbers put that right (Platt 1999):
the log-odds are scaled and shifted, which keeps the order of any two entities.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = ["Calibration", "log_odds"]

_LEAST = 1e-6


@dataclass(frozen=True, slots=True)
class Calibration:
    """Corrects confidences; the default changes nothing.

    Attributes:
        scale: Factor of the log-odds, above 0; below 1 for a model that is too sure.
        shift: Added to them.
    """

    scale: float = 1.0
    shift: float = 0.0

    def __call__(self, probability: float) -> float:
        """The corrected probability, 0 to 1."""
        if self.scale == 1.0 and self.shift == 0.0:
            return probability
        odds = log_odds(probability)
        return 1.0 / (1.0 + math.exp(-(self.scale * odds + self.shift)))


def log_odds(probability: float) -> float:
    """Finite for every probability: beyond one in a million there is nothing to tell."""
    bounded = min(max(probability, _LEAST), 1.0 - _LEAST)
    return math.log(bounded / (1.0 - bounded))
