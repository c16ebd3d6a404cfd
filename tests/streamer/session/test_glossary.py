"""Names the client expects: found by characters and by sound, told as suggestions."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET

from cnerta.models.runtime.bundle import default_bundle_path
from cnerta.models.runtime.decoding import SpanHint
from cnerta.models.runtime.inference import Model
from cnerta.models.runtime.labels import Span
from cnerta.models.runtime.vocabulary import Vocabulary
from cnerta.streamer.client.glossary_file import read_glossary
from cnerta.streamer.errors import GlossaryFileError
from cnerta.streamer.session.names.glossary import Glossary, GlossaryName, Strengths, read_pinyin
from cnerta.streamer.wire.codec import decode_server, encode
from cnerta.streamer.wire.messages import EntityUpsert, ErrorMessage, SessionStart, SessionUpdate
from cnerta.streamer.wire.parts import GlossaryEntry

READINGS = {
    "江": ["jiang1"],
    "姜": ["jiang1"],
    "讲": ["jiang3"],
    "大": ["da4", "dai4"],
    "打": ["da3"],
    "待": ["dai4", "dai1"],
    "桥": ["qiao2"],
    "侨": ["qiao2"],
    "巧": ["qiao3"],
}
VOCABULARY = Vocabulary.build(READINGS, READINGS)


def found(text: str, *names: GlossaryName) -> list[tuple[int, int, str, str]]:
    matches = Glossary(names, VOCABULARY).find(text)
    return [(m.start, m.end, m.name.text, m.kind) for m in matches]


def test_a_name_is_found_by_characters_and_by_sound() -> None:
    name = GlossaryName("江大桥", "PER")
    assert found("市长江大桥说", name) == [(2, 5, "江大桥", "characters")]
    assert found("市长江大侨说", name) == [(2, 5, "江大桥", "tones")]
    assert found("市长姜待侨说", name) == [(2, 5, "江大桥", "tones")], "大 may be read as 待 is"
    assert found("市长讲打巧说", name) == [(2, 5, "江大桥", "syllables")]
    assert found("市长江大说", name) == []
    assert found("江大", name) == []


def test_a_given_pronunciation_takes_the_place_of_the_usual_one() -> None:
    name = GlossaryName("龘打桥", "PER", read_pinyin("jiāng dà qiao"))
    assert found("江大桥", name) == [(0, 3, "龘打桥", "tones")]
    assert found("姜待桥", name) == [], "待 is not read da"
    assert found("龘打桥", name) == [(0, 3, "龘打桥", "characters")]


def test_the_name_that_fits_best_is_told() -> None:
    names = GlossaryName("姜大桥", "PER"), GlossaryName("江大桥", "PER"), GlossaryName("江", "LOC")
    assert found("江大桥", *names) == [(0, 1, "江", "characters"), (0, 3, "江大桥", "characters")]


characters = st.sampled_from([*READINGS, "说", "a"])


@given(
    st.text(characters, max_size=12),
    st.lists(st.text(characters, min_size=1, max_size=3), min_size=1, max_size=4),
)
def test_against_all_ways_to_pronounce_everything(text: str, names: list[str]) -> None:
    def sounds(word: str, drop: int) -> set[tuple[str, ...]]:
        ways = [{c} | {r[: len(r) - drop] for r in READINGS.get(c, [])} for c in word]
        return set(product(*ways))

    expected: dict[tuple[int, int], str] = {}
    for name in names:
        for start in range(len(text) - len(name) + 1):
            piece = text[start : start + len(name)]
            kinds = ["characters"] * (piece == name)
            kinds += ["tones"] * bool(sounds(piece, 0) & sounds(name, 0))
            kinds += ["syllables"] * bool(sounds(piece, 1) & sounds(name, 1))
            for kind in kinds[:1]:
                place = start, start + len(name)
                order = ["characters", "tones", "syllables"]
                expected[place] = min(kind, expected.get(place, kind), key=order.index)
    glossary = Glossary([GlossaryName(n, "PER") for n in names], VOCABULARY)
    matches = glossary.find(text)
    assert {(m.start, m.end): m.kind for m in matches} == expected
    assert len(matches) == len(expected)


def test_a_match_is_a_hint_as_strong_as_its_kind() -> None:
    strengths = Strengths(characters=3.0, tones=2.0, syllables=1.0)
    glossary = Glossary([GlossaryName("江桥", "LOC")], VOCABULARY, strengths)
    hints = [glossary.hint(m) for m in glossary.find("江桥姜桥讲巧")]
    assert hints == [SpanHint(0, 2, "LOC", 3), SpanHint(2, 4, "LOC", 2), SpanHint(4, 6, "LOC", 1)]


def test_pinyin() -> None:
    assert read_pinyin("jiang1 da4 qiao2") == ("jiang1", "da4", "qiao2")
    assert read_pinyin("Jiāng  dà qiáo") == ("jiang1", "da4", "qiao2")
    assert read_pinyin("lü nu: nv3 lǘ") == ("lv0", "nv0", "nv3", "lv2")
    for wrong in ["", "江大桥", "jiang6", "ji1ang", "jiāng1", "x-y", "jiangdaqiaojiang"]:
        assert read_pinyin(wrong) is None, wrong


def entries(*names: tuple[str, str]) -> list[GlossaryEntry]:
    return [GlossaryEntry(text=text, label=label) for text, label in names]


def test_a_misspelt_name_is_tagged_and_the_right_one_suggested(drive: Callable[..., Any]) -> None:
    driver = drive(glossary=entries(("尚海", "PER"), ("上京", "ORG")))
    driver.transcript("他在 上海。上京", 1, final=True).run()
    final = driver.finals["u1"]
    told = [(e.text, e.label, e.glossary, e.suggested_text) for e in final.entities]
    assert sorted(told, key=str) == [
        ("上京", "ORG", True, UNSET),
        ("上海", "LOC", UNSET, UNSET),
        ("上海", "PER", True, "尚海"),
    ]
    assert final.text == "他在 上海。上京"
    assert decode_server(encode(final)) == final


def test_a_glossary_changes_in_mid_stream(drive: Callable[..., Any]) -> None:
    driver = drive()
    driver.transcript("背景", 1).run()
    driver.send(SessionUpdate(glossary=entries(("北京", "LOC"))))
    driver.transcript("背景是", 2).run()
    driver.send(SessionUpdate(labels=None))
    driver.transcript("背景是了", 3).run()
    (upsert,) = [m for m in driver.events if isinstance(m, EntityUpsert) and m.revision == 2]
    assert upsert.entity.suggested_text == "北京"
    driver.send(SessionUpdate(glossary=[]))
    driver.transcript("背景是了的", 4, final=True).run()
    assert driver.finals["u1"].entities == []


@pytest.mark.parametrize(
    ("entry", "name", "expected"),
    [
        ({"text": "上海", "label": "CITY"}, "unknown_label", "expected labels among LOC, ORG, PER"),
        ({"text": "。", "label": "LOC"}, "invalid_glossary", "something to pronounce"),
        (
            {"text": "上海", "label": "LOC", "pronunciation": "shang4"},
            "invalid_glossary",
            "expected 2 syllables of pinyin for '上海'",
        ),
        ({"text": "上海", "label": "LOC", "pronunciation": "上 海"}, "invalid_glossary", "'上 海'"),
        ({"text": "", "label": "LOC"}, "invalid_message", "length >= 1"),
        ({"text": "上" * 65, "label": "LOC"}, "invalid_message", "length <= 64"),
        ({"text": "上海"}, "invalid_message", "expected field 'label'"),
        ({"text": "上海", "label": "LOC", "weight": 2}, "unknown_field", "'weight'"),
    ],
)
@pytest.mark.parametrize("kind", ["session.start", "session.update"])
def test_a_glossary_that_cannot_be_used_is_refused(
    kit: SimpleNamespace, kind: str, entry: dict[str, str], name: str, expected: str
) -> None:
    driver = kit.Driver(kit.FakeModel(), None if kind == "session.start" else SessionStart())
    fields = ", ".join(f'"{k}": {v!r}'.replace("'", '"') for k, v in entry.items())
    driver.send(f'{{"type": "{kind}", "glossary": [{{{fields}}}]}}').run()
    (error,) = driver.named(ErrorMessage, name)
    assert expected in error.detail


def test_too_many_names_are_refused(kit: SimpleNamespace) -> None:
    driver = kit.Driver(kit.FakeModel(), SessionStart(glossary=entries(("上", "LOC")) * 501))
    driver.run()
    (error,) = driver.named(ErrorMessage, "invalid_message")
    assert "length <= 500" in error.detail


def test_a_glossary_file(tmp_path: Path) -> None:
    path = tmp_path / "names.tsv"
    path.write_text("\ufeff# names\n江大桥\tPER\tjiang1 da4 qiao2\n\n 上海 \tLOC\n", "utf-8")
    assert read_glossary(path) == (
        GlossaryEntry(text="江大桥", label="PER", pronunciation="jiang1 da4 qiao2"),
        GlossaryEntry(text="上海", label="LOC"),
    )


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("江大桥".encode(), "line 1: expected name<TAB>label"),
        ("上海\tLOC\n\tPER".encode(), "line 2: expected name<TAB>label"),
        ("上海\tLOC\t上海".encode(), "line 1: expected pinyin"),
        ("上海\tLOC\tshang4\t1".encode(), "line 1: expected name<TAB>label"),
        ("上海\tLOC\n".encode() * 501, "expected at most 500 names"),
        (b"\xff\xfe", "no UTF-8 text"),
        (None, "No such file"),
    ],
)
def test_a_glossary_file_that_is_none(tmp_path: Path, content: bytes | None, expected: str) -> None:
    path = tmp_path / "names.tsv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(GlossaryFileError, match=expected):
        read_glossary(path)


def test_the_model_that_comes_along_finds_a_misspelt_name() -> None:
    model = Model.load(default_bundle_path(), device="cpu")
    text = "我刚从长各回来"
    silence = np.zeros((0, model.bundle.geometry.width), np.float32)
    glossary = Glossary([GlossaryName("长葛", "LOC")], model.bundle.vocabulary)
    hints = [glossary.hint(m) for m in glossary.find(text)]
    plain, hinted = model.tag([text, text], [silence, silence], [(), hints])
    (alone,) = model.tag([text], [silence])
    assert plain.spans == alone.spans
    assert Span(3, 5, "LOC") not in [s.span for s in plain.spans]
    assert [s.span for s in hinted.spans] == [Span(3, 5, "LOC")]
    assert 0.5 < hinted.spans[0].confidence < 1
