"""A trained model with new parts, whose answers stay the same until it is trained further."""

from __future__ import annotations

from pathlib import Path

import msgspec
import torch

from cnerta.models.config import GazetteerConfig, ModelConfig
from cnerta.models.networks.checkpoint import load_checkpoint
from cnerta.models.networks.tagger import SpeechTagger
from cnerta.models.runtime.vocabulary import Vocabulary
from cnerta.models.text.word_files import Words
from cnerta.train.data.pronunciations import add_name_readings
from cnerta.train.loop.new_model import build_gazetteer
from cnerta.train.recipe import Recipe

__all__ = [
    "continued_model",
    "with_chosen_readings",
    "with_gazetteer",
    "with_name_readings",
    "with_prosody",
]


def continued_model(recipe: Recipe, data_root: Path, init: Path) -> SpeechTagger:
    """A trained model, with what the recipe asks for and it does not have yet.

    Args:
        recipe: What it is to become.
        data_root: Folder that word lists may be below.
        init: Its checkpoint.

    Raises:
        CheckpointError: It cannot be read.
        ConfigError: A word list cannot be read.
    """
    model = load_checkpoint(init).model
    if recipe.model.gazetteer.lists and model.lexicon is None:
        model = with_gazetteer(model, recipe.model.gazetteer, data_root)
    readings = recipe.model.fusion.readings
    if readings and model.chosen_readings is None:
        model = with_name_readings(model, recipe.max_readings)
        model = with_chosen_readings(model, readings)
    prosody = recipe.model.fusion.prosody
    if prosody != model.config.fusion.prosody:
        model = with_prosody(model, prosody)
    return model


def with_gazetteer(model: SpeechTagger, config: GazetteerConfig, data_root: Path) -> SpeechTagger:
    """Give a trained model a gazetteer; it answers as before until it is trained further.

    Args:
        model: Without one, and with a text encoder without a lexicon.
        config: The gazetteer's settings.
        data_root: Folder that its lists may be below.

    Raises:
        ConfigError: A list cannot be read.
    """
    gazetteer = build_gazetteer(config, data_root)
    settings = msgspec.structs.replace(model.config, gazetteer=config)
    return _grown(model, _like(model, settings, gazetteer))


def with_chosen_readings(model: SpeechTagger, width: int) -> SpeechTagger:
    """Give a trained model's tagger the pronunciations that were spoken as an input.

    It answers as before until it is trained further.

    Args:
        model: One without that input.
        width: See :class:`cnerta.models.config.FusionConfig`.
    """
    fusion = msgspec.structs.replace(model.config.fusion, readings=width)
    settings = msgspec.structs.replace(model.config, fusion=fusion)
    return _grown(model, _like(model, settings, model.lexicon))


def with_name_readings(model: SpeechTagger, most: int) -> SpeechTagger:
    """Add to a trained model how characters are read in names; it needs no training for that.

    Pronunciations that it has no unit for are put together from the parts of those it has.

    Args:
        model: One whose units are pronunciations.
        most: Pronunciations a character may have.
    """
    old = model.vocabulary
    readings = {
        character: [old.units[unit] for unit in units if unit]
        for character, units in zip(old.characters, old.readings, strict=True)
    }
    vocabulary = Vocabulary.build(old.characters, add_name_readings(readings, most))
    grown = _like(model, model.config, model.lexicon, vocabulary)
    rest = {n: w for n, w in model.state_dict().items() if not n.startswith("ctc.")}
    grown.load_state_dict(grown.state_dict() | rest)
    grown.ctc.take(model.ctc, vocabulary.units, old.units)
    return grown


def with_prosody(model: SpeechTagger, weight: float) -> SpeechTagger:
    """Set the weight of a trained model's prosody task, which it may not have had or may not keep.

    Args:
        model: The model.
        weight: See :class:`cnerta.models.config.FusionConfig`.
    """
    fusion = msgspec.structs.replace(model.config.fusion, prosody=weight)
    grown = _like(model, msgspec.structs.replace(model.config, fusion=fusion), model.lexicon)
    known = model.state_dict()
    grown.load_state_dict({n: known.get(n, new) for n, new in grown.state_dict().items()})
    return grown


@torch.no_grad()
def _grown(model: SpeechTagger, larger: SpeechTagger) -> SpeechTagger:
    """Give a model with more input features of each character the weights of one with fewer."""
    weights = larger.state_dict()
    readings = model.config.fusion.readings
    for name, known in model.state_dict().items():
        new = weights[name]
        if new.shape == known.shape:
            new.copy_(known)
            continue
        # A layer over all features of a character, the readings in its last columns and the kinds
        # of words before them.
        first = known.shape[1] - readings
        new.zero_()
        new[:, :first] = known[:, :first]
        if readings:
            new[:, -readings:] = known[:, first:]
    return larger


def _like(
    model: SpeechTagger,
    config: ModelConfig,
    lexicon: Words | None,
    vocabulary: Vocabulary | None = None,
) -> SpeechTagger:
    """A model with random weights that is like another but for its settings and words."""
    return SpeechTagger(
        config,
        vocabulary or model.vocabulary,
        model.scheme,
        model.text_architecture,
        lexicon,
        model.acoustic_architecture,
    )
