"""Which reading won, on frames whose scores are known."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from cnerta.models.runtime.alignment import align
from cnerta.models.runtime.readings import heard_readings
from cnerta.models.runtime.vocabulary import Vocabulary

READINGS = {
    "市": ["shi4"],
    "长": ["chang2", "zhang3"],
    "江": ["jiang1"],
    "了": ["le5", "liao3"],
}
VOCABULARY = Vocabulary.build("市长江了", READINGS)
UNITS = {name: i for i, name in enumerate(VOCABULARY.units)}

Floats = npt.NDArray[np.float32]


def spoken(*syllables: str) -> Floats:
    """Frames that are one-hot for what is spoken; the blank is all zero. Two frames each."""
    rows = np.zeros((2 * len(syllables), len(UNITS)), np.float32)
    for i, name in enumerate(syllables):
        rows[2 * i, UNITS[name]] = 1.0
    return rows


class Scores:
    """Units score 8 where they are spoken, the blank 4 everywhere."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, list[str]]] = []

    def __call__(self, frames: Floats, units: npt.NDArray[np.int64]) -> Floats:
        self.asked.append((len(frames), [VOCABULARY.units[u] for u in units]))
        blank = np.full((len(frames), 1), 4.0, np.float32)
        return np.concatenate([blank, 8 * frames[:, units]], axis=1).astype(np.float32)


def read(
    text: str, *syllables: str
) -> tuple[list[tuple[int, tuple[tuple[str, float], ...]]], Scores]:
    frames, scores = spoken(*syllables), Scores()
    ids = VOCABULARY.encode(text)
    best = {c: max(VOCABULARY.units_of(c), key=lambda u: frames[:, u].sum()) for c in ids.tolist()}
    masked = np.concatenate(
        [np.full((len(frames), 1), -2.0), 8 * frames[:, [best[c] for c in ids.tolist()]] - 6],
        axis=1,
    )
    (alignment,) = align(masked[None].astype(np.float32), [len(frames)], [ids])
    assert alignment is not None
    found = heard_readings(VOCABULARY, ids, frames, alignment, scores)
    return [(f.index, f.readings) for f in found], scores


@pytest.mark.parametrize("heard", ["chang2", "zhang3"])
def test_the_spoken_reading_wins(heard: str) -> None:
    found, scores = read("市长江", "shi4", heard, "jiang1")
    ((index, ((name, share), (_, rest))),) = found
    assert (index, name) == (1, heard)
    assert share > 0.9
    assert share + rest == pytest.approx(1.0)
    ((frames, units),) = scores.asked
    assert frames < 6, "only the frames of the character itself"
    assert units == ["chang2", "zhang3"], "and only its units"


def test_the_same_character_may_be_read_in_both_ways() -> None:
    found, _ = read("长江长", "zhang3", "jiang1", "chang2")
    assert [(index, readings[0][0]) for index, readings in found] == [(0, "zhang3"), (2, "chang2")]


def test_each_character_has_its_own_readings() -> None:
    found, scores = read("长了", "chang2", "liao3")
    assert [[name for name, _ in readings] for _, readings in found] == [
        ["chang2", "zhang3"],
        ["liao3", "le5"],
    ]
    assert len(scores.asked) == 1, "all characters at once"


def test_a_reading_that_nobody_spoke_is_a_guess_and_says_so() -> None:
    found, _ = read("市长", "shi4", "jiang1")
    ((_, readings),) = found
    assert [share for _, share in readings] == pytest.approx([0.5, 0.5])


def test_without_such_a_character_nothing_is_computed() -> None:
    found, scores = read("市江", "shi4", "jiang1")
    assert found == []
    assert scores.asked == []


def test_unknown_characters_and_padding_have_no_readings() -> None:
    assert VOCABULARY.units_of(0) == VOCABULARY.units_of(1) == ()
