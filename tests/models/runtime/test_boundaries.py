from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnerta.models.runtime.alignment import Alignment, align
from cnerta.models.runtime.boundaries import LEVELS_PER_FRAME, character_times, sound_levels
from cnerta.models.runtime.bundle import default_bundle_path, load_bundle
from cnerta.models.runtime.geometry import HOP_SAMPLES, SAMPLE_RATE

GEOMETRY = load_bundle(default_bundle_path()).geometry


def alignment(*spans: tuple[int, int]) -> Alignment:
    """Characters over frames, each best at its second one or its only one."""
    starts, ends = np.array(spans).T
    scores = np.zeros(len(spans), np.float32)
    return Alignment(starts, ends, np.minimum(starts + 1, ends - 1), scores, 0.0)


def levels_of(
    milliseconds: int, *sounds: tuple[int, int], background: float = 1e-4
) -> np.ndarray[Any, Any]:
    """Levels of a background with sounds at the given times."""
    generator = np.random.default_rng(0)
    samples = background * generator.normal(size=milliseconds * SAMPLE_RATE // 1000)
    for start, end in sounds:
        samples[start * 16 : end * 16] += 0.1 * generator.normal(size=(end - start) * 16)
    return sound_levels(samples.astype(np.float32))


def test_levels_are_decibels() -> None:
    samples = np.zeros(2 * HOP_SAMPLES, np.float32)
    samples[160:320] = 0.1
    levels = sound_levels(samples)
    assert levels.shape == (2, LEVELS_PER_FRAME)
    assert levels[0, 1] == pytest.approx(-20, abs=1e-3)
    assert levels[1].tolist() == pytest.approx([-120] * 4)


def test_boundaries_lie_where_the_sound_is() -> None:
    # Heard from 297 to 377 and from 617 to 697 ms; spoken from 250 to 430 and from 540 to 760.
    levels = levels_of(1000, (250, 430), (540, 760))
    times = character_times(alignment((8, 10), (16, 18)), 0, levels, GEOMETRY)
    assert times.tolist() == [[250, 430], [540, 760]]
    # The same 400 ms later in the stream.
    times = character_times(alignment((8, 10), (16, 18)), 10, levels, GEOMETRY)
    assert times.tolist() == [[650, 830], [940, 1160]]


def test_a_pause_inside_a_character_that_was_drawn_out_is_cut_off() -> None:
    levels = levels_of(1000, (250, 430), (640, 760))
    (first, second) = character_times(alignment((7, 16), (16, 18)), 0, levels, GEOMETRY).tolist()
    assert first == [250, 430]
    assert second == [640, 760]


def test_a_short_closure_is_no_pause() -> None:
    levels = levels_of(1000, (200, 400), (430, 700))
    times = character_times(alignment((6, 10), (10, 17)), 0, levels, GEOMETRY)
    assert times[0, 1] == times[1, 0] == GEOMETRY.frame_start_ms(10)


def test_what_goes_on_after_a_dip_is_of_another_utterance() -> None:
    frames = [GEOMETRY.frame_start_ms(8), GEOMETRY.frame_start_ms(10)]
    # Spoken from 250 to 400 ms, and at once the next one until 600 ms; then silence.
    (times,) = character_times(
        alignment((8, 10)), 0, levels_of(1000, (250, 400), (440, 600)), GEOMETRY
    ).tolist()
    assert times == [250, frames[1]]
    # The same before it.
    (times,) = character_times(
        alignment((8, 10)), 0, levels_of(1000, (100, 240), (280, 450)), GEOMETRY
    ).tolist()
    assert times == [frames[0], 450]


def test_far_sounds_are_not_the_texts() -> None:
    # What was said long before and after does not belong to the one character.
    levels = levels_of(2000, (0, 1900))
    times = character_times(alignment((20, 23)), 0, levels, GEOMETRY)
    assert times.tolist() == [[GEOMETRY.frame_start_ms(20), GEOMETRY.frame_start_ms(23)]]


@pytest.mark.parametrize("levels", [np.zeros((0, 4)), np.full((30, 4), -30.0)])
def test_without_a_difference_in_level_the_frames_count(levels: np.ndarray[Any, Any]) -> None:
    times = character_times(alignment((5, 8), (9, 12)), 3, levels.astype(np.float32), GEOMETRY)
    expected = [[GEOMETRY.frame_start_ms(3 + f) for f in span] for span in ((5, 8), (9, 12))]
    assert times.tolist() == expected


@given(st.data())
def test_times_never_fall_and_stay_inside(data: st.DataObject) -> None:
    frames = data.draw(st.integers(1, 60))
    length = data.draw(st.integers(1, min(frames, 12)))
    first_frame = data.draw(st.integers(0, 5))
    generator = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    scores = 3 * generator.normal(size=(1, frames, 1 + length))
    log_probabilities = (scores - np.logaddexp.reduce(scores, axis=2, keepdims=True)).astype("f")
    (found,) = align(log_probabilities, [frames], [np.arange(length)], blank_penalty=2.0)
    assert found is not None
    loud = generator.random(frames * LEVELS_PER_FRAME).cumsum() % 5 < data.draw(st.integers(0, 5))
    levels = np.where(loud, -20.0, -60.0).reshape(frames, -1).astype(np.float32)
    times = character_times(found, first_frame, levels, GEOMETRY)
    edges = times.ravel()
    assert (np.diff(edges) >= 0).all()
    assert (times[:, 1] > times[:, 0]).all()
    assert edges[0] >= max(0.0, GEOMETRY.frame_start_ms(first_frame))
    assert edges[-1] <= (first_frame + frames) * GEOMETRY.frame_ms
