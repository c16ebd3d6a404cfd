"""Stages of a model whose second head listens."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from cnerta.models.errors import ConfigError  # noqa: E402
from cnerta.models.networks.checkpoint import load_checkpoint  # noqa: E402
from cnerta.train.batches.batch import BatchBuilder  # noqa: E402
from cnerta.train.data.audio import AudioCache  # noqa: E402
from cnerta.train.data.examples import read_source  # noqa: E402
from cnerta.train.loop.objective import Objective, encode_batch  # noqa: E402
from cnerta.train.loop.trainer import Trainer  # noqa: E402
from cnerta.train.recipe import Recipe, Source, load_recipe  # noqa: E402

from ..tones import write_tones  # noqa: E402

LISTENING = (
    "model.fusion.gated=true", "stages.1.only_audio_head=true", "stages.1.freeze_acoustic=true",
    "stages.1.other_audio=0.3", "stages.1.forbid_worse=1.0", "stages.1.drop_audio=0.0",
)  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tones(tmp_path_factory.mktemp("tones"))


def recipe(data: Path, *overrides: str) -> Recipe:
    short = ("stages.0.epochs=1", "stages.1.epochs=1")
    return load_recipe(str(data / "recipe.toml"), [*short, *overrides])


def test_only_the_second_head_is_trained(data: Path, tmp_path: Path) -> None:
    trainer = Trainer(recipe(data, *LISTENING), data, tmp_path / "run", cpu=True)
    best = trainer.run()
    before = load_checkpoint(best.parent / "best-0-acoustic").model.state_dict()
    after = load_checkpoint(best).model.state_dict()
    moved = {name for name, weight in after.items() if not torch.equal(weight, before[name])}
    assert moved
    assert all(name.startswith("audio_head.") for name in moved)
    assert any(name.startswith("audio_head.gate.") for name in moved)


def test_a_model_with_one_head_goes_on_with_two(data: Path, tmp_path: Path) -> None:
    one = Trainer(recipe(data), data, tmp_path / "one", cpu=True).run()
    two = Trainer(recipe(data, *LISTENING), data, tmp_path / "two", cpu=True, init=one)
    known = load_checkpoint(one).model.state_dict()
    for name, weight in two.model.state_dict().items():
        if name in known:
            assert torch.equal(weight, known[name])
        elif not name.startswith("audio_head.gate."):
            assert torch.equal(weight, known[name.removeprefix("audio_head.")])


def test_being_worse_with_audio_costs_more(data: Path, tmp_path: Path) -> None:
    trainer = Trainer(
        recipe(data, *LISTENING, "stages.1.other_audio=0.0"), data, tmp_path, cpu=True
    )
    model = trainer.model.eval()
    examples = read_source(Source(format="manifest", path="tones.jsonl"), data)[:4]
    builder = BatchBuilder(model.vocabulary, model.scheme, AudioCache(), None)
    batch = builder.build([(e,) for e in examples], np.random.default_rng(0))
    losses = {}
    for weight in (0.0, 1.0):
        stages = recipe(data, *LISTENING, f"stages.1.forbid_worse={weight}").stages
        objective = Objective(model, stages[1], trainer.recipe.augmentation).eval()
        losses[weight] = float(objective(batch, 8).detach())
    with torch.no_grad():
        frames, counts = encode_batch(model, batch, 8)
        output = model(batch.characters, batch.counts, frames, counts, batch.matches)
        assert output.text_emissions is not None
        heard, alone = (
            model.entity_losses(emissions, batch.tags, batch.counts)
            for emissions in (output.emissions, output.text_emissions)
        )
    assert losses[0.0] == pytest.approx(float(heard.mean()), rel=1e-5)
    worse = (heard - alone).clamp(min=0).mean()
    assert losses[1.0] == pytest.approx(float(heard.mean() + worse), rel=1e-5)


def test_others_audio_is_nothing_to_train_an_encoder_with(data: Path, tmp_path: Path) -> None:
    wrong = recipe(data, "stages.1.other_audio=0.3", "stages.1.freeze_acoustic=false")
    trainer = Trainer(wrong, data, tmp_path, cpu=True)
    with pytest.raises(ConfigError, match="freeze_acoustic with other_audio"):
        trainer.run()


def test_one_head_has_no_second_to_train(data: Path, tmp_path: Path) -> None:
    wrong = recipe(data, "stages.1.only_audio_head=true", "stages.1.freeze_acoustic=true")
    trainer = Trainer(wrong, data, tmp_path, cpu=True)
    with pytest.raises(ConfigError, match=r"model\.fusion\.gated"):
        trainer.run()
