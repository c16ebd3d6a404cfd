"""What happened in a recorded session, and its figures."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from msgspec import UNSET

from cnerta.streamer.audio.decoder import AudioInput
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

__all__ = ["RATE", "Inspection", "inspect_recording", "summarise"]

RATE: Final = 16_000
"""Of `Inspection.audio`, in Hz."""


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
        f"{found.lasted_s:.1f} s, {len(found.audio) / RATE:.1f} s of audio, {interim} interim and "
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
