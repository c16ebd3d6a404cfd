"""The example of ``docs/how-to/fine-tune.md``: it must improve on the new kind and keep the old."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

pytest.importorskip("torch")

import typer

from cnerta.train.commands.evaluate import evaluate
from cnerta.train.commands.train import app as train_app

from ..docs.pages import ROOT, Page

evaluate_app = typer.Typer()
evaluate_app.command()(evaluate)
START = ROOT / "models" / "checkpoints" / "fast"


def run(app: typer.Typer, *arguments: object) -> str:
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


def nested_f1(checkpoint: Path, data: Path) -> float:
    said = run(
        evaluate_app, "--checkpoint", checkpoint, "--data", data, "--json", "--text-only",
        "--threads", 1,
    )  # fmt: skip
    return float(json.loads(said)["nested"]["f1"])


def test_the_example_improves_on_new_names_and_keeps_the_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (recipe,) = (b for b in Page(ROOT / "docs/how-to/fine-tune.md").blocks if b.file == "mine.toml")
    Path(recipe.file).write_text(recipe.code, encoding="utf-8")
    run(train_app, "invent", "--out", "mine")
    run(
        evaluate_app, "--checkpoint", START, "--text-only", "--data", "mine/old.jsonl",
        "--predictions", "mine/replay.jsonl", "--threads", 1,
    )  # fmt: skip
    run(train_app, recipe.file, "--init", START, "--out", "run", "--cpu", "--threads", 1)
    best = Path("run/best-0-mine")
    new, old = Path("mine/test.jsonl"), Path("mine/old_test.jsonl")
    assert nested_f1(best, new) > nested_f1(START, new) + 25
    assert nested_f1(best, old) >= nested_f1(START, old) - 0.5
