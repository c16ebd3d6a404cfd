from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

pytest.importorskip("torch")

import typer

from cnerta.models.networks.checkpoint import Checkpoint, save_checkpoint
from cnerta.models.networks.tagger import SpeechTagger
from cnerta.models.runtime.inference import Model
from cnerta.models.runtime.labels import Span
from cnerta.train.commands.evaluate import evaluate
from cnerta.train.evaluation.systems import majority

app = typer.Typer()
app.command()(evaluate)
TEXTS = ["南京市，长江大桥", "李明说很好", "北京大学"]


@pytest.fixture
def data(tmp_path: Path, tiny_bundle: Path) -> Path:
    """A manifest whose gold is what the tiny model finds with audio, so the scores are known."""
    model = Model.load(tiny_bundle, device="cpu")
    generator = np.random.default_rng(0)
    rows = []
    for i, text in enumerate(TEXTS):
        soundfile.write(tmp_path / f"{i}.wav", 0.1 * generator.normal(size=16_000), 16_000)
        rows.append({"audio": f"{i}.wav", "text": text})
    path = tmp_path / "m.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    assert model.bundle.nested
    return path


def run(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    return result.exit_code, result.stdout, result.stderr


def test_predictions_are_a_manifest_that_scores_full_marks(data: Path, tiny_bundle: Path) -> None:
    found = data.parent / "sub" / "found.jsonl"
    found.parent.mkdir()
    code, _, messages = run("--data", data, "--bundle", tiny_bundle, "--predictions", found)
    assert code == 0
    assert "not scored" in messages
    rows = [json.loads(line) for line in found.read_text().splitlines()]
    assert [r["text"] for r in rows] == TEXTS, "the text as given, in the data's order"
    for row in rows:
        for start, end, mention, _ in row["entities"]:
            assert row["text"][start:end] == mention
    assert any(r["entities"] for r in rows)

    code, out, _ = run("--data", found, "--bundle", tiny_bundle, "--json")
    assert code == 0
    scores = json.loads(out)
    assert scores["sentences"] == 3
    assert scores["spoken"] == 3
    entities = sum(len(r["entities"]) for r in rows)
    assert scores["nested"] == {
        "precision": 100.0, "recall": 100.0, "f1": 100.0, "gold": entities, "predicted": entities,
        "correct": entities, "boundary_errors": 0, "type_errors": 0,
    }  # fmt: skip
    code, out, _ = run("--data", found, "--bundle", tiny_bundle, "--json", "--text-only")
    assert json.loads(out)["spoken"] == 0
    code, out, _ = run("--data", found, "--bundle", tiny_bundle)
    assert "3 sentences, 3 with speech" in out.replace("\n", " ")


def test_a_forgotten_audio_root_is_a_warning(tmp_path: Path, tiny_bundle: Path) -> None:
    row = {"sentence": "南京市", "audio": "BAC009S0002W0001", "entity": [[0, 2, "南京", "LOC"]]}
    path = tmp_path / "test.json"
    path.write_text(json.dumps(row) + "\n")
    asked = ("--data", path, "--bundle", tiny_bundle, "--json")
    code, out, messages = run(*asked)
    assert code == 0
    assert json.loads(out)["spoken"] == 0
    assert "warning: 1 of 1 rows name a recording" in messages.replace("\n", " ")
    assert "warning" not in run(*asked, "--text-only")[2]
    (tmp_path / "wav").mkdir()
    soundfile.write(tmp_path / "wav" / "BAC009S0002W0001.wav", np.zeros(16_000), 16_000)
    code, out, messages = run(*asked, "--audio-root", tmp_path / "wav")
    assert (json.loads(out)["spoken"], "warning" in messages) == (1, False)


def test_what_cannot_be_scored_is_said(data: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    code, _, messages = run("--data", data, "--bundle", tiny_bundle)
    assert code == 1
    assert "expected entities in every row" in messages.replace("\n", " ")
    code, _, messages = run("--data", data, "--bundle", tmp_path / "nowhere")
    assert code == 1
    code, _, messages = run("--data", data, "--device", "abacus")
    assert code == 2
    assert "abacus" in messages
    (tmp_path / "empty.jsonl").write_text("")
    code, _, messages = run("--data", tmp_path / "empty.jsonl")
    assert code == 1
    assert "got an empty file" in messages
    code, _, messages = run("--data", data, "--predictions", tmp_path / "[no]" / "x.jsonl")
    assert code == 1
    assert "[no]" in messages


def test_checkpoints_are_scored_and_vote(
    data: Path, tiny_model: SpeechTagger, tmp_path: Path
) -> None:
    checkpoint = tmp_path / "model"
    save_checkpoint(checkpoint, Checkpoint("tiny", tiny_model, {}, {}))
    found = tmp_path / "found.jsonl"
    one = ("--checkpoint", checkpoint)
    code, _, _ = run("--data", data, *one, "--device", "cpu", "--predictions", found)
    assert code == 0
    # What it found is what it finds, however often it is asked.
    code, out, _ = run("--data", found, *one, *one, *one, "--device", "cpu", "--json")
    assert code == 0
    assert json.loads(out)["nested"]["f1"] == 100.0
    code, _, messages = run("--data", data, *one, "--bundle", tmp_path, "--predictions", found)
    assert code == 1
    assert "got more" in messages


def test_the_majority_decides() -> None:
    a, b, c = Span(0, 2, "LOC"), Span(0, 2, "PER"), Span(1, 4, "ORG")
    assert majority([[a, c], [c, a], [b]]) == [a, c]
    assert majority([[a], [b]]) == []
    assert majority([[a, a], [], []]) == []


def test_a_report_is_written_beside_the_scores(
    data: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    found, other = tmp_path / "found.jsonl", tmp_path / "other.jsonl"
    run("--data", data, "--bundle", tiny_bundle, "--predictions", found)
    code, _, messages = run(
        "--data", found, "--bundle", tiny_bundle, "--text-only", "--predictions", other
    )
    assert code == 0, messages
    out = tmp_path / "report"
    arguments = ("--data", found, "--bundle", tiny_bundle, "--report", out)
    code, _, messages = run(*arguments, "--against", other, "--training-data", found)
    assert code == 0, messages
    report = json.loads((out / "report.json").read_bytes())
    assert (report["sentences"], report["spoken"]) == (3, 3)
    nested = report["breakdowns"]["nested"]
    assert nested["scores"]["f1"] == 100.0
    assert nested["seen"]["gold"] == nested["scores"]["gold"]
    assert report["differences"]["nested"]["value"] >= 0.0
    assert (out / "differences.md").is_file()
    code, _, messages = run(*arguments, "--against", data)
    assert code == 1
    assert "expected predictions in" in messages.replace("\n", " ")
    rows = found.read_text().splitlines()
    (tmp_path / "fewer.jsonl").write_text("".join(r + "\n" for r in rows[:2]))
    code, _, messages = run(*arguments, "--against", tmp_path / "fewer.jsonl")
    assert code == 1
    assert "of the same sentences and gold entities" in messages.replace("\n", " ")
    code, _, messages = run(*arguments, "--training-data", data)
    assert code == 1
    assert "got none" in messages.replace("\n", " ")
    code, _, messages = run("--data", data, "--bundle", tiny_bundle, "--report", out)
    assert code == 1
    assert "expected entities in every row" in messages.replace("\n", " ")


def test_a_checkpoint_answers_in_offsets_of_the_text_as_given(
    tiny_model: SpeechTagger, tmp_path: Path
) -> None:
    """It sees what training shows: no punctuation, no white space, lower case."""
    checkpoint = tmp_path / "model"
    save_checkpoint(checkpoint, Checkpoint("tiny", tiny_model, {}, {}))
    plain, dressed = tmp_path / "plain.jsonl", tmp_path / "dressed.jsonl"
    texts = ["南京市长江大桥", "李明说很好"]
    plain.write_text("".join(json.dumps({"text": t}) + "\n" for t in texts))
    spaced = [" " + "，".join(t) + "。" for t in texts] + ["。"]
    dressed.write_text("".join(json.dumps({"text": t}) + "\n" for t in spaced))
    found = []
    for path in (plain, dressed):
        out = tmp_path / f"{path.stem}.out"
        arguments = ("--checkpoint", checkpoint, "--device", "cpu", "--predictions", out)
        code, _, messages = run("--data", path, *arguments)
        assert code == 0, messages
        found.append([json.loads(line)["entities"] for line in out.read_text().splitlines()])
    ours, theirs = found
    assert any(ours), "expected something to compare"
    assert theirs == [
        *(
            [[1 + 2 * s, 2 * e, "，".join(m), label] for s, e, m, label in row] for row in ours
        ),
        [],
    ]  # fmt: skip
