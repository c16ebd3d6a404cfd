"""``cnerta-export``: checkpoint to ONNX bundle, and that to a model repository."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from cnerta.export.chosen_graphs import ChosenGraphs
from cnerta.models.command_line import (
    TRAINING_EXTRAS,
    VersionOption,
    fail,
    log_to_console,
    make_app,
    needs_extra,
)
from cnerta.models.errors import BundleError, CnertaError
from cnerta.models.runtime.bundle import (
    AUDIO_FIT_BOUND,
    BLANK_PENALTY,
    MANIFEST_FILE,
    find_bundle,
    load_bundle,
)
from cnerta.models.runtime.listening import Listening

__all__ = ["export", "main"]


def export(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="CHECKPOINT",
            help="Folder that cnerta-train wrote, or hf:OWNER/NAME; for --triton and --hub alone "
            "also a bundle: a folder, fast or accurate, or hf:OWNER/NAME.",
        ),
    ],
    out: Annotated[
        Path | None, typer.Argument(help="Folder of the bundle; made if missing.")
    ] = None,
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
        ChosenGraphs,
        typer.Option(
            help="Graphs to give 8-bit weights: a quarter of the size, and answers that differ a "
            "little; score them with cnerta-evaluate."
        ),
    ] = ChosenGraphs.NONE,
    half: Annotated[
        ChosenGraphs,
        typer.Option(
            help="Graphs to give weights and products of 16 bits, for a GPU: half the size. A CPU "
            "computes in 32 bits all the same, and is slower for it."
        ),
    ] = ChosenGraphs.NONE,
    triton: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Write the bundle's graphs as a model repository of NVIDIA Triton, too.",
        ),
    ] = None,
    triton_streams: Annotated[
        int,
        typer.Option(min=1, help="With --triton: most streams at once; Triton keeps their caches."),
    ] = 4096,
    triton_instances: Annotated[
        int, typer.Option(min=1, help="With --triton: copies of each graph, on each GPU.")
    ] = 1,
    hub: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Write a folder for the Hugging Face hub, too: the bundle (without one, the "
            "checkpoint) and a model card.",
        ),
    ] = None,
    license_name: Annotated[
        str,
        typer.Option(
            "--license", metavar="ID", help="With --hub: the model's licence, as the hub calls it."
        ),
    ] = "other",
    datasets: Annotated[
        list[str] | None,
        typer.Option(
            "--dataset",
            metavar="ID",
            help="With --hub: data on the hub that it was trained on. Repeatable.",
        ),
    ] = None,
    base_models: Annotated[
        list[str] | None,
        typer.Option(
            "--base-model",
            metavar="ID",
            help="With --hub: a model on the hub that it began with. Repeatable.",
        ),
    ] = None,
    push: Annotated[
        str,
        typer.Option(
            metavar="hf:OWNER/NAME",
            help="With --hub: upload the folder, by the account of hf auth login or HF_TOKEN.",
        ),
    ] = "",
    private: Annotated[
        bool, typer.Option("--private", help="With --push: a new model is its owner's only.")
    ] = False,
    version: VersionOption = False,
) -> None:
    """Export a trained model as a bundle that the server runs, and check that it is the same."""
    console = Console(stderr=True)
    log_to_console(logging.INFO, console=console, others=logging.WARNING, show_time=True)
    if push and hub is None:
        raise typer.BadParameter("expected --hub DIR with --push, got none")
    if private and not push:
        raise typer.BadParameter("expected --push hf:OWNER/NAME with --private, got none")
    try:
        source = _find(source)
    except CnertaError as error:
        fail(type(error).__name__, error)
    bundle = source
    is_bundle = (bundle / MANIFEST_FILE).is_file()
    if is_bundle and ((triton is None and hub is None) or out is not None):
        raise typer.BadParameter(
            "expected a checkpoint, or --triton or --hub and no second folder, got the bundle "
            f"{bundle}"
        )
    if out is None and not is_bundle and (hub is None or triton is not None):
        raise typer.BadParameter("expected the folder of the bundle as a second argument, got none")
    if int8.overlaps(half):
        raise typer.BadParameter(
            f"expected other graphs with --half than with --int8, got {half.value} and {int8.value}"
        )
    try:
        bounds = None if listening is None else Listening(*listening)
    except ValueError as error:
        fail("--listening", error)
    try:
        if out is not None:
            with console.status("exporting"):
                message = _export(
                    source,
                    out,
                    audio_fit_bound=audio_fit_bound,
                    blank_penalty=blank_penalty,
                    listening=bounds,
                    int8=int8,
                    half=half,
                )
            console.print(message, markup=False, soft_wrap=True)
            bundle = out
        if triton is not None:
            from cnerta.export.triton_config import TritonOptions
            from cnerta.export.triton_repository import write_model_repository

            options = TritonOptions(instances=triton_instances, max_streams=triton_streams)
            for folder in write_model_repository(bundle, triton, options):
                console.print(f"model {folder.name} in {triton}", markup=False, soft_wrap=True)
        if hub is not None:
            _write_for_hub(
                bundle, hub, license_name, tuple(datasets or ()), tuple(base_models or ())
            )
            if push:
                from cnerta.export.hub_push import push as upload

                with console.status("uploading"):
                    message = f"uploaded: {upload(hub, push, private=private)}"
            else:
                message = f"for the hub: hf upload OWNER/NAME {hub}"
            console.print(message, markup=False, soft_wrap=True)
    except CnertaError as error:
        fail(type(error).__name__, error)


def _find(source: Path) -> Path:
    """Folder of the checkpoint or bundle that is named; one of the hub may be either.

    Raises:
        CnertaError: One of the hub cannot be had.
    """
    try:
        return find_bundle(source)
    except BundleError:  # of a name of the hub only
        from cnerta.models.networks.checkpoint import find_checkpoint

        return find_checkpoint(source)


def _write_for_hub(
    source: Path,
    folder: Path,
    license_name: str,
    datasets: tuple[str, ...],
    base_models: tuple[str, ...],
) -> None:
    """Write a bundle or a checkpoint for the hub.

    Raises:
        CnertaError: It is neither, or the folder cannot be had.
    """
    from cnerta.export.hub_folder import (
        HubDescription,
        write_checkpoint_folder,
        write_hub_folder,
    )

    about = HubDescription(license_name, datasets, base_models)
    if (source / MANIFEST_FILE).is_file():
        write_hub_folder(load_bundle(source), folder, about)
    else:
        write_checkpoint_folder(source, folder, about)


def _export(
    checkpoint: Path,
    out: Path,
    *,
    audio_fit_bound: float,
    blank_penalty: float,
    listening: Listening | None,
    int8: ChosenGraphs,
    half: ChosenGraphs,
) -> str:
    """Write a bundle. Returns what there is to say of it.

    Raises:
        CnertaError: It cannot be written.
    """
    # Torch takes seconds to import; --help should not.
    from cnerta.export.write import export_bundle
    from cnerta.models.networks.checkpoint import load_checkpoint

    written = export_bundle(
        load_checkpoint(checkpoint),
        out,
        audio_fit_bound=audio_fit_bound,
        blank_penalty=blank_penalty,
        listening=listening,
        int8=int8,
        half=half,
    )
    found = (
        f"bundle {written.bundle.name} in {out}: differs from torch by at most "
        f"{written.acoustic_difference:.1e} (acoustic) and "
        f"{written.tagger_difference:.1e} (tagger)"
    )
    if written.agreement is None:
        return found
    return (
        f"{found}; with 8-bit weights {written.agreement:.1%} of tags on random inputs are the same"
    )


def main() -> None:
    """Entry point."""
    app = make_app()
    app.command()(export)
    with needs_extra("cnerta-export", TRAINING_EXTRAS):
        app()


if __name__ == "__main__":
    main()
