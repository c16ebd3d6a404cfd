"""A new model for a recipe: vocabulary, labels, statistics, and weights from checkpoints."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
import torch
from tqdm import tqdm

from cnerta.models.config import LEXICON_ENCODERS, AcousticConfig, GazetteerConfig, ModelConfig
from cnerta.models.errors import CheckpointError, ConfigError, DataError
from cnerta.models.networks.acoustic_encoder import AcousticEncoder
from cnerta.models.networks.ctc import CtcHead
from cnerta.models.networks.pretrained_acoustic import (
    PretrainedAcousticEncoder,
    acoustic_architecture,
    load_acoustic,
)
from cnerta.models.networks.pretrained_text import (
    PretrainedEncoder,
    load_pretrained,
    pretrained_architecture,
    pretrained_characters,
    principal_embeddings,
)
from cnerta.models.networks.streaming_whisper import StreamingWhisperEncoder, load_streaming_whisper
from cnerta.models.networks.tagger import SpeechTagger
from cnerta.models.networks.zen import (
    ZenEncoder,
    load_zen,
    zen_architecture,
    zen_characters,
    zen_lexicon,
)
from cnerta.models.runtime.labels import LabelScheme
from cnerta.models.runtime.vocabulary import Vocabulary
from cnerta.models.text.gazetteer import Gazetteer
from cnerta.models.text.lexicon import Lexicon, read_lexicon
from cnerta.models.text.vectors import vector_characters
from cnerta.models.text.word_files import Words
from cnerta.train.data.audio import AudioCache
from cnerta.train.data.examples import Example
from cnerta.train.data.pronunciations import character_readings
from cnerta.train.data.word_lists import lexicon_paths, start_from_vectors
from cnerta.train.recipe import Recipe

__all__ = ["STATISTICS_CLIPS", "build_gazetteer", "new_model", "take_acoustic"]

logger = logging.getLogger(__name__)
STATISTICS_CLIPS = 400
"""Recordings that the filter bank's statistics are of."""
_WHITENING_CLIPS = 200


def new_model(
    recipe: Recipe,
    data_root: Path,
    training: Sequence[Example],
    cache: AudioCache,
    acoustic_from: SpeechTagger | None = None,
) -> SpeechTagger:
    """Build the model that a recipe describes.

    Args:
        recipe: The recipe.
        data_root: Folder that a pretrained checkpoint and word lists may be below.
        training: All examples of all training sources.
        cache: Recordings.
        acoustic_from: Its acoustic encoder and CTC head are taken, and no pretrained one is loaded.

    Raises:
        ConfigError: A setting does not go with the others.
        CheckpointError: The acoustic encoder that is to be taken has other sizes.
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
    tags, well_formed = recipe.model.tags, recipe.model.crf == "well-formed"
    if recipe.model.labels == "flat":
        types = {s.label for spans, _ in pairs for s in spans}
        scheme = LabelScheme.flat(types, tags, well_formed=well_formed)
    else:
        scheme = LabelScheme.nested(pairs, recipe.min_tag_count, tags, well_formed=well_formed)
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
                "which has a lexicon itself, got some"
            )
        lexicon = build_gazetteer(recipe.model.gazetteer, data_root)
    checkpoint = _acoustic_checkpoint(recipe.model.acoustic, data_root)
    architecture = ""
    if acoustic_from is not None:
        architecture = acoustic_from.acoustic_architecture
    elif checkpoint:
        architecture = acoustic_architecture(checkpoint)
    model = _build_from_text(recipe.model, vocabulary, scheme, pretrained, lexicon, architecture)
    start_from_vectors(model, data_root)
    if acoustic_from is not None:
        take_acoustic(model, acoustic_from)
    else:
        _start_acoustic(model, checkpoint)
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

    A pretrained encoder has its own; of one that streams, what comes out of it is whitened. A model
    without audio has no filter bank.
    """
    spoken = [e for e in examples if e.audio is not None]
    if not spoken or not isinstance(model.acoustic, AcousticEncoder | StreamingWhisperEncoder):
        return
    generator = np.random.default_rng(seed)
    chosen = generator.choice(len(spoken), min(STATISTICS_CLIPS, len(spoken)), replace=False)
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


def build_gazetteer(config: GazetteerConfig, data_root: Path) -> Gazetteer:
    """The gazetteer of a model's settings.

    Raises:
        ConfigError: A list cannot be read.
    """
    gazetteer = Gazetteer.of(read_lexicon(lexicon_paths(config.lists, data_root)), config.rare)
    logger.info("gazetteer: %d words, %d kinds", gazetteer.words, len(gazetteer.kinds))
    return gazetteer


def take_acoustic(model: SpeechTagger, other: SpeechTagger) -> None:
    """Copy the acoustic encoder and the CTC head of another model.

    Raises:
        CheckpointError: Theirs have other sizes.
        ConfigError: One of the two uses no audio.
    """
    if not isinstance(model.ctc, CtcHead) or not isinstance(other.ctc, CtcHead):
        raise ConfigError(
            "expected models that use audio to take an acoustic encoder and give one, got one of "
            "text alone"
        )
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


def _start_acoustic(model: SpeechTagger, checkpoint: str) -> None:
    """Give a pretrained acoustic encoder its weights."""
    if isinstance(model.acoustic, PretrainedAcousticEncoder):
        load_acoustic(model.acoustic, checkpoint)
    if isinstance(model.acoustic, StreamingWhisperEncoder):
        load_streaming_whisper(model.acoustic, checkpoint)


def _build_from_text(
    config: ModelConfig,
    vocabulary: Vocabulary,
    scheme: LabelScheme,
    checkpoint: str,
    lexicon: Words | None,
    acoustic: str,
) -> SpeechTagger:
    """A new model, its text encoder started from a checkpoint if there is one."""
    if config.text.encoder == "zen":
        architecture = zen_architecture(checkpoint)
        model = SpeechTagger(config, vocabulary, scheme, architecture, lexicon, acoustic)
        assert isinstance(model.text, ZenEncoder), "as configured"
        assert isinstance(lexicon, Lexicon), "a ZEN has one"
        load_zen(model.text, checkpoint, vocabulary, lexicon)
        return model
    if config.text.encoder == "pretrained":
        architecture = pretrained_architecture(checkpoint)
        model = SpeechTagger(config, vocabulary, scheme, architecture, lexicon, acoustic)
        assert isinstance(model.text, PretrainedEncoder), "as configured"
        load_pretrained(model.text, checkpoint, vocabulary)
        return model
    model = SpeechTagger(config, vocabulary, scheme, "", lexicon, acoustic)
    if checkpoint:
        assert not isinstance(model.text, PretrainedEncoder | ZenEncoder), "as configured"
        rows = principal_embeddings(checkpoint, vocabulary, config.text.embedding)
        with torch.no_grad():
            model.text.embedding.weight.copy_(rows)
    return model
