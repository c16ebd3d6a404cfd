from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnerta.models.runtime.labels import Span
from cnerta.train.data.examples import Example
from cnerta.train.data.shaping import cut, thinned

SENTENCE = Example("他在北京，见了李、王二人；后去上海。", (Span(2, 4, "LOC"), Span(7, 10, "PER")))


def test_a_long_sentence_is_cut_at_its_punctuation() -> None:
    pieces = list(cut(SENTENCE, 10))
    assert [p.text for p in pieces] == ["他在北京，", "见了李、王二人；", "后去上海。"]
    assert [p.spans for p in pieces] == [(Span(2, 4, "LOC"),), (Span(2, 5, "PER"),), ()]


def test_pieces_are_as_long_as_may_be() -> None:
    assert [p.text for p in cut(SENTENCE, 13)] == ["他在北京，见了李、王二人；", "后去上海。"]
    assert list(cut(SENTENCE, 18)) == [SENTENCE]


def test_an_entity_is_never_cut() -> None:
    example = Example("甲，乙，丙。", (Span(0, 5, "ORG"),))
    assert [p.text for p in cut(example, 2)] == ["甲，乙，丙。"]


def test_what_is_not_annotated_stays_so() -> None:
    assert [p.spans for p in cut(Example("甲，乙", None), 2)] == [None, None]


@given(st.text("甲乙丙，。", max_size=30), st.integers(1, 12))
def test_no_character_is_lost(text: str, longest: int) -> None:
    spans = tuple(Span(i, i + 1, "PER") for i, c in enumerate(text) if c == "甲")
    pieces = list(cut(Example(text, spans), longest))
    assert "".join(p.text for p in pieces) == text
    assert sum(len(p.spans or ()) for p in pieces) == len(spans)
    for piece in pieces:
        assert all(piece.text[s.start : s.end] == "甲" for s in piece.spans or ())
        if len(piece.text) > longest:
            first = min((piece.text.find(c) for c in "，。" if c in piece.text), default=longest)
            assert first >= longest or first == len(piece.text) - 1


@pytest.mark.parametrize(("share", "kept"), [(0.0, 0), (0.25, 2), (1.0, 8)])
def test_a_share_of_what_has_no_entity_is_kept(share: float, kept: int) -> None:
    named = Example("李说", (Span(0, 1, "PER"),))
    nameless = [Example(f"无{i}", ()) for i in range(8)]
    found = list(thinned([*nameless[:4], named, *nameless[4:]], share))
    assert found.count(named) == 1
    assert len(found) == kept + 1
