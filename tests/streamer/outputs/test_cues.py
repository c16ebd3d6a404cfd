from __future__ import annotations

import io
import itertools
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence

import msgspec
import pysubs2
import pytest
import webvtt
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from cnerta.streamer.outputs import cues as captions
from cnerta.streamer.outputs.caption_formats import (
    FORMATS,
    CaptionedUtterance,
    EntityList,
    MetadataTrack,
    SubRip,
    TimedText,
    WebVtt,
    class_name,
)
from cnerta.streamer.outputs.cues import (
    CaptionLayout,
    Cue,
    CueTrack,
    Mark,
    break_text,
    clean,
    mark_line,
    roll_up,
)
from cnerta.streamer.outputs.words import Words, bundled_words, no_words
from cnerta.streamer.wire.messages import UtteranceFinal
from cnerta.streamer.wire.parts import Entity

from .. import server_messages as wire

SENTENCE = "昨天在北京大学召开的会议上，江大桥说：“长江大桥明年通车。”"
TTML = "{http://www.w3.org/ns/ttml}"
LABELS = ["PER", "LOC", "ORG"]


def final(
    text: str,
    *entities: Entity,
    utterance: str = "u1",
    times: Sequence[tuple[int, int]] = (),
) -> UtteranceFinal:
    message = wire.final(utterance, 1, text, *entities)
    return msgspec.structs.replace(message, characters=list(times))


def evenly(text: str, start_ms: int = 0, each_ms: int = 200) -> list[tuple[int, int]]:
    return [(start_ms + i * each_ms, start_ms + (i + 1) * each_ms) for i in range(len(text))]


def told(track: CueTrack, message: UtteranceFinal) -> CaptionedUtterance:
    cues = track.cues(message, message.entities, (0.0, 1_000.0))
    marked = frozenset(entity.id for entity in message.entities)
    return CaptionedUtterance.of(message, marked, cues)


# --- where text is broken -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        (" \n", []),
        ("江大桥", [["江大桥"]]),
        (
            "会议开到很晚才结束，大家第二天又继续讨论。",
            [["会议开到很晚才结束，", "大家第二天又继续讨论。"]],
        ),
        (
            "他说这件事情一定要在明年六月之前办完。可是谁也不知道应该怎么办才好。",
            [["他说这件事情一定要", "在明年六月之前办完。"], ["可是谁也不知道应该怎么办才好。"]],
        ),
        (
            "the quick brown fox jumps over the lazy dog",
            [["the quick brown fox", "jumps over the lazy dog"]],
        ),
        (
            "我们总共花了三个多月才走完1234567890123456789公里",
            [["我们总共花了三个多月才走完", "1234567890123456789公里"]],
        ),
    ],
)
def test_lines_end_where_it_hurts_least(text: str, expected: list[list[str]]) -> None:
    assert [[text[start:end] for start, end in cue] for cue in break_text(text)] == expected


@pytest.mark.parametrize("number", ["12,345,678", "12:30:05", "35.5%", "2024-05-01"])
@pytest.mark.parametrize("before", range(8, 16))
def test_a_number_stays_in_one_piece(number: str, before: int) -> None:
    text = "他" * before + number + "他" * 9
    assert any(number in text[a:b] for cue in break_text(text) for a, b in cue)


def test_an_entity_stays_in_one_piece() -> None:
    text = "记者昨天上午专程来到了北京大学光华管理学院采访"
    name = "北京大学光华管理学院"
    start = text.index(name)
    (lines,) = break_text(text, [(start, start + len(name))])
    assert any(name in text[first:last] for first, last in lines)


@pytest.mark.parametrize("columns", [16, 18, 20])
@pytest.mark.parametrize(
    "text",
    [
        "她每天早上坐公共汽车去图书馆看报纸然后再去办公室工作",
        "这座城市的历史可以追溯到一千多年以前的一个小渔村",
    ],
)
def test_a_word_stays_on_its_line(text: str, columns: int) -> None:
    known = bundled_words()
    found = [text[start:end] for start, end in known(text)]

    def broken(words: Words) -> list[str]:
        layout = CaptionLayout(line_columns=columns)
        divided = [line for cue in break_text(text, (), (), layout, words) for line in cue]
        lines = [text[a:b] for a, b in divided]
        return [word for word in found if not any(word in line for line in lines)]

    assert broken(no_words), "without the list of words one is broken"
    assert not broken(known)


def test_a_growing_line_ends_between_words_that_are_there_already() -> None:
    text = "昨天下午我们几个人又去看了看新开张的一家珠宝店"
    rolled = {
        words: [text[a:b] for a, b in roll_up(text, (), 18, words)]
        for words in (no_words, bundled_words())
    }
    assert rolled[no_words][1:3] == ["几个人又去看了看新", "开张的一家珠宝店"]
    assert rolled[bundled_words()][1:3] == ["几个人又去看了看", "新开张的一家珠宝店"]


def test_an_entity_that_fits_no_line_is_broken_all_the_same() -> None:
    text = "中" * 50
    lines = [line for cue in break_text(text, [(0, 50)]) for line in cue]
    assert "".join(text[first:last] for first, last in lines) == text
    assert all(last - first <= 16 for first, last in lines)


def test_a_pause_is_where_a_line_ends() -> None:
    text = "大家都说这一次的会议开得非常非常的成功"
    times = [
        (start + (700 if index >= 12 else 0), end + (700 if index >= 12 else 0))
        for index, (start, end) in enumerate(evenly(text))
    ]
    assert [text[a:b] for a, b in break_text(text, (), times)[0]] == [text[:12], text[12:]]


def test_a_cue_does_not_stay_through_a_long_silence() -> None:
    text = "他走了后来又回来"
    times = evenly(text[:3]) + evenly(text[3:], 5_000)
    found = [[text[a:b] for a, b in cue] for cue in break_text(text, (), times)]
    assert found == [["他走了"], ["后来又回来"]]


def _divisions(text: str) -> list[list[list[tuple[int, int]]]]:
    """Every way to divide a text into cues of one or two lines of up to four characters."""
    found = []
    for bits in itertools.product([None, "line", "cue"], repeat=len(text) - 1):
        cues: list[list[tuple[int, int]]] = [[(0, 1)]]
        for index, bit in enumerate(bits, 1):
            if bit is None:
                cues[-1][-1] = (cues[-1][-1][0], index + 1)
            elif bit == "line":
                cues[-1].append((index, index + 1))
            else:
                cues.append([(index, index + 1)])
        if all(len(cue) <= 2 and all(b - a <= 4 for a, b in cue) for cue in cues):
            found.append(cues)
    return found


def _cost(text: str, cues: list[list[tuple[int, int]]], spans: list[tuple[int, int]]) -> float:
    """What a division costs, counted from the whole of it."""
    total = 0.0
    for cue in cues:
        total += captions._PER_CUE
        for start, end in cue:
            slack = (8 - 2 * (end - start)) / 8
            total += captions._PER_LINE + captions._RAGGED * slack * slack
            if end < len(text):
                place = captions._place_cost(text[end - 1], text[end], apart=False)
                place += captions._IN_ENTITY * sum(a < end < b for a, b in spans)
                total += place if end < cue[-1][1] else (1 + captions._BETWEEN_CUES) * place
    return total


@settings(max_examples=60)
@given(
    st.text("他的，。中（）", min_size=1, max_size=8),
    st.lists(st.tuples(st.integers(0, 6), st.integers(1, 4)), max_size=2),
)
def test_no_other_division_is_cheaper(text: str, lengths: list[tuple[int, int]]) -> None:
    spans = [(start, min(start + length, len(text))) for start, length in lengths]
    spans = [(start, end) for start, end in spans if start < end]
    found = break_text(text, spans, (), CaptionLayout(line_columns=8))
    cheapest = min(_cost(text, cues, spans) for cues in _divisions(text))
    assert _cost(text, found, spans) == pytest.approx(cheapest)


@pytest.mark.parametrize("words", [no_words, bundled_words()])
def test_a_growing_text_keeps_its_full_lines(words: Words) -> None:
    text = "他在会上说明年的计划已经定好了，大家都同意这样做，没有人再有别的意见。"
    before: list[str] = []
    for size in range(1, len(text) + 1):
        lines = [text[a:b] for a, b in roll_up(text[:size], (), 20, words)]
        assert lines[: len(before) - 1] == before[:-1]
        assert "".join(lines) == text[:size]
        assert all(cell_len(line) <= 20 for line in lines)
        before = lines


# --- random utterances ----------------------------------------------------------------------------

LETTERS = (
    "他在北京大学的了，。！？：“”（）《》…—·　 abZ09<>&-{}\\/|'\"é\u0301👩\u200d🦰\ufe0f"
    "\n\t\r\u2028\x0b\x00\x85\ufdd0\uffff\ud800"
)


@st.composite
def utterances(draw: st.DrawFn, letters: str = LETTERS) -> UtteranceFinal:
    text = draw(st.text(letters, max_size=60))
    entities = []
    for number in range(draw(st.integers(0, 4)) if text else 0):
        start = draw(st.integers(0, len(text) - 1))
        end = draw(st.integers(start + 1, min(len(text), start + 24)))
        entities.append(
            wire.entity(
                draw(st.sampled_from([*LABELS, "类 别<&>", "-->", "0"])),
                text[start:end],
                start,
                id=f"e{number}",
                parent=draw(st.sampled_from([None, "e0"])),
                confidence=draw(st.floats(0, 1)),
            )
        )
    at = draw(st.integers(0, 20_000))
    times = []
    for _ in text:
        start_ms = at + draw(st.sampled_from([0, 0, 0, 40, 400, 3_000]))
        at = start_ms + draw(st.sampled_from([0, 40, 200, 600]))
        times.append((start_ms, at))
    if draw(st.booleans()):
        times = []
    return final(text, *entities, utterance=draw(st.sampled_from(["u1", "一-->\n2"])), times=times)


def visible(text: str) -> str:
    """Without white space, which a line's end takes away."""
    return "".join(clean(text).split())


@settings(max_examples=40)
@given(st.lists(utterances(), max_size=5))
def test_cues_come_in_order_and_hold_everything(messages: list[UtteranceFinal]) -> None:
    track = CueTrack()
    before_ms = 0
    for message in messages:
        cues = track.cues(message, message.entities, (100.0, 900.0))
        lines = [line for cue in cues for line in cue.lines]
        assert visible("".join(line.text for line in lines)) == visible(message.text)
        for cue in cues:
            assert before_ms <= cue.start_ms < cue.end_ms
            before_ms = cue.end_ms
            assert 1 <= len(cue.lines) <= 2
            for line in cue.lines:
                assert line.text == line.text.strip() != ""
                assert cell_len(line.text) <= 32
                for outer, inner in itertools.combinations(line.marks, 2):
                    assert 0 <= outer.start <= inner.start
                    assert inner.start >= outer.end or inner.end <= outer.end, "nested or apart"
                assert all(0 <= mark.start < mark.end <= len(line.text) for mark in line.marks)


@given(st.text("他在会上说明年", max_size=80), st.data())
def test_entities_that_fit_a_line_are_never_broken(text: str, data: st.DataObject) -> None:
    spans, at = [], 0
    while at < len(text):
        start = at + data.draw(st.integers(0, 12))
        end = start + data.draw(st.integers(1, 16))
        if end <= len(text):
            spans.append((start, end))
        at = end
    breaks = {line[0] for cue in break_text(text, spans) for line in cue}
    assert not [span for span in spans for place in breaks if span[0] < place < span[1]]


@settings(max_examples=40)
@given(st.lists(utterances(), max_size=4))
def test_webvtt_read_back(messages: list[UtteranceFinal]) -> None:
    track, vtt = CueTrack(), WebVtt()
    everything = [told(track, message) for message in messages]
    written = vtt.head(LABELS) + "".join(map(vtt.block, everything)) + vtt.tail()
    read = webvtt.from_string(written)
    cues = [cue for utterance in everything for cue in utterance.cues]
    assert len(read) == len(cues)
    for caption, cue in zip(read, cues, strict=True):
        assert (caption.start_in_seconds, caption.end_in_seconds) == (
            cue.start_ms // 1_000,
            cue.end_ms // 1_000,
        )
        assert tagged(caption.raw_text) == [(line.text, marks_of(line.marks)) for line in cue.lines]
    assert vtt.head(LABELS).startswith(vtt.head(()))


def marks_of(marks: Sequence[Mark]) -> list[tuple[int, int, str]]:
    return sorted(
        (m.start, m.end, class_name(m.label) + (".inner" if m.inner else "")) for m in marks
    )


def tagged(payload: str) -> list[tuple[str, list[tuple[int, int, str]]]]:
    """Text and marks of each line, read as strictly as the standard says."""
    found = []
    for line in payload.split("\n"):
        text, marks, opened, at = "", [], [], 0
        while at < len(line):
            if line[at] == "<":
                end = line.index(">", at)
                tag = line[at + 1 : end]
                if tag == "/c":
                    start, name = opened.pop()
                    marks.append((start, len(text), name))
                else:
                    assert tag.startswith("c.")
                    opened.append((len(text), tag[2:]))
                at = end + 1
            elif line[at] == "&":
                end = line.index(";", at)
                text += {"amp": "&", "lt": "<", "gt": ">"}[line[at + 1 : end]]
                at = end + 1
            else:
                assert line[at] != ">"
                text += line[at]
                at += 1
        assert not opened
        found.append((text, sorted(marks)))
    return found


def srt_twins(text: str) -> str:
    return text.translate({ord("＜"): "<", ord("｛"): "{", ord("＼"): "\\", ord("＞"): ">"})


@settings(max_examples=40)
@given(st.lists(utterances(LETTERS.replace("0", "").replace("9", "")), max_size=4))
def test_srt_read_back(messages: list[UtteranceFinal]) -> None:
    # Without digits, since pysubs2 takes a last line that is a number for that of the next cue.
    track, srt = CueTrack(), SubRip()
    everything = [told(track, message) for message in messages]
    written = srt.head(LABELS) + "".join(map(srt.block, everything))
    read = pysubs2.SSAFile.from_string(written, format_="srt")
    cues = [cue for utterance in everything for cue in utterance.cues]
    assert len(read) == len(cues)
    for event, cue in zip(read, cues, strict=True):
        assert (event.start, event.end) == (cue.start_ms, cue.end_ms)
        assert srt_twins(event.plaintext) == "\n".join(line.text for line in cue.lines)
    if cues:
        numbers = [block.split("\n")[0] for block in written.rstrip("\n").split("\n\n")]
        assert numbers == [str(number) for number in range(1, len(cues) + 1)]


@settings(max_examples=40)
@given(st.lists(utterances(), max_size=4))
def test_ttml_read_back(messages: list[UtteranceFinal]) -> None:
    track, ttml = CueTrack(), TimedText()
    everything = [told(track, message) for message in messages]
    written = ttml.head(LABELS) + "".join(map(ttml.block, everything)) + ttml.tail()
    root = ElementTree.fromstring(written.encode())
    assert root.tag == f"{TTML}tt"
    cues = [cue for utterance in everything for cue in utterance.cues]
    paragraphs = list(root.iterfind(f"{TTML}body/{TTML}div/{TTML}p"))
    assert len(paragraphs) == len(cues)
    for paragraph, cue in zip(paragraphs, cues, strict=True):
        for line_break in paragraph.iter(f"{TTML}br"):
            line_break.text = "\n"
        assert "".join(paragraph.itertext()) == "\n".join(line.text for line in cue.lines)
        assert paragraph.get("begin") == f"{seconds(cue.start_ms)}"
        marks = sum(len(line.marks) for line in cue.lines)
        assert len(list(paragraph.iter(f"{TTML}span"))) == marks


def seconds(at_ms: int) -> str:
    whole, rest = divmod(at_ms, 1_000)
    return f"{whole // 3_600:02d}:{whole // 60 % 60:02d}:{whole % 60:02d}.{rest:03d}"


@settings(max_examples=40)
@given(st.lists(utterances(), max_size=4))
def test_metadata_read_back(messages: list[UtteranceFinal]) -> None:
    track, metadata = CueTrack(), MetadataTrack()
    everything = [told(track, message) for message in messages]
    written = metadata.head(LABELS) + "".join(map(metadata.block, everything))
    read = webvtt.from_string(written)
    cues = [(utterance, cue) for utterance in everything for cue in utterance.cues]
    assert len(read) == len(cues)
    for caption, (utterance, cue) in zip(read, cues, strict=True):
        assert not set(caption.raw_text) & set("<>&\n")
        payload = msgspec.json.decode(caption.raw_text)
        assert payload["text"] == utterance.text[cue.start : cue.end]
        assert [(e["id"], e["start"], e["end"]) for e in payload["entities"]] == [
            (e.id, e.start, e.end)
            for e in utterance.entities
            if e.start < cue.end and e.end > cue.start
        ]


@settings(max_examples=40)
@given(st.lists(utterances(), max_size=4))
def test_entity_list_has_ten_columns(messages: list[UtteranceFinal]) -> None:
    listing = EntityList("my talk")
    lines = "".join(listing.block(told(CueTrack(), message)) for message in messages).splitlines()
    assert len(lines) == sum(len(message.entities) for message in messages)
    for line in lines:
        columns = line.split(" ")
        assert len(columns) == 10
        assert all(columns)
        assert columns[:3] == ["ENTITY", "my_talk", "1"]
        assert (columns[3], columns[4]) == ("0.300", "0.600")


# --- single cases ---------------------------------------------------------------------------------


def entities_of(sentence: str) -> list[Entity]:
    org = wire.entity("ORG", "北京大学", sentence.index("北京大学"), confidence=0.8)
    inner = wire.entity("LOC", "北京", org.start, id="in", parent=org.id, end_ms=500)
    return [inner, org, wire.entity("PER", "江大桥", sentence.index("江大桥"), start_ms=None)]


def sentence_cue() -> tuple[CaptionedUtterance, Cue]:
    message = final(SENTENCE, *entities_of(SENTENCE), times=evenly(SENTENCE, 3_599_000))
    utterance = told(CueTrack(), message)
    return utterance, utterance.cues[0]


def test_webvtt_as_text() -> None:
    vtt = WebVtt()
    assert vtt.head(["PER"]) == "WEBVTT\n\n"
    assert WebVtt(styled=True).head(["PER", "my type"]) == (
        "WEBVTT\n\nSTYLE\n::cue(.PER) { color: #ff9cff }\n::cue(.my_type) { color: #ffff8c }\n"
        "::cue(.inner) { text-decoration: underline }\n"
        "::cue(.mended) { font-style: italic }\n\n"
    )
    block = vtt.block(sentence_cue()[0])
    assert block.startswith("1\n00:59:59.000 --> 01:00:0")
    assert "<c.ORG><c.LOC.inner>北京</c>大学</c>召开" in block
    assert "<c.PER>江大桥</c>说" in block


def test_srt_as_text() -> None:
    message = final("<b>a --> b</b>", times=evenly("<b>a --> b</b>"))
    block = SubRip().block(told(CueTrack(), message))
    assert block == "1\n00:00:00,000 --> 00:00:02,800\n＜b>a --＞ b＜/b>\n\n"


def test_entity_list_as_text() -> None:
    listing = EntityList("talk")
    lines = listing.block(sentence_cue()[0]).splitlines()
    assert listing.head(LABELS) == (
        ";; type file channel onset_s duration_s text label id confidence parent\n"
    )
    assert lines == [
        "ENTITY talk 1 0.300 0.600 北京大学 ORG ORG3 0.800 <NA>",
        "ENTITY talk 1 0.300 0.200 北京 LOC in 0.930 ORG3",
        "ENTITY talk 1 <NA> <NA> 江大桥 PER PER14 0.930 <NA>",
    ]


def test_metadata_tells_what_the_glossary_suggests() -> None:
    found = wire.entity("PER", "江大乔", 0, suggested_text="江大桥")
    utterance = told(CueTrack(), final("江大乔和李四", found, wire.entity("PER", "李四", 4)))
    payload = msgspec.json.decode(MetadataTrack().block(utterance).splitlines()[2])
    assert payload["entities"][0]["suggested_text"] == "江大桥"
    assert "suggested_text" not in payload["entities"][1]


def test_entities_that_cross_are_nested_in_pieces() -> None:
    crossing = [wire.entity("PER", "他在北京", 0), wire.entity("LOC", "北京大学", 2)]
    line = mark_line("他在北京大学", 0, 6, crossing)
    assert line.marks == (
        Mark(0, 4, "PER", False),
        Mark(2, 4, "LOC", False),
        Mark(4, 6, "LOC", False),
    )


def test_a_short_utterance_stays_long_enough_to_be_read() -> None:
    track = CueTrack()
    (first,) = track.cues(final("好", times=[(1_000, 1_100)]), [], (0.0, 0.0))
    assert (first.start_ms, first.end_ms) == (1_000, 1_833)
    (second,) = track.cues(final("不", times=[(1_500, 5_000)]), [], (0.0, 0.0))
    assert (second.start_ms, second.end_ms) == (1_833, 5_000)


def test_without_times_the_clock_of_the_client_counts() -> None:
    (cue,) = CueTrack().cues(final("他在北京"), [], (2_000.0, 4_000.0))
    assert (cue.start_ms, cue.end_ms) == (2_000, 4_000)


def test_no_format_is_forgotten() -> None:
    for make in FORMATS.values():
        made = make("talk")
        block = made.block(sentence_cue()[0])
        assert "北京大学" in block or "北京</" in block
        if made.tail():
            ElementTree.parse(io.StringIO(made.head(()) + made.tail()))
