from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import msgspec
import pytest
from typer.testing import CliRunner

torch = pytest.importorskip("torch")

from cnerta.models.errors import CheckpointError  # noqa: E402
from cnerta.models.networks.checkpoint import Checkpoint, load_checkpoint, save_checkpoint  # noqa: E402
from cnerta.models.networks.tagger import SpeechTagger  # noqa: E402
from cnerta.models.runtime.vocabulary import Vocabulary  # noqa: E402
from cnerta.train.commands.train import app  # noqa: E402
from cnerta.train.loop.averaging import average_checkpoints  # noqa: E402


@pytest.fixture
def models(tiny_model: Any, tmp_path: Path) -> tuple[list[SpeechTagger], list[Path]]:
    """Three models of one composition, and where they lie."""
    generator = torch.Generator().manual_seed(0)
    made, paths = [], [tmp_path / name for name in "abc"]
    for path in paths:
        model = copy.deepcopy(tiny_model)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += torch.randn(parameter.shape, generator=generator)
        save_checkpoint(path, Checkpoint("tiny", model, {"recipe": "r"}, {"dev.f1": 70.0}))
        made.append(model)
    return made, paths


def test_every_weight_is_the_mean(models: tuple[list[SpeechTagger], list[Path]]) -> None:
    made, paths = models
    found = average_checkpoints(paths)
    states = [model.state_dict() for model in made]
    for name, weight in found.model.state_dict().items():
        mean = sum(state[name].double() for state in states) / 3
        torch.testing.assert_close(weight.double(), mean, atol=1e-6, rtol=1e-6)
    assert found.scores == {}, "those of its parts are not its own"
    names = ", ".join(f"{path.parent.name}/{path.name}" for path in paths)
    assert found.provenance == {"recipe": "r", "average": names}, "and not where they lie"


def test_the_mean_of_equals_is_the_same(models: tuple[list[SpeechTagger], list[Path]]) -> None:
    made, paths = models
    found = average_checkpoints([paths[0], paths[0]]).model.state_dict()
    for name, weight in made[0].state_dict().items():
        torch.testing.assert_close(found[name], weight, atol=0, rtol=0)


def test_halves_take_half_the_room_and_start_trainings_in_full(
    models: tuple[list[SpeechTagger], list[Path]], tmp_path: Path
) -> None:
    made, paths = models
    same = [str(paths[0])] * 2
    for out, options in ((tmp_path / "whole", []), (tmp_path / "half", ["--half"])):
        done = CliRunner().invoke(app, ["average", *same, "--out", str(out), *options])
        assert done.exit_code == 0, done.output
    sizes = [(tmp_path / n / "model.safetensors").stat().st_size for n in ("half", "whole")]
    assert sizes[0] < 0.75 * sizes[1]
    found = load_checkpoint(tmp_path / "half").model.state_dict()
    for name, weight in made[0].state_dict().items():
        assert found[name].dtype == weight.dtype
        torch.testing.assert_close(found[name], weight, atol=1e-6, rtol=1e-3)


def test_only_models_of_one_kind_have_a_mean(
    models: tuple[list[SpeechTagger], list[Path]], tmp_path: Path
) -> None:
    made, paths = models
    with pytest.raises(CheckpointError, match="at least two checkpoints, got 1"):
        average_checkpoints(paths[:1])
    with pytest.raises(CheckpointError, match="expected a checkpoint folder"):
        average_checkpoints([paths[0], tmp_path / "none"])
    model = made[0]
    text = msgspec.structs.replace(model.config.text, hidden=20)
    characters = [*model.vocabulary.characters[:-1], "囍"]
    others = [
        SpeechTagger(
            msgspec.structs.replace(model.config, text=text), model.vocabulary, model.scheme
        ),
        SpeechTagger(
            model.config,
            Vocabulary.build(characters, {c: ["a1"] for c in characters}),
            model.scheme,
        ),
    ]
    for other in others:
        save_checkpoint(tmp_path / "other", Checkpoint("tiny", other, {}, {}))
        with pytest.raises(CheckpointError, match=r"same composition.*got another in .*other"):
            average_checkpoints([paths[0], tmp_path / "other"])


def test_the_command(models: tuple[list[SpeechTagger], list[Path]], tmp_path: Path) -> None:
    _, paths = models
    out = tmp_path / "mean"
    done = CliRunner().invoke(app, ["average", *map(str, paths), "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert load_checkpoint(out).provenance["average"].count(",") == 2
    refused = CliRunner().invoke(app, ["average", str(paths[0]), "--out", str(tmp_path / "no")])
    assert refused.exit_code == 1
    assert "CheckpointError: expected at least two checkpoints" in refused.output
    assert not (tmp_path / "no").exists()
