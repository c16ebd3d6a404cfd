from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from cnerta.train.synthesis import kokoro
from cnerta.train.synthesis.espeak import EspeakVoice
from cnerta.train.synthesis.kokoro import KokoroVoice, SpeakerStyles
from cnerta.train.synthesis.pauses import with_pauses
from cnerta.train.synthesis.voices import (
    ProsodicWord,
    Script,
    VoiceError,
    loudness,
    spoken_readings,
)

from .sine_voice import RATE, word


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
