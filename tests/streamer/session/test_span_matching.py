"""Comparing texts, and following spans through a change."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cnerta.models.runtime.labels import Span
from cnerta.streamer.session.span_matching import compare_texts, match_spans


@given(st.text("ab", max_size=12), st.text("ab", max_size=12))
def test_a_kept_character_is_at_its_place(old: str, new: str) -> None:
    change = compare_texts(old, new)
    assert len(change.places) == len(change.kept) == len(old)
    placed = [p for p in change.places if p is not None]
    assert placed == sorted(set(placed)), "characters keep their order, none shares a place"
    for character, place, kept in zip(old, change.places, change.kept, strict=True):
        if kept:
            assert place is not None
            assert new[place] == character


@given(st.text("abc", max_size=8), st.text("xyz", min_size=1, max_size=3), st.data())
def test_an_insertion_moves_what_follows(text: str, inserted: str, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(text)))
    change = compare_texts(text, text[:at] + inserted + text[at:])
    assert all(change.kept)
    expected = [i if i < at else i + len(inserted) for i in range(len(text))]
    assert list(change.places) == expected


def test_a_corrected_homophone_has_a_place_but_is_not_kept() -> None:
    change = compare_texts("章三去北京", "张三去北京")
    assert change.places[0] == 0
    assert not change.kept[0]
    assert not change.is_kept(Span(0, 2, "PER"))
    assert change.is_kept(Span(3, 5, "LOC"))


def pair(old: str, old_spans: list[Span], new: str, new_spans: list[Span]) -> dict[int, int]:
    return match_spans(old_spans, new_spans, compare_texts(old, new))


def test_an_entity_goes_on_through_growth_relabelling_and_edits_elsewhere() -> None:
    assert pair("在北京", [Span(1, 3, "LOC")], "在北京大学", [Span(1, 5, "ORG")]) == {0: 0}
    assert pair("去上海", [Span(1, 3, "LOC")], "张三他们去上海", [Span(5, 7, "LOC")]) == {0: 0}
    assert pair("章三", [Span(0, 2, "PER")], "张三", [Span(0, 2, "PER")]) == {0: 0}


def test_the_better_match_gets_the_id() -> None:
    old = [Span(0, 2, "LOC")]
    new = [Span(0, 4, "ORG"), Span(0, 2, "LOC")]
    assert pair("北京", old, "北京大学", new) == {1: 0}


def test_the_other_reading_of_the_same_text_keeps_both_ids() -> None:
    text = "南京市长江大桥"
    old = [Span(0, 3, "LOC"), Span(3, 7, "LOC")]
    new = [Span(0, 2, "LOC"), Span(4, 7, "PER")]
    assert pair(text, old, text, new) == {0: 0, 1: 1}


def test_the_same_words_elsewhere_are_the_same_entity() -> None:
    assert pair("了了北京", [Span(2, 4, "LOC")], "北京了了", [Span(0, 2, "LOC")]) == {0: 0}
    assert pair("了了北京", [Span(2, 4, "LOC")], "北京了了", [Span(0, 2, "ORG")]) == {}


def test_neighbours_that_share_little_are_different_entities() -> None:
    assert pair("南京市长", [Span(0, 3, "LOC")], "南京市长", [Span(2, 4, "PER")]) == {}
    assert pair("北京", [Span(0, 2, "LOC")], "上海去", [Span(0, 2, "LOC")]) == {}


def test_long_differences_are_not_compared_character_by_character() -> None:
    # Would take minutes if the cubic comparison ran on it.
    change = compare_texts("x" + "ab" * 2000, "y" + "ba" * 2001)
    assert len(change.places) == 4001
