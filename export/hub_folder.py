"""A model as a folder for the Hugging Face hub: its files, and a model card that says what it is.

What the hub reads stands between the dashes at the beginning of the card (its metadata); the text
is for people. https://huggingface.co/docs/hub/model-cards
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from huggingface_hub import EvalResult, ModelCardData

from cnerta.models.errors import ConfigError
from cnerta.models.files import write_atomically
from cnerta.models.runtime.bundle import Bundle, bundle_files

if TYPE_CHECKING:
    from cnerta.models.networks.checkpoint import Checkpoint

__all__ = ["CARD_FILE", "HubDescription", "write_checkpoint_folder", "write_hub_folder"]

CARD_FILE: Final = "README.md"
_ATTRIBUTES_FILE: Final = ".gitattributes"
_LARGE: Final = ("*.onnx", "*.npz", "*.safetensors")
"""Git keeps these as pointers, as the hub wants of large files."""
_TASK: Final = "token-classification"
_LIBRARY: Final = "cnerta-stream"
_TAGS: Final = ("named-entity-recognition", "speech", "chinese")
_BUNDLE_TAGS: Final = ("streaming", "onnx")
_CHECKPOINT_TAGS: Final = ("pytorch", "safetensors")
_MEASURES: Final = {"f1": "f1", "precision": "precision", "recall": "recall"}
"""Last words of our names for scores, and what the hub calls them."""


@dataclass(frozen=True, slots=True)
class HubDescription:
    """What only its owner can say of a model.

    Attributes:
        license: Its identifier on the hub, such as ``apache-2.0``; ``other`` says that it is none
            of those that the hub knows.
        datasets: Names of data sets on the hub that it was trained on.
        base_models: Names of models on the hub that it began with.
    """

    license: str = "other"
    datasets: tuple[str, ...] = ()
    base_models: tuple[str, ...] = ()


def write_hub_folder(bundle: Bundle, folder: Path, about: HubDescription) -> None:
    """Write all that is to be uploaded; the card last.

    Args:
        bundle: As loaded.
        folder: Made if missing. Files of the same names are replaced.
        about: What only its owner can say.

    Raises:
        ConfigError: The folder is the bundle's own, or a file.
    """
    _make(folder, bundle.path)
    for name in bundle_files(bundle.path):
        shutil.copyfile(bundle.path / name, folder / name)
    card = _head(bundle.name, bundle.scores, about, _BUNDLE_TAGS) + _bundle_text(bundle)
    _finish(folder, card)


def write_checkpoint_folder(path: Path, folder: Path, about: HubDescription) -> None:
    """Write all that is to be uploaded of a checkpoint, with hashes; the card last.

    Args:
        path: Folder of the checkpoint.
        folder: Made if missing. Files of the same names are replaced.
        about: What only its owner can say.

    Raises:
        CheckpointError: It is none.
        ConfigError: The folder is the checkpoint's own, or a file.
    """
    # Torch takes seconds to import, and a bundle needs none.
    from cnerta.models.networks.checkpoint import copy_with_hashes, load_checkpoint

    checkpoint = load_checkpoint(path)
    _make(folder, path)
    copy_with_hashes(path, folder)
    head = _head(checkpoint.name, checkpoint.scores, about, _CHECKPOINT_TAGS)
    _finish(folder, head + _checkpoint_text(checkpoint))


def _make(folder: Path, source: Path) -> None:
    if folder.exists() and (not folder.is_dir() or folder.samefile(source)):
        raise ConfigError(f"expected another folder than the model's for the hub, got {folder}")
    folder.mkdir(parents=True, exist_ok=True)


def _finish(folder: Path, card: str) -> None:
    rules = "".join(f"{pattern} filter=lfs diff=lfs merge=lfs -text\n" for pattern in _LARGE)
    write_atomically(folder / _ATTRIBUTES_FILE, rules.encode())
    write_atomically(folder / CARD_FILE, card.encode())


def _head(
    name: str, scores: Mapping[str, float], about: HubDescription, tags: tuple[str, ...]
) -> str:
    data = ModelCardData(
        language="zh",
        license=about.license,
        library_name=_LIBRARY,
        pipeline_tag=_TASK,
        tags=[*_TAGS, *tags],
        datasets=list(about.datasets) or None,
        base_model=list(about.base_models) or None,
        model_name=name,
        eval_results=list(_results(scores)) or None,
    )
    return f"---\n{data.to_yaml()}\n---\n\n"


def _results(scores: Mapping[str, float]) -> Iterator[EvalResult]:
    for name, value in sorted(scores.items()):
        data, _, measure = name.rpartition(".")
        kind = _MEASURES.get(measure.rpartition("_")[2].lower())
        if kind is None or not data:
            continue
        yield EvalResult(
            task_type=_TASK,
            task_name="Named entity recognition",
            dataset_type=data,
            dataset_name=data,
            metric_type=kind,
            metric_name=measure,
            metric_value=round(float(value), 4),
        )


_USE: Final = {
    "aligned": "It uses the speech of a text where it has it, and tells when each character was "
    "spoken.",
    "unaligned": "It uses the speech of a text where it has it.",
    "none": "It answers from the text alone.",
}


def _bundle_text(bundle: Bundle) -> str:
    use = _USE[bundle.audio_use]
    nested = "nested" if bundle.nested else "flat"
    labels = ", ".join(f"`{label}`" for label in bundle.scheme.types)
    lines = [
        f"# {bundle.name}",
        "",
        f"Finds {nested} named entities ({labels}) in Mandarin. {use}",
        "It is a bundle of cnerta-stream: ONNX graphs and JSON; loading it runs no code.",
        "",
        "## How to use it",
        "",
        "```sh",
        "pip install 'cnerta-stream[cpu,hub]'",
        "cnerta-serve --bundle hf:OWNER/NAME",
        "```",
        "",
        "```python",
        "from cnerta.streamer import load",
        "",
        'tagger = load("hf:OWNER/NAME")',
        'for entity in tagger.tag("记者看到了南京市长江大桥").entities:',
        "    print(entity.label, entity.text, entity.confidence)",
        "```",
        "",
        "The files are checked by the hashes in `bundle.json` whenever they are loaded.",
        "",
        "## What it is",
        "",
        *_table(
            ("", ""),
            [
                ("entity types", labels),
                ("entities inside entities", "yes" if bundle.nested else "no"),
                ("speech", use),
                ("as it is spoken", "yes" if bundle.geometry.streaming else "whole utterances"),
                ("tells pronunciations", "yes" if bundle.has_readings else "no"),
                ("longest text", f"{bundle.max_characters} characters"),
            ],
        ),
        "",
        *_origin(bundle.scores, bundle.provenance),
    ]
    return "\n".join(lines)


def _checkpoint_text(checkpoint: Checkpoint) -> str:
    model = checkpoint.model
    scheme, config = model.scheme, model.config
    nested = "nested" if scheme.kind == "nested" else "flat"
    labels = ", ".join(f"`{label}`" for label in scheme.types)
    use = _USE[config.audio_use]
    parameters = sum(weight.numel() for weight in model.parameters())
    lines = [
        f"# {checkpoint.name}",
        "",
        f"Finds {nested} named entities ({labels}) in Mandarin. {use}",
        "It is a checkpoint of cnerta-stream: weights in safetensors and JSON; loading it runs no "
        "code.",
        "",
        "## How to use it",
        "",
        "```sh",
        "pip install 'cnerta-stream[cpu,train,hub]'",
        "cnerta-evaluate --checkpoint hf:OWNER/NAME --data test.jsonl",
        "cnerta-export hf:OWNER/NAME bundle/",
        "cnerta-train RECIPE --init hf:OWNER/NAME",
        "```",
        "",
        "The files are checked by the hashes in `model.json` whenever they are loaded.",
        "",
        "## What it is",
        "",
        *_table(
            ("", ""),
            [
                ("entity types", labels),
                ("entities inside entities", "yes" if scheme.kind == "nested" else "no"),
                ("speech", use),
                ("text encoder", f"`{config.text.encoder}`"),
                ("fusion", f"`{config.fusion.kind}`"),
                ("parameters", f"{parameters:,}"),
            ],
        ),
        "",
        *_origin(checkpoint.scores, checkpoint.provenance),
    ]
    return "\n".join(lines)


def _origin(scores: Mapping[str, float], provenance: Mapping[str, str]) -> list[str]:
    return [
        "## Scores",
        "",
        *(
            _table(
                ("data and measure", "value"),
                [(f"`{name}`", f"{value:.4g}") for name, value in sorted(scores.items())],
            )
            if scores
            else ["None are known."]
        ),
        "",
        "## How it was made",
        "",
        *(
            _table(("", ""), [(name, f"`{value}`") for name, value in sorted(provenance.items())])
            if provenance
            else ["Nothing is known."]
        ),
        "",
    ]


def _table(head: tuple[str, str], rows: list[tuple[str, str]]) -> list[str]:
    def row(cells: tuple[str, str]) -> str:
        return (
            "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"
        )

    return [row(head), "|---|---|", *map(row, rows)]
