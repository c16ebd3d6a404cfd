"""``cnerta-evaluate``: score a model on annotated data, and report on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from cnerta.models.command_line import VersionOption, make_app
from cnerta.models.errors import CnertaError, ConfigError, DataError
from cnerta.models.runtime.inference import Device
from cnerta.train.commands.failure import fail
from cnerta.train.data.examples import Example, read_examples
from cnerta.train.evaluation.alignment_plots import draw_alignments
from cnerta.train.evaluation.breakdown import KnownEntities, known_entities
from cnerta.train.evaluation.metrics import (
    EntityScores,
    HomographScores,
    Scores,
    score_entities,
    score_homographs,
)
from cnerta.train.evaluation.predictions import (
    pair_predictions,
    read_predictions,
    write_predictions,
)
from cnerta.train.evaluation.report import Other, make_report, write_report
from cnerta.train.evaluation.systems import (
    Answers,
    answers_of_bundle,
    answers_of_checkpoints,
    answers_of_external,
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
    external: Annotated[
        str,
        typer.Option(
            metavar="LIBRARY:MODEL",
            help="Score another library in place of a bundle, from text alone, its types mapped "
            "to ours: spacy:zh_core_web_trf, stanza:zh. It must be installed.",
        ),
    ] = "",
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
    report: Annotated[
        Path | None,
        typer.Option(
            help="Write report.md, report.json and scores.png into this folder: scores by type, "
            "depth, seen and unseen entities, kinds of error, intervals."
        ),
    ] = None,
    training_data: Annotated[
        list[Path] | None,
        typer.Option(
            help="For --report: JSON lines the model was trained on; what occurs in them with its "
            "type is a seen entity. Repeatable."
        ),
    ] = None,
    against: Annotated[
        Path | None,
        typer.Option(
            help="For --report: what another model found (its --predictions on the same data). "
            "Adds the difference with its interval, and differences.md: the sentences that differ."
        ),
    ] = None,
    alignments: Annotated[
        int,
        typer.Option(
            min=0,
            help="For --report: draw so many utterances with spectrogram, character times and "
            "entities; those that differ most from --against first.",
        ),
    ] = 0,
    device: Annotated[
        Device, typer.Option(help="auto takes a GPU by CUDA if there is one.")
    ] = "auto",
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 2,
    version: VersionOption = False,
) -> None:
    """Score a model: precision, recall and F1 of entities, flat and nested, in percent.

    Sentences with a recording are streamed through a bundle in chunks, as live audio would be;
    the others are answered from text alone.
    """
    errors = Console(stderr=True)
    try:
        examples = read_examples(data, audio_root=audio_root)
        missing = sum(e.spans is None for e in examples)
        _check(data, examples, missing, predictions, report)
        # Read before the work begins, which may take long.
        known = _read_known(training_data) if training_data else None
        other = _read_other(against, examples) if against else None
        if sum(map(bool, (bundle, checkpoints, external))) > 1:
            raise ConfigError("expected one of --bundle, --checkpoint and --external, got more")
        if external:
            answers = answers_of_external(external, examples, console=errors)
        elif checkpoints:
            answers = answers_of_checkpoints(
                checkpoints, examples, use_audio=not text_only, device=device
            )
        else:
            answers = answers_of_bundle(
                bundle,
                examples,
                use_audio=not text_only,
                device=device,
                threads=threads,
                console=errors,
            )
        found = pair_predictions(examples, answers.found)
        if predictions is not None:
            write_predictions(predictions, found)
        if report is not None:
            made = make_report(
                answers.name,
                data.name,
                found,
                spoken=_spoken(answers, examples),
                nested=answers.nested,
                known=known,
                other=other,
            )
            write_report(report, made, found, other)
            if alignments:
                theirs = other.predictions if other else ()
                draw_alignments(report / "alignments", alignments, answers, examples, theirs)
    except (CnertaError, OSError) as error:
        fail(error)
    silent = sum(bool(e.name) and e.audio is None for e in examples)
    if silent and answers.uses_audio:
        errors.print(
            f"warning: {silent} of {len(examples)} rows name a recording, and were answered from "
            "text alone: --audio-root says where recordings are, --text-only that none are wanted"
        )
    if missing:
        errors.print(f"{missing} of {len(examples)} rows have no entities: not scored")
        return
    gold = [e.spans or () for e in examples]
    scores = score_entities(gold, answers.found)
    homographs = score_homographs([e.text for e in examples], gold, answers.found)
    if as_json:
        values = _as_json(answers, scores, homographs, _spoken(answers, examples))
        typer.echo(msgspec.json.encode(values).decode())
    else:
        _print_table(answers, scores, _spoken(answers, examples))
        if homographs.texts:
            Console().print(
                f"{homographs.texts} texts with several readings: all readings right "
                f"{homographs.right}, their outermost entities {homographs.outermost_right}, "
                f"told apart {homographs.told_apart}"
            )


def _check(
    data: Path,
    examples: Sequence[Example],
    missing: int,
    predictions: Path | None,
    report: Path | None,
) -> None:
    """Say what cannot be done before anything is."""
    if not examples:
        raise DataError(f"expected sentences in {data}, got an empty file")
    if predictions is not None and not predictions.parent.is_dir():
        raise DataError(f"expected a folder to write to, got {predictions.parent}")
    if missing and (predictions is None or report is not None):
        raise DataError(
            f"expected entities in every row of {data}, got {missing} of {len(examples)} rows "
            "without: nothing to compare with, unless only --predictions asks for what is found"
        )


def _read_known(paths: Sequence[Path]) -> KnownEntities:
    examples = [e for path in paths for e in read_examples(path)]
    if all(e.spans is None for e in examples):
        raise DataError(f"expected entities in {', '.join(map(str, paths))}, got none")
    return known_entities((e.text, e.spans or ()) for e in examples)


def _read_other(path: Path, examples: Sequence[Example]) -> Other:
    theirs = read_predictions(path)
    if [(p.text, p.gold) for p in theirs] != [(e.text, e.spans) for e in examples]:
        raise DataError(
            f"expected predictions of the same sentences and gold entities in {path}, got others"
        )
    return Other(path.stem, theirs)


def _spoken(answers: Answers, examples: Sequence[Example]) -> int:
    return sum(e.audio is not None for e in examples) if answers.uses_audio else 0


def _as_json(
    answers: Answers, scores: EntityScores, homographs: HomographScores, spoken: int
) -> dict[str, Any]:
    def figures(s: Scores) -> dict[str, float]:
        return {
            "precision": s.precision,
            "recall": s.recall,
            "f1": s.f1,
            "gold": s.gold,
            "predicted": s.predicted,
            "correct": s.correct,
            "boundary_errors": s.boundary_errors,
            "type_errors": s.type_errors,
        }

    return {
        "sentences": scores.sentences,
        "spoken": spoken,
        "flat": figures(scores.flat),
        "nested": figures(scores.nested) if answers.nested else None,
        "homographs": asdict(homographs),
    }


def _print_table(answers: Answers, scores: EntityScores, spoken: int) -> None:
    table = Table(title=f"{answers.name}: {scores.sentences} sentences, {spoken} with speech")
    for heading in ("", "precision", "recall", "F1", "boundary errors", "type errors"):
        table.add_column(heading, justify="left" if not heading else "right")
    for kind, s in (("flat", scores.flat), ("nested", scores.nested))[: 1 + answers.nested]:
        table.add_row(
            kind,
            f"{s.precision:.2f}",
            f"{s.recall:.2f}",
            f"{s.f1:.2f}",
            str(s.boundary_errors),
            str(s.type_errors),
        )
    Console().print(table)


def main() -> None:
    """Entry point."""
    app = make_app()
    app.command()(evaluate)
    app()
