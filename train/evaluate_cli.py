"""``cnerta-evaluate``: score a bundle on annotated data."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from cnerta.models.bundle import find_bundle
from cnerta.models.checkpoint import load_checkpoint
from cnerta.models.errors import CnertaError, ConfigError, DataError
from cnerta.models.inference import Device, Model
from cnerta.models.labels import Span
from cnerta.train.audio import AudioCache
from cnerta.train.data import Example, read_examples
from cnerta.train.evaluation import bundle_predictions, majority, torch_predictions
from cnerta.train.metrics import (
    EntityScores,
    HomographScores,
    Scores,
    score_entities,
    score_homographs,
)

__all__ = ["evaluate", "main"]


def evaluate(
    data: Annotated[
        Path,
        typer.Option(help="JSON lines: CNERTA's own or a manifest (audio, text, entities)."),
    ],
    bundle: Annotated[
        Path | None,
        typer.Option(help="Bundle to score: a folder, fast or accurate. \\[default: fast]"),
    ] = None,
    checkpoints: Annotated[
        list[Path] | None,
        typer.Option(
            "--checkpoint",
            help="Checkpoint of a training run to score in place of a bundle: in batches, on the "
            "accelerator if there is one. Several vote: what most of them find counts.",
        ),
    ] = None,
    audio_root: Annotated[
        Path | None,
        typer.Option(help="Recordings of CNERTA's data: AISHELL-1's wav folder or a flat one."),
    ] = None,
    text_only: Annotated[bool, typer.Option("--text-only", help="Do not use audio.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    predictions: Annotated[
        Path | None,
        typer.Option(
            help="Write what was found, a JSON line a sentence. The data then needs no entities, "
            "and the file is a manifest to train on."
        ),
    ] = None,
    device: Annotated[Device, typer.Option(help="auto takes a GPU if there is one.")] = "auto",
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 2,
) -> None:
    """Score a bundle: precision, recall and F1 of entities, flat and nested, in percent.

    Sentences with a recording are streamed through the model in chunks, as live audio would be;
    the others are answered from text alone.
    """
    errors = Console(stderr=True)
    try:
        examples = read_examples(data, audio_root=audio_root)
        missing = sum(e.spans is None for e in examples)
        if not examples:
            raise DataError(f"expected sentences in {data}, got an empty file")
        if predictions is not None and not predictions.parent.is_dir():
            raise DataError(f"expected a folder to write to, got {predictions.parent}")
        if missing and predictions is None:
            raise DataError(
                f"expected entities in every row of {data}, got {missing} of {len(examples)} rows "
                "without: nothing to compare with, unless --predictions asks for what is found"
            )
        if checkpoints:
            if bundle is not None:
                raise ConfigError("expected --bundle or --checkpoint, got both")
            cache = AudioCache()
            voters = [
                _checkpoint_predictions(path, examples, cache, device, not text_only)
                for path in checkpoints
            ]
            name = " + ".join(n for n, _ in voters)
            found = [majority(votes) for votes in zip(*(f for _, f in voters), strict=True)]
        else:
            model = Model.load(find_bundle(bundle), device=device, threads=threads)
            name = model.bundle.name
            found = [
                list(spans)
                for spans in track(
                    bundle_predictions(model, examples, use_audio=not text_only),
                    description="tagging",
                    total=len(examples),
                    console=errors,
                    transient=True,
                )
            ]
        if predictions is not None:
            _write_predictions(predictions, examples, found)
    except (CnertaError, OSError) as error:
        complaint = f"{type(error).__name__}: {error}"
        errors.print(complaint, style="red", markup=False, soft_wrap=True)
        raise typer.Exit(1) from error
    if missing:
        errors.print(f"{missing} of {len(examples)} rows have no entities: not scored")
        return
    gold = [e.spans or () for e in examples]
    scores = score_entities(gold, found)
    homographs = score_homographs([e.text for e in examples], gold, found)
    spoken = 0 if text_only else sum(e.audio is not None for e in examples)
    if as_json:
        typer.echo(msgspec.json.encode(_as_json(scores, homographs)).decode())
    else:
        _print_table(name, scores, spoken)
        if homographs.texts:
            Console().print(
                f"{homographs.texts} texts with several readings: all readings right "
                f"{homographs.right}, told apart {homographs.told_apart}"
            )


def _checkpoint_predictions(
    path: Path, examples: list[Example], cache: AudioCache, device: Device, use_audio: bool
) -> tuple[str, list[list[Span]]]:
    """Name and predictions of a checkpoint."""
    import torch

    loaded = load_checkpoint(path)
    found_cuda = torch.cuda.is_available()
    if device == "cuda" and not found_cuda:
        raise ConfigError("expected a GPU that torch can use, got none")
    place = torch.device("cuda" if found_cuda and device != "cpu" else "cpu")
    found = torch_predictions(
        loaded.model.to(place), examples, cache, use_audio=use_audio, device=place
    )
    return loaded.name, found


def _as_json(scores: EntityScores, homographs: HomographScores) -> dict[str, Any]:
    def figures(s: Scores) -> dict[str, float]:
        return {"precision": s.precision, "recall": s.recall, "f1": s.f1}

    return {
        "sentences": scores.sentences,
        "flat": figures(scores.flat),
        "nested": figures(scores.nested),
        "homographs": asdict(homographs),
    }


def _print_table(name: str, scores: EntityScores, spoken: int) -> None:
    table = Table(title=f"{name}: {scores.sentences} sentences, {spoken} with speech")
    for heading in ("", "precision", "recall", "F1", "boundary errors", "type errors"):
        table.add_column(heading, justify="left" if not heading else "right")
    for kind, s in (("flat", scores.flat), ("nested", scores.nested)):
        table.add_row(
            kind,
            f"{s.precision:.2f}",
            f"{s.recall:.2f}",
            f"{s.f1:.2f}",
            str(s.boundary_errors),
            str(s.type_errors),
        )
    Console().print(table)


def _write_predictions(path: Path, examples: list[Example], found: list[list[Span]]) -> None:
    with path.open("wb") as file:
        for example, spans in zip(examples, found, strict=True):
            entities = [[s.start, s.end, example.text[s.start : s.end], s.label] for s in spans]
            row: dict[str, Any] = {"text": example.text, "entities": entities}
            if example.audio is not None:
                row["audio"] = os.path.relpath(example.audio, path.parent)
            file.write(msgspec.json.encode(row) + b"\n")


def main() -> None:
    """Entry point."""
    typer.run(evaluate)
