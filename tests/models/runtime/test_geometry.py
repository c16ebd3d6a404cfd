from __future__ import annotations

from cnerta.models.runtime.geometry import (
    CARRY_SAMPLES,
    HOP_SAMPLES,
    SAMPLE_RATE,
    SHIFT_SAMPLES,
    WINDOW_SAMPLES,
)


def test_the_sizes_are_those_that_bundles_have_been_exported_with() -> None:
    sizes = (SAMPLE_RATE, WINDOW_SAMPLES, SHIFT_SAMPLES, HOP_SAMPLES, CARRY_SAMPLES)
    assert sizes == (16_000, 400, 160, 640, 720)
