"""Runs that are killed: as the operating system does it, at any step."""

from __future__ import annotations

import json
import multiprocessing
import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from cnerta.models.networks.checkpoint import load_checkpoint  # noqa: E402
from cnerta.train.commands.train import train  # noqa: E402
from cnerta.train.loop.trainer import Trainer  # noqa: E402
from cnerta.train.recipe import load_recipe  # noqa: E402

from ..tones import write_tones  # noqa: E402

# Everything that draws is on, and steps have several batches, the last one fewer.
SETTINGS = [
    "augmentation.speeds=[0.9,1.0,1.1]",
    "model.acoustic.dropout=0.1",
    *(f"stages.{i}.{s}" for i in (0, 1) for s in ("epochs=3", "batch_size=2", "accumulate=3")),
    "stages.1.drop_audio=0.3",
    "stages.1.drop_characters=0.1",
]
STEPS = 2 * 3 * 3


def steps_done(out: Path) -> int:
    """Optimiser steps of which the last checkpoint tells."""
    try:
        state = json.loads((out / "last" / "state.json").read_bytes())
    except (FileNotFoundError, json.JSONDecodeError):
        return 0
    return 9 * int(state["stage"]) + int(state["steps"])


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Sums come out the same to the last bit only if as many threads share them."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("one_thread")
def test_a_run_killed_at_random_steps_ends_with_the_same_weights(tmp_path: Path) -> None:
    data = write_tones(tmp_path)
    recipe = load_recipe(str(data / "recipe.toml"), SETTINGS)
    whole = load_checkpoint(Trainer(recipe, data, tmp_path / "whole", cpu=True).run())
    assert steps_done(tmp_path / "whole") == STEPS

    out = tmp_path / "cut"
    settings = {
        "recipe": str(data / "recipe.toml"), "data_root": data, "out": out,
        "assignments": SETTINGS, "init": None, "acoustic_from": None, "cpu": True,
        "save_minutes": 0.0, "threads": 1, "workers": 1,
    }  # fmt: skip
    # The server process imports torch once; each run is a process of its own.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["cnerta.train.loop.trainer", "cnerta.train.commands.train"])
    chance = random.Random()
    kills = 0
    while True:
        run = context.Process(target=train, kwargs=settings)
        run.start()
        goal = steps_done(out) + chance.randint(1, 6)
        if kills < 3 and goal < STEPS:
            while steps_done(out) < goal and run.is_alive():
                time.sleep(0.002)
            # Not always at the same point between two checkpoints, or in one.
            time.sleep(chance.uniform(0, 0.03))
            run.kill()
        run.join()
        if run.exitcode == 0:
            break
        assert run.exitcode == -9
        kills += 1
    assert kills >= 2

    (best,) = out.glob("best-1-*")
    cut = load_checkpoint(best)
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, cut.model.state_dict()[name]), name
    assert cut.scores == whole.scores
    starts = json.loads((best / "environment.json").read_bytes())
    assert [s["resumed"] for s in starts][:2] == [False, True]


def test_a_run_killed_after_it_stopped_early_does_not_train_on(tmp_path: Path) -> None:
    data = write_tones(tmp_path)
    settings = [
        "stages.0.epochs=1", "stages.1.epochs=20", "stages.1.patience=2",
        "stages.1.learning_rate=1e-12",
    ]  # fmt: skip
    recipe = load_recipe(str(data / "recipe.toml"), settings)
    Trainer(recipe, data, tmp_path / "run", cpu=True).run()
    again = Trainer(recipe, data, tmp_path / "run", cpu=True)
    assert (again.progress.epoch, again.progress.since_best) == (3, 2)
    again.run()
    assert again.progress.epoch == 3
