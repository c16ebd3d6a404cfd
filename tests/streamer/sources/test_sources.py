from __future__ import annotations

import asyncio
import io
import itertools
import time
from collections.abc import AsyncIterator, Iterator
from importlib.metadata import EntryPoint, EntryPoints

import numpy as np
import numpy.typing as npt
import pysubs2
import pytest

from cnerta.streamer.errors import TranscriptError
from cnerta.streamer.sources import (
    LineTranscript,
    LiveAudio,
    MonoAudio,
    Revision,
    RevisionPace,
    TimedLine,
    TimedTranscript,
    TranscriptSource,
    base,
    make_transcript_source,
    read_timed_lines,
    registry,
)
from cnerta.streamer.sources import lines as line_source
from cnerta.streamer.sources.caption_input import read_captions
from cnerta.streamer.sources.mono_audio import without_gaps
from cnerta.streamer.wire.parts import AudioFormat

FORMAT = AudioFormat(sample_rate=16_000)
BLOCK_MS = 40
BLOCK = bytes(2 * 16 * BLOCK_MS)


async def collect(
    source: TranscriptSource, audio_ms: int, *, paced: bool = False
) -> list[tuple[float, Revision]]:
    """Stream silence past a source; return every revision with the audio time it came at."""
    audio = LiveAudio(FORMAT, paced=paced)
    got: list[tuple[float, Revision]] = []

    async def listen() -> None:
        async for revision in source.revisions(audio):
            got.append((audio.audio_ms, revision))  # noqa: PERF401 (audio_ms is of that moment)

    listening = asyncio.create_task(listen())
    await asyncio.sleep(0)
    for _ in range(audio_ms // BLOCK_MS):
        await audio.push(BLOCK)
        await asyncio.sleep(0)
    await audio.end()
    await asyncio.wait_for(listening, 5)
    return got


async def test_untimed_transcript_grows_in_proportion_to_the_audio_and_is_final_after_its_end() -> (
    None
):
    text = "南京市长江大桥"
    got = await collect(TimedTranscript.untimed(text, 2_800), 2_800)
    texts = [revision.text for _, revision in got]
    assert all(later.startswith(earlier) for earlier, later in itertools.pairwise(texts))
    assert len(set(texts[:-1])) == len(texts) - 1, "an unchanged text is not sent again"
    assert texts[-1] == text
    assert [revision.final for _, revision in got] == [False] * (len(got) - 1) + [True]
    assert [revision.revision for _, revision in got] == list(range(1, len(got) + 1))
    assert got[-1][0] == 2_800, "the final text comes only after the whole audio"
    assert all(revision.start_ms is None and revision.end_ms is None for _, revision in got)
    for audio_ms, revision in got[:-1]:
        # A character lasts 400 ms and is recognised 200 ms after its end, in whole blocks.
        spoken = (audio_ms - 200) / 400
        assert spoken - 1 - BLOCK_MS / 400 <= len(revision.text) <= spoken


async def test_timed_line_sends_its_characters_when_their_own_times_say() -> None:
    characters = ((500.0, 700.0), (700.0, 1_500.0), (1_500.0, 1_600.0))
    line = TimedLine(text="江大桥", start_ms=500, end_ms=1_600, characters=characters)
    pace = RevisionPace(interval_ms=100, delay_ms=200, final_delay_ms=300)
    got = await collect(TimedTranscript([line], pace), 3_000)
    assert [(audio_ms, revision.text, revision.end_ms) for audio_ms, revision in got] == [
        (920, "江", 700),  # 700 + 200, at the next block
        (1_720, "江大", 1_500),
        (1_800, "江大桥", 1_600),
        (1_920, "江大桥", 1_600),
    ]
    assert [revision.final for _, revision in got] == [False, False, False, True]
    assert {revision.start_ms for _, revision in got} == {500}


async def test_about_three_revisions_a_second() -> None:
    got = await collect(TimedTranscript.untimed("字" * 60, 10_000), 10_000)
    assert 28 <= len(got) <= 31


async def test_lines_keep_their_own_utterances_in_order_of_time() -> None:
    lines = [
        TimedLine(text="第二句", start_ms=1_000, end_ms=2_000),
        TimedLine(text="第一句", start_ms=0, end_ms=900),
    ]
    got = await collect(TimedTranscript(lines), 2_400)
    finals = [revision for _, revision in got if revision.final]
    assert [(final.utterance, final.text) for final in finals] == [
        ("u1", "第一句"),
        ("u2", "第二句"),
    ]
    assert [(final.start_ms, final.end_ms) for final in finals] == [(0, 900), (1_000, 2_000)]


async def test_paced_audio_keeps_the_final_waiting_in_real_time_after_its_end() -> None:
    line = TimedLine(text="桥", start_ms=0, end_ms=80)
    pace = RevisionPace(final_delay_ms=150)
    started = time.monotonic()
    got = await collect(TimedTranscript([line], pace), 80, paced=True)
    assert got[-1][1].final
    assert 0.13 <= time.monotonic() - started < 1.0


def test_empty_text_is_no_transcript() -> None:
    with pytest.raises(TranscriptError, match="expected a transcript, got an empty one"):
        TimedTranscript.untimed("  \n", 1_000)


def test_read_both_forms_of_timed_lines() -> None:
    file = io.BytesIO(
        b"\xef\xbb\xbf0.5\t1.25\t\xe6\xb1\x9f\xe5\xa4\xa7\xe6\xa1\xa5\r\n"
        b"\n"
        + '{"start_ms": 1300, "end_ms": 1500, "text": "长江", '.encode()
        + b'"characters": [[1300, 1400], [1400, 1500]]}\n'
    )
    assert read_timed_lines(file, "talk.tsv") == [
        TimedLine(text="江大桥", start_ms=500, end_ms=1_250),
        TimedLine(
            text="长江",
            start_ms=1_300,
            end_ms=1_500,
            characters=((1_300.0, 1_400.0), (1_400.0, 1_500.0)),
        ),
    ]


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("江大桥", "line 2: expected start<TAB>end<TAB>text"),
        ("1.0\tx\t江大桥", "line 2: expected start<TAB>end<TAB>text"),
        ("2.0\t1.0\t江大桥", "line 2: expected 0 <= start < end, got 2000 and 1000 ms"),
        ("-1\t1\t江", "line 2: expected 0 <= start < end"),
        ("nan\t1\t江", "line 2: expected 0 <= start < end"),
        ("0\tinf\t江", "line 2: expected 0 <= start < end"),
        ("0\t1\t ", "line 2: expected text, got none"),
        ('{"start_ms": 0, "end_ms": 1}', "line 2: Object missing required field `text`"),
        ('{"start_ms": 0, "end_ms": 1, "text": "江", "x": 1}', "line 2: .*unknown field `x`"),
        ('{"start_ms": 0, "end_ms": 1, "text": "江", "characters": []}', "of 1 characters, got 0"),
        ('{"start_ms": 0,', "line 2: Input data was truncated"),
        ("0\t1\t\udcff", "line 2: 'utf-8' codec can't decode"),
    ],
)
def test_bad_timed_line_is_named_with_its_number(line: str, complaint: str) -> None:
    file = io.BytesIO(("0\t1\t好\n" + line).encode("utf-8", "surrogateescape"))
    with pytest.raises(TranscriptError, match=complaint) as caught:
        read_timed_lines(file, "talk.tsv")
    assert str(caught.value).startswith("talk.tsv")


def test_frequencies_of_an_audacity_label_are_passed_over() -> None:
    file = io.BytesIO("0.5\t1.5\t江大桥\n\\\t100.0\t2000.0\n2\t3\t好\n".encode())
    assert [line.text for line in read_timed_lines(file, "labels.txt")] == ["江大桥", "好"]


def test_file_without_lines_is_no_transcript() -> None:
    with pytest.raises(TranscriptError, match="expected lines of a transcript, got none"):
        read_timed_lines(io.BytesIO(b"\n \n"), "talk.tsv")


async def test_every_line_is_a_final_utterance_and_broken_bytes_do_not_end_it() -> None:
    lines = ["江大桥\n".encode(), b"\n", b"\xff\xe6\xb1\x9f\r\n"]
    got = await collect(LineTranscript(lines), 40)
    assert [revision for _, revision in got] == [
        Revision("u1", 1, "江大桥", final=True),
        Revision("u2", 1, "\N{REPLACEMENT CHARACTER}江", final=True),
    ]


async def test_lines_are_not_read_without_bound() -> None:
    read = 0

    def endless() -> Iterator[bytes]:
        nonlocal read
        while True:
            read += 1
            yield b"x\n"

    revisions = LineTranscript(endless()).revisions(LiveAudio(FORMAT))
    await anext(revisions)
    await asyncio.sleep(0.1)
    assert read <= line_source.LINES_WAITING + 3
    await revisions.aclose()  # type: ignore[attr-defined]


async def test_a_source_hears_every_block_until_the_end() -> None:
    class Counting:
        async def revisions(self, audio: LiveAudio) -> AsyncIterator[Revision]:
            heard = 0
            async for block in audio.blocks():
                heard += len(block)
            yield Revision("u1", 1, str(heard), final=True)

    got = await collect(Counting(), 400)
    assert got[0][1].text == str(10 * len(BLOCK))


async def test_a_source_that_stopped_listening_does_not_hold_up_the_audio() -> None:
    audio = LiveAudio(FORMAT)
    reading = aiter(audio.blocks())
    first = asyncio.ensure_future(anext(reading))
    await asyncio.sleep(0)

    async def speak() -> None:
        for _ in range(2 * base.BLOCKS_WAITING):
            await audio.push(BLOCK)
        await audio.end()

    speaking = asyncio.create_task(speak())
    assert await first == BLOCK
    await asyncio.sleep(0.01)
    assert not speaking.done(), "a slow source holds the stream"
    audio.detach()
    await asyncio.wait_for(speaking, 1)


class Parrot:
    """A recogniser of somebody else's, with options."""

    def __init__(self, folder: str = "none", *, beam: str = "1") -> None:
        self.said = f"{folder} {beam}"

    async def revisions(self, audio: LiveAudio) -> AsyncIterator[Revision]:
        yield Revision("u1", 1, self.said, final=True)


@pytest.fixture
def parrot(monkeypatch: pytest.MonkeyPatch) -> None:
    """An installed package that offers a parrot."""
    entry_point = EntryPoint("parrot", "somebody:Parrot", registry.ENTRY_POINT_GROUP)
    monkeypatch.setattr(EntryPoint, "load", lambda self: Parrot)
    offered = EntryPoints([entry_point])
    monkeypatch.setattr(registry, "entry_points", lambda group: offered.select(group=group))


@pytest.mark.usefixtures("parrot")
@pytest.mark.parametrize(
    ("named", "said"),
    [
        ("parrot", "none 1"),
        ("parrot:models/zh", "models/zh 1"),
        ("parrot:beam=4", "none 4"),
        ("parrot:a,b{1,c},beam=2,3", "a,b{1,c} 2,3"),
        ("parrot:ws://host:1/x?y=1&z=2,beam=", "ws://host:1/x?y=1&z=2 "),
    ],
)
async def test_transcript_sources_are_found_by_entry_point(named: str, said: str) -> None:
    got = await collect(make_transcript_source(named), 40)
    assert [revision.text for _, revision in got] == [said]


@pytest.mark.usefixtures("parrot")
@pytest.mark.parametrize(
    ("named", "complaint"),
    [
        ("other", "got 'other'; there are: .*lines.*parrot"),
        ("parrot:width=4", "options that parrot takes, got: .*width"),
        ("parrot:beam=4,beam=5", "expected beam once .*, got it twice"),
        ("lines:somewhere,x=1", "options that lines takes, got: .*x"),
    ],
)
def test_sources_that_are_none_and_options_they_do_not_take(named: str, complaint: str) -> None:
    with pytest.raises(TranscriptError, match=complaint):
        make_transcript_source(named)


@pytest.mark.parametrize("rate", [8_000, 16_000, 24_000])
async def test_audio_for_recognisers_keeps_its_length_and_its_pitch(rate: int) -> None:
    audio = LiveAudio(AudioFormat(sample_rate=44_100, channels=2))
    await audio.push(bytes(4 * 441))  # before anybody hears
    mono = MonoAudio(audio, rate, rate // 10)
    assert mono.start_ms == 10
    got: list[npt.NDArray[np.float32]] = []

    async def listen() -> None:
        got.extend([block async for block in mono.blocks()])

    seconds = np.arange(44_100) / 44_100
    tone = np.rint(8_000 * np.sin(2 * np.pi * 440 * seconds)).astype("<i2")
    both = np.stack([tone, tone], axis=1).tobytes()
    for start in range(0, len(both), 7_000):
        await audio.push(both[start : start + 7_000])
    # Nobody listens yet, and nothing is lost.
    listening = asyncio.create_task(listen())
    await audio.end()
    await asyncio.wait_for(listening, 5)
    assert {len(block) for block in got[:-1]} == {rate // 10}
    whole = np.concatenate(got)
    assert abs(len(whole) - rate) <= rate // 100
    wanted = 8_000 / 32_768 * np.sin(2 * np.pi * 440 * np.arange(len(whole)) / rate)
    inner = slice(rate // 10, -rate // 10)
    assert np.abs(whole[inner] - wanted[inner]).max() < 2e-3


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        ("南京 市 长江\u3000大桥 ", "南京市长江大桥"),
        ("他 用 iPhone 15 打 电话 。", "他用 iPhone 15 打电话。"),
        ("one two", "one two"),
    ],
)
def test_spaces_between_chinese_characters_are_taken_out(said: str, wanted: str) -> None:
    assert without_gaps(said) == wanted


VTT = """WEBVTT

STYLE
::cue(.PER) { color: red }

NOTE nobody says this

intro
00:01.000 --> 00:02.500 align:start
<v 主持人>他在<c.ORG>北京</c></v>
大学 <00:00:02.000>上班

1:00:03.000 --> 1:00:04.000
AT&amp;T 和 iPhone 15
"""
SRT = """1
00:00:01,000 --> 00:00:02,500
{\\an8}<i>他在</i>北京
大学 上班

2
00:00:02,600 --> 00:00:02,900

3
01:00:03,000 --> 01:00:04,000
AT&T 和 iPhone 15
"""


@pytest.mark.parametrize(
    ("name", "text"), [("talk.vtt", VTT), ("TALK.SRT", SRT), ("talk.srt", "\ufeff" + SRT)]
)
def test_caption_files_are_transcripts(name: str, text: str) -> None:
    speaker = "主持人" if "<v " in text else None
    assert read_captions(io.BytesIO(text.encode()), name) == [
        TimedLine(text="他在北京大学上班", start_ms=1_000, end_ms=2_500, speaker=speaker),
        TimedLine(text="AT&T 和 iPhone 15", start_ms=3_603_000, end_ms=3_604_000),
    ]


def test_captions_of_several_voices_have_no_speaker() -> None:
    text = "WEBVTT\n\n00:01.000 --> 00:02.000\n<v 甲>你好</v>\n<v.loud 乙 &amp; 丙>好</v>\n"
    one = text.replace("<v 甲>你好</v>\n", "")
    assert [line.speaker for line in read_captions(io.BytesIO(text.encode()), "a.vtt")] == [None]
    assert [line.speaker for line in read_captions(io.BytesIO(one.encode()), "a.vtt")] == [
        "乙 & 丙"
    ]


def test_the_name_of_an_ass_event_is_its_speaker() -> None:
    captions = pysubs2.SSAFile()
    captions.append(pysubs2.SSAEvent(start=0, end=1_000, text="你好", name="甲"))
    content = captions.to_string("ass").encode()
    assert [line.speaker for line in read_captions(io.BytesIO(content), "a.ass")] == ["甲"]


async def test_lines_say_who_speaks_and_in_which_channel() -> None:
    line = '{"start_ms": 0, "end_ms": 900, "text": "你好", "speaker": "S1", "channel": 1}'.encode()
    got = await collect(TimedTranscript(read_timed_lines(io.BytesIO(line), "lines")), 2_000)
    assert len(got) >= 2
    assert {(revision.speaker, revision.channel) for _, revision in got} == {("S1", 1)}
    with pytest.raises(TranscriptError, match=r"line 1: .*speaker"):
        read_timed_lines(io.BytesIO(line.replace(b'"S1"', b'""')), "lines")


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("a.srt", b"", r"a\.srt: expected captions \(srt\), got none"),
        ("a.vtt", b"WEBVTT\n\n00:01.000 --> 00:02.000\n<c></c>\n", "got none"),
        ("a.srt", b"\xff\xfe", r"a\.srt: expected captions \(srt\), got: 'utf-8' codec"),
        (
            "a.srt",
            b"1\n00:00:02,000 --> 00:00:01,000\nx\n",
            "cue 1: expected 0 <= start < end, got 2000 and 1000 ms",
        ),
        ("a.ttml", b"<tt", r"a\.ttml: expected captions \(ttml\), got: "),
    ],
)
def test_what_are_no_captions(name: str, content: bytes, complaint: str) -> None:
    with pytest.raises(TranscriptError, match=complaint):
        read_captions(io.BytesIO(content), name)
