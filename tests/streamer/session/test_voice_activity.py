"""Silence around speech is left out, speech never."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnerta.models.runtime.boundaries import LEVELS_PER_FRAME, sound_levels
from cnerta.streamer.session.voice_activity import voiced_range

HOP = 640
MARGIN = 15


def noise(frames: int, decibels: float, seed: int) -> np.ndarray:
    scale = 10 ** (decibels / 20)
    return scale * np.random.default_rng(seed).normal(size=frames * HOP).astype(np.float32)


def stretch(
    before: int, speech: int, after: int, *, speech_db: float, noise_db: float, seed: int = 0
) -> np.ndarray:
    """Levels of noise with louder sound in it, which has a gap in its middle."""
    samples = noise(before + speech + after, noise_db, seed)
    voice = noise(speech, speech_db, seed + 1)
    voice[speech // 3 * HOP : speech // 2 * HOP] = 0
    samples[before * HOP : (before + speech) * HOP] += voice
    return sound_levels(samples.astype(np.float32))


@given(
    st.integers(0, 800),
    st.integers(20, 200),
    st.integers(0, 400),
    st.floats(-45, -5),
    st.floats(0, 60),
    st.integers(0, 1_000),
)
def test_speech_is_never_cut(
    before: int, speech: int, after: int, speech_db: float, below_db: float, seed: int
) -> None:
    levels = stretch(
        before, speech, after, speech_db=speech_db, noise_db=speech_db - below_db, seed=seed
    )
    first, last = voiced_range(levels, speech // 5)
    assert first <= before
    assert last >= before + speech


@given(st.integers(0, 1_000), st.integers(20, 100), st.integers(0, 1_000), st.floats(20, 60))
def test_silence_around_it_is_left_out(
    before: int, speech: int, after: int, below_db: float
) -> None:
    levels = stretch(before, speech, after, speech_db=-25, noise_db=-25 - below_db)
    first, last = voiced_range(levels, speech // 5)
    if before + after < speech:
        return  # so little silence that it cannot be told from the speech's own
    assert before - first <= MARGIN + 1
    assert last - before - speech <= MARGIN + 1


def test_a_click_is_no_speech() -> None:
    samples = noise(500, -70, 0)
    samples[100 * HOP + 200 : 100 * HOP + 300] = 0.9
    samples[300 * HOP : 350 * HOP] += noise(50, -25, 1)
    assert voiced_range(sound_levels(samples.astype(np.float32)), 10) == (285, 365)


@pytest.mark.parametrize("decibels", [-120.0, -60.0, -10.0])
def test_where_nothing_stands_out_all_is_kept(decibels: float) -> None:
    levels = sound_levels(noise(300, decibels, 0))
    assert voiced_range(levels, 10) == (0, 300)


@pytest.mark.parametrize("frames", [0, 1, 30])
def test_short_stretches_are_kept(frames: int) -> None:
    assert voiced_range(np.zeros((frames, LEVELS_PER_FRAME), np.float32), 5) == (0, frames)
