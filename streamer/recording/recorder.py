"""A session that is recorded while it runs: the protocol, with all that happens written down.

The protocol depends on nothing but what it is told, when, and in which order. So that is what is
kept, together with what it says; and what the model said, so that a replay can do without it.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime

import numpy as np
import numpy.typing as npt

from cnerta.models.runtime.alignment import Alignment
from cnerta.models.runtime.bundle import Bundle
from cnerta.models.runtime.decoding import ScoredSpan
from cnerta.models.runtime.inference import AcousticState
from cnerta.models.runtime.inference import Tagged as ModelAnswer
from cnerta.models.runtime.readings import CharacterReading
from cnerta.streamer.recording import file as recording
from cnerta.streamer.recording.file import Header, Record, RecordingOptions, RecordingWriter
from cnerta.streamer.session.connection import ServedModel, ServerProtocol
from cnerta.streamer.session.limits import ConnectionLimits
from cnerta.streamer.session.work import EncodeWork, TagWork
from cnerta.streamer.wire.codec import encode
from cnerta.streamer.wire.errors import ProtocolError
from cnerta.streamer.wire.messages import ClientMessage, ServerMessage

__all__ = [
    "RecordedProtocol",
    "answered_text",
    "bundle_sha256",
    "model_answer",
    "recording_header",
]


def recording_header(
    model: ServedModel, limits: ConnectionLimits, session_id: str, now: float
) -> Header:
    """What a recording of a session that begins now says first."""
    return Header(
        started=datetime.now(UTC).isoformat(timespec="milliseconds"),
        package=importlib.metadata.version("cnerta-stream"),
        session=session_id,
        now=now,
        limits=limits,
        bundle=model.bundle.name,
        bundle_sha256=bundle_sha256(model.bundle),
        device=model.device,
    )


def bundle_sha256(bundle: Bundle) -> str:
    """Hash of a bundle's manifest, which holds those of its graphs; empty if it has no folder."""
    manifest = bundle.path / "bundle.json"
    return hashlib.sha256(manifest.read_bytes()).hexdigest() if manifest.is_file() else ""


class RecordedProtocol(ServerProtocol):
    """A connection whose every call is appended to a recording."""

    def __init__(
        self,
        model: ServedModel,
        limits: ConnectionLimits,
        session_id: str,
        now: float,
        options: RecordingOptions,
    ) -> None:
        """Begin, with a new file.

        Raises:
            RecordingError: The file cannot be written.
        """
        header = recording_header(model, limits, session_id, now)
        self._writer = RecordingWriter(options.path, header, limit_bytes=options.limit_bytes)
        self._now = now
        self._is_inside = False
        super().__init__(model, limits, session_id, now, is_recorded=True)

    # --- what happens, written down before it does ------------------------------------------------

    def receive(self, data: str | bytes, now: float) -> None:
        """See :meth:`ServerProtocol.receive`, as for all that follow."""
        record: Record = (
            recording.ReceivedAudio(now, data)
            if isinstance(data, bytes)
            else recording.ReceivedText(now, data)
        )
        with self._recorded(record, now):
            super().receive(data, now)

    def receive_message(self, message: ClientMessage, now: float) -> None:
        """A message that is decoded already."""
        with self._recorded(recording.ReceivedMessage(now, encode(message).decode()), now):
            super().receive_message(message, now)

    def tick(self, now: float) -> None:
        """Time passes."""
        with self._recorded(recording.Ticked(now), now):
            super().tick(now)

    def go_away(self, reason: str) -> None:
        """The server stops."""
        with self._recorded(recording.WentAway(self._now, reason), self._now):
            super().go_away(reason)

    def fail(self, error: ProtocolError) -> None:
        """The connection ends with an error."""
        record = recording.Failed(self._now, error.name.name, error.detail)
        with self._recorded(record, self._now):
            super().fail(error)

    def disconnect(self) -> None:
        """The connection is gone, and the recording over."""
        record = recording.Disconnected(self._now, self.waiting_messages)
        with self._recorded(record, self._now):
            super().disconnect()
        self._writer.close()

    def work_failed(self) -> None:
        """The engine failed."""
        with self._recorded(recording.WorkFailed(self._now), self._now):
            super().work_failed()

    def take_encode(self) -> EncodeWork | None:
        """The engine asks for audio; also where there is none, what is too much is skipped."""
        with self._recorded(None, self._now):
            work = super().take_encode()
        self._writer.write(recording.EncodeTaken(work is not None), self._now)
        return work

    def take_tag(self, now: float) -> TagWork | None:
        """The engine asks for a text; also where there is none, what waits too long is dropped."""
        with self._recorded(None, now):
            work = super().take_tag(now)
        self._writer.write(recording.TagTaken(now, work is not None), now)
        return work

    def encoded(self, frames: npt.NDArray[np.float32], state: AcousticState | None) -> None:
        """Audio comes back."""
        with self._recorded(recording.Encoded(), self._now):
            super().encoded(frames, state)

    def tagged(self, results: Sequence[ModelAnswer], now: float) -> None:
        """A text comes back."""
        with self._recorded(recording.Tagged(now, list(map(answered_text, results))), now):
            super().tagged(results, now)

    def next_message(self) -> ServerMessage | None:
        """A message leaves."""
        message = super().next_message()
        if message is not None:
            self._writer.write(recording.Sent(self._now, encode(message)), self._now)
        return message

    @contextmanager
    def _recorded(self, record: Record | None, now: float) -> Iterator[None]:
        """Write a record down, but not what its own consequences call in turn."""
        if self._is_inside:
            yield
            return
        self._now = now
        if record is not None:
            self._writer.write(record, now)
        self._is_inside = True
        try:
            yield
        finally:
            self._is_inside = False


def answered_text(answer: ModelAnswer) -> recording.AnsweredText:
    """What the model said, for a record."""
    aligned = answer.alignment
    return recording.AnsweredText(
        [
            recording.AnsweredSpan(s.start, s.end, s.label, float(s.confidence))
            for s in answer.spans
        ],
        None
        if aligned is None
        else recording.AnsweredAlignment(
            aligned.starts.tolist(),
            aligned.ends.tolist(),
            aligned.peaks.tolist(),
            aligned.scores.tolist(),
            float(aligned.score),
        ),
        [(heard.index, [(n, float(p)) for n, p in heard.readings]) for heard in answer.readings],
    )


def model_answer(answer: recording.AnsweredText) -> ModelAnswer:
    """What the model said, from a record."""
    aligned = answer.alignment
    return ModelAnswer(
        tuple(ScoredSpan(s.start, s.end, s.label, s.confidence) for s in answer.spans),
        None
        if aligned is None
        else Alignment(
            starts=np.array(aligned.starts, np.int64),
            ends=np.array(aligned.ends, np.int64),
            peaks=np.array(aligned.peaks, np.int64),
            scores=np.array(aligned.scores, np.float32),
            score=aligned.score,
        ),
        tuple(CharacterReading(index, tuple(readings)) for index, readings in answer.readings),
    )
