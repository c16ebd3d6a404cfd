"""A model that listens takes over what another has learnt from text."""

from __future__ import annotations

import copy
from pathlib import Path

import msgspec
import pytest

torch = pytest.importorskip("torch")

from cnerta.models.errors import CheckpointError, ConfigError  # noqa: E402
from cnerta.models.networks.checkpoint import load_checkpoint  # noqa: E402
from cnerta.models.networks.tagger import SpeechTagger  # noqa: E402
from cnerta.train.loop.continued_model import take_text  # noqa: E402
from cnerta.train.loop.trainer import Trainer  # noqa: E402
from cnerta.train.recipe import load_recipe  # noqa: E402

from ..tones import write_tones  # noqa: E402

FULL = ["model.fusion.readings=8", 'model.gazetteer.lists="words.txt"', "model.gazetteer.width=4"]
FULL += ["model.gazetteer.rare=0", "stages.0.epochs=1", "stages.1.epochs=1"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_tones(tmp_path_factory.mktemp("tones"))
    (folder / "words.txt").write_text("南市 30 ns\n市长 30 n\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def trained(data: Path) -> Path:
    recipe = load_recipe(str(data / "recipe.toml"), FULL)
    return Trainer(recipe, data, data / "trained", cpu=True).run()


@pytest.fixture
def model(trained: Path) -> SpeechTagger:
    return load_checkpoint(trained).model


def is_of_text(model: SpeechTagger, name: str) -> torch.Tensor:
    """Which numbers of a parameter text and words go through before anything else does."""
    mask = torch.zeros_like(model.state_dict()[name], dtype=torch.bool)
    if name.startswith(("text.", "word_kinds.")):
        mask[:] = True
    if name.startswith("context.") and "weight_ih" in name:
        assert model.fusion is not None
        assert model.word_kinds is not None
        heard = model.text.width + model.fusion.width
        mask[:, : model.text.width] = True
        mask[:, heard : heard + model.word_kinds.width] = True
        assert mask.shape[1] == heard + model.word_kinds.width + 8, "and the readings"
    return mask


def other_than(model: SpeechTagger) -> SpeechTagger:
    """The same model with other numbers everywhere."""
    other = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter += 1.0
    return other


def test_what_reads_is_the_others_and_what_listens_stays(model: SpeechTagger) -> None:
    other = other_than(model)
    before = {n: w.clone() for n, w in model.state_dict().items()}
    take_text(model, other)
    changed = 0
    for name, weight in model.state_dict().items():
        mask = is_of_text(model, name)
        assert torch.equal(weight[mask], other.state_dict()[name][mask]), name
        assert torch.equal(weight[~mask], before[name][~mask]), name
        changed += int(mask.sum())
    assert changed


def test_training_starts_so(trained: Path, data: Path) -> None:
    recipe = load_recipe(str(data / "recipe.toml"), [*FULL, "seed=3"])
    further = Trainer(recipe, data, data / "further", cpu=True).run()
    expected = load_checkpoint(trained).model
    take_text(expected, load_checkpoint(further).model)
    started = Trainer(recipe, data, data / "started", cpu=True, init=trained, text_from=further)
    for name, weight in started.model.state_dict().items():
        assert torch.equal(weight, expected.state_dict()[name]), name
    with pytest.raises(ConfigError, match="expected a checkpoint to start from"):
        Trainer(recipe, data, data / "alone", cpu=True, text_from=further)


def test_models_that_do_not_go_together(model: SpeechTagger, data: Path) -> None:
    other = copy.deepcopy(model)
    other.config = msgspec.structs.replace(other.config, tagger_dropout=0.0)
    with pytest.raises(CheckpointError, match="of the same composition and characters"):
        take_text(model, other)
    plain = load_recipe(str(data / "recipe.toml"), ["model.fusion.context=0"])
    without = Trainer(plain, data, data / "without", cpu=True).model
    with pytest.raises(ConfigError, match=r"with model\.fusion\.context"):
        take_text(without, copy.deepcopy(without))
