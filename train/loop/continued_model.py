"""A trained model with new parts, whose answers stay the same until it is trained further."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
import torch

from cnerta.models.config import GazetteerConfig, ModelConfig
from cnerta.models.errors import CheckpointError, ConfigError
from cnerta.models.networks.checkpoint import load_checkpoint
from cnerta.models.networks.ctc import CtcHead
from cnerta.models.networks.tagger import SpeechTagger
from cnerta.models.runtime.vocabulary import Vocabulary
from cnerta.models.text.gazetteer import Gazetteer
from cnerta.models.text.word_files import Words
from cnerta.train.data.pronunciations import add_name_readings
from cnerta.train.loop.new_model import build_gazetteer, take_acoustic
from cnerta.train.recipe import Recipe

__all__ = [
    "continued_model",
    "take_text",
    "with_chosen_readings",
    "with_gate",
    "with_gazetteer",
    "with_name_readings",
    "with_other_acoustic",
    "with_prosody",
]


def continued_model(
    recipe: Recipe, data_root: Path, init: Path, acoustic: SpeechTagger | None = None
) -> SpeechTagger:
    """A trained model, with what the recipe asks for and it does not have yet.

    Args:
        recipe: What it is to become.
        data_root: Folder that word lists may be below.
        init: Its checkpoint.
        acoustic: Whose acoustic encoder and CTC head it is given where the recipe has others than
            it has; None: none.

    Raises:
        CheckpointError: It cannot be read.
        ConfigError: A word list cannot be read.
    """
    model = load_checkpoint(init).model
    gazetteer = recipe.model.gazetteer
    if gazetteer.lists and model.config.gazetteer != gazetteer:
        model = with_gazetteer(model, gazetteer, data_root)
    readings = recipe.model.fusion.readings
    if readings and model.chosen_readings is None:
        model = with_name_readings(model, recipe.max_readings)
        model = with_chosen_readings(model, readings)
    prosody = recipe.model.fusion.prosody
    if prosody != model.config.fusion.prosody:
        model = with_prosody(model, prosody)
    if acoustic is not None and model.config.acoustic != recipe.model.acoustic:
        model = with_other_acoustic(model, acoustic)
    if recipe.model.fusion.gated and not model.config.fusion.gated:
        model = with_gate(model)
    return model


def with_gazetteer(model: SpeechTagger, config: GazetteerConfig, data_root: Path) -> SpeechTagger:
    """Give a trained model a gazetteer, or another one than it has.

    A model that had none answers as before until it is trained further. One that had another keeps
    its weights for the kinds of words that both have, and has none yet for new kinds.

    Args:
        model: With a text encoder without a lexicon.
        config: The gazetteer's settings.
        data_root: Folder that its lists may be below.

    Raises:
        ConfigError: A list cannot be read, or the width is not that of the gazetteer it had.
    """
    old, had = model.lexicon, model.config.gazetteer
    is_same = isinstance(old, Gazetteer) and had.lists == config.lists and had.rare == config.rare
    gazetteer = old if is_same else build_gazetteer(config, data_root)
    settings = msgspec.structs.replace(model.config, gazetteer=config)
    grown = _like(model, settings, gazetteer)
    if not isinstance(old, Gazetteer):
        return _grown(model, grown)
    if config.width != had.width:
        raise ConfigError(f"expected model.gazetteer.width = {had.width}, got {config.width}")
    assert isinstance(gazetteer, Gazetteer), "as was asked for"
    _take_kinds(model, grown, old.kinds, gazetteer.kinds)
    return grown


@torch.no_grad()
def _take_kinds(
    model: SpeechTagger, grown: SpeechTagger, old: Sequence[str], new: Sequence[str]
) -> None:
    """Give a model the weights of one with other kinds of words, each kind its own.

    Args:
        model: Has the weights.
        grown: Is given them.
        old: Kinds of the former.
        new: Kinds of the latter.
    """
    assert grown.word_kinds is not None, "both have a gazetteer"
    weights = model.state_dict()
    name = "word_kinds.projection.weight"
    # shape: (width, word sets, kinds)
    known = weights.pop(name).unflatten(1, (-1, len(old)))
    taken = known.new_zeros(*known.shape[:2], len(new))
    places = {kind: i for i, kind in enumerate(old)}
    for i, kind in enumerate(new):
        if kind in places:
            taken[:, :, i] = known[:, :, places[kind]]
    grown.load_state_dict(weights | {name: taken.flatten(1)})


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
    assert isinstance(grown.ctc, CtcHead), "units are those of audio"
    assert isinstance(model.ctc, CtcHead), "the same"
    grown.ctc.take(model.ctc, vocabulary.units, old.units)
    return grown


@torch.no_grad()
def with_gate(model: SpeechTagger) -> SpeechTagger:
    """Let a trained model answer from text alone, and give it a second head that uses the audio.

    Without audio it answers as before; with audio mostly so, too, until it is trained further: see
    :mod:`cnerta.models.networks.audio_head`.

    Args:
        model: One that has a single head, of which the second is a copy.
    """
    fusion = msgspec.structs.replace(model.config.fusion, gated=True)
    grown = _like(model, msgspec.structs.replace(model.config, fusion=fusion), model.lexicon)
    known = model.state_dict()
    weights = {
        name: known.get(name, known.get(name.removeprefix("audio_head."), new))
        for name, new in grown.state_dict().items()
    }
    grown.load_state_dict(weights)
    return grown


@torch.no_grad()
def with_other_acoustic(model: SpeechTagger, other: SpeechTagger) -> SpeechTagger:
    """Give a trained model the acoustic encoder and the CTC head of another composition.

    What a text encoder learned from text alone is so taken over by a model of another acoustic
    encoder.
    Weights that do not depend on the size of an acoustic frame stay; those that read frames are
    random and are to be trained.

    Args:
        model: Whose text encoder, fusion and tags stay.
        other: Whose acoustic encoder and CTC head it is given.
    """
    settings = msgspec.structs.replace(
        model.config, acoustic=other.config.acoustic, ctc=other.config.ctc
    )
    joined = SpeechTagger(
        settings,
        model.vocabulary,
        model.scheme,
        model.text_architecture,
        model.lexicon,
        other.acoustic_architecture,
    )
    known = model.state_dict()
    for name, weight in joined.state_dict().items():
        is_acoustic = name.startswith(("acoustic.", "ctc."))
        if not is_acoustic and name in known and known[name].shape == weight.shape:
            weight.copy_(known[name])
    take_acoustic(joined, other)
    return joined


@torch.no_grad()
def take_text(model: SpeechTagger, other: SpeechTagger) -> None:
    """Give a trained model what another knows of text; what listens stays.

    That is the text encoder, the kinds of words, and the weights by which the context reads the
    two. It works for models of which one was trained on from the other, mostly from text: that
    moves what listens, too, although it has nothing to learn there (docs/history.md).

    Args:
        model: Changed in place.
        other: One of the same composition and vocabulary.

    Raises:
        CheckpointError: It is of another composition or has other characters.
        ConfigError: The models have no context, or two heads.
    """
    if model.config != other.config or model.vocabulary.sha256 != other.vocabulary.sha256:
        raise CheckpointError(
            "expected a model of the same composition and characters to take text from, got another"
        )
    if model.context is None or model.audio_head is not None:
        raise ConfigError(
            "expected a model with model.fusion.context and one head to take text from another"
        )
    weights, theirs = model.state_dict(), other.state_dict()
    for name, weight in weights.items():
        if name.startswith(("text.", "word_kinds.")):
            weight.copy_(theirs[name])
    # The context reads, in this order: text, speech, kinds of words, readings.
    kinds = model.word_kinds.width if model.word_kinds else 0
    for name in ("context.forwards.weight_ih_l0", "context.backwards.weight_ih_l0"):
        inputs = weights[name].shape[1]
        before = inputs - model.config.fusion.readings - kinds
        for columns in (slice(model.text.width), slice(before, before + kinds)):
            weights[name][:, columns] = theirs[name][:, columns]


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
