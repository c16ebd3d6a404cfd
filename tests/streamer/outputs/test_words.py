"""Words in a text: against enumeration, and from the list that comes along."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnerta.streamer.outputs import words as module
from cnerta.streamer.outputs.words import bundled_words, divided


def pieces(length: int, chosen: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """How many pieces a division has, and the lengths of its words, squared."""
    covered = sum(end - start for start, end in chosen)
    squares = sum((end - start) ** 2 for start, end in chosen)
    return len(chosen) + length - covered, -(squares + length - covered)


spans = st.integers(0, 7).flatmap(
    lambda start: st.integers(start + 2, start + 5).map(lambda end: (start, end))
)


@given(st.lists(spans.filter(lambda span: span[1] <= 9), max_size=7, unique=True))
def test_there_are_as_few_pieces_as_can_be(found: list[tuple[int, int]]) -> None:
    chosen = divided(9, found)
    assert set(chosen) <= set(found)
    assert all(a[1] <= b[0] for a, b in itertools.pairwise(chosen))
    possible = [
        pieces(9, some)
        for count in range(len(found) + 1)
        for some in itertools.combinations(sorted(found), count)
        if all(a[1] <= b[0] for a, b in itertools.pairwise(some))
    ]
    assert pieces(9, chosen) == min(possible)


@pytest.mark.parametrize("text", ["", "店", "一家珠宝店", "我们在上海", "abc 12:30"])
def test_words_of_the_bundle_lie_in_the_text(text: str) -> None:
    found = bundled_words()(text)
    assert all(0 <= start < end <= len(text) and end - start >= 2 for start, end in found)


def test_the_bundle_knows_everyday_words() -> None:
    text = "一家珠宝店"
    assert "珠宝店" in {text[start:end] for start, end in bundled_words()(text)}


def test_without_a_list_there_are_no_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundled_words.cache_clear()
    monkeypatch.setattr(module, "find_bundle", lambda bundle: tmp_path)
    try:
        assert list(bundled_words()("一家珠宝店")) == []
    finally:
        bundled_words.cache_clear()
