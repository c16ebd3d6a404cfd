"""One session of ``cnerta-stream``: built from the options, then run."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import stat
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rich.console import Console

from cnerta.models.command_line import log_to_console, printable
from cnerta.streamer.audio.microphone import Microphone, find_input_device, list_input_devices
from cnerta.streamer.audio.source import AudioFile, AudioSource
from cnerta.streamer.client.connection import TOKEN_VARIABLE, Connection, WebSocketConnection
from cnerta.streamer.client.glossary_file import read_glossary
from cnerta.streamer.client.reconnecting import ReconnectingConnection, ReconnectOptions
from cnerta.streamer.client.stream import StreamOptions, stream
from cnerta.streamer.commands.stream_options import (
    MASKED_HOLD_MS,
    SERVER_SOURCE,
    StreamArguments,
)
from cnerta.streamer.errors import TranscriptError
from cnerta.streamer.outputs.highlighting import Highlighter, HighlightRule
from cnerta.streamer.outputs.masking import MaskRule, NameMask
from cnerta.streamer.outputs.presenter import Presenter
from cnerta.streamer.outputs.session_outputs import OutputOptions, Outputs, make_outputs
from cnerta.streamer.outputs.withholding import Withholding
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
from cnerta.streamer.terminal.keyboard import Key, pressed_keys
from cnerta.streamer.terminal.view import JsonView, LiveView, PlainView
from cnerta.streamer.wire.parts import GlossaryEntry

__all__ = ["PreparedSession", "build_session", "run_session"]

log = logging.getLogger(__name__)

_LIVE: Final = "live"
"""What an entity list calls the audio of a microphone."""


@dataclass(frozen=True, slots=True)
class PreparedSession:
    """Everything that a session needs, and nothing of it begun.

    Attributes:
        audio: What is streamed.
        transcript: What is said in it; None: the server writes it.
        outputs: What it is shown on, written to and sent to.
        options: What is wanted of the model.
        servers: Addresses, the preferred first; none for the engine in this process.
        reconnect_s: How long to look for a way back after a disconnect.
        bundle: The model, if it runs here.
        recording: Where the session is recorded, if it runs here.
    """

    audio: AudioSource
    transcript: TranscriptSource | None
    outputs: Outputs
    options: StreamOptions
    servers: tuple[str, ...]
    reconnect_s: float
    bundle: Path | None
    recording: RecordingOptions | None


def build_session(
    arguments: StreamArguments,
    console: Console,
    errors: Console,
    environment: Mapping[str, str],
) -> PreparedSession:
    """Make what the options ask for, and set up the log.

    Args:
        arguments: Options that were checked.
        console: Where a person sees the session.
        errors: Where a person is told what else there is to know.
        environment: Where passwords are; see `make_outputs`.

    Raises:
        CnertaError: One of the parts cannot be made.
    """
    audio, transcript = _sources(arguments, errors)
    is_typed = isinstance(transcript, LineTranscript) and bool(sys.stdin) and sys.stdin.isatty()
    highlighter = Highlighter(HighlightRule(arguments.highlight_share, arguments.first_only))
    others = make_outputs(
        OutputOptions(
            captions=tuple(arguments.captions or ()),
            obs_text=arguments.obs_text,
            obs=arguments.obs,
            obs_source=arguments.obs_source,
            marks=arguments.marks,
            zoom=arguments.zoom,
            youtube=arguments.youtube,
            hls=arguments.hls,
            hls_mpeg_time=arguments.hls_mpeg_time,
            is_paced=audio.paced,
            webhook=arguments.webhook,
            name_speakers=arguments.name_speakers,
            mends=arguments.apply_suggestions,
        ),
        _LIVE if arguments.file is None else arguments.file.stem,
        highlighter,
        environment,
    )
    view: Presenter
    if arguments.json:
        view = JsonView(sys.stdout.buffer)
    else:
        shown = LiveView if console.is_terminal and not is_typed else PlainView
        view = shown(
            console,
            paced=audio.paced,
            highlighter=highlighter,
            name_speakers=arguments.name_speakers,
            mends=arguments.apply_suggestions,
        )
    log_to_console(
        logging.INFO if arguments.verbose else logging.WARNING,
        console=console if isinstance(view, LiveView) else errors,
    )
    if is_typed:
        errors.print("Type what is said, a line for each utterance; Ctrl-D ends.", style="dim")
    glossary = () if arguments.glossary is None else read_glossary(arguments.glossary)
    hold_ms = arguments.hold_ms
    if hold_ms is None and arguments.mask is not None:
        hold_ms = MASKED_HOLD_MS
    options = StreamOptions(
        labels=_names(arguments.labels),
        nested=arguments.nested,
        readings=arguments.readings,
        glossary=glossary,
        apply_suggestions=arguments.apply_suggestions,
        hold_ms=hold_ms,
    )
    withholding = None
    if hold_ms is not None:
        withholding = Withholding(_name_mask(arguments, glossary))
    recording = None
    if arguments.record is not None:
        recording = RecordingOptions(arguments.record, arguments.record_limit_mb * 2**20)
        errors.print(
            f"RECORDING audio, transcript and messages to {printable(str(recording.path))}",
            style="bold yellow",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
    return PreparedSession(
        audio=audio,
        transcript=transcript,
        outputs=Outputs(view, others, withholding),
        options=options,
        servers=arguments.servers,
        reconnect_s=arguments.reconnect_s,
        bundle=arguments.bundle,
        recording=recording,
    )


async def run_session(session: PreparedSession) -> None:
    """Stream until the session is over.

    Raises:
        CnertaError: It cannot begin or has failed.
    """
    outputs = session.outputs
    async with await _open_connection(session) as connection, outputs:
        with _stopped_by_signals() as stop, _keys(outputs.view, session.audio, stop):
            messages = stream(
                connection,
                session.audio,
                session.transcript,
                session.options,
                stop=stop,
                watcher=outputs,
            )
            async for message in messages:
                outputs.on_message(message)


# --- building -------------------------------------------------------------------------------------


def _sources(
    arguments: StreamArguments, errors: Console
) -> tuple[AudioSource, TranscriptSource | None]:
    if arguments.file is None:
        microphone = Microphone(find_input_device(arguments.device, list_input_devices()))
        return microphone, _microphone_transcript(arguments.source, errors)
    file = AudioFile(arguments.file, paced=arguments.realtime)
    transcript = _file_transcript(arguments, file)
    if isinstance(transcript, TimedTranscript):
        outside = transcript.outside(file.duration_ms)
        if outside is not None:
            errors.print(outside, style="bold yellow", highlight=False, soft_wrap=True)
    return file, transcript


def _microphone_transcript(source: str | None, errors: Console) -> TranscriptSource | None:
    """What is named; else the lines that are piped in; else the recogniser in this process."""
    if source == SERVER_SOURCE:
        return None
    if source is not None:
        return make_transcript_source(source)
    if _lines_are_piped_in():
        return LineTranscript()
    errors.print(
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


def _file_transcript(arguments: StreamArguments, audio: AudioFile) -> TranscriptSource | None:
    if arguments.source == SERVER_SOURCE:
        return None
    if arguments.transcript is not None:
        return TimedTranscript.untimed(arguments.transcript, audio.duration_ms)
    if arguments.source is not None:
        return make_transcript_source(arguments.source)
    lines = arguments.transcript_file
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


def _name_mask(arguments: StreamArguments, glossary: Sequence[GlossaryEntry]) -> NameMask | None:
    if arguments.mask is None:
        return None
    rule = MaskRule.parse(arguments.mask, arguments.mask_sign)
    return NameMask(rule, (name.text for name in glossary if name.label in rule.labels))


def _names(listed: str | None) -> tuple[str, ...] | None:
    return None if listed is None else tuple(part.strip() for part in listed.split(","))


# --- running --------------------------------------------------------------------------------------


async def _open_connection(session: PreparedSession) -> Connection:
    if session.servers:
        token = os.environ.get(TOKEN_VARIABLE)
        connection: ReconnectingConnection | WebSocketConnection
        if session.reconnect_s:
            connection = await ReconnectingConnection.open(
                session.servers,
                token=token,
                options=ReconnectOptions(give_up_s=session.reconnect_s),
                watcher=session.outputs,
            )
        else:
            connection = await WebSocketConnection.open(
                session.servers[0], token=token, watcher=session.outputs
            )
        log.info("connected to %s", connection.shown)
        return connection
    # Only here, so that a client of a server needs no ONNX runtime.
    from cnerta.streamer.client.local import LocalConnection

    return await LocalConnection.open(session.bundle, record=session.recording)


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
