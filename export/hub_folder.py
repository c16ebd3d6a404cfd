"""A bundle as a folder for the Hugging Face hub: its files, and a model card that says what it is.

What the hub reads stands between the dashes at the beginning of the card (its metadata); the text
is for people. https://huggingface.co/docs/hub/model-cards
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from huggingface_hub import EvalResult, ModelCardData

from cnerta.models.errors import ConfigError
from cnerta.models.files import write_atomically
from cnerta.models.runtime.bundle import Bundle, bundle_files

__all__ = ["CARD_FILE", "HubDescription", "write_hub_folder"]

CARD_FILE: Final = "README.md"
_ATTRIBUTES_FILE: Final = ".gitattributes"
_LARGE: Final = ("*.onnx", "*.npz")
"""Git keeps these as pointers, as the hub wants of large files."""
_TASK: Final = "token-classification"
_LIBRARY: Final = "cnerta-stream"
_TAGS: Final = ("named-entity-recognition", "speech", "streaming", "onnx", "chinese")
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
    if folder.exists() and (not folder.is_dir() or folder.samefile(bundle.path)):
        raise ConfigError(f"expected another folder than the bundle's for the hub, got {folder}")
    folder.mkdir(parents=True, exist_ok=True)
    for name in bundle_files(bundle.path):
        shutil.copyfile(bundle.path / name, folder / name)
    rules = "".join(f"{pattern} filter=lfs diff=lfs merge=lfs -text\n" for pattern in _LARGE)
    write_atomically(folder / _ATTRIBUTES_FILE, rules.encode())
    write_atomically(folder / CARD_FILE, _card(bundle, about).encode())


def _card(bundle: Bundle, about: HubDescription) -> str:
    data = ModelCardData(
        language="zh",
        license=about.license,
        library_name=_LIBRARY,
        pipeline_tag=_TASK,
        tags=list(_TAGS),
        datasets=list(about.datasets) or None,
        base_model=list(about.base_models) or None,
        model_name=bundle.name,
        eval_results=list(_results(bundle)) or None,
    )
    return f"---\n{data.to_yaml()}\n---\n\n{_text(bundle)}"


def _results(bundle: Bundle) -> Iterator[EvalResult]:
    for name, value in sorted(bundle.scores.items()):
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


def _text(bundle: Bundle) -> str:
    use = {
        "aligned": "It uses the speech of a text where it has it, and tells when each character "
        "was spoken.",
        "unaligned": "It uses the speech of a text where it has it.",
        "none": "It answers from the text alone.",
    }[bundle.audio_use]
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
        "## Scores",
        "",
        *(
            _table(
                ("data and measure", "value"),
                [(f"`{name}`", f"{value:.4g}") for name, value in sorted(bundle.scores.items())],
            )
            if bundle.scores
            else ["None were written when it was exported."]
        ),
        "",
        "## How it was made",
        "",
        *(
            _table(
                ("", ""),
                [(name, f"`{value}`") for name, value in sorted(bundle.provenance.items())],
            )
            if bundle.provenance
            else ["Nothing is known."]
        ),
        "",
    ]
    return "\n".join(lines)


def _table(head: tuple[str, str], rows: list[tuple[str, str]]) -> list[str]:
    def row(cells: tuple[str, str]) -> str:
        return (
            "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"
        )

    return [row(head), "|---|---|", *map(row, rows)]
