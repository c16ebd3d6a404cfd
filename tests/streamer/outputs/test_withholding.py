"""Text that is held back, and names that are hidden, in all that a session is shown on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET

from cnerta.streamer.errors import OutputError
from cnerta.streamer.outputs.highlighting import Highlighter
from cnerta.streamer.outputs.masking import MaskRule, NameMask
from cnerta.streamer.outputs.presenter import FoldingView
from cnerta.streamer.outputs.session_outputs import OutputOptions, Outputs, make_outputs
from cnerta.streamer.outputs.withholding import Withholding
from cnerta.streamer.sources import Revision
from cnerta.streamer.wire.messages import (
    CaptionUpdate,
    EntityRetract,
    RecognisedTranscript,
    ServerMessage,
)
from cnerta.streamer.wire.parts import CharacterReading, Entity

from .. import server_messages as wire

SENTENCE = "他在北京大学见到了江大桥"
ORG = wire.entity("ORG", "北京大学", 2, status="final")
INNER = wire.entity("LOC", "北京", 2, status="final", parent=ORG.id)
PER = wire.entity("PER", "江大桥", 9, status="final", suggested_text="姜大桥", glossary=True)
PERSONS = MaskRule(frozenset({"PER"}))


def caption(text: str, *entities: Entity, held: int = 0) -> CaptionUpdate:
    return CaptionUpdate(utterance="u1", revision=1, text=text, entities=list(entities), held=held)


def test_nothing_of_a_transcript_is_told_before_it_is_released() -> None:
    withholding = Withholding()
    assert withholding.revision(Revision("u1", 1, SENTENCE, False, 5, 9)) == Revision(
        "u1", 1, "", False, 5, 9
    )
    assert withholding.message(caption("他在")) == caption("他在")
    assert withholding.revision(Revision("u1", 2, SENTENCE, True)).text == "他在"
    final = wire.final("u1", 2, SENTENCE, ORG)
    assert withholding.message(final) == final
    assert withholding.revision(Revision("u1", 3, SENTENCE, True)).text == ""
    written = RecognisedTranscript(utterance="s1", revision=1, final=False, text="他")
    assert withholding.message(written) is None


def test_what_is_remembered_of_utterances_is_bounded() -> None:
    withholding = Withholding()
    for number in range(1_000):
        withholding.message(msgspec.structs.replace(caption("他"), utterance=f"u{number}"))
    known = sum(
        withholding.revision(Revision(f"u{number}", 1, "他", False)).text == "他"
        for number in range(1_000)
    )
    assert known == 256


def test_a_name_is_hidden_with_its_text_and_its_readings() -> None:
    mask = NameMask(PERSONS)
    reading = CharacterReading(
        start=9,
        end=10,
        start_utf16=9,
        end_utf16=10,
        text="江",
        reading="jiang1",
        confidence=1.0,
        alternatives=[],
    )
    other = msgspec.structs.replace(reading, start=2, end=3, start_utf16=2, end_utf16=3, text="北")
    final = wire.final("u1", 1, SENTENCE, ORG, INNER, PER)
    told = mask.final(msgspec.structs.replace(final, readings=[other, reading]))
    assert told.text == "他在北京大学见到了＊＊＊"
    assert [e.text for e in told.entities] == ["北京大学", "北京", "＊＊＊"]
    assert told.entities[2].suggested_text is UNSET
    assert told.entities[2].start_ms == PER.start_ms
    assert told.readings == [other]


def test_what_is_inside_of_a_hidden_name_is_hidden_too() -> None:
    told = NameMask(MaskRule(frozenset({"ORG"}), "×")).caption(caption(SENTENCE[:7], ORG, INNER))
    assert told.text == "他在××××见"
    assert [e.text for e in told.entities] == ["××××", "××"]


def test_a_name_stays_hidden_where_it_is_not_found_again() -> None:
    mask = NameMask(PERSONS, ["张三"])
    assert mask.final(
        wire.final("u1", 1, "张三说江大桥", wire.entity("PER", "江大桥", 3))
    ).text == ("＊＊说＊＊＊")
    assert mask.caption(caption("江大桥和长江大桥")).text == "＊＊＊和长＊＊＊"
    assert mask.final(wire.final("u2", 1, "江大", wire.entity("PER", "江", 0))).text == "＊大"
    assert mask.final(wire.final("u3", 1, "江水")).text == "江水", "one character is not remembered"


def test_offsets_in_utf16_fit_the_sign() -> None:
    text = "😀𠮷野家在东京"
    name = wire.entity("ORG", "𠮷野家", 1, start_utf16=2, end_utf16=6)
    place = wire.entity("LOC", "东京", 5, start_utf16=7, end_utf16=9)
    told = NameMask(MaskRule(frozenset({"ORG"}))).caption(caption(text, name, place))
    units = told.text.encode("utf-16-le")
    for entity in told.entities:
        piece = units[2 * entity.start_utf16 : 2 * entity.end_utf16].decode("utf-16-le")
        assert piece == entity.text == told.text[entity.start : entity.end]


@given(
    st.lists(
        st.tuples(st.integers(0, 11), st.integers(1, 5), st.sampled_from(["PER", "LOC", "ORG"])),
        max_size=4,
    )
)
def test_no_hidden_character_is_told_anywhere(spans: list[tuple[int, int, str]]) -> None:
    # Every character is another one, so that any that is told can be told apart.
    text = "甲乙丙丁戊己庚辛壬癸子丑"
    entities = [
        wire.entity(label, text[start : start + length], start, id=f"e{n}")
        for n, (start, length, label) in enumerate(spans)
    ]
    told = NameMask(PERSONS).final(wire.final("u1", 1, text, *entities))
    hidden = {c for e in entities if e.label == "PER" for c in e.text}
    written = msgspec.json.encode(told).decode()
    assert not [c for c in hidden if c in written]
    assert told.text == "".join("＊" if c in hidden else c for c in text)


def test_what_is_no_rule_is_refused() -> None:
    assert MaskRule.parse("PER, LOC", "×") == MaskRule(frozenset({"PER", "LOC"}), "×")
    for labels, sign in (("", "＊"), (" , ", "＊"), ("PER", ""), ("PER", "**"), ("PER", "\n")):
        with pytest.raises(OutputError, match="expected"):
            MaskRule.parse(labels, sign)


def session(*, masked: bool) -> list[Revision | ServerMessage]:
    """What a session with `hold_ms` tells its outputs, in order."""
    grown = wire.entity("PER", "江大桥", 9)
    return [
        wire.ready(),
        Revision("u1", 1, SENTENCE, False),
        wire.upsert("u1", 1, grown),
        caption("他在北京大学", ORG, INNER, held=6),
        EntityRetract(
            seq=2, utterance="u1", revision=2, id="x", reason="withdrawn", behind_live_ms=1
        ),
        Revision("u1", 2, SENTENCE, True),
        caption(SENTENCE, ORG, INNER, PER),
        wire.final("u1", 2, SENTENCE, ORG, INNER, PER),
        wire.summary(),
    ]


class Seen(FoldingView):
    """Keeps every text that could have been read."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def _look(self) -> None:
        self.texts += [c.text for c in self.state.captions]

    def on_revision(self, revision: Revision) -> None:
        super().on_revision(revision)
        self._look()

    def on_message(self, message: ServerMessage) -> None:
        super().on_message(message)
        self._look()


async def show(folder: Path, withholding: Withholding) -> Seen:
    view = Seen()
    options = OutputOptions(
        captions=tuple(folder / f"all.{e}" for e in ("vtt", "srt", "ttml", "rttm", "jsonl")),
        obs_text=folder / "live.txt",
        hls=folder / "hls",
    )
    async with Outputs(view, make_outputs(options, "all", Highlighter(), {}), withholding) as shown:
        for told in session(masked=True):
            if isinstance(told, Revision):
                shown.on_revision(told)
            else:
                shown.on_message(told)
            if (folder / "live.txt").exists():
                view.texts.append((folder / "live.txt").read_text(encoding="utf-8"))
    return view


async def test_every_output_hides_the_name(tmp_path: Path) -> None:
    view = await show(tmp_path, Withholding(NameMask(PERSONS)))
    written = {
        str(path): path.read_text(encoding="utf-8")
        for path in tmp_path.rglob("*")
        if path.is_file()
    }
    assert len(written) >= 7
    for path, text in written.items():
        assert "江" not in text, path
        assert "姜" not in text, path
    assert not [text for text in view.texts if "江" in text]
    assert "他在【北京大学】见到了【＊＊＊】" in view.texts
    assert "江" not in str(view.state)
    lines = [json.loads(line) for line in (tmp_path / "all.jsonl").read_bytes().splitlines()]
    assert [line["type"] for line in lines] == [
        "session.ready",
        "caption.update",
        "caption.update",
        "utterance.final",
        "session.summary",
    ]


async def test_text_that_is_held_back_is_shown_when_it_is_released(tmp_path: Path) -> None:
    view = await show(tmp_path, Withholding())
    texts = [text for i, text in enumerate(view.texts) if text and text not in view.texts[:i]]
    assert texts[:3] == ["他在北京大学", "他在【北京大学】", SENTENCE]


async def test_a_type_that_the_model_does_not_know_is_refused() -> None:
    mask = NameMask(MaskRule(frozenset({"PERSON"})))
    with pytest.raises(OutputError, match="got PERSON"):
        async with Outputs(FoldingView(), (), Withholding(mask)) as shown:
            shown.on_message(wire.ready())


def test_a_caption_keeps_its_entities(tmp_path: Path) -> None:
    view: Any = FoldingView()
    view.on_message(caption("他在北京大学", INNER, ORG))
    (shown,) = view.state.captions
    assert [e.id for e in shown.entities] == [ORG.id, INNER.id]
