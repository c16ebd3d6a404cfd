from __future__ import annotations

import functools
import json
import logging
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import typer
from typer.testing import CliRunner

from cnerta.models.errors import DataError
from cnerta.models.runtime.labels import Span
from cnerta.train.commands import synthesise as synthesise_cli
from cnerta.train.synthesis import kokoro
from cnerta.train.synthesis.corpus import (
    MANIFEST,
    synthesise,
)
from cnerta.train.synthesis.espeak import EspeakVoice
from cnerta.train.synthesis.homographs import homograph_pairs
from cnerta.train.synthesis.kokoro import KokoroVoice, SpeakerStyles
from cnerta.train.synthesis.pauses import with_pauses
from cnerta.train.synthesis.sentences import (
    MarkedLine,
    Sentence,
    read_marked,
    read_sentences,
)
from cnerta.train.synthesis.tasks import (
    Cast,
    Task,
    homograph_tasks,
    interleave,
    marked_tasks,
    may_pause,
    sentence_tasks,
)
from cnerta.train.synthesis.voices import (
    ProsodicWord,
    Script,
    Speech,
    Syllable,
    VoiceError,
    loudness,
    spoken_readings,
)

ROOT = Path(__file__).resolve().parents[3]
RATE = 16_000
CAST = Cast(("low", "high"))


class SineVoice:
    """A tone a syllable, silence for every pause: what was asked can be read off the samples."""

    def __init__(self, log: Path | None = None, refuses: str = "") -> None:
        self._log = log
        self._refuses = refuses

    @property
    def name(self) -> str:
        return "sine"

    @property
    def speakers(self) -> tuple[str, ...]:
        return CAST.speakers

    @property
    def blends(self) -> bool:
        return False

    def speak(self, script: Script) -> Speech:
        if self._refuses and self._refuses in script.text:
            raise VoiceError(f"cannot say {self._refuses}")
        if self._log:
            with self._log.open("a") as log:
                log.write(f"{script.text}\n")
        tone = 200.0 if script.voice == "low" else 400.0
        pieces = [np.zeros(round(script.lead_ms * 16))]
        times: list[tuple[float, float]] = []
        for number, word in enumerate(script.words):
            for _ in word.syllables:
                start = sum(map(len, pieces)) / 16
                length = round(100 / script.speed) * 16
                pieces.append(0.5 * np.sin(2 * np.pi * tone * np.arange(length) / RATE))
                times.append((start, start + length / 16))
            if number + 1 < len(script.words):
                pieces.append(np.zeros(round(word.pause_ms * 16)))
        pieces.append(np.zeros(round(script.tail_ms * 16)))
        return Speech(
            np.concatenate(pieces).astype(np.float32), tuple(times), spoken_readings(script.words)
        )


def word(text: str, pinyin: str, pause_ms: float = 0.0) -> ProsodicWord:
    syllables = (Syllable(c, r) for c, r in zip(text, pinyin.split(), strict=True))
    return ProsodicWord(tuple(syllables), pause_ms)


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / MANIFEST).read_text().splitlines()]


@pytest.fixture
def tasks() -> list[Task]:
    return list(homograph_tasks(homograph_pairs(6, split="dev"), CAST))


# ---------------------------------------------------------------------------------- manifest


def test_manifest_says_what_the_recordings_hold(tmp_path: Path, tasks: list[Task]) -> None:
    written = list(synthesise(tasks, tmp_path, SineVoice))
    assert [w.key for w in written] == [t.key for t in tasks]
    for row, task, outcome in zip(rows(tmp_path), tasks, written, strict=True):
        samples, rate = soundfile.read(tmp_path / row["audio"], dtype="float32")
        assert rate == RATE
        assert row["seconds"] == pytest.approx(len(samples) / RATE, abs=1e-3)
        assert outcome.seconds == pytest.approx(row["seconds"], abs=1e-3)
        assert row["text"] == task.script.text
        assert row["readings"] == [s.reading for s in task.script.syllables]
        assert (row["voice"], row["speed"]) == (task.script.voice, task.script.speed)
        assert task.pair is not None
        assert (row["pair"], row["family"]) == (task.pair.identifier, task.pair.family)
        assert (row["reading"], row["split"]) == (task.reading, "dev")
        for start, end, surface, label in row["entities"]:
            assert row["text"][start:end] == surface
            assert Span(start, end, label) in task.entities
        flat = [time for times in row["characters"] for time in times]
        assert len(row["characters"]) == len(row["text"])
        assert flat == sorted(flat)
        assert flat[0] >= 0
        assert flat[-1] <= len(samples) / 16 + 1
        # Sound where characters are said, silence in the gaps between them.
        for index, (start, end) in enumerate(row["characters"]):
            assert np.abs(samples[start * 16 + 32 : end * 16 - 32]).max() > 0.4
            if index + 1 < len(row["characters"]):
                gap = samples[end * 16 + 32 : row["characters"][index + 1][0] * 16 - 32]
                assert not np.abs(gap).any()


def test_an_interrupted_run_goes_on(tmp_path: Path, tasks: list[Task]) -> None:
    said = tmp_path / "said.txt"
    build = functools.partial(SineVoice, said)
    folder = tmp_path / "out"
    stopped = synthesise(tasks, folder, build)
    for _ in range(4):
        next(stopped)
    stopped.close()
    before = {path.name: path.read_bytes() for path in folder.glob("*.flac")}
    rest = list(synthesise(tasks, folder, build))
    assert [w.key for w in rest] == [t.key for t in tasks[4:]]
    assert len(said.read_text().splitlines()) == len(tasks), "nothing was said twice"
    assert len(rows(folder)) == len(tasks)
    assert all((folder / name).read_bytes() == content for name, content in before.items())

    straight = tmp_path / "straight"
    list(synthesise(tasks, straight, SineVoice))
    assert rows(straight) == rows(folder)
    assert not list(synthesise(tasks, folder, build))


@pytest.mark.parametrize("cut", [1, 30])
def test_a_manifest_cut_short_is_repaired(tmp_path: Path, tasks: list[Task], cut: int) -> None:
    list(synthesise(tasks[:3], tmp_path, SineVoice))
    path = tmp_path / MANIFEST
    whole = path.read_text()
    path.write_text(whole[:-cut])
    again = list(synthesise(tasks[:3], tmp_path, SineVoice))
    assert len(again) == (1 if cut > 1 else 0)
    assert path.read_text() == whole


def test_processes_make_the_same(
    tmp_path: Path, tasks: list[Task], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(ROOT))  # workers import this module for its voice
    list(synthesise(tasks, tmp_path / "one", SineVoice))
    list(synthesise(tasks, tmp_path / "two", SineVoice, jobs=2))
    by_audio = functools.partial(sorted, key=lambda row: row["audio"])
    assert by_audio(rows(tmp_path / "two")) == by_audio(rows(tmp_path / "one"))


def test_what_the_voice_refuses_is_left_out_and_said(
    tmp_path: Path, tasks: list[Task], caplog: pytest.LogCaptureFixture
) -> None:
    refused = tasks[2].script.text
    build = functools.partial(SineVoice, None, refused)
    outcomes = list(synthesise(tasks, tmp_path, build))
    left = [w for w in outcomes if w.problem]
    assert [w.key for w in left] == [t.key for t in tasks if t.script.text == refused]
    assert f"left out {tasks[2].key}: cannot say" in caplog.text
    assert len(rows(tmp_path)) == len(tasks) - len(left)
    assert len(list(tmp_path.glob("*.flac"))) == len(tasks) - len(left)


# ------------------------------------------------------------------------------------- plans


def test_choices_depend_on_seed_and_key_only(tasks: list[Task]) -> None:
    pairs = homograph_pairs(6, split="dev")
    again = {t.key: t for t in homograph_tasks(reversed(pairs), CAST)}
    assert [again[t.key] for t in tasks] == tasks
    other = list(homograph_tasks(pairs, CAST, seed=1))
    assert [t.script for t in other] != [t.script for t in tasks]
    assert [t.script.text for t in other] == [t.script.text for t in tasks]


def test_pauses_at_decisive_boundaries() -> None:
    pairs = homograph_pairs(150, split="train")
    drawn: dict[str, list[float]] = {"paused": [], "pronounced": []}
    for pair, tasks in zip(pairs, _by_pair(homograph_tasks(pairs, CAST)), strict=True):
        for reading, task in zip((pair.first, pair.second), tasks, strict=True):
            assert task.entities == reading.entities
            for marked, said in zip(reading.words, task.script.words, strict=True):
                assert marked.text == "".join(s.character for s in said.syllables)
                if marked.following == "decisive":
                    drawn[pair.kind].append(said.pause_ms)
                elif marked.following == "none":
                    assert said.pause_ms == 0
    assert min(drawn["paused"]) >= 60
    assert max(drawn["paused"]) <= 300
    assert min(drawn["pronounced"]) == 0, "pronunciation tells: some are said without a pause"
    assert max(drawn["pronounced"]) <= 250


def _by_pair(tasks: Iterator[Task]) -> Iterator[tuple[Task, Task]]:
    return zip(tasks, tasks, strict=True)


def test_sentences_are_read_without_looking_at_entities() -> None:
    pytest.importorskip("jieba")
    text = "南京市长江大桥昨天举行了通车五十周年的纪念活动"
    bare = Sentence("a", text, ())
    labelled = Sentence("a", text, (Span(0, 3, "LOC"), Span(3, 7, "LOC")))
    (one,) = sentence_tasks([bare], CAST)
    (other,) = sentence_tasks([labelled], CAST)
    assert one.script == other.script
    assert other.entities == labelled.entities
    assert one.script.text == text
    assert all(s.reading[-1] in "12345" for s in one.script.syllables)


@pytest.mark.parametrize(
    ("left", "right", "may"),
    [
        ("有关部门/n", "和/c", True),
        ("粮食产量/n", "明显/d", True),
        ("的/uj", "报告/n", True),
        ("市长/n", "出席/v", True),
        ("公司/n", "将/d", True),
        # Inside what may be one name or one compound, whatever the segmenter says of it.
        ("人民/n", "广场/n", False),
        ("北京/ns", "公安局/nt", False),
        ("搜狐/nz", "体育/vn", False),
        ("广场/n", "站/v", False),
        ("三十八/m", "人/n", False),
        # Inside a phrase.
        ("已经/d", "公布/v", False),
        ("在/p", "北京/ns", False),
        ("参加/v", "比赛/n", False),
        ("看/v", "了/ul", False),
        ("的/uj", "时候/f", False),
    ],
)
def test_where_a_sentence_may_pause(left: str, right: str, may: bool) -> None:
    word, part = left.split("/")
    upcoming, next_part = right.split("/")
    assert may_pause((word, part), (upcoming, next_part)) == may


def test_sentences_pause_sometimes() -> None:
    pytest.importorskip("jieba")
    sentences = [
        Sentence(f"s{n}", "记者从有关部门了解到今年的粮食产量比去年明显提高", ()) for n in range(40)
    ]
    scripts = [t.script for t in sentence_tasks(sentences, CAST)]
    pauses = [w.pause_ms for script in scripts for w in script.words[:-1]]
    assert 0.05 < np.mean(np.array(pauses) > 0) < 0.5
    assert max(pauses) <= 380
    assert {script.voice for script in scripts} == set(CAST.speakers)
    assert min(s.speed for s in scripts) >= CAST.speeds[0]
    assert max(s.speed for s in scripts) <= CAST.speeds[1]


def test_sentences_with_latin_letters_are_left_out(caplog: pytest.LogCaptureFixture) -> None:
    sentences = [Sentence("x", "他买了iphone手机", ()), Sentence("y", "二零一六年GDP", ())]
    with caplog.at_level(logging.WARNING):
        assert not list(sentence_tasks(sentences, CAST))
    assert "left out x" in caplog.text
    assert "left out y" in caplog.text


def test_blends_are_new_speakers() -> None:
    cast = Cast(("a", "b", "c"), blends=True)
    lines = [MarkedLine(f"k{n}", ()) for n in range(200)]
    voices = {t.script.voice for t in marked_tasks(lines, cast)}
    assert {"a", "b", "c"} < voices
    assert any(voice.count("*") == 2 for voice in voices)
    assert all("*" not in t.script.voice for t in marked_tasks(lines, CAST))


def test_interleave_keeps_the_ratio_and_loses_nothing(tasks: list[Task]) -> None:
    first, second = tasks[:7], tasks[7:10]
    mixed = list(interleave(first, second, ratio=3))
    assert mixed == [*first[:3], second[0], *first[3:6], second[1], first[6], second[2]]
    assert list(interleave([], second, ratio=3)) == second
    assert list(interleave(first, [], ratio=3)) == first


# ------------------------------------------------------------------------------------- input


def test_both_sentence_formats(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text(
        '{"sentence": "我在北京", "audio": "BAC1", "entity": [[2, 4, "北京", "LOC"]]}\n\n'
        '{"text": "你好", "audio": "sub/two.ogg", "entities": []}\n{"text": "再见"}\n'
    )
    assert read_sentences(path) == (
        Sentence("BAC1", "我在北京", (Span(2, 4, "LOC"),)),
        Sentence("two", "你好", ()),
        Sentence("in-000004", "再见", ()),
    )


@pytest.mark.parametrize("line", ["{", "[1]", '{"audio": "x"}', '{"sentence": "你", "entity": 3}'])
def test_bad_sentence_lines_are_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text('{"text": "好"}\n' + line + "\n")
    with pytest.raises(DataError, match=r"in\.jsonl:2"):
        read_sentences(path)
    with pytest.raises(DataError, match="cannot read"):
        read_sentences(tmp_path / "none.jsonl")


def test_marked_lines_are_said_as_marked(tmp_path: Path) -> None:
    path = tmp_path / "lines.txt"
    path.write_text("# two readings\n\nmayor\t南京|60市长(shi4 zhang3)|170江大桥\n")
    (task,) = marked_tasks(read_marked(path), CAST)
    assert task.key == "mayor"
    assert [w.pause_ms for w in task.script.words] == [60, 170, 0]
    assert [s.reading for s in task.script.syllables][2:4] == ["shi4", "zhang3"]
    path.write_text("no tab here\n")
    with pytest.raises(DataError, match=r"lines\.txt:1: expected `key<tab>marked text`"):
        read_marked(path)
    path.write_text("key\tLatin\n")
    with pytest.raises(DataError, match=r"lines\.txt:1: expected a Chinese word"):
        read_marked(path)


# ------------------------------------------------------------------------------------ voices


@pytest.mark.parametrize(
    ("words", "spoken"),
    [
        ([word("你好", "ni3 hao3")], "ni2 hao3"),
        ([word("展览馆", "zhan3 lan3 guan3")], "zhan2 lan2 guan3"),
        ([word("不", "bu4"), word("是", "shi4")], "bu2 shi4"),
        ([word("不", "bu4", 100), word("是", "shi4")], "bu4 shi4"),
        ([word("不好", "bu4 hao3")], "bu4 hao3"),
        ([word("一下", "yi1 xia4")], "yi2 xia4"),
        ([word("一般", "yi1 ban1")], "yi4 ban1"),
        ([word("一九", "yi1 jiu3")], "yi1 jiu3"),
        ([word("第一次", "di4 yi1 ci4")], "di4 yi1 ci4"),
        ([word("很", "hen3"), word("好", "hao3")], "hen2 hao3"),
        ([word("老板", "lao3 ban3"), word("好", "hao3")], "lao2 ban3 hao3"),
        ([word("市长", "shi4 zhang3"), word("江", "jiang1")], "shi4 zhang3 jiang1"),
    ],
)
def test_tone_sandhi(words: list[ProsodicWord], spoken: str) -> None:
    assert " ".join(spoken_readings(words)) == spoken


def _said(gap_ms: float) -> tuple[list[float], list[float], np.ndarray]:
    """Four bursts of 200 ms with a silence in the middle, as if a model had said 南京 and 市长.

    Starts and ends of the four, where the model says they are, and the samples.
    """
    burst = 0.5 * np.sin(2 * np.pi * 200 * np.arange(200 * 16) / RATE)
    silence = [np.zeros(400 * 16), np.zeros(round(gap_ms * 16)), np.zeros(600 * 16)]
    audio = np.concatenate([silence[0], burst, burst, silence[1], burst, burst, silence[2]])
    starts = [400.0, 600.0, 800.0 + gap_ms, 1000.0 + gap_ms]
    return starts, [start + 200 for start in starts], audio.astype(np.float32)


@pytest.mark.parametrize("gap_ms", [40.0, 150.0])
@pytest.mark.parametrize("pause_ms", [30.0, 100.0, 300.0])
def test_pauses_get_the_length_asked_for(gap_ms: float, pause_ms: float) -> None:
    starts, ends, audio = _said(gap_ms)
    script = Script(
        (word("南京", "nan2 jing1", pause_ms), word("市长", "shi4 zhang3")), "x", lead_ms=50
    )
    speech = with_pauses(script, starts, ends, audio, ("",) * 4)
    assert speech.times is not None
    (s0, e0), (s1, e1), (s2, e2), (_, e3) = speech.times
    assert s2 - e1 == pytest.approx(pause_ms, abs=1)
    assert (s0, e0 - s0, e1 - s1, e2 - s2) == pytest.approx((50, 200, 200, 200), abs=15)
    # What the times say can be heard: the pause is quiet, the bursts on both sides are loud.
    levels = loudness(speech.samples)
    inside = levels[int((e1 + 10) / 5) : int((s2 - 10) / 5)]
    assert inside.max() < -35
    assert levels[int((e1 - 40) / 5)] > -10
    assert levels[int((s2 + 40) / 5)] > -10
    assert e3 <= speech.seconds * 1000
    # All that changed is the length of the pause.
    assert len(speech.samples) / 16 == pytest.approx(50 + 800 + pause_ms + 200, abs=15)


def test_without_a_pause_nothing_is_cut() -> None:
    starts, ends, audio = _said(40.0)
    script = Script((word("南京", "nan2 jing1"), word("市长", "shi4 zhang3")), "x", lead_ms=100)
    speech = with_pauses(script, starts, ends, audio, ("",) * 4)
    said = speech.samples
    whole = np.lib.stride_tricks.sliding_window_view(audio, len(said))
    assert (whole == said).all(axis=1).any(), "a piece of what the model gave, unchanged"
    assert speech.times is not None
    assert speech.times[1][1] == speech.times[2][0]


def test_kokoro_says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kokoro.phonemes.cache_clear()
    monkeypatch.setitem(sys.modules, "misaki.transcription", None)
    with pytest.raises(VoiceError, match="pip install misaki"):
        kokoro.phonemes("chang2")
    with pytest.raises(VoiceError, match=r"misaki|onnx"):
        KokoroVoice(tmp_path / "none.onnx", tmp_path)
    monkeypatch.setattr(kokoro, "require", lambda module, package: object())
    with pytest.raises(VoiceError, match="no Kokoro model at"):
        KokoroVoice(tmp_path / "none.onnx", tmp_path)
    (tmp_path / "some.onnx").write_bytes(b"not a model")
    with pytest.raises(VoiceError, match="expected Mandarin speakers"):
        KokoroVoice(tmp_path / "some.onnx", tmp_path)


def _styles(folder: Path, **values: float) -> Path:
    """Style files whose two halves are the value and ten times it."""
    for name, value in values.items():
        halves = np.repeat(np.float32([value, 10 * value]), 128)
        np.tile(halves, (510, 1)).astype(np.float32).tofile(folder / f"{name}.bin")
    return folder


def test_speakers_of_other_languages_lend_their_timbre(tmp_path: Path) -> None:
    folder = _styles(tmp_path, zf_li=1, zm_wang=2, af_bella=3, bm_george=4, af_nicole=5)
    assert SpeakerStyles(folder).speakers == ("zf_li", "zm_wang")
    styles = SpeakerStyles(folder, lend_timbre=True)
    # Of the same sex, and not a whisper.
    assert styles.speakers == ("zf_li", "zm_wang", "zf_li/af_bella", "zm_wang/bm_george")
    lent = styles["zf_li/af_bella"]
    assert lent.shape == (510, 256)
    assert (lent[:, :128] == 3).all()
    assert (lent[:, 128:] == 10).all()
    blend = styles["zf_li/af_bella*0.5+zm_wang*0.5"]
    assert (blend[:, :128] == 2.5).all()
    assert (blend[:, 128:] == 15).all()
    assert (styles["zf_li"][:, :128] == 1).all()


@pytest.mark.parametrize("voice", ["af_bella", "zf_li/nobody", "zf_li*x", "", "zf_li/"])
def test_speakers_that_are_not_there_are_named(tmp_path: Path, voice: str) -> None:
    styles = SpeakerStyles(_styles(tmp_path, zf_li=1, af_bella=3))
    with pytest.raises(VoiceError, match=r"expected one of .*zf_li.*, got "):
        styles[voice]


def test_style_files_of_another_size_are_refused(tmp_path: Path) -> None:
    (tmp_path / "zf_li.bin").write_bytes(bytes(8))
    with pytest.raises(VoiceError, match=r"expected 130560 values in .*zf_li\.bin, got 2"):
        SpeakerStyles(tmp_path)["zf_li"]


def test_kokoro_refuses_a_file_that_is_no_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnx")
    (tmp_path / "some.onnx").write_bytes(b"not a model")
    (tmp_path / "zf_one.bin").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "misaki", object())  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, "misaki.transcription", object())  # type: ignore[arg-type]
    with pytest.raises(VoiceError, match=r"is not an ONNX model|has none"):
        KokoroVoice(tmp_path / "some.onnx", tmp_path)


def test_espeak_says_what_is_missing() -> None:
    with pytest.raises(VoiceError, match="'no-such-program' is not installed"):
        EspeakVoice("no-such-program")


@pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="espeak-ng is not installed")
def test_espeak_reads_with_pauses() -> None:
    voice = EspeakVoice()
    lengths = []
    for pause in (0.0, 400.0):
        words = (word("南京市", "nan2 jing1 shi4", pause), word("长江", "chang2 jiang1"))
        speech = voice.speak(Script(words, "f2"))
        assert speech.times is None
        assert np.abs(speech.samples).max() > 0.05
        lengths.append(speech.seconds)
    assert lengths[1] - lengths[0] > 0.25
    with pytest.raises(VoiceError, match="expected one of"):
        voice.speak(Script((word("好", "hao3"),), "nobody"))


# ----------------------------------------------------------------------------------- command


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> typer.Typer:
    monkeypatch.setattr(synthesise_cli, "_builder", lambda *_, **_options: SineVoice)
    app = typer.Typer()
    app.command()(synthesise_cli.synthesise)
    return app


def test_command_resumes(tmp_path: Path, command: typer.Typer) -> None:
    arguments = ["--homographs", "3", "--split", "dev", "--out", str(tmp_path)]
    first = CliRunner().invoke(command, [*arguments, "--limit", "4"])
    assert first.exit_code == 0, first.output
    assert len(rows(tmp_path)) == 4
    second = CliRunner().invoke(command, arguments)
    assert second.exit_code == 0, second.output
    assert "2 recordings" in second.output
    assert "4 were there already" in " ".join(second.output.split())
    assert [r["reading"] for r in rows(tmp_path)] == [0, 1] * 3
    assert {r["split"] for r in rows(tmp_path)} == {"dev"}


def test_command_reads_marked_lines_with_one_speaker(tmp_path: Path, command: typer.Typer) -> None:
    marked = tmp_path / "marked.txt"
    marked.write_text("bridge\t南京市|180长江(chang2 jiang1) 大桥\n")
    out = tmp_path / "out"
    arguments = ["--marked", str(marked), "--speaker", "high", "--speed", "0.9", "0.9"]
    done = CliRunner().invoke(command, [*arguments, "--out", str(out)])
    assert done.exit_code == 0, done.output
    (row,) = rows(out)
    assert (row["audio"], row["voice"], row["speed"]) == ("bridge.flac", "high", 0.9)
    assert row["characters"][3][0] - row["characters"][2][1] == pytest.approx(180, abs=1)


def test_command_errors_are_sentences(tmp_path: Path, command: typer.Typer) -> None:
    nothing = CliRunner().invoke(command, ["--out", str(tmp_path)])
    assert nothing.exit_code == 1
    assert "expected something to read" in nothing.output
    missing = CliRunner().invoke(command, ["--out", str(tmp_path), "--text", "/no/such/file"])
    assert missing.exit_code == 1
    assert "cannot read sentences" in missing.output
    assert "Traceback" not in missing.output


def test_command_needs_the_model_for_kokoro(tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(synthesise_cli.synthesise)
    done = CliRunner().invoke(app, ["--out", str(tmp_path), "--homographs", "1"])
    assert done.exit_code == 1
    assert "--model and --voices-dir" in done.output
