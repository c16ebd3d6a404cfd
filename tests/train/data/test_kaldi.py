from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from cnerta.models.errors import DataError
from cnerta.models.runtime.labels import Span
from cnerta.train.data.audio import AudioCache, read_audio
from cnerta.train.data.examples import read_examples, read_source
from cnerta.train.data.recordings import recording_seconds
from cnerta.train.data.segments import segment_of, segment_path
from cnerta.train.recipe import Source

SECOND = 8_000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two utterances in one recording of three seconds, whose samples say where they are."""
    ramp = np.linspace(-0.5, 0.5, 3 * SECOND, dtype=np.float32)
    soundfile.write(tmp_path / "call.wav", ramp, SECOND, subtype="FLOAT")
    (tmp_path / "wav.scp").write_text("call call.wav\n")
    words = "u2 我 在 北京\nu1\t王 芳 用 new iphone 打 电话\n"
    (tmp_path / "text").write_text(words, encoding="utf-8")
    (tmp_path / "segments").write_text("u1 call 0.5 1.25\nu2 call 2.0 -1\n")
    (tmp_path / "utt2spk").write_text("u1 anna\nu2 bert\n")
    (tmp_path / "entities").write_text("u1 0 2 PER\nu2 2 4 LOC\n")
    return tmp_path


def test_a_folder_is_read(folder: Path) -> None:
    second, first = read_examples(folder)
    assert (first.text, second.text) == ("王芳用new iphone打电话", "我在北京")
    assert (first.spans, second.spans) == ((Span(0, 2, "PER"),), (Span(2, 4, "LOC"),))
    assert [(e.name, e.speaker) for e in (first, second)] == [("u1", "anna"), ("u2", "bert")]
    assert first.audio is not None
    assert second.audio is not None
    assert recording_seconds(first.audio) == pytest.approx(0.75)
    assert recording_seconds(second.audio) == pytest.approx(1.0)
    samples = read_audio(first.audio)
    assert len(samples) == round(0.75 * 16_000)
    # The ramp rises by a third a second; resampling rings at the edges.
    assert samples[3_000:9_000].mean() == pytest.approx(-0.5 + 0.875 / 3, abs=2e-3)
    assert read_audio(second.audio)[3_000:9_000].mean() == pytest.approx(-0.5 + 2.375 / 3, abs=0.02)

    (folder / "entities").unlink()
    source = Source(format="kaldi", path=folder.name)
    assert [e.spans for e in read_source(source, folder.parent)] == [None, None]
    with pytest.raises(DataError, match="expected no where"):
        read_source(Source(format="kaldi", path=folder.name, audio_root="x"), folder.parent)


def test_segments_are_kept_apart_in_a_cache(folder: Path, tmp_path: Path) -> None:
    paths = [e.audio for e in read_examples(folder)]
    for cache in (AudioCache(), AudioCache(tmp_path / "cache"), AudioCache(tmp_path / "cache")):
        found = [cache(p) for p in paths if p is not None]
        assert [len(f) for f in found] == [16_000, 12_000]
        assert cache.seconds(paths[0] or Path()) == pytest.approx(1.0)
    assert len(list((tmp_path / "cache").rglob("*.samples"))) == 2


def test_whole_recordings_need_no_segments(folder: Path) -> None:
    (folder / "segments").unlink()
    (folder / "wav.scp").write_text(f"u1 {folder / 'call.wav'}\nu2 call.wav\n")
    assert {e.audio for e in read_examples(folder)} == {folder / "call.wav"}


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("wav.scp", "call sox call.wav -t wav - |\n", "expected a file for call, got a command"),
        ("wav.scp", "call gone.wav\n", r"gone\.wav, which is not a file"),
        ("wav.scp", "other call.wav\n", "expected call, got no such recording"),
        ("text", "\n", "expected utterances in"),
        ("text", "u1\nu2 x\n", "expected a text of u1, got none"),
        ("segments", "u1 call 0 1\n", "expected u2, got no such utterance"),
        ("segments", "u1 call 0 1\nu2 call 2\n", "line 2: expected 4 fields"),
        ("segments", "u1 call 0 1\nu2 call 2 1\n", "expected a stretch of"),
        ("segments", "u1 call x 1\nu2 call 1 2\n", "expected times of u1"),
        ("entities", "u1 0 20 PER\n", r"inside 0\.\.16"),
        ("entities", "u9 0 1 PER\n", "expected utterances of text, got u9"),
        ("entities", "u1 a 1 PER\n", "expected start, end and type of u1"),
    ],
)
def test_what_is_wrong_is_named(folder: Path, file: str, content: str, message: str) -> None:
    (folder / file).write_text(content)
    with pytest.raises(DataError, match=message):
        read_examples(folder)


def test_a_segment_past_the_end_is_an_error(folder: Path) -> None:
    late = segment_path(folder / "call.wav", 2.5, 3.05)
    assert len(read_audio(late)) == 8_000, "a rounded end"
    with pytest.raises(DataError, match=r"to last 4 s, got 3 s"):
        read_audio(segment_path(folder / "call.wav", 2.5, 4.0))
    with pytest.raises(DataError, match="expected a recording"):
        read_audio(segment_path(folder / "gone.wav", 0.0, 1.0))
    assert segment_of(folder / "call.wav") is None
