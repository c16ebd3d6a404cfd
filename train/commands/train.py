"""``cnerta-train``: train a recipe; and what training needs made beforehand."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console

from cnerta.models.command_line import CommandGroup, VersionOption, log_to_console, make_app
from cnerta.models.errors import CnertaError
from cnerta.train.commands.align import align
from cnerta.train.commands.average import average
from cnerta.train.commands.calibrate import calibrate
from cnerta.train.commands.failure import fail
from cnerta.train.commands.invent import invent
from cnerta.train.commands.names import names
from cnerta.train.commands.shard import shard
from cnerta.train.commands.statistics import check, statistics
from cnerta.train.commands.synthesise import synthesise
from cnerta.train.commands.table import table
from cnerta.train.recipe import load_recipe, recipe_names

__all__ = ["main", "train"]


class _RecipeGroup(CommandGroup):
    """Commands, where anything that is none is taken for a recipe: ``cnerta-train bilstm-m3t``."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and args[0] not in self.commands:
            args.insert(0, "train")
        return super().resolve_command(ctx, args)


app = make_app(
    cls=_RecipeGroup,
    no_args_is_help=True,
    help="Train models: `cnerta-train RECIPE`. Recipes: " + ", ".join(recipe_names()) + ".",
)
app.command(name="synthesise")(synthesise)
app.command(name="align")(align)
app.command(name="calibrate")(calibrate)
app.command(name="average")(average)
app.command(name="names")(names)
app.command(name="invent")(invent)
app.command(name="shard")(shard)
app.command(name="statistics")(statistics)
app.command(name="check")(check)
app.command(name="table")(table)


@app.callback()
def _shared_options(version: VersionOption = False) -> None:
    """Take the options that come before the command."""


@app.command()
def train(
    recipe: Annotated[
        str,
        typer.Argument(
            help=f"A recipe of the package ({', '.join(recipe_names())}) or a TOML file."
        ),
    ],
    data_root: Annotated[
        Path, typer.Option(help="Folder that the recipe's data paths are relative to.")
    ] = Path(),
    out: Annotated[
        Path | None,
        typer.Option(
            help="Checkpoints and logs; goes on with what is there. \\[default: runs/RECIPE]"
        ),
    ] = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Change a value of the recipe, such as seed=1 or stages.0.epochs=3. Repeatable.",
        ),
    ] = None,
    init: Annotated[
        Path | None,
        typer.Option(help="Start from this checkpoint, with its vocabulary and labels."),
    ] = None,
    acoustic_from: Annotated[
        Path | None,
        typer.Option(help="Start from this checkpoint's acoustic encoder and CTC head."),
    ] = None,
    text_from: Annotated[
        Path | None,
        typer.Option(
            help="Start from this checkpoint's text encoder and kinds of words, and from the rest "
            "of that of --init."
        ),
    ] = None,
    cpu: Annotated[bool, typer.Option("--cpu", help="Do not use an accelerator.")] = False,
    precision: Annotated[
        Literal["no", "fp16", "bf16"], typer.Option(help="Of the forward pass.")
    ] = "no",
    cache: Annotated[
        Path | None,
        typer.Option(
            help="Keep decoded recordings in this folder, for later runs and for the other "
            "processes of this one. \\[default: in memory]"
        ),
    ] = None,
    save_minutes: Annotated[
        float, typer.Option(min=0, help="Time between checkpoints inside an epoch.")
    ] = 5.0,
    threads: Annotated[int, typer.Option(help="CPU threads; 0 for all cores.")] = 0,
    workers: Annotated[
        int, typer.Option(min=1, help="Threads that build batches; more for a GPU.")
    ] = 1,
    trackers: Annotated[
        list[str] | None,
        typer.Option(
            "--tracker",
            metavar="NAME",
            help="Tell this tracker of the run too, through accelerate: wandb, mlflow, comet_ml, "
            "aim, clearml and others, if installed. Repeatable.",
        ),
    ] = None,
) -> None:
    """Train a model from a recipe, resuming if it was cut off."""
    # Of several processes (torchrun, accelerate launch) the first one speaks.
    is_first = os.environ.get("RANK", "0") == "0"
    log_to_console(
        logging.INFO if is_first else logging.ERROR, others=logging.WARNING, show_time=True
    )
    # Torch takes seconds to import; --help should not.
    import torch

    from cnerta.train.loop.trainer import Trainer

    if threads:
        torch.set_num_threads(threads)
    try:
        loaded = load_recipe(recipe, assignments or ())
        folder = out or Path("runs") / loaded.name
        best = Trainer(
            loaded,
            data_root,
            folder,
            cpu=cpu,
            mixed_precision=precision,
            save_minutes=save_minutes,
            init=init,
            acoustic_from=acoustic_from,
            text_from=text_from,
            workers=workers,
            cache=cache,
            trackers=trackers or (),
        ).run()
    except CnertaError as error:
        fail(error)
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    if is_first:
        Console(stderr=True).print(f"best model: {best}", markup=False, soft_wrap=True)


def main() -> None:
    """Entry point."""
    app()
