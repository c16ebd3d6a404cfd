from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("torch")

from typer.testing import CliRunner

from cnerta.models.runtime.bundle import default_bundle_path
from cnerta.models.runtime.inference import Model
from cnerta.train.commands.train import app
from cnerta.train.data.aligning import align_manifest, character_edges
from cnerta.train.data.examples import read_examples

DEMO = Path(__file__).parents[3] / "streamer" / "demo"
TEXT = "南京市长江大桥"


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    folder = tmp_path / "clips"
    folder.mkdir()
    for name in ("mayor", "bridge"):
        (folder / f"{name}.flac").write_bytes((DEMO / f"{name}.flac").read_bytes())
    rows = [
        {"audio": "mayor.flac", "text": TEXT, "speaker": "one"},
        {"audio": "bridge.flac", "text": "南京市，长江大桥。"},
        {"audio": "bridge.flac", "text": "今天股市大幅下跌令人意外"},
    ]
    path = folder / "manifest.jsonl"
    path.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows), "utf-8")
    return path


def test_characters_get_their_times(manifest: Path, tmp_path: Path) -> None:
    model = Model.load(default_bundle_path(), device="cpu")
    out = tmp_path / "aligned" / "manifest.jsonl"
    first, second, other = align_manifest(model, manifest, out)
    assert first["audio"] == "../clips/mayor.flac"
    assert first["speaker"] == "one"
    times = first["characters"]
    assert len(times) == len(TEXT)
    flat = [t for pair in times for t in pair]
    assert flat == sorted(flat)
    assert all(end > start for start, end in times)
    # What is not spoken has a place and no length.
    comma, stop = second["characters"][3], second["characters"][8]
    assert comma[0] == comma[1] == second["characters"][2][1]
    assert stop[0] == stop[1]
    assert "characters" not in other, "what does not fit has no times"


def test_the_command_writes_what_training_reads(manifest: Path, tmp_path: Path) -> None:
    out = tmp_path / "aligned" / "manifest.jsonl"
    result = CliRunner().invoke(app, ["align", str(manifest), "--out", str(out)])
    assert result.exit_code == 0, result.output
    examples = read_examples(out)
    assert [e.times_ms is not None for e in examples] == [True, True, False]
    assert all(e.audio is not None and e.audio.is_file() for e in examples)


def test_a_row_without_a_text_is_named(manifest: Path, tmp_path: Path) -> None:
    with manifest.open("a") as file:
        file.write('{"audio": "mayor.flac"}\n')
    result = CliRunner().invoke(app, ["align", str(manifest), "--out", str(tmp_path / "o.jsonl")])
    assert result.exit_code == 1
    assert not (tmp_path / "o.jsonl").exists()


def test_several_spoken_characters_of_one_written_one() -> None:
    spoken = [[0.0, 100.0], [100.0, 220.0], [300.0, 400.0]]
    assert character_edges(spoken, [(0, 2), (2, 2), (2, 3)]) == [
        (0.0, 220.0),
        (220.0, 220.0),
        (300.0, 400.0),
    ]
