"""A new model for a recipe: vocabulary, labels, statistics, and weights from checkpoints."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
import torch
from tqdm import tqdm

from cnerta.models.config import (
    LEXICON_ENCODERS,
    AcousticConfig,
    GazetteerConfig,
    ModelConfig,
)
from cnerta.models.errors import CheckpointError, ConfigError, DataError
from cnerta.models.gazetteer import Gazetteer
from cnerta.models.labels import LabelScheme
from cnerta.models.lexicon import Lexicon, read_lexicon
from cnerta.models.pretrained import (
    PretrainedEncoder,
    load_pretrained,
    pretrained_architecture,
    pretrained_characters,
    principal_embeddings,
)
from cnerta.models.pretrained_acoustic import (
    PretrainedAcousticEncoder,
    acoustic_architecture,
    load_acoustic,
)
from cnerta.models.streaming_whisper import StreamingWhisperEncoder, load_streaming_whisper
from cnerta.models.tagger import SpeechTagger
from cnerta.models.vectors import vector_characters
from cnerta.models.vocabulary import Vocabulary
from cnerta.models.word_files import Words
from cnerta.models.zen import (
    ZenEncoder,
    load_zen,
    zen_architecture,
    zen_characters,
    zen_lexicon,
)
from cnerta.train.audio import AudioCache
from cnerta.train.data import Example
from cnerta.train.lexicon import lexicon_paths, start_from_vectors
from cnerta.train.pronunciations import add_name_readings, character_readings
from cnerta.train.recipe import Recipe

__all__ = [
    "new_model",
    "take_acoustic",
    "with_chosen_readings",
    "with_gate",
    "with_gazetteer",
    "with_name_readings",
    "with_other_ears",
    "with_prosody",
]

logger = logging.getLogger(__name__)

_STATISTICS_CLIPS = 400
_WHITENING_CLIPS = 200


def new_model(
    recipe: Recipe, data_root: Path, training: Sequence[Example], cache: AudioCache
) -> SpeechTagger:
    """Build the model that a recipe describes.

    Args:
        recipe: The recipe.
        data_root: Folder that a pretrained checkpoint and word lists may be below.
        training: All examples of all training sources.
        cache: Recordings.

    Raises:
        ConfigError: A setting does not go with the others.
        DataError: No training source has entities.
    """
    text = recipe.model.text
    texts = sorted({e.text for e in training})
    pretrained = _checkpoint_source(text.checkpoint, data_root)
    if text.encoder in ("pretrained", "zen") and not pretrained:
        raise ConfigError(
            "expected model.text.checkpoint, a folder or hub name, for a pretrained text encoder, "
            "got none"
        )
    characters = set("".join(texts)) | {e.corpus for e in training if e.corpus}
    if pretrained:
        # Characters that training never shows are known to the checkpoint all the same.
        known = zen_characters if text.encoder == "zen" else pretrained_characters
        characters |= set(known(pretrained))
    if text.embeddings:
        characters |= set(vector_characters(data_root / text.embeddings))
    readings = None
    if recipe.model.ctc.units == "pronunciations":
        spoken = [(e.text, e.readings) for e in training if e.readings and e.text]
        readings = character_readings([*texts, *sorted(characters)], spoken, recipe.max_readings)
    vocabulary = Vocabulary.build(characters, readings)
    annotated = [e for e in training if e.spans is not None]
    if not annotated:
        raise DataError("expected entities in some training source, got none")
    pairs = [(e.spans or (), len(e.text)) for e in annotated]
    if recipe.model.labels == "flat":
        scheme = LabelScheme.flat(s.label for spans, _ in pairs for s in spans)
    else:
        scheme = LabelScheme.nested(pairs, recipe.min_tag_count)
    lexicon: Words | None = None
    if text.encoder in LEXICON_ENCODERS:
        if text.encoder == "zen":
            lexicon = zen_lexicon(pretrained).counted(texts)
        else:
            paths = lexicon_paths(text.lexicon or text.word_embeddings, data_root)
            lexicon = read_lexicon(paths).counted(texts)
        found = sum(map(bool, lexicon.counts))
        logger.info("%d words, %d of them in training texts", len(lexicon), found)
    if recipe.model.gazetteer.lists:
        if lexicon is not None:
            raise ConfigError(
                f"expected no model.gazetteer.lists beside the text encoder {text.encoder!r}, "
                "which knows words itself, got some"
            )
        lexicon = _gazetteer(recipe.model.gazetteer, data_root)
    acoustic = _acoustic_checkpoint(recipe.model.acoustic, data_root)
    model = _build_model(recipe.model, vocabulary, scheme, pretrained, lexicon, acoustic)
    start_from_vectors(model, data_root)
    _set_statistics(model, training, recipe.seed, cache)
    parameters = sum(p.numel() for p in model.parameters())
    logger.info(
        "%d parameters, %d characters, %d acoustic units, %d tags",
        parameters,
        len(vocabulary),
        len(vocabulary.units),
        len(scheme),
    )
    return model


@torch.no_grad()
def _set_statistics(
    model: SpeechTagger, examples: Sequence[Example], seed: int, cache: AudioCache
) -> None:
    """Mean and deviation of the filter bank over a sample of the recordings.

    A pretrained encoder has its own; of one that streams, what comes out of it is whitened.
    """
    spoken = [e for e in examples if e.audio is not None]
    if not spoken or isinstance(model.acoustic, PretrainedAcousticEncoder):
        return
    generator = np.random.default_rng(seed)
    chosen = generator.choice(len(spoken), min(_STATISTICS_CLIPS, len(spoken)), replace=False)
    if isinstance(model.acoustic, StreamingWhisperEncoder):
        _whiten(model.acoustic, [spoken[i] for i in chosen[:_WHITENING_CLIPS]], cache)
        return
    bank = model.acoustic.filter_bank
    energies = []
    for i in tqdm(chosen, desc="filter bank statistics", leave=False):
        audio = spoken[i].audio
        assert audio is not None, "chosen among those with audio"
        energies.append(bank.energies(torch.from_numpy(cache(audio))[None])[0])
    joined = torch.cat(energies)
    bank.mean.copy_(joined.mean(dim=0))
    bank.deviation.copy_(joined.std(dim=0).clamp(min=1e-3))


def _whiten(
    encoder: StreamingWhisperEncoder, examples: Sequence[Example], cache: AudioCache
) -> None:
    encoder.eval()
    heard = []
    for example in tqdm(examples, desc="principal components", leave=False):
        assert example.audio is not None, "chosen among those with audio"
        features = encoder.features(torch.from_numpy(cache(example.audio))[None])
        frames = torch.tensor([(features.shape[1] - 3) // 4])
        heard.append(encoder.encode_pairs(features, frames, encoder.config.usual_chunk)[0])
    encoder.whiten(torch.cat(heard))


def _gazetteer(config: GazetteerConfig, data_root: Path) -> Gazetteer:
    gazetteer = Gazetteer.of(read_lexicon(lexicon_paths(config.lists, data_root)), config.rare)
    logger.info("gazetteer: %d words, %d kinds", gazetteer.words, len(gazetteer.kinds))
    return gazetteer


def with_gazetteer(model: SpeechTagger, config: GazetteerConfig, data_root: Path) -> SpeechTagger:
    """Give a trained model a gazetteer, or another one than it has.

    A model that had none answers as before until it is trained further. One that had another
    believes the kinds of words that both have as it did, and new kinds not yet.

    Args:
        model: With a text encoder that knows no words.
        config: The gazetteer's settings.
        data_root: Folder that its lists may be below.

    Raises:
        ConfigError: A list cannot be read, or the width is not that of the gazetteer it had.
    """
    old, had = model.lexicon, model.config.gazetteer
    same = isinstance(old, Gazetteer) and had.lists == config.lists and had.rare == config.rare
    gazetteer = old if same else _gazetteer(config, data_root)
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
    """Tell a trained model's tagger which pronunciations were heard.

    It answers as before until it is trained further.

    Args:
        model: One that is not told.
        width: See :class:`cnerta.models.config.FusionConfig`.
    """
    fusion = msgspec.structs.replace(model.config.fusion, readings=width)
    settings = msgspec.structs.replace(model.config, fusion=fusion)
    return _grown(model, _like(model, settings, model.lexicon))


def with_name_readings(model: SpeechTagger, most: int) -> SpeechTagger:
    """Let a trained model know how characters are read in names; it needs no training for that.

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


@torch.no_grad()
def with_gate(model: SpeechTagger) -> SpeechTagger:
    """Let a trained model answer from text alone, and a second head, its copy, listen.

    Without audio it answers as before; with audio mostly so, too, until it is trained further: see
    :mod:`cnerta.models.listening`.

    Args:
        model: One that has a single head.
    """
    fusion = msgspec.structs.replace(model.config.fusion, gated=True)
    grown = _like(model, msgspec.structs.replace(model.config, fusion=fusion), model.lexicon)
    known = model.state_dict()
    weights = {
        name: known.get(name, known.get(name.removeprefix("listening."), new))
        for name, new in grown.state_dict().items()
    }
    grown.load_state_dict(weights)
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
    """Give a model that is told more of each character the weights of one that is told less."""
    weights = larger.state_dict()
    readings = model.config.fusion.readings
    for name, known in model.state_dict().items():
        new = weights[name]
        if new.shape == known.shape:
            new.copy_(known)
            continue
        # What reads all that is told of a character, the readings in its last columns and the kinds
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


@torch.no_grad()
def with_other_ears(model: SpeechTagger, other: SpeechTagger) -> SpeechTagger:
    """Give a trained model the acoustic encoder and the CTC head of another composition.

    What a text encoder learned from text alone is so taken over by a model that hears otherwise.
    Weights that do not depend on the size of an acoustic frame stay; those that read frames are
    random and are to be trained.

    Args:
        model: Whose text encoder, fusion and tags stay.
        other: Whose ears it is given.
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
        hears = name.startswith(("acoustic.", "ctc."))
        if not hears and name in known and known[name].shape == weight.shape:
            weight.copy_(known[name])
    take_acoustic(joined, other)
    return joined


def take_acoustic(model: SpeechTagger, other: SpeechTagger) -> None:
    """Copy the acoustic encoder and the CTC head of another model.

    Raises:
        CheckpointError: Theirs have other sizes.
    """
    ours, theirs = model.config, other.config
    # The same weights run in chunks and with full context; where they once came from is no size.
    sizes = msgspec.structs.replace(
        theirs.acoustic, streaming=ours.acoustic.streaming, checkpoint=ours.acoustic.checkpoint
    )
    same = ours.acoustic == sizes and model.acoustic_architecture == other.acoustic_architecture
    if not same or ours.ctc.units != theirs.ctc.units:
        raise CheckpointError("expected an acoustic encoder of the same sizes, got another")
    model.acoustic.load_state_dict(other.acoustic.state_dict())
    model.ctc.take(other.ctc, model.vocabulary.units, other.vocabulary.units)


def _checkpoint_source(name: str, data_root: Path) -> str:
    """Where a pretrained checkpoint is: below the data, or as it is named."""
    below = data_root / name
    return str(below) if name and below.is_dir() else name


def _acoustic_checkpoint(config: AcousticConfig, data_root: Path) -> str:
    """Where the pretrained acoustic encoder is; empty for one that starts from nothing.

    Raises:
        ConfigError: There should be one and none is named, or the reverse.
    """
    if (config.encoder == "pretrained") != bool(config.checkpoint):
        wanted = "a folder or hub name" if config.encoder == "pretrained" else "none"
        raise ConfigError(
            f"expected model.acoustic.checkpoint to be {wanted} with the acoustic encoder "
            f"{config.encoder!r}, got {config.checkpoint!r}"
        )
    return _checkpoint_source(config.checkpoint, data_root)


def _build_model(
    config: ModelConfig,
    vocabulary: Vocabulary,
    scheme: LabelScheme,
    checkpoint: str,
    lexicon: Words | None,
    acoustic_checkpoint: str,
) -> SpeechTagger:
    """A new model, its encoders started from checkpoints if there are any."""
    hears = acoustic_architecture(acoustic_checkpoint) if acoustic_checkpoint else ""
    model = _build_from_text(config, vocabulary, scheme, checkpoint, lexicon, hears)
    if isinstance(model.acoustic, PretrainedAcousticEncoder):
        load_acoustic(model.acoustic, acoustic_checkpoint)
    if isinstance(model.acoustic, StreamingWhisperEncoder):
        load_streaming_whisper(model.acoustic, acoustic_checkpoint)
    return model


def _build_from_text(
    config: ModelConfig,
    vocabulary: Vocabulary,
    scheme: LabelScheme,
    checkpoint: str,
    lexicon: Words | None,
    hears: str,
) -> SpeechTagger:
    """A new model, its text encoder started from a checkpoint if there is one."""
    if config.text.encoder == "zen":
        architecture = zen_architecture(checkpoint)
        model = SpeechTagger(config, vocabulary, scheme, architecture, lexicon, hears)
        assert isinstance(model.text, ZenEncoder), "as configured"
        assert isinstance(lexicon, Lexicon), "a ZEN has one"
        load_zen(model.text, checkpoint, vocabulary, lexicon)
        return model
    if config.text.encoder == "pretrained":
        architecture = pretrained_architecture(checkpoint)
        model = SpeechTagger(config, vocabulary, scheme, architecture, lexicon, hears)
        assert isinstance(model.text, PretrainedEncoder), "as configured"
        load_pretrained(model.text, checkpoint, vocabulary)
        return model
    model = SpeechTagger(config, vocabulary, scheme, "", lexicon, hears)
    if checkpoint:
        assert not isinstance(model.text, PretrainedEncoder | ZenEncoder), "as configured"
        rows = principal_embeddings(checkpoint, vocabulary, config.text.embedding)
        with torch.no_grad():
            model.text.embedding.weight.copy_(rows)
    return model
