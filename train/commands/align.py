"""`cnerta-train align`: give the rows of manifests the times of their characters."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console

from cnerta.models.errors import CnertaError
from cnerta.models.runtime.bundle import find_bundle
from cnerta.models.runtime.inference import Model
from cnerta.train.commands.failure import fail

__all__ = ["align"]


def align(
    manifest: Annotated[Path, typer.Argument(help="JSON lines with audio and text.")],
    out: Annotated[Path, typer.Option(help="The manifest to write.")],
    bundle: Annotated[Path, typer.Option(help="Folder or name of the bundle.")] = Path("fast"),
    least_score: Annotated[
        float | None,
        typer.Option(help="Rows that fit worse get no times. \\[default: the bundle's bound]"),
    ] = None,
) -> None:
    """Write a manifest with the time of each character, as a bundle hears it."""
    # Reading audio takes torch, which takes seconds to import; --help should not.
    from cnerta.train.data.aligning import align_manifest

    partial = out.with_name(out.name + ".partial")
    rows = timed = 0
    try:
        model = Model.load(find_bundle(bundle), device="cpu")
        out.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            for row in align_manifest(model, manifest, out, least_score=least_score):
                file.write(msgspec.json.encode(row) + b"\n")
                rows += 1
                timed += "characters" in row
        partial.replace(out)
    except (CnertaError, OSError, msgspec.MsgspecError) as error:
        fail(error)
    Console(stderr=True).print(f"{out}: {rows} rows, {timed} with times", markup=False)
