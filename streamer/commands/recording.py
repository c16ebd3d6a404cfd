"""``cnerta-stream replay`` and ``cnerta-stream inspect``: what to do with a recorded session."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console

from cnerta.models.command_line import fail, log_to_console, printable
from cnerta.models.errors import CnertaError
from cnerta.models.runtime.bundle import Bundle, default_bundle_path, find_bundle, load_bundle
from cnerta.streamer.errors import RecordingError, exit_status
from cnerta.streamer.outputs.presenter import Presenter
from cnerta.streamer.recording.file import Header, RecordingReader
from cnerta.streamer.recording.inspection import inspect_recording, summarise
from cnerta.streamer.recording.plot import draw_pages
from cnerta.streamer.recording.recorder import bundle_sha256
from cnerta.streamer.recording.replay import AskAgain, EngineSubstitute, Recall, Replay
from cnerta.streamer.serving.engine import Engine
from cnerta.streamer.terminal.view import JsonView, PlainView

__all__ = ["INSPECT_STATUS", "REPLAY_STATUS", "inspect", "replay"]

REPLAY_STATUS: Final = "Exit status: 0 the same events · 8 model bundle · 11 recording · 12 others."
INSPECT_STATUS: Final = "Exit status: 0 done · 10 the plot cannot be drawn · 11 recording."
EXIT_DIFFERS: Final = 12
_MOST_DIFFERENCES: Final = 10
_BUILT_IN: Final = (Path("fast"), Path("accurate"))


def replay(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The recording.")],
    speed: Annotated[
        str,
        typer.Option(
            metavar="N|max", help="Times real time, such as 1 or 4, or as fast as it can."
        ),
    ] = "max",
    answers: Annotated[
        str,
        typer.Option(
            metavar="model|recorded",
            help="Ask the model again, or take what it said then (exact on any machine).",
        ),
    ] = "model",
    bundle: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="The model, where it is none that comes along."),
    ] = None,
    json: Annotated[
        bool, typer.Option("--json", help="Print every server event as one line of JSON.")
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Print nothing but whether it was the same.")
    ] = False,
) -> None:
    """Run a recorded session again, and say where its events differ."""
    errors = Console(stderr=True)
    log_to_console()
    factor = _speed(speed)
    if answers not in ("model", "recorded"):
        raise typer.BadParameter(f"expected --answers model or recorded, got {answers}")
    try:
        header = RecordingReader(file).header
        path = _bundle_path(header, bundle)
        played = Replay(file, *_answers(path, recorded=answers == "recorded", device=header.device))
        presenter: Presenter | None = None
        if json:
            presenter = JsonView(sys.stdout.buffer)
        elif not quiet:
            presenter = PlainView(Console(), paced=False)
        _run(played, factor, presenter)
    except CnertaError as error:
        fail("cnerta-stream", error, exit_status(error))
    for difference in played.differences[:_MOST_DIFFERENCES]:
        errors.print(printable(str(difference)), markup=False, highlight=False, soft_wrap=True)
    if played.differences:
        errors.print(f"{len(played.differences)} differences in {played.messages} messages")
        raise typer.Exit(EXIT_DIFFERS)
    errors.print(f"all {played.messages} messages are the same")


def inspect(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The recording.")],
    plot: Annotated[
        Path | None,
        typer.Option(
            metavar="IMAGE",
            help="Draw it: waveform, characters, entities, latencies, three minutes a page.",
        ),
    ] = None,
) -> None:
    """Say what happened in a recorded session."""
    console, errors = Console(), Console(stderr=True)
    log_to_console()
    try:
        found = inspect_recording(file)
        for line in summarise(found):
            console.print(printable(line), markup=False, highlight=False, soft_wrap=True)
        if plot is not None:
            for path in draw_pages(found, plot):
                drawn = f"drawn in {printable(str(path))}"
                errors.print(drawn, markup=False, highlight=False, soft_wrap=True)
    except CnertaError as error:
        fail("cnerta-stream", error, exit_status(error))


def _speed(text: str) -> float | None:
    """Times real time; None for as fast as it can."""
    if text == "max":
        return None
    try:
        factor = float(text)
    except ValueError:
        factor = 0.0
    if not 0 < factor < float("inf"):
        raise typer.BadParameter(f"expected --speed max or a number above 0, got {text}")
    return factor


def _run(played: Replay, factor: float | None, presenter: Presenter | None) -> None:
    began, at = time.monotonic(), played.reader.header.now
    if presenter is not None:
        presenter.__enter__()
    try:
        for step in played.run():
            if factor is not None:
                time.sleep(max(0.0, (step.now - at) / factor - (time.monotonic() - began)))
            if presenter is not None and step.message is not None:
                presenter.on_message(step.message)
    finally:
        if presenter is not None:
            presenter.__exit__(None, None, None)


def _bundle_path(header: Header, named: Path | None) -> Path:
    """The model of a recording.

    Raises:
        RecordingError: None that comes along is of its name.
        BundleError: It cannot be used.
    """
    if named is not None:
        return find_bundle(named)
    if not header.bundle_sha256:
        return default_bundle_path()
    known = [find_bundle(name) for name in _BUILT_IN]
    for path in known:
        if bundle_sha256(load_bundle(path)) == header.bundle_sha256:
            return path
    raise RecordingError(
        f"expected the model {header.bundle} of the recording (--bundle DIR), got none of this "
        "very content among those that come along"
    )


def _answers(path: Path, *, recorded: bool, device: str) -> tuple[Bundle, EngineSubstitute]:
    if recorded:
        bundle = load_bundle(path)
        return bundle, Recall(bundle)
    # Only here: what the model said can be replayed without an ONNX runtime.
    from cnerta.models.runtime.inference import Model

    model = Model.load(path, device="cuda" if device.startswith("CUDA") else "cpu")
    return model.bundle, AskAgain(Engine(model))
