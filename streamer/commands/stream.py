"""The command ``cnerta-stream``: audio and transcript in, named entities out."""

from __future__ import annotations

import asyncio
import contextlib
import io
import logging
import os
import signal
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.logging import RichHandler
from rich.table import Table
from typer.core import TyperCommand

from cnerta.models.errors import CnertaError
from cnerta.streamer.audio.microphone import Microphone, find_input_device, list_input_devices
from cnerta.streamer.audio.source import AudioFile, AudioSource
from cnerta.streamer.client.glossary_file import read_glossary
from cnerta.streamer.client.stream import Connection, StreamOptions, WebSocketConnection, stream
from cnerta.streamer.commands.recording import RECORDING_COMMANDS
from cnerta.streamer.commands.recording import app as recordings
from cnerta.streamer.errors import TranscriptError, exit_status
from cnerta.streamer.outputs.highlighting import Highlighter, HighlightRule
from cnerta.streamer.outputs.obs import DEFAULT_MARKS
from cnerta.streamer.outputs.outputs import OutputOptions, Outputs, make_outputs
from cnerta.streamer.outputs.presenter import Presenter
from cnerta.streamer.recording.writer import RecordingOptions
from cnerta.streamer.sources import (
    LineTranscript,
    TimedTranscript,
    TranscriptSource,
    make_transcript_source,
    read_timed_lines,
)
from cnerta.streamer.sources.caption_input import CAPTION_SUFFIXES, read_captions
from cnerta.streamer.sources.lines import STANDARD_INPUT
from cnerta.streamer.sources.registry import DEFAULT_RECOGNISER
from cnerta.streamer.terminal.drawing import complain, printable
from cnerta.streamer.terminal.keyboard import Key, pressed_keys
from cnerta.streamer.terminal.view import JsonView, LiveView, PlainView

__all__ = ["app", "main"]

log = logging.getLogger(__name__)

EXIT_INTERRUPTED: Final = 128 + signal.SIGINT
EXIT_BROKEN_PIPE: Final = 128 + 13  # SIGPIPE, which not every system defines

# In help texts a backslash keeps rich from taking a bracket for markup.
HELP = """\
Find persons, places and organisations in Mandarin speech while it is streamed.

The transcript is given, or a speech recogniser makes it: with --mic one that runs here, unless \
lines are piped in on standard input, where each is one finished utterance.

cnerta-stream --mic

cnerta-stream --file talk.wav --transcript "南京市长江大桥"

cnerta-stream --file talk.wav --source faster-whisper:small

cnerta-stream --mic --source funasr:ws://127.0.0.1:10095 --connect ws://127.0.0.1:8765
"""

EPILOG = """\
A transcript file has one utterance a line: either start<TAB>end<TAB>text with times in seconds \
(an Audacity label track), or JSON such as {"start_ms": 0, "end_ms": 2400, "text": "…"}, \
optionally with "characters": \\[\\[start_ms, end_ms], …]. Files that end in .srt, .vtt, .ass or \
.ttml are captions.

Recognisers for --source. In this process: sherpa-onnx:MODEL · faster-whisper:MODEL, each a folder \
or a name that is fetched once. On servers: funasr:URL · vosk:URL · sherpa-server:URL · \
deepgram:URL · openai-realtime:URL · json:URL,text=PATH,final=PATH. Without one: lines (typed or \
piped in) · rough (the model's own ear: half of the characters are wrong). Options follow with \
commas, as in vosk:ws://host:2700,retries=9; docs/how-to/recogniser.md has them.

Exit status: 0 done · 2 wrong options · 3 audio file · 4 microphone · 5 transcript or glossary · \
6 server unreachable · 7 refused by the server · 8 model bundle · 9 ONNX runtime · \
10 caption file or other output · 11 recording · \
130 interrupted twice · 141 nobody reads the output.
"""

CAPTIONS_PANEL: Final = "Captions and other outputs"

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


class _Command(TyperCommand):
    """The command; its help, too, may lose its reader."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Print the help; where rich gives up with status 1, end as everything else here does."""
        try:
            super().format_help(ctx, formatter)
        except SystemExit:
            raise typer.Exit(EXIT_BROKEN_PIPE) from None


class _PipedConsole(Console):
    """A console that raises when its reader is gone; rich by itself would exit with status 1."""

    def on_broken_pipe(self) -> None:
        """Raise what rich has caught."""
        raise BrokenPipeError


@app.command(cls=_Command, help=HELP, epilog=EPILOG)
def cnerta_stream(
    file: Annotated[
        Path | None,
        typer.Option("--file", "-f", metavar="AUDIO", help="Stream this audio file."),
    ] = None,
    mic: Annotated[bool, typer.Option("--mic", "-m", help="Stream the microphone.")] = False,
    transcript: Annotated[
        str | None,
        typer.Option(
            "--transcript",
            "-t",
            metavar="TEXT",
            help="With --file: what is said. It is sent as a live recogniser would, growing with "
            "the audio; as its times are not known, it is spread evenly.",
        ),
    ] = None,
    transcript_file: Annotated[
        Path | None,
        typer.Option(
            "--transcript-file",
            metavar="LINES",
            help="With --file: what is said when, one utterance a line (see below); - for standard "
            "input.",
        ),
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(
            metavar="NAME:WHERE",
            help="Who makes the transcript: a recogniser in this process or on a server, one that "
            "an installed package offers, or lines (see below).",
        ),
    ] = None,
    connect: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Use a server, as in ws://127.0.0.1:8765. Without this the model runs in this "
            "process.",
        ),
    ] = None,
    bundle: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Folder of a model, or one that comes along: fast, accurate."
        ),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|INDEX", help="With --mic: which one, by number or part of its name."
        ),
    ] = None,
    list_devices: Annotated[
        bool, typer.Option("--list-devices", help="List the microphones and exit.")
    ] = False,
    realtime: Annotated[
        bool,
        typer.Option(
            "--realtime/--fast",
            help="With --file: at the pace of speech, or as fast as it is taken.",
        ),
    ] = False,
    labels: Annotated[
        str | None,
        typer.Option(metavar="PER,LOC,…", help="Only entities of these types."),
    ] = None,
    nested: Annotated[
        bool,
        typer.Option("--nested/--flat", help="Entities inside entities, or only outermost ones."),
    ] = True,
    readings: Annotated[
        bool,
        typer.Option(
            "--readings", help="Tell how characters with several pronunciations were read."
        ),
    ] = False,
    glossary: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Names to expect, a line each: name<TAB>label, and <TAB>pinyin if it is read "
            "otherwise. They are found sooner, also where they are misspelt.",
        ),
    ] = None,
    json: Annotated[
        bool,
        typer.Option("--json", help="Print every server event as one line of JSON, nothing else."),
    ] = False,
    captions: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="Write captions while the session runs: FILE.vtt, .srt, .ttml, .metadata.vtt (JSON"
            " for each cue), .rttm (list of entities) or .jsonl (events). May be given several "
            "times; files that are there are replaced.",
            rich_help_panel=CAPTIONS_PANEL,
        ),
    ] = None,
    obs_text: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Keep the newest lines in a text file, for a text source of OBS.",
            rich_help_panel=CAPTIONS_PANEL,
        ),
    ] = None,
    obs: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Send the newest lines to OBS, as in ws://127.0.0.1:4455 (password in "
            "CNERTA_OBS_PASSWORD).",
            rich_help_panel=CAPTIONS_PANEL,
        ),
    ] = None,
    obs_source: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="With --obs: the text source that shows them. Without this they are captions of "
            "the stream, which have Latin letters only.",
            rich_help_panel=CAPTIONS_PANEL,
        ),
    ] = None,
    obs_marks: Annotated[
        str,
        typer.Option(
            metavar="PAIR",
            help="What stands around names in OBS, two characters; '' for nothing.",
            rich_help_panel=CAPTIONS_PANEL,
        ),
    ] = DEFAULT_MARKS,
    webhook: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="POST the events as JSON to this address (token in CNERTA_WEBHOOK_TOKEN).",
            rich_help_panel=CAPTIONS_PANEL,
        ),
    ] = None,
    highlight_share: Annotated[
        float,
        typer.Option(
            min=0.0,
            max=1.0,
            metavar="SHARE",
            help="Highlight at most this share of all characters, names that are new first: 0.05 "
            "to 0.15 reads best. Everything is still listed.",
            rich_help_panel=CAPTIONS_PANEL,
        ),
    ] = 1.0,
    first_only: Annotated[
        bool,
        typer.Option(
            "--first-occurrence-only",
            help="Highlight a name only where it comes up first.",
            rich_help_panel=CAPTIONS_PANEL,
        ),
    ] = False,
    record: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="RECORD the session: audio, transcripts and messages, for cnerta-stream replay "
            "and inspect. Not with --connect: there the server records.",
        ),
    ] = None,
    record_limit_mb: Annotated[
        int, typer.Option(min=1, metavar="MB", help="With --record: most that is kept.")
    ] = 1024,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Say what happens, on standard error.")
    ] = False,
) -> None:
    """Run one session from the command line; `HELP` says how."""
    console = _PipedConsole()
    complaints = Console(stderr=True)
    try:
        if sys.stdout is None:
            raise BrokenPipeError  # Closed from the start, as by >&-: nobody will ever read it.
        if list_devices:
            _print_devices(console)
            return
        _check_options(file, mic, transcript, transcript_file, source, connect, bundle, device)
        if record is not None and connect is not None:
            raise typer.BadParameter(
                "expected --record without --connect, got both: the server records, as "
                "cnerta-serve --record"
            )
        audio: AudioSource
        if file is not None:
            audio = opened = AudioFile(file, paced=realtime)
            words = _file_transcript(opened, transcript, transcript_file, source)
        else:
            audio = Microphone(find_input_device(device, list_input_devices()))
            words = _microphone_transcript(source, complaints)
        typing = isinstance(words, LineTranscript) and bool(sys.stdin) and sys.stdin.isatty()
        highlighter = Highlighter(HighlightRule(highlight_share, first_only))
        recording = "live" if file is None else file.stem
        others = make_outputs(
            OutputOptions(
                captions=tuple(captions or ()),
                obs_text=obs_text,
                obs=obs,
                obs_source=obs_source,
                obs_marks=obs_marks,
                webhook=webhook,
            ),
            recording,
            highlighter,
            os.environ,
        )
        presenter: Presenter
        if json:
            presenter = JsonView(sys.stdout.buffer)
        elif console.is_terminal and not typing:
            presenter = LiveView(console, paced=audio.paced, highlighter=highlighter)
        else:
            presenter = PlainView(console, paced=audio.paced, highlighter=highlighter)
        handler = RichHandler(
            console=console if isinstance(presenter, LiveView) else complaints,
            show_time=False,
            show_path=False,
        )
        level = logging.INFO if verbose else logging.WARNING
        logging.basicConfig(level=level, format="%(message)s", handlers=[handler])
        if typing:
            complaints.print(
                "Type what is said, a line for each utterance; Ctrl-D ends.", style="dim"
            )
        options = StreamOptions(
            labels=None if labels is None else tuple(part.strip() for part in labels.split(",")),
            nested=nested,
            readings=readings,
            glossary=() if glossary is None else read_glossary(glossary),
        )
        kept = None if record is None else RecordingOptions(record, record_limit_mb * 2**20)
        if kept is not None:
            complaints.print(
                f"RECORDING audio, transcript and messages to {printable(str(kept.path))}",
                style="bold yellow",
                markup=False,
                highlight=False,
                soft_wrap=True,
            )
        asyncio.run(_run(connect, bundle, kept, audio, words, options, Outputs(presenter, others)))
    except BrokenPipeError:
        # Whoever read the output is gone, as in `cnerta-stream --json | head`.
        _drop_output()
        raise typer.Exit(EXIT_BROKEN_PIPE) from None
    except OSError as error:
        # Everything else that can fail so has an error of its own: this is the output, as on a full
        # disk.
        _drop_output()
        complaints.print(
            f"cnerta-stream: expected to write the answers, got: {error.strerror or error}",
            style="bold red",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
        raise typer.Exit(1) from None
    except (KeyboardInterrupt, asyncio.CancelledError):
        raise typer.Exit(EXIT_INTERRUPTED) from None
    except CnertaError as error:
        complain(complaints, error)
        raise typer.Exit(exit_status(error)) from None


def _drop_output() -> None:
    """Keep the interpreter from trying to write what is left once more at exit."""
    if sys.stdout is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _check_options(
    file: Path | None,
    mic: bool,
    transcript: str | None,
    transcript_file: Path | None,
    source: str | None,
    connect: str | None,
    bundle: Path | None,
    device: str | None,
) -> None:
    """Refuse options that contradict each other.

    Raises:
        typer.BadParameter: They do.
    """
    if (file is not None) == mic:
        got = "both" if mic else "neither"
        raise typer.BadParameter(f"expected one of --file and --mic, got {got}")
    if mic and (transcript is not None or transcript_file is not None):
        raise typer.BadParameter(
            "expected --transcript and --transcript-file with --file, got them with --mic: pipe or "
            "type the transcript on standard input"
        )
    if sum(given is not None for given in (transcript, transcript_file, source)) > 1:
        raise typer.BadParameter(
            "expected one of --transcript, --transcript-file and --source, got several"
        )
    if connect is not None and bundle is not None:
        raise typer.BadParameter(
            "expected --bundle without --connect, got both: a server has its own model"
        )
    if device is not None and not mic:
        raise typer.BadParameter("expected --device with --mic, got it without")


def _microphone_transcript(source: str | None, complaints: Console) -> TranscriptSource:
    """What is named; else the lines that are piped in; else the recogniser in this process."""
    if source is not None:
        return make_transcript_source(source)
    if _lines_are_piped_in():
        return LineTranscript()
    complaints.print(
        f"Speech is recognised in this process by {DEFAULT_RECOGNISER}; its model is fetched from "
        "the internet the first time. --source names another recogniser, and --source lines lets "
        "you type what is said.",
        style="dim",
        highlight=False,
    )
    return make_transcript_source(DEFAULT_RECOGNISER)


def _lines_are_piped_in() -> bool:
    """Whether standard input is a pipe or a file: no terminal, and not closed or /dev/null."""
    try:
        mode = os.fstat(STANDARD_INPUT).st_mode
    except OSError:
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISREG(mode) or stat.S_ISSOCK(mode)


def _file_transcript(
    audio: AudioFile, text: str | None, lines: Path | None, source: str | None
) -> TranscriptSource:
    if text is not None:
        return TimedTranscript.untimed(text, audio.duration_ms)
    if source is not None:
        return make_transcript_source(source)
    if lines is None:
        raise TranscriptError(
            "expected the transcript of the file from --transcript TEXT, --transcript-file LINES "
            "or --source NAME, got none: --source sherpa-onnx recognises it here"
        )
    if str(lines) == "-":
        return TimedTranscript(read_timed_lines(sys.stdin.buffer, "standard input"))
    try:
        with lines.open("rb") as opened:
            if lines.suffix.lower() in CAPTION_SUFFIXES:
                return TimedTranscript(read_captions(opened, str(lines)))
            return TimedTranscript(read_timed_lines(opened, str(lines)))
    except OSError as error:
        raise TranscriptError(
            f"expected a transcript file at {lines}, got: {error.strerror}"
        ) from error


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


async def _run(
    url: str | None,
    bundle: Path | None,
    record: RecordingOptions | None,
    audio: AudioSource,
    words: TranscriptSource,
    options: StreamOptions,
    outputs: Outputs,
) -> None:
    async with await _connection(url, bundle, record) as connection, outputs:
        with _stopped_by_signals() as stop, _keys(outputs.view, audio, stop):
            messages = stream(connection, audio, words, options, stop=stop, watcher=outputs)
            async for message in messages:
                outputs.on_message(message)


@contextlib.contextmanager
def _keys(view: Presenter, audio: AudioSource, stop: asyncio.Event) -> Iterator[None]:
    """Let single keys do what they can, while the live view shows which."""
    if not isinstance(view, LiveView):
        yield
        return
    keys = [*view.own_keys, Key("q", "finish", stop.set)]
    if isinstance(audio, Microphone):
        keys.append(Key("m", "mute", audio.mute))
        audio.on_silence = view.on_source
    with pressed_keys(keys, sys.stdout) as pressed:
        view.keys = tuple(keys) if pressed else ()
        yield


async def _connection(
    url: str | None, bundle: Path | None, record: RecordingOptions | None
) -> Connection:
    if url is not None:
        connection = await WebSocketConnection.open(url)
        log.info("connected to %s", url)
        return connection
    # Only here, so that a client of a server needs no ONNX runtime.
    from cnerta.streamer.client.local import LocalConnection

    return await LocalConnection.open(bundle, record=record)


@contextlib.contextmanager
def _stopped_by_signals() -> Iterator[asyncio.Event]:
    """Set the event at the first Ctrl-C (or SIGTERM), to finish in order; cancel at the second."""
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    assert task is not None, "called in a coroutine"
    stop = asyncio.Event()

    def interrupted() -> None:
        if stop.is_set():
            task.cancel()
        else:
            log.warning("finishing the session; Ctrl-C again to leave at once")
            stop.set()

    handled = (signal.SIGINT, signal.SIGTERM)
    # On systems without it Ctrl-C stays a KeyboardInterrupt and leaves at once.
    with contextlib.suppress(NotImplementedError):
        for number in handled:
            loop.add_signal_handler(number, interrupted)
    try:
        yield stop
    finally:
        with contextlib.suppress(NotImplementedError):
            for number in handled:
                loop.remove_signal_handler(number)


def main() -> None:
    """Run the command; what the console script calls."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A question mark for what the output's encoding does not have, not an end in the middle.
        sys.stdout.reconfigure(errors="replace")
    if sys.argv[1:2] and sys.argv[1] in RECORDING_COMMANDS:
        recordings()
    else:
        app()
