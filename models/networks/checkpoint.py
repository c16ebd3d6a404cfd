"""A model on disk: ``model.json`` (its description) and ``model.safetensors`` (its weights).

With ``lexicon.txt`` or ``gazetteer.npz`` beside them, if the model has a lexicon or a gazetteer.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from cnerta.models.config import LEXICON_ENCODERS, FusionKind, LabelKind, ModelConfig
from cnerta.models.errors import CheckpointError, ConfigError
from cnerta.models.files import replacing, write_atomically
from cnerta.models.networks.rounded_weights import restored, rounded
from cnerta.models.networks.tagger import SpeechTagger
from cnerta.models.runtime.labels import LabelScheme
from cnerta.models.runtime.vocabulary import Vocabulary
from cnerta.models.text.word_files import GAZETTEER_FILE, LEXICON_FILE, load_words, save_words

__all__ = ["Checkpoint", "load_checkpoint", "parameter_name", "save_checkpoint"]

# Parameters that earlier versions had under other names, by the kind of fusion.
_RENAMED: dict[FusionKind, dict[str, str]] = {
    "none": {},
    "cma": {"fusion.silence": "fusion.null_key_value"},
    "mmi": {"fusion.silence": "fusion.null_frame"},
    "aligned": {"fusion.silence": "fusion.null_value"},
}

_DESCRIPTION = "model.json"
_WEIGHTS = "model.safetensors"


class _Description(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    config: ModelConfig
    label_kind: LabelKind
    tags: tuple[str, ...]
    characters: str
    units: tuple[str, ...]
    readings: tuple[tuple[int, ...], ...]
    provenance: dict[str, str]
    scores: dict[str, float]
    text_architecture: str = ""
    acoustic_architecture: str = ""


class Checkpoint(msgspec.Struct, frozen=True):
    """A loaded model and where it comes from.

    Attributes:
        name: The recipe's name.
        model: The model, in evaluation mode, on the CPU.
        provenance: Recipe, data, seeds, versions.
        scores: Development figures when it was saved.
    """

    name: str
    model: SpeechTagger
    provenance: dict[str, str]
    scores: dict[str, float]


def save_checkpoint(
    path: Path, checkpoint: Checkpoint, *, half: bool = False, int8: bool = False
) -> None:
    """Write a model. Weights first, so a description never stands without them.

    Args:
        path: Folder, made if missing.
        checkpoint: The model.
        half: Store weights as 16-bit floats, half the size; they are read as 32-bit ones.
        int8: Store matrices as 8-bit integers, a quarter of the size; they are read likewise.
    """
    model = checkpoint.model
    path.mkdir(parents=True, exist_ok=True)
    weights = {k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}
    if int8:
        weights = rounded(weights)
    elif half:
        weights = {k: v.half() if v.is_floating_point() else v for k, v in weights.items()}
    with replacing(path / _WEIGHTS) as partial:
        save_file(weights, partial)
    if model.lexicon is not None:
        save_words(path, model.lexicon)
    description = _Description(
        name=checkpoint.name,
        config=model.config,
        label_kind=model.scheme.kind,
        tags=model.scheme.tags,
        characters="".join(model.vocabulary.characters),
        units=model.vocabulary.units,
        readings=model.vocabulary.readings,
        provenance=checkpoint.provenance,
        scores=checkpoint.scores,
        text_architecture=model.text_architecture,
        acoustic_architecture=model.acoustic_architecture,
    )
    content = msgspec.json.format(msgspec.json.encode(description))
    write_atomically(path / _DESCRIPTION, content)


def parameter_name(stored: str, fusion: FusionKind) -> str:
    """Today's name of a parameter in a checkpoint that an earlier version may have written."""
    return _RENAMED[fusion].get(stored, stored)


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a model, also one that an earlier version has written.

    Raises:
        CheckpointError: A file is missing or damaged, or the weights are of another model.
    """
    try:
        content = (path / _DESCRIPTION).read_bytes()
        description = msgspec.json.decode(content, type=_Description)
        vocabulary = Vocabulary(
            tuple(description.characters), description.units, description.readings
        )
        config = description.config
        scheme = LabelScheme(
            description.label_kind, description.tags, config.tags, config.crf == "well-formed"
        )
        lexicon = None
        if description.config.text.encoder in LEXICON_ENCODERS:
            lexicon = load_words(path / LEXICON_FILE)
        elif description.config.gazetteer.lists:
            lexicon = load_words(path / GAZETTEER_FILE)
        model = SpeechTagger(
            description.config,
            vocabulary,
            scheme,
            description.text_architecture,
            lexicon,
            description.acoustic_architecture,
        )
        weights = restored(load_file(path / _WEIGHTS))
        fusion = description.config.fusion.kind
        named = {parameter_name(n, fusion): w for n, w in weights.items()}
        if description.config.audio_use == "none":
            # Earlier versions gave a model of text alone an acoustic encoder, too.
            named = {n: w for n, w in named.items() if not n.startswith(("acoustic.", "ctc."))}
        model.load_state_dict(named)
    except OSError as error:
        raise CheckpointError(f"expected a checkpoint folder, got {path}: {error}") from error
    except (msgspec.MsgspecError, ConfigError, SafetensorError, RuntimeError) as error:
        raise CheckpointError(f"expected a readable checkpoint in {path}, got: {error}") from error
    model.eval()
    return Checkpoint(description.name, model, description.provenance, description.scores)
