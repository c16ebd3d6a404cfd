from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")

from cnerta.train.data.examples import Example
from cnerta.train.evaluation.unit_errors import UnitScores, count_unit_errors, toneless

UNITS = ("?", "ma1", "ma3", "shi4", "da4")


def scores(*path: int) -> UnitScores:
    """Frames that are sure of these columns; text and readings are 妈, 马, 是."""
    example = Example("妈马是", None, readings=("ma1", "ma3", "shi4"))
    return UnitScores(example, 10 * np.eye(6, dtype=np.float32)[list(path)])


def test_tones_are_dropped_from_pronunciations_only() -> None:
    assert [toneless(u) for u in ("ma1", "lv4", "?", "7", "")] == ["ma", "lv", "?", "7", ""]


def test_what_is_heard_right_has_no_errors() -> None:
    found = count_unit_errors([scores(0, 2, 2, 0, 3, 4, 4, 0)], UNITS)
    assert (found.recordings, found.spoken, found.tonal, found.toneless) == (1, 3, 0, 0)


def test_a_wrong_tone_is_no_wrong_syllable() -> None:
    found = count_unit_errors([scores(2, 0, 2, 4), scores(3, 0, 3, 5)], UNITS)
    assert (found.recordings, found.spoken) == (2, 6)
    assert (found.tonal, found.toneless) == (1 + 2, 0 + 1)
    assert found.tonal_rate == pytest.approx(50.0)
    assert found.toneless_rate == pytest.approx(100 / 6)


def test_tones_add_up_where_none_is_likely() -> None:
    """ma1 and ma3 have 0.3 each, the blank 0.4."""
    example = Example("妈", None, readings=("ma1",))
    frame = np.log(np.array([[0.4, 1e-9, 0.3, 0.3, 1e-9, 1e-9]], np.float32))
    found = count_unit_errors([UnitScores(example, frame)], UNITS)
    assert (found.tonal, found.toneless) == (1, 0)


def test_nothing_heard_is_all_left_out() -> None:
    example = Example("妈马", None, readings=("ma1", "ma3"))
    found = count_unit_errors([UnitScores(example, np.zeros((0, 6), np.float32))], UNITS)
    assert (found.tonal, found.toneless) == (2, 2)
