"""The command ``cnerta-stream``: audio and transcript in, named entities out."""

from __future__ import annotations

import asyncio
import io
import os
import signal
import sys
from typing import Final

import typer
from rich.console import Console
from rich.table import Table

from cnerta.models.command_line import (
    EXIT_BROKEN_PIPE,
    drop_output,
    fail,
    make_app,
    with_options,
)
from cnerta.models.errors import CnertaError
from cnerta.streamer.audio.microphone import find_input_device, list_input_devices
from cnerta.streamer.commands import recording
from cnerta.streamer.commands.stream_options import StreamArguments
from cnerta.streamer.commands.stream_session import build_session, run_session
from cnerta.streamer.errors import exit_status

__all__ = ["app", "main"]

NAME: Final = "cnerta-stream"
EXIT_INTERRUPTED: Final = 128 + signal.SIGINT

# In help texts a backslash keeps rich from taking a bracket for markup.
HELP = """\
Find persons, places and organisations in Mandarin speech while it is streamed.

The transcript is given, or a speech recogniser makes it: with --mic one that runs here, unless \
lines are piped in on standard input, where each is one finished utterance.

cnerta-stream --mic

cnerta-stream --file talk.wav --transcript "南京市长江大桥"

cnerta-stream --file talk.wav --source faster-whisper:small

cnerta-stream --mic --source funasr:ws://127.0.0.1:10095 --connect ws://127.0.0.1:8765

cnerta-stream --mic --source server --connect ws://127.0.0.1:8765
"""

EPILOG = """\
A transcript file has one utterance a line: either start<TAB>end<TAB>text with times in seconds \
(an Audacity label track), or JSON such as {"start_ms": 0, "end_ms": 2400, "text": "…"}, \
optionally with "characters": \\[\\[start_ms, end_ms], …], "speaker": "…" and "channel": 0. \
Files that end in .srt, .vtt, .ass or .ttml are captions.

Recognisers for --source. In this process: sherpa-onnx:MODEL · faster-whisper:MODEL, each a folder \
or a name that is fetched once. On servers: funasr:URL · funasr-realtime:URL · \
vosk:URL · sherpa-server:URL · vllm-realtime:URL · json:URL,text=PATH,final=PATH. Services, or \
servers that speak as they do: deepgram · openai-realtime · soniox · gladia · assemblyai · \
speechmatics. That of the server given with --connect: server. Without one: lines (typed or \
piped in) · rough (the model's own acoustic encoder: half of the characters are wrong). \
Options follow with commas, as in vosk:ws://host:2700,retries=9; docs/how-to/recogniser.md has them.

Exit status: 0 done · 2 wrong options · 3 audio file · 4 microphone · 5 transcript or glossary · \
6 server unreachable · 7 refused by the server · 8 model bundle · 9 ONNX runtime · \
10 caption file or other output · 11 recording · \
130 interrupted twice · 141 nobody reads the output.
"""

app = make_app()
app.command(epilog=recording.REPLAY_STATUS)(recording.replay)
app.command(epilog=recording.INSPECT_STATUS)(recording.inspect)


class _PipedConsole(Console):
    """A console that raises when its reader is gone; rich by itself would exit with status 1."""

    def on_broken_pipe(self) -> None:
        """Raise what rich has caught."""
        raise BrokenPipeError


@app.callback(
    invoke_without_command=True,
    subcommand_metavar="[COMMAND]",
    help=HELP,
    epilog=EPILOG,
)
@with_options(StreamArguments)
def cnerta_stream(context: typer.Context, arguments: StreamArguments) -> None:
    """Run one session from the command line; `HELP` says how."""
    if context.invoked_subcommand is not None:
        if arguments != StreamArguments():
            raise typer.BadParameter(
                f"expected no options before {context.invoked_subcommand}, got some"
            )
        return
    console = _PipedConsole()
    try:
        if sys.stdout is None:
            raise BrokenPipeError  # Closed from the start, as by >&-: nobody will ever read it.
        if arguments.list_devices:
            _print_devices(console)
            return
        arguments.check()
        session = build_session(arguments, console, Console(stderr=True), os.environ)
        asyncio.run(run_session(session))
    except BrokenPipeError:
        # Whoever read the output is gone, as in `cnerta-stream --json | head`.
        drop_output()
        raise typer.Exit(EXIT_BROKEN_PIPE) from None
    except OSError as error:
        # Everything else that can fail so has an error of its own: this is the output, as on a full
        # disk.
        drop_output()
        reason = error.strerror or error
        fail(NAME, OSError(f"expected to write the answers, got: {reason}"))
    except (KeyboardInterrupt, asyncio.CancelledError):
        raise typer.Exit(EXIT_INTERRUPTED) from None
    except CnertaError as error:
        fail(NAME, error, exit_status(error))


def _print_devices(console: Console) -> None:
    devices = list_input_devices()
    find_input_device(None, devices)  # no device at all is an error here too
    table = Table(box=None)
    for heading in ("", "index", "name", "channels", "rate"):
        table.add_column(heading)
    for device in devices:
        table.add_row(
            "*" if device.is_default else "",
            str(device.index),
            device.name,
            str(device.channels),
            f"{device.sample_rate} Hz",
        )
    console.print(table, markup=False)


def main() -> None:
    """Run the command; what the console script calls."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A question mark for what the output's encoding does not have, not an end in the middle.
        sys.stdout.reconfigure(errors="replace")
    app()


if __name__ == "__main__":
    main()
