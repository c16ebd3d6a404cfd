"""AISHELL-1 as published: archives a speaker, transcripts, and the corpora that build on it."""

from __future__ import annotations

import io
import json
import logging
import tarfile
from pathlib import Path

import numpy as np
import pytest
import soundfile

from cnerta.models.errors import DataError
from cnerta.models.runtime.labels import Span
from cnerta.train.data import audio, recordings
from cnerta.train.data.aishell import parse_brackets
from cnerta.train.data.audio import AudioCache, read_audio
from cnerta.train.data.examples import read_examples, read_source
from cnerta.train.data.recordings import archive_of, find_recordings, speaker_of
from cnerta.train.recipe import Source

TEXTS = {
    "BAC009S0002W0122": "他在北京大学",
    "BAC009S0002W0123": "江大桥到了南京",
    "BAC009S0764W0121": "谢谢",
}


def tone(name: str) -> np.ndarray:
    """Another sound for each name."""
    hertz = 200 + 10 * (sum(name.encode()) % 50)
    return 0.3 * np.sin(2 * np.pi * hertz * np.arange(4_000 + 100 * (hertz % 7)) / 16_000)


def aishell(root: Path, *, unpacked: bool) -> Path:
    """``data_aishell`` with one utterance more than the texts, for which there is no transcript."""
    wav = root / "data_aishell" / "wav"
    for name in [*TEXTS, "BAC009S0002W0999"]:
        speaker = name[6:11]
        split = "test" if speaker >= "S0764" else "train"
        path = wav / split / speaker / f"{name}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, tone(name), 16_000)
    if not unpacked:
        for folder in [*wav.glob("*/S*")]:
            with tarfile.open(wav / f"{folder.name}.tar.gz", "w:gz") as tar:
                tar.add(folder, f"{folder.parent.name}/{folder.name}")
            for file in folder.iterdir():
                file.unlink()
            folder.rmdir()
    transcript = root / "data_aishell" / "transcript" / "aishell_transcript_v0.8.txt"
    transcript.parent.mkdir()
    lines = [f"{name} {' '.join(text)}\n" for name, text in TEXTS.items()]
    transcript.write_text("".join(lines), "utf-8")
    return wav


def cnerta(path: Path, texts: dict[str, str]) -> Path:
    rows = [
        {"sentence": t, "audio": n, "entity": [], "speaker_info": "F"} for n, t in texts.items()
    ]
    path.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows), "utf-8")
    return path


@pytest.mark.parametrize("unpacked", [True, False])
@pytest.mark.parametrize("root", ["data_aishell/wav", "data_aishell"])
def test_recordings_are_found_unpacked_or_in_archives(
    tmp_path: Path, unpacked: bool, root: str
) -> None:
    aishell(tmp_path, unpacked=unpacked)
    examples = read_examples(cnerta(tmp_path / "train.json", TEXTS), audio_root=tmp_path / root)
    cache = AudioCache()
    for example, (name, text) in zip(examples, TEXTS.items(), strict=True):
        assert example.audio is not None
        assert (example.text, example.name, example.speaker) == (text, name, name[6:11])
        assert cache.seconds(example.audio) == pytest.approx(len(tone(name)) / 16_000)
        for samples in (read_audio(example.audio), cache(example.audio)):
            np.testing.assert_allclose(samples, tone(name), atol=1e-4)


def test_what_is_unpacked_is_not_looked_for_in_its_archive(tmp_path: Path) -> None:
    wav = aishell(tmp_path, unpacked=False)
    with tarfile.open(wav / "S0002.tar.gz") as tar:
        tar.extractall(wav, filter="data")
    found = find_recordings(wav)
    assert archive_of(found["BAC009S0002W0122"]) is None
    assert archive_of(found["BAC009S0764W0121"]) == wav / "S0764.tar.gz"


def test_archives_of_other_speakers_are_not_opened(tmp_path: Path) -> None:
    wav = aishell(tmp_path, unpacked=False)
    (wav / "S0003.tar.gz").write_bytes(b"no archive at all")
    found = find_recordings(wav, {"BAC009S0002W0122"})
    assert set(found) == {"BAC009S0002W0122", "BAC009S0002W0123", "BAC009S0002W0999"}
    with pytest.raises(DataError, match=r"expected an archive of recordings, got .*S0003"):
        find_recordings(wav)


@pytest.mark.parametrize("share", [0.3, 0.9, 0.999])
def test_an_archive_that_is_cut_off_is_named(tmp_path: Path, share: float) -> None:
    wav = aishell(tmp_path, unpacked=False)
    archive = wav / "S0002.tar.gz"
    content = archive.read_bytes()
    archive.write_bytes(content[: int(share * len(content))])
    with pytest.raises(DataError, match=r"expected an archive of recordings, got .*S0002"):
        find_recordings(wav)


def test_an_archive_is_read_once_for_all_that_is_wanted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wav = aishell(tmp_path, unpacked=False)
    examples = read_examples(cnerta(tmp_path / "train.json", TEXTS), audio_root=wav)
    opened: list[str] = []
    read = recordings.read_members

    def counted(archive: Path, members: set[str] | None = None):  # type: ignore[no-untyped-def]
        opened.append(archive.name)
        for member, content in read(archive, members):
            opened.append(member[-8:-4])
            yield member, content

    monkeypatch.setattr(audio, "read_members", counted)
    cache = AudioCache()
    cache.expect(e.audio for e in examples if e.audio is not None)
    for example in [*examples, *reversed(examples)]:
        assert example.audio is not None
        cache(example.audio)
    assert opened == ["S0002.tar.gz", "0122", "0123", "S0764.tar.gz", "0121"]


def test_a_manifest_may_name_recordings_in_archives(tmp_path: Path) -> None:
    aishell(tmp_path, unpacked=False)
    inside = "data_aishell/wav/S0764.tar.gz/test/S0764/BAC009S0764W0121.wav"
    row = {"audio": inside, "text": "谢谢", "entities": []}
    (tmp_path / "manifest.jsonl").write_text(json.dumps(row))
    (example,) = read_examples(tmp_path / "manifest.jsonl")
    assert example.audio is not None
    np.testing.assert_allclose(AudioCache()(example.audio), tone("BAC009S0764W0121"), atol=1e-4)


def test_missing_recordings_are_counted_and_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    wav = aishell(tmp_path, unpacked=True)
    more = {f"BAC009S0003W{i:04}": "你好" for i in range(7)}
    cnerta(tmp_path / "train.json", TEXTS | more)
    with pytest.raises(DataError) as caught:
        read_examples(tmp_path / "train.json", audio_root=wav)
    message = str(caught.value)
    assert "a recording of each of 10 rows" in message
    assert "got none of 7: BAC009S0003W0000 (line 4), BAC009S0003W0001 (line 5)," in message
    assert "BAC009S0003W0004 (line 8) and 2 more" in message
    source = Source(
        format="cnerta", path="train.json", audio_root="data_aishell/wav", allow_missing=True
    )
    with caplog.at_level(logging.WARNING):
        kept = read_source(source, tmp_path)
    assert [e.name for e in kept] == list(TEXTS)
    assert "got none of 7" in caplog.text


def test_sentences_that_were_not_said_are_counted_and_named(tmp_path: Path) -> None:
    wav = aishell(tmp_path, unpacked=False)
    wrong = TEXTS | {"BAC009S0002W0123": "江大桥到了北京", "BAC009S0002W0999": "你好"}
    cnerta(tmp_path / "train.json", wrong)
    with pytest.raises(DataError) as caught:
        read_examples(tmp_path / "train.json", audio_root=wav)
    message = str(caught.value)
    assert "got something else in 2 of 4 rows" in message
    assert "BAC009S0002W0123 (line 2): '江大桥到了北京' is transcribed '江大桥到了南京'" in message
    assert "BAC009S0002W0999 (line 4): no transcript" in message
    kept = read_examples(tmp_path / "train.json", audio_root=wav, allow_missing=True)
    assert [e.name for e in kept] == ["BAC009S0002W0122", "BAC009S0764W0121"]
    assert len(read_examples(tmp_path / "train.json")) == 4, "text alone needs no recordings"


def test_what_only_looks_different_was_said(tmp_path: Path) -> None:
    wav = aishell(tmp_path, unpacked=True)
    transcript = wav.parent / "transcript" / "aishell_transcript_v0.8.txt"
    transcript.write_text("BAC009S0002W0122 百余 ａ 人\n", "utf-8")
    rows = cnerta(tmp_path / "train.json", {"BAC009S0002W0122": "百馀A人"})
    assert len(read_examples(rows, audio_root=wav)) == 1


def test_aishell_ner_is_read_as_published(tmp_path: Path) -> None:
    aishell(tmp_path, unpacked=False)
    lines = [
        "BAC009S0002W0122 他在<北京大学>",
        "BAC009S0002W0123 [江 大桥] 到了 (南京)",
        "",
        "BAC009S0764W0121 谢谢",
    ]
    (tmp_path / "ner.txt").write_text("\n".join(lines), "utf-8")
    source = Source(format="aishell-ner", path="ner.txt", audio_root="data_aishell")
    first, second, third = read_source(source, tmp_path)
    assert (first.text, first.spans) == ("他在北京大学", (Span(2, 6, "ORG"),))
    assert second.text == "江大桥到了南京"
    assert second.spans == (Span(0, 3, "PER"), Span(5, 7, "LOC"))
    assert third.spans == ()
    assert all(e.audio is not None for e in (first, second, third))


def test_brackets_may_nest_and_must_match() -> None:
    text, entities = parse_brackets("<(北京)大学>的[李]")
    assert text == "北京大学的李"
    assert entities == [(0, 2, "北京", "LOC"), (0, 4, "北京大学", "ORG"), (5, 6, "李", "PER")]
    for broken in ("(北京", "北京)", "(北京>", "<(北京>)", "()北京"):
        with pytest.raises(DataError, match="expected brackets that match"):
            parse_brackets(broken)


def test_a_broken_line_is_named(tmp_path: Path) -> None:
    (tmp_path / "ner.txt").write_text("BAC009S0002W0122 北京\nBAC009S0002W0123 (北京\n", "utf-8")
    with pytest.raises(DataError, match=r"ner\.txt, line 2: expected brackets"):
        read_examples(tmp_path / "ner.txt")


def test_speakers_are_told_from_names() -> None:
    assert speaker_of("BAC009S0002W0122") == "S0002"
    assert speaker_of("education_100001") == ""


def test_what_an_archive_holds_is_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wav = aishell(tmp_path, unpacked=False)
    found = find_recordings(wav, index=tmp_path / "cache")
    opened: list[Path] = []
    read = recordings.read_members

    def counted(archive: Path, members: set[str] | None = None):  # type: ignore[no-untyped-def]
        opened.append(archive)
        return read(archive, members)

    monkeypatch.setattr(recordings, "read_members", counted)
    recordings._durations_of.cache_clear()  # as in another process
    assert find_recordings(wav, index=tmp_path / "cache") == found
    assert not opened
    for damage in (b"", b"{"):
        for remembered in (tmp_path / "cache").iterdir():
            remembered.write_bytes(damage)
        recordings._durations_of.cache_clear()
        assert find_recordings(wav, index=tmp_path / "cache") == found
    assert len(opened) == 4
    assert AudioCache(tmp_path / "cache").seconds(found["BAC009S0764W0121"]) > 0.1
    assert len(opened) == 4


def test_an_archive_that_holds_no_audio_is_named(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "x.tar.gz", "w:gz") as tar:
        entry = tarfile.TarInfo("a.wav")
        entry.size = 4
        tar.addfile(entry, io.BytesIO(b"none"))
    with pytest.raises(DataError, match=r"expected a recording, got .*x\.tar\.gz/a\.wav"):
        find_recordings(tmp_path)
