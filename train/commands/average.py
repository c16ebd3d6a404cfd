"""`cnerta-train average`: one model from several."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from cnerta.models.errors import CnertaError
from cnerta.train.commands.failure import fail

__all__ = ["average"]


def average(
    checkpoints: Annotated[
        list[Path],
        typer.Argument(help="Checkpoints of one composition, trained on from the same start."),
    ],
    out: Annotated[Path, typer.Option(help="Folder for the checkpoint with their mean.")],
    half: Annotated[
        bool, typer.Option("--half", help="Store weights as 16-bit floats, half the size.")
    ] = False,
    int8: Annotated[
        bool,
        typer.Option("--int8", help="Store matrices as 8-bit integers, a quarter of the size."),
    ] = False,
) -> None:
    """Average the weights of several checkpoints; of a single one: store it in fewer bits."""
    # Torch takes seconds to import; --help should not.
    from cnerta.models.networks.checkpoint import load_checkpoint, save_checkpoint
    from cnerta.train.loop.averaging import average_checkpoints

    try:
        alone = len(checkpoints) == 1 and (half or int8)
        mean = load_checkpoint(checkpoints[0]) if alone else average_checkpoints(checkpoints)
        save_checkpoint(out, mean, half=half, int8=int8)
    except (CnertaError, OSError) as error:
        fail(error)
    message = f"mean of {len(checkpoints)} models: {out}"
    Console(stderr=True).print(message, markup=False, soft_wrap=True)
