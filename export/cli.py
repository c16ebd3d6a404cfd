"""``cnerta-export``: checkpoint to ONNX bundle."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

from cnerta.models.command_line import (
    TRAINING_EXTRAS,
    VersionOption,
    fail,
    log_to_console,
    make_app,
    needs_extra,
)
from cnerta.models.errors import CnertaError
from cnerta.models.runtime.bundle import AUDIO_FIT_BOUND, BLANK_PENALTY
from cnerta.models.runtime.listening import Listening

__all__ = ["export", "main"]

Int8Name = Literal["none", "acoustic", "tagger", "both"]


def export(
    checkpoint: Annotated[Path, typer.Argument(help="Folder that cnerta-train wrote.")],
    out: Annotated[Path, typer.Argument(help="Folder of the bundle; made if missing.")],
    audio_fit_bound: Annotated[
        float,
        typer.Option(
            help="Alignment score below which the audio is taken not to be of the text, so that "
            "the text alone is used."
        ),
    ] = AUDIO_FIT_BOUND,
    blank_penalty: Annotated[
        float,
        typer.Option(
            help="How much the alignment prefers a character to silence; higher for a model whose "
            "CTC output is more peaked."
        ),
    ] = BLANK_PENALTY,
    listening: Annotated[
        tuple[float, float] | None,
        typer.Option(
            help="Alignment scores up to which the answer is from the text alone, and from which "
            "the audio counts in full; between them the answer lies between both. Without: audio "
            "that fits at all counts in full."
        ),
    ] = None,
    int8: Annotated[
        Int8Name,
        typer.Option(
            help="Graphs to give 8-bit weights: a quarter of the size, and answers that differ a "
            "little; score them with cnerta-evaluate."
        ),
    ] = "none",
    version: VersionOption = False,
) -> None:
    """Export a trained model as a bundle that the server runs, and check that it is the same."""
    console = Console(stderr=True)
    log_to_console(logging.INFO, console=console, others=logging.WARNING, show_time=True)
    # Torch takes seconds to import; --help should not.
    from cnerta.export.quantise import Int8
    from cnerta.export.write import export_bundle
    from cnerta.models.networks.checkpoint import load_checkpoint

    try:
        bounds = None if listening is None else Listening(*listening)
    except ValueError as error:
        fail("--listening", error)
    try:
        with console.status("exporting"):
            written = export_bundle(
                load_checkpoint(checkpoint),
                out,
                audio_fit_bound=audio_fit_bound,
                blank_penalty=blank_penalty,
                listening=bounds,
                int8=Int8(int8),
            )
    except CnertaError as error:
        fail(type(error).__name__, error)
    console.print(
        f"bundle {written.bundle.name} in {out}: differs from torch by at most "
        f"{written.acoustic_difference:.1e} (acoustic) and "
        f"{written.tagger_difference:.1e} (tagger)"
        + (
            f"; with 8-bit weights {written.agreement:.1%} of tags on random inputs are the same"
            if written.agreement is not None
            else ""
        ),
        markup=False,
        soft_wrap=True,
    )


def main() -> None:
    """Entry point."""
    app = make_app()
    app.command()(export)
    with needs_extra("cnerta-export", TRAINING_EXTRAS):
        app()


if __name__ == "__main__":
    main()
