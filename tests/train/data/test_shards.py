from __future__ import annotations

import io
import json
import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

pytest.importorskip("torch")

from cnerta.models.errors import DataError
from cnerta.models.runtime.labels import LabelScheme, Span
from cnerta.train.commands.train import app
from cnerta.train.data.audio import AudioCache, read_audio
from cnerta.train.data.example import Example
from cnerta.train.data.examples import read_examples, read_source
from cnerta.train.data.held import EncodedRecording, FilePart
from cnerta.train.data.shards import read_shard, shard_files, shard_sizes, write_shards
from cnerta.train.data.streams import (
    Piece,
    entity_shapes,
    representative,
    stream_pieces,
    stream_size,
)
from cnerta.train.recipe import Source

SHARDS = Source(format="shards", path="shards", stream=True)


def write_manifest(folder: Path, rows: int = 5) -> Path:
    """Rows with recordings of 0.1, 0.2 … seconds, and one of text alone."""
    lines = []
    for number in range(rows):
        sound = np.full(1_600 * (number + 1), 0.1 * number - 0.2)
        soundfile.write(folder / f"r{number}.wav", sound, 16_000)
        row = {
            "text": f"他在北京{'一二三四五六七八九十'[number]}，",
            "entities": [[2, 4, "北京", "LOC"]],
            "audio": f"r{number}.wav",
            "speaker": f"s{number}",
            "readings": ["ta1", "zai4", "bei3", "jing1", "x1", "y1"],
        }
        lines.append(row)
    lines.append({"text": "没有人说"})
    (folder / "m.jsonl").write_text("".join(json.dumps(r) + "\n" for r in lines))
    return folder / "m.jsonl"


def shard(folder: Path, *more: object) -> str:
    arguments = ["shard", "m.jsonl", "--data-root", folder, "--out", folder / "shards", *more]
    done = CliRunner().invoke(app, [str(a) for a in arguments])
    assert done.exit_code == 0, done.output
    return done.output


def test_what_is_written_is_what_is_read(tmp_path: Path) -> None:
    before = read_examples(write_manifest(tmp_path))
    said = shard(tmp_path, "--per-shard", 4, "--no-shuffle")
    assert "2 shards, 6 utterances" in said
    index = json.loads((tmp_path / "shards" / "index.json").read_bytes())
    assert [s["url"] for s in index["shardlist"]] == ["000000.tar", "000001.tar"]
    assert [(s["nsamples"], s["spoken"]) for s in index["shardlist"]] == [(4, 4), (2, 1)]
    assert [s["seconds"] for s in index["shardlist"]] == [1.0, 0.5]
    after = read_examples(tmp_path / "shards")
    assert [e.text for e in after] == [e.text for e in before], "as written, with punctuation"
    for old, new in zip(before, after, strict=True):
        same = ("spans", "readings", "speaker", "name") if old.name else ("spans", "readings")
        assert [getattr(new, f) for f in same] == [getattr(old, f) for f in same]
        if old.audio is None:
            assert new.audio is None
        else:
            assert new.audio is not None
            np.testing.assert_array_equal(read_audio(new.audio), read_audio(old.audio))
    # A recording that is a file is in the shard as it was.
    with tarfile.open(tmp_path / "shards" / "000000.tar") as tar:
        names = [m.name for m in tar]
        file = tar.extractfile("000000001.wav")
        assert file is not None
        assert file.read() == (tmp_path / "r1.wav").read_bytes()
    assert names[:4] == ["000000000.json", "000000000.wav", "000000001.json", "000000001.wav"]
    cache = AudioCache()
    audio = after[2].audio
    assert isinstance(audio, FilePart), "read from its place, not held"
    assert cache.seconds(audio) == pytest.approx(0.3)


def test_shards_are_mixed_and_made_flac(tmp_path: Path) -> None:
    write_manifest(tmp_path)
    shard(tmp_path, "--flac", "--seed", 1)
    mixed = read_examples(tmp_path / "shards")
    plain = read_examples(tmp_path / "m.jsonl")
    assert [e.text for e in mixed] != [e.text for e in plain]
    assert Counter(e.text for e in mixed) == Counter(e.text for e in plain)
    with tarfile.open(tmp_path / "shards" / "000000.tar") as tar:
        assert {Path(m.name).suffix for m in tar} == {".json", ".flac"}
    said = CliRunner().invoke(
        app, ["shard", "m.jsonl", "--data-root", str(tmp_path), "--out", str(tmp_path / "shards")]
    )
    assert said.exit_code == 1
    assert "expected a folder without shards" in said.output.replace("\n", " ")


def test_a_forgotten_audio_root_is_said(tmp_path: Path) -> None:
    row = {"sentence": "他在北京", "audio": "BAC009S0002W0122", "entity": []}
    (tmp_path / "m.jsonl").write_text(json.dumps(row))
    assert "1 of 1 rows name a recording and were written without" in shard(
        tmp_path, "--format", "cnerta"
    ).replace("\n", " ")


def test_webdataset_reads_them(tmp_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    write_manifest(tmp_path)
    shard(tmp_path, "--per-shard", 4, "--no-shuffle")
    urls = [str(f) for f in shard_files(tmp_path / "shards")]
    samples = list(webdataset.WebDataset(urls, shardshuffle=False, empty_check=False))
    assert [s["__key__"] for s in samples] == [f"{n:09}" for n in range(6)]
    assert json.loads(samples[0]["json"])["entities"] == [[2, 4, "北京", "LOC"]]
    assert samples[1]["wav"] == (tmp_path / "r1.wav").read_bytes()


def test_shards_of_webdatasets_writer_are_read(tmp_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    write_manifest(tmp_path, rows=1)
    sound = (tmp_path / "r0.wav").read_bytes()
    (tmp_path / "theirs").mkdir()
    with webdataset.TarWriter(str(tmp_path / "theirs" / "a.tar")) as writer:
        writer.write({"__key__": "in/a", "txt": "他在北京", "wav": sound})
        writer.write({"__key__": "in/c", "json": {"text": "好", "lang": "zh"}})
        writer.write({"__key__": "in/d", "json": {"text": "ok", "lang": "en"}})
    source = Source(format="shards", path="theirs", where={"lang": ["zh"]})
    (only,) = read_source(source, tmp_path)
    assert (only.text, only.name, only.audio) == ("好", "in/c", None)
    first = read_examples(tmp_path / "theirs")[0]
    assert (first.text, first.spans) == ("他在北京", None)


def test_a_compressed_shard_is_read_too(tmp_path: Path) -> None:
    write_manifest(tmp_path)
    shard(tmp_path, "--no-shuffle")
    import gzip

    packed = tmp_path / "packed.tar.gz"
    packed.write_bytes(gzip.compress((tmp_path / "shards" / "000000.tar").read_bytes()))
    examples = list(read_shard(packed, SHARDS, streamed=False))
    assert len(examples) == 6
    assert isinstance(examples[0].audio, EncodedRecording)
    assert len(read_audio(examples[0].audio)) == 1_600


def test_what_is_wrong_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"folder or a pattern of tar files, got .*nowhere"):
        shard_files(tmp_path / "nowhere")
    bad = tmp_path / "bad.tar"
    bad.write_bytes(b"no tar" * 200)
    for streamed in (False, True):
        with pytest.raises(DataError, match=r"expected a shard, got .*bad\.tar"):
            list(read_shard(bad, SHARDS, streamed=streamed))

    def one(name: str, content: bytes) -> Path:
        with tarfile.open(bad, "w") as tar:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
        return bad

    for name, content, message in (
        ("a.wav", b"x", r"sample a: expected a .json or .txt, got \['.wav'\]"),
        ("a.b.txt", b"x", r"sample a: expected a .json or .txt, got \['.b.txt'\]"),
        ("a.json", b"{", r"bad\.tar, sample a: "),
        ("a.json", b'{"x": 1}', r"sample a: no field 'text'"),
        ("a.json", '{"text": "好", "entities": [[0, 2, "好", "LOC"]]}'.encode(), r"inside 0\.\.1"),
    ):
        with pytest.raises(DataError, match=message):
            list(read_shard(one(name, content), SHARDS, streamed=True))
    with pytest.raises(DataError, match="expected examples to write"):
        write_shards([], tmp_path / "none", per_shard=3)
    (tmp_path / "index.json").write_text("[]")
    with pytest.raises(DataError, match="expected an index of shards in"):
        shard_sizes([bad])


def test_a_shard_that_is_cut_off_is_an_error(tmp_path: Path) -> None:
    write_manifest(tmp_path)
    shard(tmp_path)
    (whole,) = shard_files(tmp_path / "shards")
    whole.write_bytes(whole.read_bytes()[:-12_000])
    for streamed in (False, True):
        with pytest.raises(DataError, match="expected a"):
            [e.audio and read_audio(e.audio) for e in read_shard(whole, SHARDS, streamed=streamed)]


def test_a_stream_knows_its_size_and_what_it_leaves_out(tmp_path: Path) -> None:
    write_manifest(tmp_path)
    shard(tmp_path, "--per-shard", 2)
    cache = AudioCache()

    def seconds(example: Example) -> float:
        return cache.seconds(example.audio) if example.audio else 0.0

    pieces = stream_pieces(SHARDS, tmp_path)
    assert len(pieces) == 3
    known = stream_size(pieces, seconds, 0)
    assert (known.utterances, known.spoken) == (6, 5)
    assert known.seconds == pytest.approx(1.5)
    (tmp_path / "shards" / "index.json").unlink()
    counted = stream_size(stream_pieces(SHARDS, tmp_path), seconds, 0)
    assert (counted.utterances, counted.spoken) == (6, 5)
    assert counted.seconds == pytest.approx(1.5)
    first = read_examples(tmp_path / "m.jsonl")[0]
    unwanted = [Example("没有人说", None), Example("别的", None, name=first.name)]
    left = [e.text for p in stream_pieces(SHARDS, tmp_path, unwanted) for e in p.read(True)]
    assert sorted(left) == [f"他在北京{n}" for n in sorted("三二四五")]


def test_few_examples_stand_for_all() -> None:
    generator = np.random.default_rng(0)
    every = []
    for _ in range(3_000):
        text = "".join(generator.choice(list("甲乙丙丁戊己庚辛壬癸"), 8))
        start = int(generator.integers(0, 3))
        outer = Span(
            start, start + int(generator.integers(2, 5)), str(generator.choice(["A", "B"]))
        )
        inner = Span(outer.start, outer.start + 1, "A")
        last = Span(7, 8, "B")
        every.append(Example(text, tuple(sorted({outer, inner, last}))))
    every.append(Example("子", (Span(0, 1, "C"),)))
    pieces = [
        Piece(str(n), lambda _, part=every[n : n + 500]: iter(part))  # type: ignore[misc]
        for n in range(0, len(every), 500)
    ]
    for least in (1, 3):
        few = representative(pieces, least, 0)
        assert len(few) < 200
        assert set("".join(e.text for e in few)) == set("".join(e.text for e in every))
        schemes = [
            LabelScheme.nested([(e.spans or (), len(e.text)) for e in some], least).tags
            for some in (few, every)
        ]
        assert schemes[0] == schemes[1]


def test_entities_that_touch_are_not_one_group() -> None:
    spans = [Span(2, 4, "A"), Span(4, 8, "B"), Span(5, 6, "C"), Span(5, 8, "D")]
    assert entity_shapes(spans) == [
        ((0, 2, "A"),),
        ((0, 4, "B"), (1, 4, "D"), (1, 2, "C")),
    ]
