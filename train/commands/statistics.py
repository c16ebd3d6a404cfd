"""``cnerta-train statistics`` and ``cnerta-train check``: what data holds, and what twice."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from cnerta.models.errors import CnertaError, ConfigError, DataError
from cnerta.train.commands.failure import fail
from cnerta.train.data.examples import Example, read_examples
from cnerta.train.data.recordings import recording_seconds
from cnerta.train.data.sources import read_sources
from cnerta.train.data.statistics import (
    Overlap,
    Spread,
    Statistics,
    corpus_statistics,
    find_overlap,
)
from cnerta.train.recipe import Recipe, load_recipe

__all__ = ["check", "statistics"]

_NAMED = 5

Sources = Annotated[
    list[str],
    typer.Argument(
        help="Files (CNERTA's JSON lines, AISHELL-NER's text, manifests), or one recipe: all of "
        "its sources."
    ),
]
AudioRoot = Annotated[
    Path | None, typer.Option(help="Recordings of the files: AISHELL-1's folder or a flat one.")
]
DataRoot = Annotated[Path, typer.Option(help="Folder that a recipe's data paths are relative to.")]
Cache = Annotated[
    Path | None, typer.Option(help="Remember here what archives hold, as training does.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def statistics(
    sources: Sources,
    audio_root: AudioRoot = None,
    data_root: DataRoot = Path(),
    cache: Cache = None,
    as_json: AsJson = False,
) -> None:
    """Print what data holds, like the paper's Table 1.

    Sentences, durations, lengths, nested entities, entities by type. What is nested is counted
    twice: as sentences and as entities. An entity that is annotated twice counts once, and is
    named. A recording that is missing is an error, and so is a sentence that AISHELL-1's
    transcripts do not know.
    """

    def seconds(example: Example) -> float:
        assert example.audio is not None, "asked for those with a recording"
        return recording_seconds(example.audio, cache)

    try:
        corpora, _ = _read(sources, audio_root, data_root, cache)
        if len(corpora) > 1:
            corpora["all"] = [e for examples in corpora.values() for e in examples]
        found = {n: corpus_statistics(examples, seconds) for n, examples in corpora.items()}
    except (CnertaError, OSError) as error:
        fail(error)
    if as_json:
        typer.echo(msgspec.json.encode(found).decode())
    else:
        _print_statistics(found)


def check(
    sources: Sources,
    audio_root: AudioRoot = None,
    data_root: DataRoot = Path(),
    cache: Cache = None,
    evaluate: Annotated[
        list[str] | None,
        typer.Option(
            help="Further data that the recipe's model is measured on: one of its sources by its "
            "name, or a file. Compared with all that it trains on. Repeatable."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Find sentences, recordings and speakers that are in two sources.

    Of a recipe, each source that is trained on is compared with each that is measured on, by its
    stages or by --evaluate; of files, each with each. Ends with 1 if a sentence or a recording is
    in both: speakers in common are told, because that is how CNERTA itself is divided.
    """
    try:
        corpora, recipe = _read(sources, audio_root, data_root, cache, evaluate or ())
        if evaluate and recipe is None:
            raise ConfigError("expected one recipe with --evaluate, got files, which are compared")
        for name in evaluate or ():
            if name not in corpora:
                corpora[name] = read_examples(Path(name), audio_root=audio_root, cache=cache)
        pairs = _pairs(list(corpora), recipe, evaluate or ())
        found = [(a, b, find_overlap(corpora[a], corpora[b])) for a, b in pairs]
    except (CnertaError, OSError) as error:
        fail(error)
    if as_json:
        rows = [{"first": a, "second": b, "overlap": overlap} for a, b, overlap in found]
        typer.echo(msgspec.json.encode(rows).decode())
    else:
        _print_overlaps(found)
    if any(overlap.texts or overlap.recordings for _, _, overlap in found):
        raise typer.Exit(1)


def _read(
    sources: Sequence[str],
    audio_root: Path | None,
    data_root: Path,
    cache: Path | None,
    further: Sequence[str] | None = None,
) -> tuple[dict[str, list[Example]], Recipe | None]:
    """Examples by name, and the recipe if one was named.

    Args:
        sources: Files or a recipe.
        audio_root: Recordings of files.
        data_root: Folder that a recipe's paths are relative to.
        cache: Where to remember what archives hold.
        further: Of a recipe only what its stages use and these are read; None for all.
    """
    files = [Path(s) for s in sources]
    if len(files) == 1 and (not files[0].is_file() or files[0].suffix == ".toml"):
        recipe = load_recipe(sources[0])
        names = list(recipe.data)
        if further is not None:
            used = {n for s in recipe.stages for n in (*s.train, *s.dev)} | set(further)
            names = [n for n in names if n in used]
        return read_sources(recipe.data, names, data_root, cache=cache), recipe
    corpora = {}
    for file in files:
        name = file.stem if file.stem not in corpora else str(file)
        corpora[name] = read_examples(file, audio_root=audio_root, cache=cache)
        if not corpora[name]:
            raise DataError(f"expected at least one example in {file}, got none")
    return corpora, None


def _pairs(
    names: Sequence[str], recipe: Recipe | None, further: Sequence[str]
) -> list[tuple[str, str]]:
    """What is compared with what; ``further`` are measured on beside what the recipe says."""
    if recipe is None:
        return list(combinations(names, 2))
    trained = dict.fromkeys(n for s in recipe.stages for n in s.train)
    measured = dict.fromkeys([*(n for s in recipe.stages for n in s.dev), *further])
    return [(a, b) for a in trained for b in measured if a != b]


def _print_statistics(found: dict[str, Statistics]) -> None:
    table = Table()
    table.add_column("")
    for name in found:
        table.add_column(name, justify="right")

    def spread(values: Spread, digits: int) -> str:
        numbers = (values.least, values.mean, values.greatest)
        return " / ".join(f"{v:.{digits}f}" for v in numbers) if values.greatest else "–"

    columns = list(found.values())
    table.add_row("sentences", *(f"{s.sentences:,}" for s in columns))
    table.add_row("  annotated", *(f"{s.annotated:,}" for s in columns))
    table.add_row("  with entities", *(f"{s.with_entities:,}" for s in columns))
    nested = (f"{s.nested_sentences:,} ({s.nested_share:.1f} %)" for s in columns)
    table.add_row("  with nested entities (of those with any)", *nested)
    table.add_row("characters", *(f"{s.characters:,}" for s in columns))
    table.add_row("  a sentence (least / mean / most)", *(spread(s.lengths, 1) for s in columns))
    table.add_row("recordings", *(f"{s.spoken:,}" for s in columns))
    table.add_row("  hours", *(f"{s.hours:.2f}" for s in columns))
    table.add_row("  seconds (least / mean / most)", *(spread(s.seconds, 2) for s in columns))
    table.add_row("  speakers", *(f"{s.speakers:,}" for s in columns))
    table.add_row("entities", *(f"{sum(s.entities.values()):,}" for s in columns))
    for label in sorted({label for s in columns for label in s.entities}):
        table.add_row(f"  {label}", *(f"{s.entities.get(label, 0):,}" for s in columns))
    rows = (f"{sum(s.entities.values()) + s.duplicates:,}" for s in columns)
    table.add_row("  as the annotation has them (the paper's)", *rows)
    table.add_row("  of these annotated twice", *(f"{s.duplicates:,}" for s in columns))
    inside = (
        f"{sum(s.nested_entities.values()):,} ({s.nested_entity_share:.1f} %)" for s in columns
    )
    table.add_row("  inside another (of all)", *inside)
    table.add_row(
        "  characters (least / mean / most)", *(spread(s.entity_lengths, 1) for s in columns)
    )
    table.add_row("  inside one another, at most", *(str(s.depth) for s in columns))
    # Figures are to be read across; a narrow terminal had better fold whole lines.
    needed = 46 + 24 * len(found)
    console = Console()
    Console(width=max(console.width, needed)).print(table)
    for name, own in found.items():
        if own.repeated_in:
            some = ", ".join(own.repeated_in[:_NAMED])
            some += " …" if len(own.repeated_in) > _NAMED else ""
            console.print(f"{name}, annotated twice: {some}", markup=False)


def _print_overlaps(found: Sequence[tuple[str, str, Overlap]]) -> None:
    console = Console()
    table = Table()
    for heading in ("", "", "texts", "recordings", "speakers"):
        table.add_column(heading, justify="right" if heading else "left")
    for first, second, overlap in found:
        counts = (len(overlap.texts), len(overlap.recordings), len(overlap.speakers))
        table.add_row(first, second, *map(str, counts))
    console.print(table)
    for first, second, overlap in found:
        for kind, common in (("texts", overlap.texts), ("recordings", overlap.recordings)):
            if common:
                some = ", ".join(common[:_NAMED]) + (" …" if len(common) > _NAMED else "")
                console.print(f"{first} and {second}, {kind}: {some}", markup=False)
