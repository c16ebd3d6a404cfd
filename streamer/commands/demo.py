"""The demo: one sentence in its two readings, through a real server, at the pace of speech.

``python -m cnerta.streamer.commands.demo`` (what ``make demo`` runs) starts the server as a process
of its own on a free port of the loopback interface, connects to it with a real WebSocket, and
streams the recordings in ``demo/`` in frames of 40 ms. Their transcript is sent as a live
recogniser would send it: three times a second, each character 200 ms after it was spoken, the final
text 300 ms after the last one. All that is shown comes from the server's events.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import signal
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection as Pipe
from pathlib import Path
from typing import Annotated, Final

import msgspec
import typer
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from cnerta.models.command_line import VersionOption, fail, make_app
from cnerta.models.errors import CnertaError, DataError
from cnerta.models.runtime.bundle import find_bundle
from cnerta.models.runtime.inference import Model
from cnerta.streamer.audio.source import AudioFile
from cnerta.streamer.client.connection import WebSocketConnection
from cnerta.streamer.client.stream import stream
from cnerta.streamer.outputs.presenter import FoldingView
from cnerta.streamer.outputs.view_state import Caption
from cnerta.streamer.serving.server import Server
from cnerta.streamer.sources import Revision, TimedLine, TimedTranscript
from cnerta.streamer.terminal.drawing import (
    draw_caption,
    entity_span,
    format_time,
    label_text,
    render,
)
from cnerta.streamer.terminal.palette import Palette, palette_of
from cnerta.streamer.terminal.picture import draw_svg
from cnerta.streamer.wire.messages import (
    EntityRetract,
    EntityUpsert,
    ServerMessage,
    SessionReady,
    UtteranceFinal,
)
from cnerta.streamer.wire.parts import AudioFormat, Entity

__all__ = ["Recording", "app", "load_recordings", "main", "run_demo"]

DEMO_FOLDER: Final = Path(__file__).parents[1] / "demo"
GAP_MS: Final = 1_000
"""Silence after each recording, so that its final text comes before the next one starts."""
BLOCK_MS: Final = 40
PICTURE_WIDTH: Final = 88
PICTURE_HEIGHT: Final = 20


class Recording(msgspec.Struct, frozen=True, kw_only=True):
    """One recording of the demo, as ``demo.json`` describes it.

    Attributes:
        audio: File beside the description.
        text: What is said.
        reading: How it is read, with a dot between words.
        description: What that means.
        characters: Start and end of every character in the recording, in milliseconds.
        entities: What the reading says: [start, end, text, type] each. Only compared with, at the
            end.
    """

    audio: str
    text: str
    reading: str
    description: str = ""
    characters: tuple[tuple[float, float], ...]
    entities: tuple[tuple[int, int, str, str], ...] = ()

    @property
    def annotated(self) -> set[tuple[int, int, str]]:
        """The entities of this reading: start, end, type."""
        return {(start, end, label) for start, end, _, label in self.entities}


class _Description(msgspec.Struct, frozen=True, kw_only=True):
    recordings: tuple[Recording, ...]


def load_recordings(folder: Path) -> tuple[Recording, ...]:
    """Read what there is to stream.

    Raises:
        DataError: The description is missing or has another form.
    """
    path = folder / "demo.json"
    try:
        described = msgspec.json.decode(path.read_bytes(), type=_Description)
    except (OSError, msgspec.MsgspecError) as error:
        raise DataError(f"expected the demo's description in {path}, got: {error}") from error
    for recording in described.recordings:
        if len(recording.characters) != len(recording.text):
            raise DataError(
                f"expected the times of {len(recording.text)} characters of {recording.audio}, "
                f"got {len(recording.characters)}"
            )
    return described.recordings


class _OneAfterTheOther:
    """An `AudioSource` of several files with silence after each, at the pace of speech."""

    paced = True
    endless = False

    def __init__(self, files: Sequence[AudioFile]) -> None:
        rates = {file.format.sample_rate for file in files}
        if len(rates) != 1:
            raise DataError(f"expected recordings of one sample rate, got {sorted(rates)}")
        self._files = files
        self.format: AudioFormat = files[0].format

    async def blocks(self) -> AsyncIterator[bytes]:
        loop = asyncio.get_running_loop()
        started = loop.time()
        bytes_per_ms = 2 * self.format.sample_rate / 1_000
        sent = 0
        async for block in self._unpaced():
            sent += len(block)
            await asyncio.sleep(max(0.0, started + sent / bytes_per_ms / 1_000 - loop.time()))
            yield block

    async def _unpaced(self) -> AsyncIterator[bytes]:
        silence = bytes(2 * (self.format.sample_rate * BLOCK_MS // 1_000))
        for file in self._files:
            async for block in file.blocks():
                yield block
            for _ in range(GAP_MS // BLOCK_MS):
                yield silence


def _timed_lines(recordings: Sequence[Recording], files: Sequence[AudioFile]) -> list[TimedLine]:
    """Put the recordings' transcripts on the clock of the whole stream."""
    lines: list[TimedLine] = []
    offset_ms = 0.0
    for recording, file in zip(recordings, files, strict=True):
        characters = tuple(
            (offset_ms + start, offset_ms + end) for start, end in recording.characters
        )
        lines.append(
            TimedLine(
                text=recording.text,
                start_ms=characters[0][0],
                end_ms=characters[-1][1],
                characters=characters,
            )
        )
        offset_ms += file.duration_ms + GAP_MS
    return lines


class _DemoView(FoldingView):
    """Prints every caption and event with its time on the audio clock."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self.finals: dict[str, UtteranceFinal] = {}
        self.before_final = self.state
        self._console = console
        self._palette = palette_of(console)

    def on_revision(self, revision: Revision) -> None:
        """Print the caption as far as it is known."""
        if revision.final:
            self.before_final = self.state
        super().on_revision(revision)
        what = "final text" if revision.final else "text"
        self._line(what, draw_caption(self._caption(revision.utterance), self._palette))

    def on_message(self, message: ServerMessage) -> None:
        """Print what came."""
        super().on_message(message)
        match message:
            case SessionReady():
                self._line("ready", Text(self.state.model))
            case EntityUpsert():
                first = message.entity.version == 1
                latency_ms = self._caption(message.utterance).latency_ms(message.entity.id)
                latency_ms = latency_ms if first else None
                line = _described(message.entity, latency_ms, self._palette)
                self._line(message.entity.status, line)
            case EntityRetract():
                self._line("withdrawn", Text(f"{message.id}: {message.reason}"))
            case UtteranceFinal():
                self.finals[message.utterance] = message
                caption = self._caption(message.utterance)
                line = draw_caption(caption, self._palette)
                line.append(f"  {caption.final_latency_ms} ms after the final text", "dim")
                self._line("final", line)
            case _:
                pass

    def _caption(self, utterance: str) -> Caption:
        return next(each for each in self.state.captions if each.utterance == utterance)

    def _line(self, what: str, text: Text) -> None:
        when = f"{format_time(self.state.audio_ms)}  {what:<10}  "
        line = Text.assemble((when, "dim"), text)
        self._console.print(line, soft_wrap=True, highlight=False)


def _described(entity: Entity, latency_ms: int | None, palette: Palette) -> Text:
    line = label_text(entity.label, palette)
    line.append(f" {entity.text}", "bold")
    line.append(f"  spoken {entity_span(entity)}  {entity.confidence:.0%}")
    if latency_ms is not None:
        line.append(f"  {latency_ms} ms after its text", "dim")
    return line


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What became of one recording."""

    recording: Recording
    final: UtteranceFinal | None


def _serve(bundle: Path, pipe: Pipe) -> None:
    """Be the server: tell the port, then serve until the other end of the pipe is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal sends it to both processes
    try:
        asyncio.run(_serve_until_closed(Model.load(bundle), pipe))
    except CnertaError as error:
        pipe.send(str(error))


async def _serve_until_closed(model: Model, pipe: Pipe) -> None:
    async with Server(model) as server:
        await server.start()
        pipe.send(server.port)
        with contextlib.suppress(EOFError):
            await asyncio.to_thread(pipe.recv)


@contextlib.contextmanager
def _server(bundle: Path) -> Iterator[str]:
    """Start the server as another process, as it would be in earnest; gives its address.

    Raises:
        CnertaError: It does not start.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(bundle, theirs), daemon=True)
    process.start()
    theirs.close()
    try:
        answer: int | str = ours.recv()
    except EOFError:
        answer = "expected the server to start, got its end"
    try:
        if isinstance(answer, str):
            raise CnertaError(answer)
        yield f"ws://127.0.0.1:{answer}"
    finally:
        ours.close()
        process.join()


async def run_demo(
    bundle: Path, folder: Path, console: Console, picture: Path | None = None
) -> bool:
    """Stream the recordings through a server of our own and show what comes back.

    Args:
        bundle: The model that the server answers with.
        folder: Where ``demo.json`` and its recordings are.
        console: Where to print.
        picture: Where to write a picture of the live view as SVG, if anywhere: the moment before
            the last final text, when the first utterance is final and the last one is not.

    Returns:
        Whether every recording got its `utterance.final`.

    Raises:
        CnertaError: The recordings, the server or the connection failed.
    """
    recordings = load_recordings(folder)
    files = [AudioFile(folder / recording.audio, paced=False) for recording in recordings]
    audio = _OneAfterTheOther(files)
    transcript = TimedTranscript(_timed_lines(recordings, files))
    view = _DemoView(console)
    with _server(bundle) as url:
        console.print(f"A server is listening on {url}. It is sent:", highlight=False)
        for recording in recordings:
            line = f"  {recording.audio}: {recording.reading}  {recording.description}"
            console.print(line, soft_wrap=True, highlight=False)
        console.print()
        async with await WebSocketConnection.open(url) as connection:
            async for message in stream(connection, audio, transcript, watcher=view):
                view.on_message(message)
    outcomes = [
        _Outcome(recording, view.finals.get(f"u{number}"))
        for number, recording in enumerate(recordings, 1)
    ]
    _compare(outcomes, console)
    console.print("\nHear both in a browser: make demo-page", highlight=False)
    if picture is not None:
        moment = render(view.before_final, PICTURE_WIDTH, PICTURE_HEIGHT)
        picture.write_text(draw_svg(moment, PICTURE_WIDTH, "cnerta-stream"), encoding="utf-8")
        console.print(f"\nThe live view is drawn in {picture}.", highlight=False)
    return all(outcome.final is not None for outcome in outcomes)


def _compare(outcomes: Sequence[_Outcome], console: Console) -> None:
    """Set the readings side by side, from their final events alone."""
    console.print("\nWhat was found", style="bold", highlight=False)
    width = max(cell_len(outcome.recording.reading) for outcome in outcomes)
    for outcome in outcomes:
        reading = outcome.recording.reading
        line = Text(f"  {reading}{' ' * (width - cell_len(reading))}  ")
        if outcome.final is None:
            line.append("no utterance.final", "bold red")
        else:
            caption = Caption("").finished(outcome.final, 0.0)
            line.append_text(draw_caption(caption, palette_of(console)))
        console.print(line, soft_wrap=True, highlight=False)
    finals = [outcome.final for outcome in outcomes if outcome.final is not None]
    if len(finals) < len(outcomes) or len({final.text for final in finals}) > 1:
        return
    found = [
        {(entity.start, entity.end, entity.label) for entity in final.entities} for final in finals
    ]
    if all(entities == found[0] for entities in found):
        verdict = "Same text, same entities: this model did not tell the readings apart."
    elif found == [outcome.recording.annotated for outcome in outcomes]:
        verdict = (
            "Same text, different entities, as they were read: only the voice tells them apart."
        )
    else:
        verdict = "Same text, different entities, but not all as they were read."
    console.print(f"\n{verdict}", highlight=False)


app = make_app()


@app.command()
def demo(
    bundle: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder of a model, one that comes along (fast, accurate), or hf:OWNER/NAME.",
        ),
    ] = None,
    recordings: Annotated[
        Path, typer.Option(metavar="DIR", help="Where demo.json and its recordings are.")
    ] = DEMO_FOLDER,
    picture: Annotated[
        Path | None,
        typer.Option(metavar="FILE.svg", help="Also draw a moment of the live view into a file."),
    ] = None,
    version: VersionOption = False,
) -> None:
    """Stream one sentence in its two readings through a real server and show what it finds."""
    console = Console()
    try:
        chosen = find_bundle(bundle)
        complete = asyncio.run(run_demo(chosen, recordings, console, picture))
    except CnertaError as error:
        fail("demo", error)
    if not complete:
        fail("demo", DataError("expected an utterance.final for every recording, got fewer"))


def main() -> None:
    """Run the demo from the command line."""
    app()


if __name__ == "__main__":
    main()
