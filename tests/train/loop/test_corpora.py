"""Corpora whose conventions differ, in one training: each is answered as it is marked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from cnerta.models.errors import DataError  # noqa: E402
from cnerta.models.networks.checkpoint import load_checkpoint  # noqa: E402
from cnerta.models.runtime.labels import Span  # noqa: E402
from cnerta.train.data.audio import AudioCache  # noqa: E402
from cnerta.train.data.examples import Example  # noqa: E402
from cnerta.train.evaluation.predict import torch_predictions  # noqa: E402
from cnerta.train.loop.trainer import Trainer  # noqa: E402
from cnerta.train.recipe import load_recipe  # noqa: E402

RECIPE = """
name = "conventions"
[model]
labels = "flat"
[model.acoustic]
mel_bins = 40
conv_channels = 2
width = 8
layers = 1
heads = 1
feed_forward = 8
[model.text]
embedding = 8
hidden = 16
dropout = 0.0
[model.fusion]
kind = "none"
[model.ctc]
weight = 0.0
[data.ours]
format = "manifest"
path = "ours.jsonl"
[data.theirs]
format = "manifest"
path = "theirs.jsonl"
corpus = "亜"
[[stages]]
name = "both"
task = "entities"
train = ["ours", "theirs"]
dev = []
epochs = 40
batch_size = 4
learning_rate = 0.03
warmup_steps = 1
freeze_acoustic = true
"""
TEXTS = ["在甲乙", "去丙丁了", "甲丁的", "乙丙"]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    # The same sentences: we have places of two characters, they have each character as a person.
    names = [(t, [i for i, c in enumerate(t) if c in "甲乙丙丁"]) for t in TEXTS]
    ours = [
        {"text": t, "entities": [[i[0], i[1] + 1, t[i[0] : i[1] + 1], "LOC"]]} for t, i in names
    ]
    theirs = [{"text": t, "entities": [[k, k + 1, t[k], "PER"] for k in i]} for t, i in names]
    for name, rows in (("ours", ours), ("theirs", theirs)):
        lines = "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows)
        (tmp_path / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    (tmp_path / "recipe.toml").write_text(RECIPE, encoding="utf-8")
    return tmp_path


def test_conventions_do_not_mix(data: Path) -> None:
    recipe = load_recipe(str(data / "recipe.toml"))
    model = load_checkpoint(Trainer(recipe, data, data / "run", cpu=True).run()).model
    plain = torch_predictions(model, [Example("在甲乙", ())], AudioCache())
    assert plain == [[Span(1, 3, "LOC")]]
    marked = torch_predictions(model, [Example("在甲乙", (), corpus="亜")], AudioCache())
    # Counted from the mark.
    assert marked == [[Span(2, 3, "PER"), Span(3, 4, "PER")]]


def test_a_mark_must_be_known_to_the_model(data: Path) -> None:
    short = ["stages.0.epochs=1"]
    recipe = load_recipe(str(data / "recipe.toml"), short)
    start = Trainer(recipe, data, data / "run", cpu=True).run()
    other = load_recipe(str(data / "recipe.toml"), [*short, 'data.theirs.corpus="県"'])
    with pytest.raises(DataError, match=r"'both': expected corpora to be marked .* got 県"):
        Trainer(other, data, data / "other", cpu=True, init=start).run()
