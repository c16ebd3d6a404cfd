"""``cnerta-train names``: a word list for a gazetteer out of annotated corpora."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from cnerta.models.errors import CnertaError, DataError
from cnerta.train.commands.failure import fail
from cnerta.train.data.examples import normalise_example, read_examples
from cnerta.train.data.names import collect_names, write_names

__all__ = ["names"]


def names(
    data: Annotated[
        list[Path],
        typer.Argument(help="Annotated files: CNERTA's JSON lines, AISHELL-NER's text, manifests."),
    ],
    out: Annotated[Path, typer.Option(help="Word list to write; model.gazetteer.lists names it.")],
    without: Annotated[
        list[Path] | None,
        typer.Option(
            help="Leave out sentences that are also in this file, such as what the model will be "
            "measured on. Repeatable."
        ),
    ] = None,
    least: Annotated[
        int,
        typer.Option(
            min=1,
            help="Leave out names that occur less often: 2 for a corpus that the model is trained "
            "on, so that it meets names no list has, 1 for others.",
        ),
    ] = 1,
    prefix: Annotated[
        str, typer.Option(help="Kind of word is PREFIX-TYPE: tells lists apart.")
    ] = "name",
) -> None:
    """List the names of annotated corpora with their types, for a gazetteer."""
    try:
        if not out.parent.is_dir():
            raise DataError(f"expected a folder to write to, got {out.parent}")
        if not prefix or not prefix.isascii() or len(prefix.split()) != 1:
            raise DataError(f"expected a prefix of ASCII characters without blanks, got {prefix!r}")
        excluded = {normalise_example(e).text for p in without or () for e in read_examples(p)}
        examples = [normalise_example(e) for path in data for e in read_examples(path)]
        found = collect_names((e for e in examples if e.text not in excluded), least=least)
        if not found:
            raise DataError(f"expected names in {', '.join(map(str, data))}, got none")
        write_names(out, found, prefix)
    except (CnertaError, OSError) as error:
        fail(error)
    Console(stderr=True).print(f"{len(found)} names: {out}", markup=False, soft_wrap=True)
