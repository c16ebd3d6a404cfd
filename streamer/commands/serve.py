"""``cnerta-serve``: the server from the command line."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import typer

from cnerta.models.command_line import VersionOption, fail, log_lines, make_app
from cnerta.models.errors import BundleError, CnertaError, ConfigError, InferenceError
from cnerta.models.runtime.bundle import find_bundle
from cnerta.models.runtime.inference import Model
from cnerta.streamer.client.connection import TOKEN_VARIABLE
from cnerta.streamer.errors import RecogniserMissingError, TranscriptError
from cnerta.streamer.recording.recorder import RecordingFolder
from cnerta.streamer.serving.recognition import Recogniser
from cnerta.streamer.serving.server import AddressError, Server, ServerOptions
from cnerta.streamer.serving.tokens import Tokens, read_tokens
from cnerta.streamer.session.limits import ConnectionLimits
from cnerta.streamer.sources import LineTranscript, TranscriptSource, make_transcript_source
from cnerta.streamer.wire.addresses import is_loopback

__all__ = ["TURN_S", "app", "main"]

LogLevel = Literal["debug", "info", "warning", "error"]
_LEVELS: Final[dict[LogLevel, int]] = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}
TURN_S: Final = 0.0002
"""How long a thread keeps the GIL while others want it."""

_EXIT_CODES: Final[dict[type[CnertaError], int]] = {
    AddressError: 3,
    TranscriptError: 5,
    RecogniserMissingError: 5,
    BundleError: 8,
    InferenceError: 9,
}

app = make_app()


@app.command(
    epilog="Exit codes: 0 stopped by a signal · 2 wrong options · 3 the address is taken or not "
    "this machine's · 5 the recogniser cannot be had · 8 the bundle cannot be used · 9 the ONNX "
    "runtime is missing or cannot run it."
)
def serve(
    host: Annotated[str, typer.Option(help="Interface to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="0: any free one.")] = 8765,
    bundle: Annotated[
        Path | None,
        typer.Option(help="Folder of a model, or one that comes along: fast (default), accurate."),
    ] = None,
    device: Annotated[
        Literal["auto", "cpu", "cuda"], typer.Option(help="auto takes a GPU if there is one.")
    ] = "auto",
    threads: Annotated[int, typer.Option(min=1, help="CPU threads of the engine.")] = 1,
    max_sessions: Annotated[int, typer.Option(min=1, help="Most connections at once.")] = 512,
    max_ahead_s: Annotated[
        float, typer.Option(min=1, help="How far audio may run ahead of real time.")
    ] = 60.0,
    idle_timeout_s: Annotated[
        float, typer.Option(min=1, help="Silence after which a connection is closed.")
    ] = 30.0,
    origin: Annotated[
        list[str] | None,
        typer.Option(
            metavar="URL",
            help="Origin that web pages may come from, beside this server's own; * for any. "
            "Repeatable.",
        ),
    ] = None,
    token_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="File of tokens, one a line; whoever opens a session needs one. So does "
            f"{TOKEN_VARIABLE} in the environment.",
        ),
    ] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Listen beyond this machine without a token.")
    ] = False,
    source: Annotated[
        str | None,
        typer.Option(
            metavar="NAME[:WHERE][,key=value]",
            help="A recogniser that writes the transcript for clients that send audio alone, such "
            "as sherpa-onnx:FOLDER or funasr:ws://127.0.0.1:10095; see cnerta-stream --help.",
        ),
    ] = None,
    max_recognised: Annotated[
        int, typer.Option(min=1, help="With --source: most sessions whose speech is recognised.")
    ] = 16,
    record: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="RECORD every session there: audio, transcripts and messages, in one file each. "
            "Clients are told. Off unless given.",
        ),
    ] = None,
    record_limit_mb: Annotated[
        int, typer.Option(min=1, help="Most of one recorded session, in megabytes.")
    ] = 1024,
    log_level: Annotated[LogLevel, typer.Option(help="How much to log.")] = "info",
    version: VersionOption = False,
) -> None:
    """Serve named-entity events over WebSocket at /v1/stream.

    Beside it over HTTP: /healthz, /readyz, /metrics (Prometheus) and /asyncapi.json.
    SIGTERM and SIGINT stop it after the answers that are owed.
    """
    log_lines(_LEVELS[log_level])
    tokens = _tokens(token_file)
    if not (tokens or insecure or is_loopback(host)):
        raise typer.BadParameter(
            f"expected --token-file, {TOKEN_VARIABLE} or --insecure to listen on {host}, where "
            "others than this machine reach it, got none"
        )
    options = ServerOptions(
        limits=ConnectionLimits(
            idle_timeout_s=idle_timeout_s, max_audio_ahead_ms=round(1000 * max_ahead_s)
        ),
        max_sessions=max_sessions,
        origins=tuple(origin or ()),
        tokens=tokens,
    )
    if record is not None and not (record.is_dir() and os.access(record, os.W_OK)):
        raise typer.BadParameter(f"expected --record DIR to be a folder to write in, got {record}")
    _share_gil()
    try:
        recogniser = None if source is None else _recogniser(source)
        model = Model.load(find_bundle(bundle), device=device, threads=threads)
        with contextlib.ExitStack() as stack:
            new_connection = None
            if record is not None:
                folder = RecordingFolder(record, record_limit_mb * 2**20)
                new_connection = stack.enter_context(folder).open
            writer = None
            if recogniser is not None:
                writer = Recogniser(recogniser, max_recognised)
                stack.callback(writer.close)
            _run_loop(_run(Server(model, options, new_connection, writer), host, port))
    except CnertaError as error:
        fail("cnerta-serve", error, _EXIT_CODES.get(type(error), 1))


def _recogniser(source: str) -> TranscriptSource:
    """What writes transcripts for clients.

    Raises:
        TranscriptError: It cannot be had, or needs somebody who types.
    """
    made = make_transcript_source(source)
    if isinstance(made, LineTranscript):
        raise TranscriptError("expected a recogniser as --source of a server, got lines")
    return made


def _tokens(file: Path | None) -> Tokens:
    """The tokens of the file and of the environment."""
    own = os.environ.get(TOKEN_VARIABLE)
    try:
        listed = () if file is None else read_tokens(file)
    except ConfigError as error:
        raise typer.BadParameter(str(error)) from error
    return Tokens((*listed, own) if own else listed)


def _share_gil() -> None:
    """Let threads take turns more often than every 5 ms.

    An engine's thread gives the GIL up for every call of a graph and every large copy; with many
    sessions the event loop would keep it for a whole turn each time, a dozen times a batch.
    At 200 sessions this halves the time to a final answer (docs/history.md).
    """
    sys.setswitchinterval(TURN_S)


def _run_loop(main: Coroutine[Any, Any, None]) -> None:
    """Run to the end, on the faster event loop where there is one (not on Windows)."""
    try:
        import uvloop
    except ImportError:
        asyncio.run(main)
    else:
        uvloop.run(main)


async def _run(server: Server, host: str, port: int) -> None:
    """Serve until a signal comes."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        # Where there are no signal handlers (Windows), Ctrl-C ends the program at once.
        with contextlib.suppress(NotImplementedError):
            loop.add_signal_handler(number, stop.set)
    await server.start(host, port)
    await stop.wait()
    await server.stop()


def main() -> None:
    """Entry point of the command."""
    app()


if __name__ == "__main__":
    main()
