from __future__ import annotations

import csv
import json
import signal
import subprocess
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

pytest.importorskip("torch")

import typer

from cnerta.models.config import FusionConfig, ModelConfig, TextConfig
from cnerta.models.errors import ConfigError, DataError
from cnerta.models.networks.checkpoint import load_checkpoint
from cnerta.models.runtime.labels import Span
from cnerta.train.commands.table import table
from cnerta.train.commands.train import app as train_app
from cnerta.train.evaluation.predictions import Prediction, read_predictions, write_predictions
from cnerta.train.recipe import Recipe, Source, Stage
from cnerta.train.table.grid import Grid
from cnerta.train.table.latex import latex_table
from cnerta.train.table.paper import PAPER_ROWS, merge_flat, plan_paper_runs
from cnerta.train.table.results import build_sections, choose_baselines
from cnerta.train.table.runs import Run, RunRecord, evaluation_sources, find_runs, plan_runs
from cnerta.train.table.table import csv_table, markdown_table

from ...docs.test_commands import write_corpora

app = typer.Typer()
app.command()(table)

GOLD = (Span(0, 4, "ORG"), Span(0, 2, "LOC"))
TEXT_ONLY = ModelConfig(fusion=FusionConfig(kind="none"))


def run_table(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    return result.exit_code, result.stdout, result.stderr


def a_recipe(model: ModelConfig, seed: int = 0) -> Recipe:
    stage = Stage(name="tag", task="entities", train=["t"], dev=["d"], epochs=1)
    data = {n: Source(format="manifest", path=f"{n}.jsonl") for n in "td"}
    return Recipe(name="r", seed=seed, model=model, data=data, stages=[stage])


def a_run(
    out: Path, name: str, seed: int, model: ModelConfig, found: dict[str, list[Any]], **record: Any
) -> Run:
    """A run as it is on disk: 4 sentences of the same gold entities, and what it found in them."""
    folder = out / name / f"seed-{seed}"
    (folder / "predictions").mkdir(parents=True)
    record = {"status": "finished", **record}
    run = Run(name, seed, folder, RunRecord(a_recipe(model, seed), **record))
    for mode, spans in found.items():
        rows = [Prediction("北京大学", tuple(s), GOLD, out / "a.wav") for s in spans]
        write_predictions(folder / "predictions" / f"d.{mode}.jsonl", rows)
    return run.write(run.record)


def test_a_table_by_hand(tmp_path: Path) -> None:
    right, outer, nothing = list(GOLD), [GOLD[0]], []
    text = [right, outer, nothing, nothing]
    a_run(tmp_path, "text", 0, TEXT_ONLY, {"text": text})
    a_run(tmp_path, "text", 1, TEXT_ONLY, {"text": text})
    both = {"speech": [right] * 4, "text": [right, right, nothing, nothing]}
    a_run(tmp_path, "m3t", 0, ModelConfig(), both)
    a_run(tmp_path, "m3t", 1, ModelConfig(), {**both, "speech": [right, right, right, outer]})
    a_run(tmp_path, "m3t", 2, ModelConfig(), {}, status="failed", message="DataError: no | no")
    a_run(tmp_path, "flat", 0, ModelConfig(labels="flat"), {"text": text}, status="running")

    speech, written = build_sections(find_runs(tmp_path), ["d"])
    assert (speech.mode, speech.sentences, speech.spoken) == ("speech", 4, 4)
    assert [r.name for r in speech.rows] == ["text", "flat", "m3t"], "text alone first"
    base, flat, ours = speech.rows
    assert base.nested is not None
    # Nested: 3 of 8 entities, all of what it says is right; the same answers with speech.
    assert (base.nested.precision.mean, base.nested.recall.mean) == (100.0, 37.5)
    assert base.nested.f1.mean == pytest.approx(2 * 100 * 37.5 / 137.5)
    assert base.nested.f1.deviation == 0.0
    assert base.nested.delta is None
    assert ours.seeds == (0, 1)
    assert ours.unscored == ((2, "failed: DataError: no | no"),)
    assert ours.nested is not None
    assert ours.flat is not None
    # Recall 8/8 and 7/8: F1 100 and 93.33.
    assert ours.nested.f1.mean == pytest.approx((100 + 1400 / 15) / 2)
    assert ours.nested.f1.deviation == pytest.approx((100 - 1400 / 15) / 2**0.5)
    assert ours.flat.f1.mean == 100.0
    assert ours.flat.delta is not None
    assert ours.flat.delta.value == pytest.approx(100 - 200 * 2 / 6)
    assert ours.flat.delta.low <= ours.flat.delta.value <= ours.flat.delta.high
    # The same models without their audio find half of the entities: F1 66.67, in both seeds.
    assert ours.nested.audio_delta is not None
    assert ours.nested.audio_delta.value == pytest.approx((100 + 1400 / 15) / 2 - 200 / 3)
    assert ours.nested.audio_delta.low <= ours.nested.audio_delta.value
    assert ours.nested.audio_delta.value <= ours.nested.audio_delta.high
    assert base.nested.audio_delta is None, "it has no audio to be without"
    assert (base.resources, ours.resources) == ("Text", "Text+Speech")
    assert (flat.seeds, flat.unscored) == ((), ((0, "not finished"),))

    assert written.rows[2].nested is not None
    assert written.rows[2].nested.recall.mean == 50.0, "without speech its own other answers"
    assert written.rows[2].nested.audio_delta is None, "nothing is heard in either"

    markdown = markdown_table([speech, written], {"d, with speech": "d.png"})
    assert "| 100.00 ± 0.00 | +33.33 [" in markdown
    assert "- m3t, seed 2: failed: DataError: no | no" in markdown
    assert (
        "| flat | bilstm | cma | characters | 0 of 1 | Text+Speech | – | – | not finished |"
        in markdown
    )
    assert "![d, with speech](d.png)" in markdown
    rows = list(csv.DictReader(csv_table([speech, written]).splitlines()))
    (row,) = (r for r in rows if (r["model"], r["mode"], r["scores"]) == ("m3t", "speech", "flat"))
    assert (row["f1"], row["baseline"], row["seeds"]) == ("100.0000", "text", "2")
    assert float(row["delta"]) == pytest.approx(100 / 3, abs=1e-3)
    assert float(row["audio_delta"]) == pytest.approx(100 - 200 * 2 / 6, abs=1e-3)
    assert (row["resources"], row["parameters"], row["epochs"]) == ("Text+Speech", "", "")
    assert len(rows) == 12


def test_runs_of_other_sentences_are_not_compared(tmp_path: Path) -> None:
    a_run(tmp_path, "a", 0, TEXT_ONLY, {"text": [GOLD]})
    a_run(tmp_path, "b", 0, TEXT_ONLY, {"text": [GOLD, GOLD]})
    with pytest.raises(DataError, match="same sentences of d"):
        build_sections(find_runs(tmp_path), ["d"])
    with pytest.raises(DataError, match="expected runs below"):
        find_runs(tmp_path / "nowhere")


def test_what_rows_are_compared_with() -> None:
    bert = TextConfig(encoder="pretrained", checkpoint="bert")
    models = {
        "bilstm": ModelConfig(fusion=FusionConfig(kind="none")),
        "wide": ModelConfig(text=TextConfig(hidden=500), fusion=FusionConfig(kind="none")),
        "bilstm-m3t": ModelConfig(),
        "wide-m3t": ModelConfig(text=TextConfig(hidden=500)),
        "other-m3t": ModelConfig(text=TextConfig(hidden=400)),
        "flat-m3t": ModelConfig(labels="flat"),
        "bert-m3t": ModelConfig(text=bert),
    }
    usual = {"bilstm-m3t": "bilstm", "wide-m3t": "wide", "other-m3t": "bilstm"}
    assert choose_baselines(models, ()) == usual
    one = choose_baselines(models, ["bert-m3t=wide-m3t"])
    assert one == {**usual, "bert-m3t": "wide-m3t"}
    assert choose_baselines(models, ["bilstm"]) == {n: "bilstm" for n in models if n != "bilstm"}
    with pytest.raises(ConfigError, match="expected a row of"):
        choose_baselines(models, ["nothing"])


def test_sources_are_named_by_recipe_or_path() -> None:
    one, other = a_recipe(TEXT_ONLY), a_recipe(ModelConfig())
    assert evaluation_sources((), [one, other]) == {"d": one.data["d"]}
    chosen = evaluation_sources(["test=a/b.json", "t"], [one], "wav")
    assert chosen["test"] == Source(format="manifest", path="a/b.json", audio_root="wav")
    assert list(chosen) == ["test", "t"]
    with pytest.raises(ConfigError, match="got 'x'"):
        evaluation_sources(["x"], [one])
    with pytest.raises(ConfigError, match="names of letters"):
        evaluation_sources(["../x=y"], [one])
    changed = msgspec.structs.replace(other, data={"d": Source(format="cnerta", path="d.jsonl")})
    with pytest.raises(ConfigError, match="got different ones"):
        evaluation_sources(["d"], [one, changed])


def test_predictions_are_read_as_they_were_written(tmp_path: Path) -> None:
    rows = [
        Prediction("北京大学", (GOLD[1],), GOLD, tmp_path / "a.wav"),
        Prediction("他说", (), None),
        Prediction("他", (), ()),
    ]
    write_predictions(tmp_path / "p.jsonl", rows)
    assert read_predictions(tmp_path / "p.jsonl") == rows
    (tmp_path / "p.jsonl").write_text('{"text": 3}\n')
    with pytest.raises(DataError, match="expected predictions in"):
        read_predictions(tmp_path / "p.jsonl")


RECIPE = """
name = "tiny"
[model.acoustic]
mel_bins = 40
conv_channels = 4
width = 16
layers = 1
heads = 2
feed_forward = 16
[model.text]
embedding = 8
hidden = 16
[model.fusion]
width = 16
heads = 2
feed_forward = 16
[data.few]
format = "manifest"
path = "few.jsonl"
[[stages]]
name = "tag"
task = "entities"
train = ["few"]
dev = ["few"]
epochs = 1
"""


@pytest.fixture
def grid_arguments(tmp_path: Path) -> list[object]:
    generator = np.random.default_rng(0)
    rows = []
    for i in range(2):
        soundfile.write(tmp_path / f"{i}.wav", 0.1 * generator.normal(size=16_000), 16_000)
        entities = [[0, 2, "南京", "LOC"]]
        rows.append({"audio": f"{i}.wav", "text": "南京市长", "entities": entities})
    (tmp_path / "few.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    (tmp_path / "good.toml").write_text(RECIPE)
    broken = RECIPE + "learning_rate = 1e30\nwarmup_steps = 0\nbatch_size = 1\n"
    (tmp_path / "broken.toml").write_text(broken)
    recipes = f"{tmp_path / 'broken.toml'},{tmp_path / 'good.toml'}"
    return ["--recipes", recipes, "--data-root", tmp_path, "--out", tmp_path / "out", "--cpu",
            "--threads", 1, "--evaluate", "few", "--evaluate", "again=few.jsonl"]  # fmt: skip


def test_a_grid_runs_goes_on_after_a_failure_and_is_not_run_again(
    grid_arguments: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, out, _ = run_table(*grid_arguments)
    assert code == 1, "one of them failed"
    assert "| broken | bilstm | cma | characters | 0 of 1 | Text+Speech | – | – | failed |" in out
    assert "- broken, seed 0: failed: " in out
    assert "expected a finite loss" in out
    kept = tmp_path / "out"
    model = load_checkpoint(kept / "good/seed-0/best-0-tag").model
    size = f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f} M"
    assert f"| good | bilstm | cma | characters | 1 | Text+Speech | {size} | 1 of 1 |" in out
    assert (kept / "table.md").read_text(encoding="utf-8").strip() == out.strip()
    assert (kept / "few-speech.png").read_bytes().startswith(b"\x89PNG")
    found = read_predictions(kept / "good" / "seed-0" / "predictions" / "again.speech.jsonl")
    assert [(p.text, p.gold) for p in found] == [("南京市长", (Span(0, 2, "LOC"),))] * 2
    assert all(p.audio is not None and p.audio.is_file() for p in found)

    def no_process(*_: object, **__: object) -> None:
        raise AssertionError("expected no training, got one")

    monkeypatch.setattr(subprocess, "Popen", no_process)
    again, good = list(grid_arguments), f"{tmp_path / 'good.toml'}"
    again[1] = good
    # A source that was not scored before is scored now, without training.
    code, out, _ = run_table(*again, "--evaluate", "third=few.jsonl")
    assert code == 0, out
    assert "## third, text only" in out
    # The folder belongs to what was run in it.
    code, out, _ = run_table(*again, "--set", "stages.0.epochs=2")
    assert code == 1
    assert "choose another --out" in out
    code, out, _ = run_table("--out", kept, "--report-only")
    assert code == 1, "the failed one is still there"
    assert "## third, with speech" in out
    assert "- broken, seed 0: failed: " in out
    code, out, _ = run_table("--out", kept, "--report-only", "--recipes", "good")
    assert code == 0
    assert "broken" not in out


def test_a_run_that_is_cut_off_has_not_failed(
    grid_arguments: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    codes = iter([-signal.SIGTERM, -signal.SIGKILL])
    monkeypatch.setattr(Grid, "_call", lambda *_: next(codes))
    code, out, _ = run_table(*grid_arguments)
    assert code == 1
    assert "- broken, seed 0: not finished" in out
    assert "- good, seed 0: failed: ended by SIGKILL: out of memory?" in out
    assert [r.record.status for r in find_runs(tmp_path / "out")] == ["running", "failed"]


def test_two_processes_do_not_train_in_one_folder(
    grid_arguments: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fcntl = pytest.importorskip("fcntl")
    monkeypatch.setattr(Grid, "_call", lambda *_: -signal.SIGTERM)
    folder = tmp_path / "out" / "good" / "seed-0"
    folder.mkdir(parents=True)
    with (folder / "train.log").open("ab") as log:
        fcntl.flock(log, fcntl.LOCK_EX)
        # A training that outlives the grid that began it holds the lock with the file.
        with subprocess.Popen(["sleep", "60"], stdout=log) as child:
            log.close()
            _, out, _ = run_table(*grid_arguments)
            assert "- good, seed 0: failed: another process trains in" in out
            assert "- broken, seed 0: not finished" in out
            assert not (folder / "run.json").exists()
            child.kill()
    _, out, _ = run_table(*grid_arguments)
    assert "- good, seed 0: not finished" in out


def test_grids_that_cannot_be_run_are_said_before_anything_runs(tmp_path: Path) -> None:
    for arguments, message in (
        (("--recipes", "fast", "--seeds", "a,b"), "whole numbers by comma"),
        (("--recipes", ""), "at least one recipe"),
        (("--recipes", "fast,fast"), "every recipe and seed once"),
        (("--recipes", "no-such"), "expected a recipe file or one of"),
        (("--recipes", "fast", "--data-root", tmp_path), "expected a data file"),
    ):
        code, _, errors = run_table("--out", tmp_path / "out", *arguments)
        assert code == 1
        assert message in errors.replace("\n", " ")
    assert not (tmp_path / "out").exists()
    runs = plan_runs(["fast", "a/b.toml"][:1], [0, 3], tmp_path, ["stages.0.epochs=1"])
    assert [(r.record.recipe.seed, r.folder.name) for r in runs] == [(0, "seed-0"), (3, "seed-3")]
    assert runs[1].arguments == ("fast", "--set", "stages.0.epochs=1", "--set", "seed=3")


def test_flat_figures_are_of_the_flat_model_and_nested_of_the_nested(tmp_path: Path) -> None:
    right, outer, nothing = list(GOLD), [GOLD[0]], []
    flat = ModelConfig(labels="flat")
    flat_text = ModelConfig(labels="flat", fusion=FusionConfig(kind="none"))
    a_run(tmp_path, "t_1", 0, TEXT_ONLY, {"text": [right, nothing, nothing, nothing]})
    a_run(tmp_path, "t_1-flat", 0, flat_text, {"text": [outer, outer, nothing, nothing]})
    a_run(tmp_path, "m", 0, ModelConfig(), {"speech": [right] * 4, "text": [right] * 4})
    answers = {"speech": [outer, outer, outer, nothing], "text": [nothing] * 4}
    a_run(tmp_path, "m-flat", 0, flat, answers)
    a_run(tmp_path, "m-flat", 1, flat, {}, status="failed", message="no")
    apart = build_sections(find_runs(tmp_path), ["d"])[0]
    whole = merge_flat(apart)
    assert [row.name for row in whole.rows] == ["t_1", "m"]
    text, ours = whole.rows
    assert text.flat is not None
    assert text.flat.recall.mean == 50.0
    assert text.nested is not None
    assert text.nested.recall.mean == 25.0
    assert ours.flat is not None
    assert ours.nested is not None
    assert (ours.flat.recall.mean, ours.nested.recall.mean) == (75.0, 100.0)
    assert ours.flat.delta is not None
    assert ours.flat.delta.value == pytest.approx(600 / 7 - 200 / 3), "above the flat text row"
    assert ours.unscored == ((1, "flat: failed: no"),)
    # A flat row that has no nested one beside it stays.
    alone = merge_flat(build_sections(find_runs(tmp_path)[1:2], ["d"])[0])
    assert [row.name for row in alone.rows] == ["t_1-flat"]

    written = latex_table([whole]).splitlines()
    (row,) = (line for line in written if line.startswith("m &"))
    cells = row.removesuffix(r" \\").split(" & ")
    assert cells[1:6] == ["Text+Speech", "--", "100.00", "75.00", "85.71"]
    assert cells[6].startswith("$+19.05$ $[")
    assert cells[7].startswith("$+85.71$ $["), "without audio the flat model finds nothing"
    assert cells[8:11] == ["100.00", "100.00", "100.00"]
    assert cells[12].startswith("$+0.00$ $[+0.00, "), "the nested one as much"
    assert any(line.startswith(r"t\_1 & Text & ") for line in written)
    assert {
        line.count("&") for line in written if line.endswith(r"\\") and "multi" not in line
    } == {12}


def test_a_run_that_the_bound_on_epochs_has_ended_is_named() -> None:
    recipe = a_recipe(ModelConfig())
    stage = msgspec.structs.replace(recipe.stages[0], epochs=20, patience=5)
    recipe = msgspec.structs.replace(recipe, stages=[stage])
    for epochs, best, early in ((20, 18, True), (20, 15, False), (12, 7, False)):
        assert RunRecord(recipe, epochs=epochs, best_epoch=best).ended_early == early
    by_itself = msgspec.structs.replace(recipe, stages=[msgspec.structs.replace(stage, dev=[])])
    assert not RunRecord(by_itself, epochs=20, best_epoch=20).ended_early, "no rule, no early end"


def test_the_papers_grid_has_each_row_twice(tmp_path: Path) -> None:
    runs = plan_paper_runs(PAPER_ROWS, [0, 1], tmp_path)
    assert len(runs) == 17 * 2 * 2
    assert [r.name for r in runs[:4]] == ["bilstm-crf", "bilstm-crf", *["bilstm-crf-flat"] * 2]
    assert runs[2].folder == tmp_path / "bilstm-crf-flat" / "seed-0"
    for run in runs:
        labels = "flat" if run.name.endswith("-flat") else "nested"
        assert run.record.recipe.model.labels == labels
        assert f"model.labels={labels}" in run.arguments


def trained_here(_: Grid, command: list[str], log: Any) -> int:
    """Runs a training in this process: starting one for each takes longer than all of them."""
    result = CliRunner().invoke(train_app, command[3:])
    log.write(result.output.encode())
    return result.exit_code


def test_the_papers_table_from_its_own_file_layout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_corpora(tmp_path)
    monkeypatch.setattr(Grid, "_call", trained_here)
    small = (
        "model.acoustic.conv_channels=4", "model.acoustic.width=8", "model.acoustic.layers=1",
        "model.acoustic.feed_forward=8", "model.text.hidden=24", "model.fusion.feed_forward=8",
        "stages.0.epochs=2",
    )  # fmt: skip
    changes = [part for change in small for part in ("--set", change)]
    code, out, errors = run_table(
        "--paper", "--data-root", tmp_path / "data", "--out", tmp_path / "out", "--cpu",
        "--recipes", "bilstm-crf,bilstm-m3t", "--threads", 1, "--patience", 1,
        *changes,
    )  # fmt: skip
    assert code == 0, out + errors
    assert "## test, with speech" in out
    assert "2 sentences, 2 with a recording." in out
    crf, m3t = (
        sum(p.numel() for p in load_checkpoint(path).model.parameters())
        for path in (
            tmp_path / "out" / n / "seed-0/best-0-train" for n in ("bilstm-crf", "bilstm-m3t")
        )
    )
    assert f"| bilstm-crf | bilstm | – | – | 1 | Text | {crf / 1e6:.2f} M | " in out
    assert (
        f"| bilstm-m3t | bilstm | cma | characters | 1 | Text+Speech | {m3t / 1e6:.2f} M | " in out
    )
    assert "-flat |" not in out
    assert (
        "bilstm-m3t-flat: at most 2 epochs, until the development score has not risen for 1." in out
    )
    rows = list(csv.DictReader((tmp_path / "out" / "table.csv").read_text().splitlines()))
    (row,) = (
        r for r in rows if (r["model"], r["mode"], r["scores"]) == ("bilstm-m3t", "speech", "flat")
    )
    assert (row["baseline"], row["seeds"]) == ("bilstm-crf", "1")
    assert row["delta"]
    assert row["audio_delta"]
    assert (row["parameters"], row["epochs"]) == (str(m3t), "2.0")
    mended = tmp_path / "out" / "differences" / "test-speech-bilstm-m3t-audio.md"
    assert mended.read_text(encoding="utf-8").startswith(
        "# bilstm-m3t beside bilstm-m3t without audio\n"
    )
    assert "## Fixed by Speech (" in mended.read_text(encoding="utf-8")
    beside = tmp_path / "out" / "differences" / "test-speech-bilstm-m3t.md"
    assert "## Fixed by bilstm-m3t (" in beside.read_text(encoding="utf-8")
    assert "[bilstm-m3t against bilstm-m3t without audio](differences/test-speech-" in out
    assert r"bilstm-m3t & Text+Speech & " in (tmp_path / "out" / "table.tex").read_text()


def test_what_a_grid_will_take_is_told_by_short_runs(tmp_path: Path) -> None:
    """Ten minutes for two epochs are a hundred for twenty, and twice that for two seeds."""
    recipe = tmp_path / "r.toml"
    recipe.write_text(RECIPE.replace("epochs = 1", "epochs = 20"))
    (tmp_path / "s.toml").write_text(RECIPE)
    a_run(tmp_path / "short", "r", 0, TEXT_ONLY, {}, minutes=10.0, epochs=2)
    a_run(tmp_path / "short", "r", 1, TEXT_ONLY, {}, status="failed", minutes=99.0, epochs=1)
    code, out, errors = run_table(
        "--recipes", f"{recipe},{tmp_path / 's.toml'}", "--seeds", "3,4",
        "--out", tmp_path / "grid", "--measured", tmp_path / "short", "--price", 3,
    )  # fmt: skip
    assert code == 0, errors
    assert "| r | 5.00 | 20 | 2 | 3.3 | 10.00 |" in out
    assert "| s | not measured | 1 | 2 | – | – |" in out
    assert "| all that was measured |  |  | 4 | 3.3 | 10.00 |" in out
    assert not (tmp_path / "grid").exists(), "nothing is trained"
