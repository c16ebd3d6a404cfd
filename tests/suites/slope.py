"""Whether what was measured again and again rises: a slope, and how sure it is.

Memory a moment later is much like memory now, so single readings would make any slope look sure.
Therefore the readings are cut into twenty stretches, and the median of each counts once. The slope
is Theil and Sen's: the median of the slopes between all pairs, which a few odd ones do not move.
Its 95 % interval is Sen's (1968), from the distribution of Kendall's tau, whatever the noise is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

__all__ = ["STRETCHES", "Slope", "slope_of"]

STRETCHES: Final = 20
_DEVIATIONS: Final = 1.959964
"""Of a normal distribution, 95 % lie so many standard deviations around the middle."""


@dataclass(frozen=True, slots=True)
class Slope:
    """A slope with its 95 % interval, in units of y for one of x."""

    value: float
    low: float
    high: float

    @property
    def is_flat(self) -> bool:
        """Whether zero lies within the interval."""
        return self.low <= 0.0 <= self.high

    def shown(self, digits: int = 2) -> str:
        """As a table shows it."""
        return f"{self.value:+.{digits}f} [{self.low:+.{digits}f}, {self.high:+.{digits}f}]"


def slope_of(
    x: Sequence[float], y: Sequence[float], summary: Callable[[Any], Any] = np.median
) -> Slope:
    """The slope of y over x.

    Args:
        x: Not falling, and not all the same.
        y: As many.
        summary: What counts of the values of y in a stretch.

    Raises:
        ValueError: They are not as many, or fewer than the stretches.
    """
    if len(x) != len(y) or len(x) < STRETCHES:
        raise ValueError(f"expected {STRETCHES} pairs or more, got {len(x)} and {len(y)} values")
    xs = np.array([np.median(part) for part in np.array_split(np.asarray(x, float), STRETCHES)])
    ys = np.array([summary(part) for part in np.array_split(np.asarray(y, float), STRETCHES)])
    first, second = np.triu_indices(STRETCHES, 1)
    apart = xs[second] - xs[first]
    slopes = np.sort((ys[second] - ys[first])[apart > 0] / apart[apart > 0])
    # Kendall's S has this standard deviation if y does not depend on x.
    deviation = (STRETCHES * (STRETCHES - 1) * (2 * STRETCHES + 5) / 18) ** 0.5
    half = _DEVIATIONS * deviation / 2
    low = slopes[max(0, int(len(slopes) / 2 - half))]
    high = slopes[min(len(slopes) - 1, int(np.ceil(len(slopes) / 2 + half)))]
    return Slope(float(np.median(slopes)), float(low), float(high))
