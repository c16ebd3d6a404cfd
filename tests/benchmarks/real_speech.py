"""What speech is worth on real recordings of speakers that training does not have.

    python tests/benchmarks/real_speech.py data/aishell_sample/manifest.jsonl
        data/aishell_more/manifest.jsonl --unlike data/text/cnerta_train80.json
        --unlike data/text/aishell_ner_clean.jsonl [--bundle accurate …]

AISHELL-1's speaker S0252 read 366 sentences of news in the sample that comes with our data. Beside
this file lies what we annotated in them, in CNERTA's conventions as its validation split shows them
(adjoining places apart, the place inside an organisation's name, 中 in 中行, no 我国), before any
model had been asked: offsets and types only, as the texts are the corpus's. Sentences that CNERTA
has annotated itself keep its annotation. The sentences before (commands, names of shops, songs and
numbers) are left out: CNERTA has none like them. The same for the 35 sentences of the four speakers
that ``aishell_more`` keeps for development.

Sentences that stand word for word in a file of ``--unlike`` are left out. The bundle answers once
with the recordings and once from the texts alone; the difference has a 95 % interval from a paired
bootstrap over sentences.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from cnerta.models.errors import DataError
from cnerta.models.runtime.labels import Span
from cnerta.train.commands.failure import fail
from cnerta.train.data.examples import Example, normalise_example, read_examples
from cnerta.train.evaluation.metrics import score_entities, sentence_counts
from cnerta.train.evaluation.significance import paired_bootstrap
from cnerta.train.evaluation.systems import answers_of_bundle, answers_of_checkpoints

ANNOTATIONS = [
    Path(__file__).with_name(name)
    for name in ("s0252_entities.jsonl", "aishell_more_entities.jsonl")
]


class AnnotatedRow(msgspec.Struct, forbid_unknown_fields=True):
    """A line of ours: how long the text is, and (start, end, type) of each entity."""

    audio: str
    characters: int
    entities: list[tuple[int, int, str]]


def annotated_examples(manifest: Path) -> list[Example]:
    """The recordings of a manifest that we have annotated, or CNERTA has, of the same speakers.

    Raises:
        DataError: The manifest has no such recording, one is missing, or its text is not as long as
            the annotated one.
    """
    rows = {e.audio.name: e for e in read_examples(manifest) if e.audio is not None}
    lines = [
        msgspec.json.decode(line, type=AnnotatedRow) for f in ANNOTATIONS for line in f.open("rb")
    ]
    # Those of the speakers that the manifest has.
    speakers = {name[: len("BAC009S0252")] for name in rows}
    ours = [line for line in lines if line.audio[: len("BAC009S0252")] in speakers]
    if not ours:
        raise DataError(f"expected recordings in {manifest} that are annotated, got none")
    annotated = {line.audio[: len("BAC009S0252")] for line in ours}
    chosen = {
        name: row
        for name, row in rows.items()
        if row.spans is not None and name[: len("BAC009S0252")] in annotated
    }
    for line in ours:
        row = rows.get(line.audio)
        if row is None or len(row.text) != line.characters:
            got = "no such row" if row is None else f"{len(row.text)} characters"
            raise DataError(f"expected {line.characters} characters of {line.audio}, got {got}")
        spans = tuple(Span(start, end, kind) for start, end, kind in line.entities)
        chosen[line.audio] = replace(row, spans=spans)
    return [chosen[name] for name in sorted(chosen)]


def compare(bundle: str, examples: list[Example]) -> dict[str, Any]:
    """F1 of a bundle with and without the recordings, and by how much they differ."""
    speech, text = (
        answers_of_bundle(
            Path(bundle),
            examples,
            use_audio=use_audio,
            device="cpu",
            threads=2,
            console=Console(stderr=True),
        ).found
        for use_audio in (True, False)
    )
    return compared(bundle, examples, speech, text)


def compare_checkpoint(checkpoint: Path, examples: list[Example]) -> dict[str, Any]:
    """The same of a torch model."""
    speech, text = (
        answers_of_checkpoints([checkpoint], examples, use_audio=use_audio, device="cpu").found
        for use_audio in (True, False)
    )
    return compared(checkpoint.name, examples, speech, text)


def compared(
    name: str, examples: list[Example], speech: list[list[Span]], text: list[list[Span]]
) -> dict[str, Any]:
    """F1 of answers with and without recordings, and their difference."""
    gold = [example.spans or () for example in examples]
    row: dict[str, Any] = {"bundle": name, "sentences": len(examples)}
    for kind in ("flat", "nested"):
        flat = kind == "flat"
        counts = [sentence_counts(gold, found, flat=flat)[None] for found in (speech, text)]
        difference = paired_bootstrap(*counts)
        scores = [getattr(score_entities(gold, found), kind) for found in (text, speech)]
        row[kind] = {
            "entities": int(counts[0][0, :, 2].sum()),
            "text": round(scores[0].f1, 1),
            "speech": round(scores[1].f1, 1),
            "difference": round(difference.value, 1),
            "interval": [round(difference.low, 1), round(difference.high, 1)],
        }
    return row


def main(
    manifests: Annotated[
        list[Path],
        typer.Argument(help="manifest.jsonl of aishell_sample, of aishell_more, or both."),
    ],
    bundle: Annotated[
        list[str] | None, typer.Option(help="Folder or name. Repeatable; fast if none.")
    ] = None,
    checkpoint: Annotated[
        list[Path] | None, typer.Option(help="A torch model's folder. Repeatable.")
    ] = None,
    unlike: Annotated[
        list[Path] | None, typer.Option(help="Leave sentences out that stand in this file.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON lines.")] = False,
) -> None:
    """Score bundles on the real recordings, with and without them."""
    try:
        known = {normalise_example(e).text for path in unlike or () for e in read_examples(path)}
        read = [e for manifest in manifests for e in annotated_examples(manifest)]
        examples = [e for e in read if normalise_example(e).text not in known]
        told = f"{len(examples)} recordings, {len(read) - len(examples)} left out"
        Console(stderr=True).print(told, highlight=False)
        chosen = bundle or ([] if checkpoint else ["fast"])
        rows = [compare(name, examples) for name in chosen]
        rows += [compare_checkpoint(path, examples) for path in checkpoint or ()]
    except (DataError, OSError) as error:
        fail(error)
    if as_json:
        for row in rows:
            typer.echo(json.dumps(row))
        return
    table = Table("bundle", "", "entities", "text", "speech", "difference", "95 %")
    for row in rows:
        for kind in ("flat", "nested"):
            figures = row[kind]
            table.add_row(row["bundle"], kind, *(str(value) for value in figures.values()))
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
