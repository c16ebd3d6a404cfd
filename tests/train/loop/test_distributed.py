"""Two processes on one machine give what one gives."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # noqa: E402

from cnerta.models.networks.checkpoint import load_checkpoint  # noqa: E402
from cnerta.train.loop.trainer import Trainer  # noqa: E402
from cnerta.train.recipe import load_recipe  # noqa: E402

from ..tones import write_tones  # noqa: E402

# The first stage divides each batch between the processes; the second gives out whole batches, so
# that even dropout is the same. Both have steps that one process has no part of.
SETTINGS = [
    "augmentation.speeds=[0.9,1.0,1.1]",
    "augmentation.time_masks=0",
    "augmentation.frequency_masks=0",
    'data.written={format="manifest",path="written.jsonl"}',
    "stages.0.epochs=1",
    "stages.0.batch_size=3",
    "stages.1.epochs=2",
    "stages.1.batch_size=3",
    "stages.1.accumulate=2",
    'stages.1.train=["tones","written"]',
    "stages.1.drop_audio=0.3",
    "stages.1.drop_characters=0.1",
]


def losses(out: Path) -> list[float]:
    (events,) = (out / "tensorboard").iterdir()
    log = EventAccumulator(str(events)).Reload()
    return [e.value for stage in ("acoustic", "tag") for e in log.Scalars(f"{stage}/loss")]


def test_two_processes_train_as_one_does(tmp_path: Path) -> None:
    data = write_tones(tmp_path)
    rows = [{"text": "南市长南市"[: n + 1], "entities": []} for n in range(5)]
    (data / "written.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    recipe = load_recipe(str(data / "recipe.toml"), SETTINGS)
    one = load_checkpoint(Trainer(recipe, data, tmp_path / "one", cpu=True).run())

    changes = [f"--set={s}" for s in SETTINGS]
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2",
        "-m", "cnerta.train", str(data / "recipe.toml"), "--data-root", str(data),
        "--out", str(tmp_path / "two"), "--cpu", "--threads=1", *changes,
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("best model:") == 1, "the first process alone speaks"
    (best,) = (tmp_path / "two").glob("best-1-*")
    two = load_checkpoint(best)
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=1e-4)
    start = load_checkpoint(tmp_path / "one" / "best-0-acoustic").model.state_dict()
    for name, value in one.model.state_dict().items():
        away = (two.model.state_dict()[name] - value).abs()
        # A step of Adam is as long for a gradient that is rounding noise as for any other.
        assert away.max() < 5e-4, name
        assert away.mean() < 2e-6, name
    assert (
        one.model.state_dict()["emissions.weight"] - start["emissions.weight"]
    ).abs().max() > 0.02
    assert two.scores == pytest.approx(one.scores, rel=1e-4)
    (start,) = json.loads((best / "environment.json").read_bytes())
    assert start["processes"] == 2
