"""A model on disk: ``model.json`` (its description) and ``model.safetensors`` (its weights).

With ``lexicon.txt`` or ``gazetteer.npz`` beside them, if the model has a lexicon or a gazetteer.

A training writes one over another again and again, file by file, so it notes no hashes: cut off in
between, it can go on with what is there. What is made for the hub has them.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from cnerta.models.config import LEXICON_ENCODERS, FusionKind, LabelKind, ModelConfig
from cnerta.models.errors import CheckpointError, ConfigError
from cnerta.models.files import file_sha256, replacing, write_atomically
from cnerta.models.networks.rounded_weights import restored, rounded
from cnerta.models.networks.tagger import SpeechTagger
from cnerta.models.runtime.hub import HubContent, fetch, is_hub_name
from cnerta.models.runtime.labels import LabelScheme
from cnerta.models.runtime.vocabulary import Vocabulary
from cnerta.models.text.word_files import GAZETTEER_FILE, LEXICON_FILE, load_words, save_words

__all__ = [
    "Checkpoint",
    "checkpoint_files",
    "copy_with_hashes",
    "find_checkpoint",
    "load_checkpoint",
    "parameter_name",
    "save_checkpoint",
]

# Parameters that earlier versions had under other names, by the kind of fusion.
_RENAMED: dict[FusionKind, dict[str, str]] = {
    "none": {},
    "cma": {"fusion.silence": "fusion.null_key_value"},
    "mmi": {"fusion.silence": "fusion.null_frame"},
    "aligned": {"fusion.silence": "fusion.null_value"},
}

_DESCRIPTION = "model.json"
_WEIGHTS = "model.safetensors"
_FILES = (_WEIGHTS, LEXICON_FILE, GAZETTEER_FILE)
_HUB_CONTENT = HubContent("checkpoint", (_DESCRIPTION, *_FILES), _DESCRIPTION, CheckpointError)


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
    sha256: dict[str, str] = {}


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


def find_checkpoint(path: Path) -> Path:
    """Folder of a checkpoint that a user named.

    Args:
        path: A folder, or ``hf:OWNER/NAME`` for one of the Hugging Face hub
            (:mod:`cnerta.models.runtime.hub`).

    Raises:
        CheckpointError: One of the hub cannot be had.
    """
    return fetch(str(path), _HUB_CONTENT) if is_hub_name(str(path)) else path


def checkpoint_files(path: Path) -> tuple[str, ...]:
    """The files of a checkpoint that are in its folder, the description last."""
    return tuple(name for name in (*_FILES, _DESCRIPTION) if (path / name).is_file())


def copy_with_hashes(path: Path, folder: Path) -> None:
    """Copy a checkpoint to where it stays as it is, its description with the hashes of its files.

    Args:
        path: Folder of a checkpoint.
        folder: Another, which is there.

    Raises:
        CheckpointError: It is none.
    """
    try:
        description = _describe(path)
        *others, _ = checkpoint_files(path)
        for name in others:
            shutil.copyfile(path / name, folder / name)
        description.sha256 = {name: file_sha256(folder / name) for name in others}
        content = msgspec.json.format(msgspec.json.encode(description))
        write_atomically(folder / _DESCRIPTION, content)
    except OSError as error:
        raise CheckpointError(f"expected a checkpoint folder, got {path}: {error}") from error
    except msgspec.MsgspecError as error:
        raise CheckpointError(f"expected a readable checkpoint in {path}, got: {error}") from error


def _describe(path: Path) -> _Description:
    return msgspec.json.decode((path / _DESCRIPTION).read_bytes(), type=_Description)


def _check_hashes(path: Path, sha256: dict[str, str]) -> None:
    if not sha256:
        return
    # What is loaded has a hash if anything has.
    for name in checkpoint_files(path)[:-1]:
        expected, found = sha256.get(name, "none"), file_sha256(path / name)
        if found != expected:
            raise CheckpointError(
                f"expected {name} with sha256 {expected[:12]}…, got {found[:12]}… in {path}: the "
                "file was truncated or changed"
            )


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a model, also one that an earlier version has written.

    Args:
        path: A folder, or ``hf:OWNER/NAME`` for one of the Hugging Face hub.

    Raises:
        CheckpointError: A file is missing or damaged, its hash does not fit, or the weights are of
            another model.
    """
    path = find_checkpoint(path)
    try:
        description = _describe(path)
        _check_hashes(path, description.sha256)
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
