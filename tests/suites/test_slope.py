from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from .slope import slope_of


def noise(seed: int, *, memory: float = 0.0) -> np.ndarray:
    """Readings around zero, each with so much of the one before in it."""
    draw = np.random.default_rng(seed)
    values = np.zeros(400)
    for i in range(1, len(values)):
        values[i] = memory * values[i - 1] + draw.normal()
    return values


def test_the_slope_of_a_line_is_its_own() -> None:
    slope = slope_of(range(100), [3.0 + 0.5 * x for x in range(100)])
    assert (slope.low, slope.value, slope.high) == pytest.approx((0.5, 0.5, 0.5))
    assert not slope.is_flat
    assert slope.shown(1) == "+0.5 [+0.5, +0.5]"


def test_a_level_with_a_few_wild_readings_is_flat() -> None:
    values = [120.0] * 100
    values[17] = values[60] = 900.0
    slope = slope_of(range(100), values)
    assert (slope.value, slope.is_flat) == (0.0, True)


@pytest.mark.parametrize("memory", [0.0, 0.8])
def test_noise_is_flat_as_often_as_the_interval_says(memory: float) -> None:
    flat = [slope_of(range(400), noise(seed, memory=memory)).is_flat for seed in range(100)]
    assert sum(flat) >= 90


def test_a_rise_within_the_noise_is_seen() -> None:
    rising = [slope_of(range(400), noise(s, memory=0.8) + 0.02 * np.arange(400)) for s in range(50)]
    assert sum(s.low > 0 for s in rising) >= 48


def test_what_counts_of_a_stretch_can_be_chosen() -> None:
    values = [100.0 + 2.0 * x if x % 10 == 0 else 1.0 for x in range(400)]
    assert slope_of(range(400), values).is_flat
    assert slope_of(range(400), values, partial(np.percentile, q=95)).low > 0


def test_too_few_readings_are_refused() -> None:
    with pytest.raises(ValueError, match="expected 20 pairs or more, got 3 and 3 values"):
        slope_of([1, 2, 3], [1, 2, 3])
