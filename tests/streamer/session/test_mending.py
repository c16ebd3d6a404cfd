"""Names as the glossary writes them: told beside the text, which stays what it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET

from cnerta.streamer.session.names.mending import mend
from cnerta.streamer.wire.codec import decode_server, encode
from cnerta.streamer.wire.messages import CaptionUpdate, SessionUpdate, UtteranceFinal
from cnerta.streamer.wire.parts import Entity, GlossaryEntry

from .. import server_messages as wire
from ..conftest import Driver

Drive = Callable[..., Driver]


def entity(text: str, start: int, end: int, suggested: str = "", **changes: Any) -> Entity:
    """An entity of a text at its place."""
    utf16 = [len(text[:at].encode("utf-16-le")) // 2 for at in (start, end)]
    return wire.entity(
        "PER",
        text[start:end],
        start,
        id=f"{start}-{end}",
        start_utf16=utf16[0],
        end_utf16=utf16[1],
        suggested_text=suggested or UNSET,
        **changes,
    )


def test_a_name_is_written_as_the_glossary_does() -> None:
    text = "我是姜大侨的朋友"
    mended = mend(text, [entity(text, 2, 5, "江大桥"), entity(text, 6, 8)])
    assert mended is not None
    assert mended.text == "我是江大桥的朋友"
    name, friend = mended.entities
    assert (name.text, name.original_text, name.suggested_text) == ("江大桥", "姜大侨", UNSET)
    assert (name.start, name.end) == (2, 5)
    assert (friend.text, friend.original_text) == ("朋友", UNSET)


def test_without_a_suggestion_nothing_is_mended() -> None:
    assert mend("我是江大桥", [entity("我是江大桥", 2, 5)]) is None
    assert mend("", []) is None


def test_another_length_moves_what_follows() -> None:
    text = "𠮷 姜 大侨和任平"
    times = [(100 * i, 100 * i + 100) for i in range(len(text))]
    found = [
        entity(text, 2, 6, "江大桥"),
        entity(text, 7, 9, "任萍儿"),
        entity(text, 2, 3, parent="2-6"),
    ]
    mended = mend(text, found, times)
    assert mended is not None
    assert mended.text == "𠮷 江大桥和任萍儿"
    assert [(e.text, e.start, e.end, e.start_utf16, e.end_utf16) for e in mended.entities] == [
        ("江大桥", 2, 5, 3, 6),
        ("任萍儿", 6, 9, 7, 10),
    ], "an inner name of one that has another length is left out"
    assert mended.characters == [
        (0, 100),
        (100, 200),
        *[(200, 333), (333, 467), (467, 600)],
        (600, 700),
        *[(700, 767), (767, 833), (833, 900)],
    ]


def test_of_nested_suggestions_the_outer_one_counts() -> None:
    text = "姜大侨基金会"
    found = [
        entity(text, 0, 6, "江大桥基金会"),
        entity(text, 0, 3, "蒋大桥", parent="0-6"),
    ]
    mended = mend(text, found)
    assert mended is not None
    assert mended.text == "江大桥基金会"
    outer, inner = mended.entities
    assert (inner.text, inner.original_text, inner.parent) == ("江大桥", "姜大侨", outer.id)


def test_an_inner_name_is_mended_inside_of_its_outer_one() -> None:
    text = "姜大侨基金会"
    mended = mend(text, [entity(text, 0, 6), entity(text, 0, 3, "江桥", parent="0-6")])
    assert mended is not None
    outer, inner = mended.entities
    assert (outer.text, outer.original_text) == ("江桥基金会", "姜大侨基金会")
    assert (inner.text, inner.parent) == ("江桥", outer.id)


@given(
    st.text(st.sampled_from("甲乙𠮷丙"), max_size=12),
    st.lists(
        st.tuples(st.integers(0, 12), st.integers(1, 4), st.text("丁戊", max_size=3)), max_size=5
    ),
)
def test_every_entity_is_where_it_says(text: str, places: list[tuple[int, int, str]]) -> None:
    found: list[Entity] = []
    at = 0
    for gap, length, suggested in places:
        start = at + gap
        if start + length <= len(text):
            found.append(entity(text, start, start + length, suggested))
            at = start + length
    times = [(10 * i, 10 * i + 10) for i in range(len(text))]
    mended = mend(text, found, times)
    expected = text
    for each in reversed(found):
        if each.suggested_text is not UNSET:
            expected = expected[: each.start] + each.suggested_text + expected[each.end :]
    if all(each.suggested_text is UNSET for each in found):
        assert mended is None
        return
    assert mended is not None
    assert mended.text == expected
    assert len(mended.characters) == len(expected)
    assert [e.id for e in mended.entities] == [e.id for e in found]
    for now, before in zip(mended.entities, found, strict=True):
        assert expected[now.start : now.end] == now.text
        wide = expected.encode("utf-16-le")
        assert wide[2 * now.start_utf16 : 2 * now.end_utf16].decode("utf-16-le") == now.text
        wanted = before.text if before.suggested_text is UNSET else before.suggested_text
        assert now.text == wanted


GLOSSARY = [GlossaryEntry(text="尚海", label="PER")]


def test_a_session_tells_the_mended_text_where_it_is_asked_to(drive: Drive) -> None:
    driver = drive(glossary=GLOSSARY, apply_suggestions=True, hold_ms=0)
    messages = driver.transcript("他是上海的", 1).run()
    (caption,) = [m for m in messages if isinstance(m, CaptionUpdate)]
    assert caption.text == "他是上海的"
    assert caption.mended is not UNSET
    assert caption.mended.text == "他是尚海的"
    final = driver.transcript("他是上海的", 2, final=True).run()[-1]
    assert isinstance(final, UtteranceFinal)
    assert final.text == "他是上海的", "what the client sent stays"
    assert final.mended is not UNSET
    assert final.mended.text == "他是尚海的"
    told = {(e.label, e.text, e.original_text) for e in final.mended.entities}
    assert told == {("PER", "尚海", "上海"), ("LOC", "尚海", "上海")}
    assert decode_server(encode(final)) == final


def test_a_session_that_is_not_asked_tells_none(drive: Drive) -> None:
    driver = drive(glossary=GLOSSARY)
    final = driver.transcript("他是上海的", 1, final=True).run()[-1]
    assert isinstance(final, UtteranceFinal)
    assert final.mended is UNSET
    driver.send(SessionUpdate(apply_suggestions=True))
    final = driver.transcript("他是上海的", 1, utterance="u2", final=True).run()[-1]
    assert isinstance(final, UtteranceFinal)
    assert final.mended is not UNSET
    final = driver.transcript("他是尚海的", 1, utterance="u3", final=True).run()[-1]
    assert isinstance(final, UtteranceFinal)
    assert final.mended is UNSET, "nothing is misspelt"
