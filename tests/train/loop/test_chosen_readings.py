"""The tagger's input includes which pronunciation was spoken."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from cnerta.export.graphs import TaggerGraph, write_graph  # noqa: E402
from cnerta.export.parity import check_parity  # noqa: E402
from cnerta.models.config import GazetteerConfig  # noqa: E402
from cnerta.models.errors import ConfigError  # noqa: E402
from cnerta.models.networks.checkpoint import load_checkpoint  # noqa: E402
from cnerta.models.networks.ctc import CtcHead  # noqa: E402
from cnerta.models.networks.reading_embedding import ChosenReadings  # noqa: E402
from cnerta.models.networks.tagger import SpeechTagger  # noqa: E402
from cnerta.models.runtime.bundle import TAGGER_FILE  # noqa: E402
from cnerta.models.runtime.vocabulary import Vocabulary  # noqa: E402
from cnerta.train.data.audio import AudioCache  # noqa: E402
from cnerta.train.data.examples import read_source  # noqa: E402
from cnerta.train.data.pronunciations import add_name_readings  # noqa: E402
from cnerta.train.evaluation.predict import torch_predictions  # noqa: E402
from cnerta.train.loop.continued_model import (  # noqa: E402
    with_chosen_readings,
    with_gazetteer,
    with_name_readings,
)
from cnerta.train.loop.trainer import Trainer  # noqa: E402
from cnerta.train.recipe import Source, load_recipe  # noqa: E402

from ..tones import write_tones  # noqa: E402

VOCABULARY = Vocabulary.build(
    "市长江", {"市": ["shi4"], "长": ["chang2", "zhang3"], "江": ["jiang1"]}
)
UNITS = {name: i for i, name in enumerate(VOCABULARY.units)}


def heard(*syllables: str, frame_count: int | None = None) -> torch.Tensor:
    """What a head that hears one-hot frames makes of 市长江. shape: (3, readings)."""
    head = CtcHead(VOCABULARY, len(UNITS), tied=False)
    with torch.no_grad():
        head.own.weight.copy_(torch.nn.functional.pad(10 * torch.eye(len(UNITS)), (0, 1)))
        head.blank.weight.zero_()
        head.blank.bias.fill_(3.0)
        frames = torch.zeros(1, max(len(syllables), 1), len(UNITS))
        for i, name in enumerate(syllables):
            frames[0, i, UNITS[name]] = 1.0
        characters = torch.from_numpy(VOCABULARY.encode("市长江"))[None]
        count = len(syllables) if frame_count is None else frame_count
        told = head.chosen(frames, characters, torch.tensor([count]), head(frames, characters))
    return told[0]


@pytest.mark.parametrize(("said", "other"), [("chang2", 1), ("zhang3", 0)])
def test_the_reading_that_was_said_has_the_share(said: str, other: int) -> None:
    told = heard("shi4", said, "jiang1")
    assert told[1, 1 - other] > 0.8
    assert told[1, other] < 0.1
    assert told[0, 0] > 0.8


def test_what_was_not_said_has_no_share() -> None:
    told = heard("shi4", "jiang1")
    assert told[1].sum() < 0.1
    assert heard("shi4", "chang2", "jiang1", frame_count=0).abs().max() == 0


def test_only_characters_with_a_choice_are_told_of() -> None:
    module = ChosenReadings(VOCABULARY, 4)
    readings = torch.from_numpy(VOCABULARY.reading_table()[VOCABULARY.encode("市长江")])[None]
    told = module(readings, heard("shi4", "zhang3", "jiang1")[None])
    assert told.shape == (1, 3, 4)
    assert told[0, [0, 2]].abs().max() == 0
    assert told[0, 1].abs().max() > 0


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_tones(tmp_path_factory.mktemp("tones"))
    (folder / "words.txt").write_text("南市 30 ns\n市长 30 n\n", encoding="utf-8")
    return folder


# Nothing but the readings reaches the tagger of what is heard, and masked CTC, which adds a
# character's readings up, may not unlearn what tells them apart.
ONLY_READINGS = ['model.fusion.kind="none"', "model.fusion.guided=false"]
ONLY_READINGS += [
    "model.fusion.pause_context=0",
    "model.fusion.readings=8",
    "stages.1.freeze_acoustic=true",
]


@pytest.fixture(scope="module")
def trained(data: Path) -> Path:
    recipe = load_recipe(str(data / "recipe.toml"), ONLY_READINGS)
    return Trainer(recipe, data, data / "trained", cpu=True).run()


def emissions(model: SpeechTagger) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    characters = torch.from_numpy(model.vocabulary.encode("南市长"))[None]
    frames = torch.randn(1, 9, model.config.acoustic.width, generator=generator)
    no_words = torch.zeros(1, 1, 3, dtype=torch.long)
    with torch.no_grad():
        output = model.eval()(characters, torch.tensor([3]), frames, torch.tensor([9]), no_words)
    found: torch.Tensor = output.emissions
    return found


def test_the_tagger_goes_by_it(trained: Path, data: Path) -> None:
    examples = read_source(Source(format="manifest", path="tones.jsonl"), data)
    found = torch_predictions(load_checkpoint(trained).model, examples, AudioCache())
    assert found == [list(e.spans or ()) for e in examples]


def test_a_bundle_is_told_too(trained: Path, tmp_path: Path) -> None:
    checkpoint = load_checkpoint(trained)
    graph = TaggerGraph(checkpoint.model)
    generator = torch.Generator().manual_seed(1)
    write_graph(graph, graph.example(3, 7, 20, generator), tmp_path / TAGGER_FILE)
    examples = [graph.example(*size, generator) for size in [(1, 40, 3), (2, 1, 90), (9, 5, 1)]]
    check_parity(graph, tmp_path / TAGGER_FILE, examples)
    with torch.no_grad():
        folded, whole = graph.eval()(*examples[0]), checkpoint.model.eval()(*examples[0])
    torch.testing.assert_close(folded, (whole.emissions, whole.log_probabilities))


def test_a_trained_model_is_told(data: Path) -> None:
    recipe = load_recipe(str(data / "recipe.toml"), ["stages.0.epochs=1", "stages.1.epochs=1"])
    plain = Trainer(recipe, data, data / "plain", cpu=True).run()
    model = load_checkpoint(plain).model
    told = with_chosen_readings(model, 8)
    torch.testing.assert_close(emissions(told), emissions(model))
    wanted = load_recipe(
        str(data / "recipe.toml"), ["stages.0.epochs=1", "model.fusion.readings=8"]
    )
    started = Trainer(wanted, data, data / "started", cpu=True, init=plain).model
    assert started.chosen_readings is not None
    torch.testing.assert_close(emissions(started), emissions(model))


def test_a_model_that_is_told_is_given_a_gazetteer(trained: Path, data: Path) -> None:
    model = load_checkpoint(trained).model
    grown = with_gazetteer(model, GazetteerConfig(lists="words.txt", width=4), data)
    torch.testing.assert_close(emissions(grown), emissions(model))


def test_names_have_readings_that_no_text_shows() -> None:
    usual = {"曾": ["ceng2"], "折": ["zhe2", "zhe1", "she2"], "种": ["zhong3", "zhong4", "zhong1"]}
    known = add_name_readings(usual, 3)
    assert known["曾"] == ["ceng2", "zeng1"]
    assert known["折"] == usual["折"], "known already"
    assert known["种"] == ["zhong3", "zhong4", "chong2"], "in place of the rarest"
    assert "单" not in known, "only characters that are there"
    assert add_name_readings({"曾": ["ceng2"]}, 1) == {"曾": ["ceng2"]}, "no room"


def test_a_trained_model_gets_the_readings_of_names(data: Path) -> None:
    recipe = load_recipe(str(data / "recipe.toml"))
    model = Trainer(recipe, data, data / "names", cpu=True).model
    old = SpeechTagger(
        model.config, Vocabulary.build("南市长曾", {c: ["nan2"] for c in "南市长曾"}), model.scheme
    )
    grown = with_name_readings(old, 3)
    (character,) = grown.vocabulary.encode("曾").tolist()
    units = [grown.vocabulary.units[unit] for unit in grown.vocabulary.units_of(character)]
    assert units == ["nan2", "zeng1"]
    frames = torch.randn(1, 5, model.config.acoustic.width)
    both = [m.ctc.unit_rows()[m.vocabulary.units.index("nan2")] for m in (old, grown)]
    torch.testing.assert_close(*both)
    assert torch.isfinite(grown.ctc.all_units(frames)).all()


@pytest.mark.parametrize("setting", ['model.ctc.units="characters"', "model.ctc.weight=0.0"])
def test_settings_that_do_not_go_together(data: Path, setting: str) -> None:
    with pytest.raises(ConfigError, match=r"expected model\.fusion\.readings with"):
        load_recipe(str(data / "recipe.toml"), ["model.fusion.readings=8", setting])
