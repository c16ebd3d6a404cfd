from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from cnerta.streamer.outputs.highlighting import Highlighter, HighlightRule
from cnerta.streamer.wire.parts import Entity

from .. import server_messages as wire

TEXT = "他在北京大学见到了江大桥和李四"
ORG = wire.entity("ORG", "北京大学", 2, confidence=0.7)
INNER = wire.entity("LOC", "北京", 2, parent=ORG.id, confidence=0.9)
PER = wire.entity("PER", "江大桥", 9, confidence=0.8)
OTHER = wire.entity("PER", "李四", 13, confidence=0.6)
ALL = [ORG, INNER, PER, OTHER]


def choose(highlighter: Highlighter, utterance: str, *entities: Entity) -> set[str]:
    return set(highlighter.choose(utterance, TEXT, entities, final=True))


def test_everything_is_highlighted_unless_asked_otherwise() -> None:
    assert choose(Highlighter(), "u1", *ALL) == {entity.id for entity in ALL}


def test_the_surest_come_first_where_the_share_does_not_reach() -> None:
    # 15 characters: 5 may be highlighted. The surest is 北京 (2), then 江大桥 (3).
    assert choose(Highlighter(HighlightRule(share=0.34)), "u1", *ALL) == {INNER.id, PER.id}


def test_an_inner_entity_costs_nothing_within_its_outer_one() -> None:
    chosen = choose(Highlighter(HighlightRule(share=0.27)), "u1", ORG, INNER)
    assert chosen == {ORG.id, INNER.id}


def test_new_names_come_before_known_ones() -> None:
    highlighter = Highlighter(HighlightRule(share=0.21))
    assert choose(highlighter, "u1", PER) == {PER.id}
    assert choose(highlighter, "u2", PER, OTHER) == {OTHER.id}, "less sure, but new"


def test_first_occurrence_only() -> None:
    highlighter = Highlighter(HighlightRule(first_only=True))
    again = wire.entity("PER", "江大桥", 12, id="again")
    assert choose(highlighter, "u1", again, PER) == {PER.id}
    assert choose(highlighter, "u2", PER, OTHER) == {OTHER.id}
    assert choose(highlighter, "u3", wire.entity("LOC", "江大桥", 9)) == {"LOC9"}, "another type"


def test_what_was_not_highlighted_is_still_new() -> None:
    highlighter = Highlighter(HighlightRule(share=0.2, first_only=True))
    assert choose(highlighter, "u1", PER, OTHER) == {PER.id}
    assert choose(highlighter, "u2", PER, OTHER) == {OTHER.id}


def test_a_final_answer_is_chosen_from_once() -> None:
    highlighter = Highlighter(HighlightRule(share=0.34, first_only=True))
    first = choose(highlighter, "u1", *ALL)
    assert choose(highlighter, "u1", *ALL) == first, "the view and a file ask about the same"


def test_what_an_open_utterance_shows_it_keeps_showing() -> None:
    highlighter = Highlighter(HighlightRule(share=0.21))
    shown = highlighter.choose("u1", TEXT, [OTHER], final=False)
    assert shown == {OTHER.id}
    surer = wire.entity("PER", "江大桥", 9, confidence=0.99)
    assert highlighter.choose("u1", TEXT, [surer, OTHER], final=False) == {OTHER.id}
    assert choose(highlighter, "u1", surer, OTHER) == {OTHER.id}


@settings(max_examples=60)
@given(
    st.floats(0, 0.99),
    st.lists(
        st.lists(st.tuples(st.integers(0, 28), st.integers(1, 8), st.floats(0, 1)), max_size=5),
        max_size=12,
    ),
    st.booleans(),
)
def test_never_more_than_the_share(
    share: float, sessions: list[list[tuple[int, int, float]]], first_only: bool
) -> None:
    highlighter = Highlighter(HighlightRule(share, first_only))
    characters = highlighted = 0
    for number, found in enumerate(sessions):
        text = "中" * 30
        entities = [
            wire.entity("LOC", text[a : a + n], a, id=str(i), confidence=c)
            for i, (a, n, c) in enumerate(found)
        ]
        chosen = highlighter.choose(f"u{number}", text, entities, final=True)
        characters += len(text)
        highlighted += len({at for e in entities if e.id in chosen for at in range(e.start, e.end)})
        assert highlighted <= share * characters + 1e-6
