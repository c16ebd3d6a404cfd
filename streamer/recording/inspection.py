"""What happened in a recorded session: its figures, and a picture of it."""

from __future__ import annotations

import logging
import statistics
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from msgspec import UNSET

from cnerta.models.fonts import find_cjk_font
from cnerta.models.label_colours import label_colour
from cnerta.streamer.audio.decoder import AudioInput
from cnerta.streamer.errors import OutputError
from cnerta.streamer.recording import file as recording
from cnerta.streamer.recording.file import Header, RecordingReader
from cnerta.streamer.wire.codec import decode_client, decode_server
from cnerta.streamer.wire.errors import ProtocolError
from cnerta.streamer.wire.messages import (
    EntityRetract,
    EntityUpsert,
    ErrorMessage,
    SessionStart,
    SessionUpdate,
    Transcript,
    UtteranceFinal,
    WarningMessage,
)

__all__ = ["Inspection", "draw", "inspect_recording", "summarise"]

logger = logging.getLogger(__name__)

_RATE: Final = 16_000
_COLUMNS: Final = 2_000


@dataclass(slots=True)
class Inspection:
    """A session as it went.

    Attributes:
        header: How it began.
        audio: 16 kHz, -1 to 1, as far as the session took it. shape: (samples,)
        lasted_s: From its beginning to the last record.
        revisions: Transcripts that were not final, and final ones.
        finals: What the finals were answered with.
        final_latencies_ms: From each final transcript to its answer.
        first_latencies_ms: From each revision to the first news of an entity of its utterance.
        changes: Upserts, retractions by reason, warnings by name.
        errors: What ended it.
        finished: How it ended.
    """

    header: Header
    audio: npt.NDArray[np.float32]
    lasted_s: float = 0.0
    revisions: tuple[int, int] = (0, 0)
    finals: list[UtteranceFinal] = field(default_factory=list)
    final_latencies_ms: list[float] = field(default_factory=list)
    first_latencies_ms: list[float] = field(default_factory=list)
    changes: Counter[str] = field(default_factory=Counter)
    errors: list[str] = field(default_factory=list)
    finished: str = "still running when the recording ends"


def inspect_recording(path: Path) -> Inspection:
    """Go through a recording.

    Raises:
        RecordingError: It cannot be read.
    """
    reader = RecordingReader(path)
    found = Inspection(reader.header, np.zeros(0, np.float32))
    audio: AudioInput | None = None
    blocks: list[npt.NDArray[np.float32]] = []
    arrived: dict[tuple[str, int], float] = {}
    finals: dict[str, float] = {}
    told: set[tuple[str, int]] = set()
    newest = 0
    for record in reader:
        now = getattr(record, "now", None)
        if now is not None:
            found.lasted_s = now - reader.header.now
        if isinstance(record, recording.ReceivedAudio):
            if audio is not None:
                blocks.append(_samples(audio, record.data))
        elif isinstance(
            record, recording.ReceivedText | recording.ReceivedMessage | recording.Recognised
        ):
            audio = _note_message(found, record.data, audio, blocks)
            message = _decoded(record.data)
            if isinstance(message, Transcript):
                arrived[message.utterance, message.revision] = record.now
                if message.final:
                    finals.setdefault(message.utterance, record.now)
        elif isinstance(record, recording.Sent):
            seq = getattr(decode_server(record.message), "seq", None)
            if seq is None or seq > newest:  # After a resume some are told again.
                _note_answer(found, record, arrived, finals, told)
            newest = max(newest, seq or 0)
        elif isinstance(record, recording.Resumed):
            found.changes["resumed"] += 1
            if audio is not None:
                audio.drop_partial()
        elif isinstance(record, recording.Disconnected):
            found.finished = "the other side left"
        elif isinstance(record, recording.Full):
            found.finished = "the recording was full; the session went on"
    if reader.is_cut_off:
        found.finished = "the recording is cut off here"
    elif found.changes["session.summary"]:
        found.finished = "finished in order"
    if audio is not None:
        blocks.append(audio.finish())
    found.audio = np.concatenate(blocks) if blocks else found.audio
    return found


def summarise(found: Inspection) -> Iterator[str]:
    """The session in lines of text."""
    header = found.header
    yield f"session {header.session}, {header.started}, cnerta-stream {header.package}"
    yield f"model {header.bundle} on {header.device}"
    interim, final = found.revisions
    yield (
        f"{found.lasted_s:.1f} s, {len(found.audio) / _RATE:.1f} s of audio, {interim} interim and "
        f"{final} final transcripts"
    )
    entities = Counter(e.label for f in found.finals for e in f.entities)
    kinds = ", ".join(f"{count} {label}" for label, count in sorted(entities.items()))
    yield f"{len(found.finals)} answers with {sum(entities.values())} entities: {kinds or 'none'}"
    for name, values in (
        ("final answers", found.final_latencies_ms),
        ("first news of a revision", found.first_latencies_ms),
    ):
        if values:
            late = sorted(values)[max(0, round(0.95 * len(values)) - 1)]
            yield (
                f"{name} after {statistics.median(values):.0f} ms (half), {late:.0f} ms (95 %), "
                f"{max(values):.0f} ms (all)"
            )
    for what, count in sorted(found.changes.items()):
        yield f"{what}: {count}"
    for error in found.errors:
        yield f"error {error}"
    yield f"end: {found.finished}"


def draw(found: Inspection, path: Path) -> None:
    """Draw waveform, characters, entities and latencies over time.

    Args:
        found: The session.
        path: An image; its suffix says of what kind.

    Raises:
        OutputError: matplotlib is not installed, or the image cannot be written.
    """
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ImportError as error:
        raise OutputError(
            "expected matplotlib for a plot, got no such package: install cnerta-stream[plot]"
        ) from error
    font = find_cjk_font()
    if font is None:
        logger.warning("expected a font with Chinese characters, got none: install one")
    seconds = max(len(found.audio) / _RATE, found.lasted_s, 1.0)
    with mpl.rc_context({"font.family": ["DejaVu Sans", *([font] if font else [])]}):
        figure = Figure(figsize=(min(40.0, max(10.0, 1.6 * seconds)), 7.0), layout="constrained")
        wave, words, delays = figure.subplots(
            3, 1, height_ratios=(2, 2, 1.5), gridspec_kw={"hspace": 0.05}
        )
        _draw_wave(wave, found.audio)
        _draw_words(words, found.finals)
        words.sharex(wave)
        _draw_latencies(delays, found)
        wave.set_xlim(0, seconds)
        wave.set_title(f"{found.header.session}  {found.header.started}  {found.header.bundle}")
        try:
            figure.savefig(path, dpi=110)
        except (OSError, ValueError) as error:
            raise OutputError(f"expected to draw to {path}, got: {error}") from error


def _note_message(
    found: Inspection,
    data: str,
    audio: AudioInput | None,
    blocks: list[npt.NDArray[np.float32]],
) -> AudioInput | None:
    """Take a client's message; the audio input that holds from then on."""
    message = _decoded(data)
    if isinstance(message, SessionStart) and audio is None:
        return AudioInput(message.audio)
    if isinstance(message, SessionUpdate) and message.audio is not UNSET and audio is not None:
        blocks.append(audio.change(message.audio))
    elif isinstance(message, Transcript):
        interim, final = found.revisions
        found.revisions = (interim + (not message.final), final + message.final)
    return audio


def _note_answer(
    found: Inspection,
    record: recording.Sent,
    arrived: dict[tuple[str, int], float],
    finals: dict[str, float],
    told: set[tuple[str, int]],
) -> None:
    message = decode_server(record.message)
    tag = str(message.__struct_config__.tag)
    match message:
        case EntityUpsert():
            place = message.utterance, message.revision
            if place in arrived and place not in told:
                told.add(place)
                found.first_latencies_ms.append(1000 * (record.now - arrived[place]))
        case EntityRetract():
            tag = f"{tag} ({message.reason})"
        case UtteranceFinal():
            found.finals.append(message)
            since = finals.get(message.utterance)
            if since is not None:
                found.final_latencies_ms.append(1000 * (record.now - since))
        case WarningMessage():
            tag = f"warning {message.name}"
        case ErrorMessage():
            found.errors.append(f"{message.code} {message.name}: {message.detail}")
        case _:
            pass
    found.changes[tag] += 1


def _decoded(data: str) -> object:
    try:
        return decode_client(data)
    except ProtocolError:
        return None  # The session has answered it with an error.


def _samples(audio: AudioInput, data: bytes) -> npt.NDArray[np.float32]:
    try:
        return audio.add(data)
    except ProtocolError:
        return np.zeros(0, np.float32)


def _draw_wave(axes: Any, audio: npt.NDArray[np.float32]) -> None:
    size = max(1, len(audio) // _COLUMNS)
    whole = audio[: len(audio) // size * size].reshape(-1, size)
    if len(whole):
        times = np.arange(len(whole)) * size / _RATE
        axes.fill_between(times, whole.min(axis=1), whole.max(axis=1), linewidth=0, color="0.4")
    axes.set_ylabel("audio")
    axes.set_ylim(-1, 1)


def _draw_words(axes: Any, finals: Sequence[UtteranceFinal]) -> None:
    """Characters where they are spoken, and entities as bars below them, inner ones lower."""
    for final in finals:
        for character, (start, end) in zip(final.text, final.characters, strict=False):
            axes.text((start + end) / 2000, 1.5, character, ha="center", va="center", fontsize=10)
        for entity in final.entities:
            if entity.start_ms is None or entity.end_ms is None:
                continue
            row = 0.7 if entity.parent is None else 0.25
            begin, length = entity.start_ms / 1000, (entity.end_ms - entity.start_ms) / 1000
            colour = label_colour(entity.label).on_paper
            axes.broken_barh([(begin, length)], (row, 0.35), color=colour)
            axes.text(
                begin + length / 2,
                row + 0.17,
                f"{entity.label} {entity.confidence:.0%}",
                ha="center",
                va="center",
                fontsize=7,
                color="white",
            )
    axes.set_ylim(0, 2)
    axes.set_yticks([0.42, 0.87, 1.5], ["inner", "entities", "text"])
    axes.set_xlabel("seconds of audio")


def _draw_latencies(axes: Any, found: Inspection) -> None:
    for name, values in (
        ("final answer", found.final_latencies_ms),
        ("first news of a revision", found.first_latencies_ms),
    ):
        if values:
            axes.plot(range(1, len(values) + 1), values, ".-", linewidth=0.8, label=name)
            axes.legend(loc="upper right")
    axes.set_ylim(bottom=0)
    axes.set_ylabel("ms")
    axes.set_xlabel("answers in the order they came")
