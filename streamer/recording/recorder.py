"""A session that is recorded while it runs: the protocol, with all that happens written down.

The protocol depends on nothing but what it is told, when, and in which order. So that is what is
kept, together with what it says; and what the model said, so that a replay can do without it.
"""

from __future__ import annotations

import asyncio
import hashlib
import importlib.metadata
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import numpy as np
from msgspec import structs

from cnerta.models.runtime.alignment import Alignment
from cnerta.models.runtime.bundle import Bundle
from cnerta.models.runtime.decoding import ScoredSpan
from cnerta.models.runtime.inference import Tagged as ModelAnswer
from cnerta.models.runtime.readings import CharacterReading
from cnerta.streamer.errors import RecordingError
from cnerta.streamer.recording import file as recording
from cnerta.streamer.recording.file import RECORDING_SUFFIX, Header, Record
from cnerta.streamer.recording.writer import (
    DiskThread,
    RecordingOptions,
    RecordingWriter,
    SharedAllowance,
)
from cnerta.streamer.session.connection import ServedModel, ServerProtocol
from cnerta.streamer.session.limits import ConnectionLimits
from cnerta.streamer.session.outgoing.resumption import ResumeTerms
from cnerta.streamer.session.work import Lane, Result, TaggedText, Work, lane_of
from cnerta.streamer.wire.codec import encode
from cnerta.streamer.wire.errors import ProtocolError
from cnerta.streamer.wire.messages import (
    ClientMessage,
    ServerMessage,
    SessionGoingAway,
    SessionReady,
    Transcript,
)
from cnerta.streamer.wire.parts import LostHistory

__all__ = [
    "RecordedProtocol",
    "RecordingFolder",
    "answered_text",
    "bundle_sha256",
    "model_answer",
    "record_one",
    "recording_header",
]


logger = logging.getLogger(__name__)

_LEAST_ROOM_BYTES: Final = 2**20
"""No recording begins with less: it would end before it says anything."""


def recording_header(
    model: ServedModel,
    limits: ConnectionLimits,
    session_id: str,
    now: float,
    sha256: str | None = None,
) -> Header:
    """What a recording of a session that begins now says first."""
    return Header(
        started=datetime.now(UTC).isoformat(timespec="milliseconds"),
        package=importlib.metadata.version("cnerta-stream"),
        session=session_id,
        now=now,
        limits=limits,
        bundle=model.bundle.name,
        bundle_sha256=bundle_sha256(model.bundle) if sha256 is None else sha256,
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
        writer: RecordingWriter,
    ) -> None:
        """Begin, with a recording that has its header."""
        self._writer = writer
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

    def release_memory(self, wanted_bytes: int, now: float) -> None:
        """Memory is short."""
        with self._recorded(recording.ReleasedMemory(now, wanted_bytes), now):
            super().release_memory(wanted_bytes, now)

    def disconnect(self) -> None:
        """The connection is gone, and the recording over; nothing is kept if it never started."""
        record = recording.Disconnected(self._now, self.waiting_messages)
        never_started = self.session is None
        with self._recorded(record, self._now):
            super().disconnect()
        if never_started:
            self._writer.discard()
        else:
            self._writer.end()

    def offer_resume(self, terms: ResumeTerms) -> None:
        """The session may go on with another connection, and the recording with it."""
        record = recording.ResumeOffered(self._now, terms.ttl_s, terms.epoch)
        with self._recorded(record, self._now):
            super().offer_resume(terms)

    def offer_recognition(self) -> None:
        """A recogniser of the server may write the transcript."""
        with self._recorded(recording.RecognitionOffered(self._now), self._now):
            super().offer_recognition()

    def recognised(self, message: Transcript, now: float) -> None:
        """It has written something."""
        with self._recorded(recording.Recognised(now, encode(message).decode()), now):
            super().recognised(message, now)

    def recognition_over(self) -> None:
        """It will write no more."""
        with self._recorded(recording.RecognitionEnded(self._now), self._now):
            super().recognition_over()

    def park(self) -> None:
        """The connection is gone, and the session waits for another one."""
        with self._recorded(recording.Parked(self._now), self._now):
            super().park()

    def resume(self, last_seq: int, now: float) -> None:
        """Another connection takes the session over."""
        with self._recorded(recording.Resumed(now, last_seq), now):
            super().resume(last_seq, now)

    def start_anew(self, lost: LostHistory) -> None:
        """This session begins in the place of the one that was asked for."""
        with self._recorded(recording.StartedAnew(self._now, lost), self._now):
            super().start_anew(lost)

    def close_recording(self) -> None:
        """Wait until all of the recording is written, once the connection is gone.

        Raises:
            RecordingError: It could not be written to its end.
        """
        self._writer.close()
        failure = self._writer.failure()
        if failure is not None:
            raise RecordingError(
                f"expected to write the recording {self._writer.path} to its end, got: {failure}"
            )

    def next_work(self, lane: Lane, now: float) -> Work | None:
        """The engine is given work; to ask in vain changes nothing."""
        with self._recorded(None, now):
            work = super().next_work(lane, now)
        if work is not None:
            self._writer.write(recording.WorkTaken(now, lane), now)
        return work

    def work_done(self, work: Work, result: Result | Exception, now: float) -> None:
        """The engine brings it back."""
        answer = answered_text(result.tagged) if isinstance(result, TaggedText) else None
        # What a client got wrong is got wrong again in a replay.
        failed = isinstance(result, Exception) and not isinstance(result, ProtocolError)
        with self._recorded(recording.WorkDone(now, lane_of(work), answer, failed), now):
            super().work_done(work, result, now)

    def next_message(self) -> ServerMessage | None:
        """A message leaves."""
        message = super().next_message()
        if message is not None:
            record = recording.Sent(self._now, encode(_without_token(message)))
            self._writer.write(record, self._now)
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


def _without_token(message: ServerMessage) -> ServerMessage:
    """A message as it is recorded: whoever reads it must not be able to take the session over."""
    if isinstance(message, SessionReady | SessionGoingAway) and message.resume is not None:
        return structs.replace(message, resume=structs.replace(message.resume, token=""))
    return message


def record_one(
    model: ServedModel,
    limits: ConnectionLimits,
    session_id: str,
    now: float,
    options: RecordingOptions,
    disk: DiskThread | None = None,
    sha256: str | None = None,
    shared: SharedAllowance | None = None,
) -> RecordedProtocol:
    """Begin a connection that is recorded.

    Args:
        model: What answers.
        limits: What the connection may hold.
        session_id: Its name.
        now: In seconds.
        options: Where it is recorded.
        disk: Writes it; None: a thread of its own.
        sha256: Hash of the bundle, where it is known; see :func:`bundle_sha256`.
        shared: Bound of this recording and others together.

    Raises:
        RecordingError: The file cannot be written.
    """
    header = recording_header(model, limits, session_id, now, sha256)
    writer = RecordingWriter(
        options.path, header, limit_bytes=options.limit_bytes, disk=disk, shared=shared
    )
    return RecordedProtocol(model, limits, session_id, now, writer)


class RecordingFolder:
    """Records every session of a server, in one file each; use as a context manager."""

    def __init__(
        self,
        folder: Path,
        limit_bytes: int,
        total_limit_bytes: int | None = None,
        *,
        writers: int = 1,
    ) -> None:
        """Begin.

        Args:
            folder: Where the files lie.
            limit_bytes: Most of one.
            total_limit_bytes: Most of all that lie there, those of earlier times included; None:
                any number. Where it is reached, nothing more is recorded until some are removed.
            writers: How many processes record there: what is left is divided among them.
        """
        self._writers = writers
        self._total_limit_bytes = total_limit_bytes
        self._shared = None if total_limit_bytes is None else SharedAllowance(total_limit_bytes)
        self._folder = folder
        self._limit_bytes = limit_bytes
        self._sha256: str | None = None
        self._disk = DiskThread()

    def __enter__(self) -> Self:
        logger.warning(
            "RECORDING: audio, transcripts and messages of every session are kept in %s",
            self._folder,
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._disk.stop()
        self._disk.join()

    async def open(
        self, model: ServedModel, limits: ConnectionLimits, session_id: str
    ) -> ServerProtocol:
        """Begin a connection; one that is not recorded if its file cannot be written."""
        began = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
        path = self._folder / f"{began}-{session_id}{RECORDING_SUFFIX}"
        now = asyncio.get_running_loop().time()
        options = RecordingOptions(path, self._limit_bytes)
        try:
            return await asyncio.to_thread(self._begin, model, limits, session_id, now, options)
        except RecordingError as error:
            # Serving goes on, and the client is not told that anything is kept.
            logger.error("a session is not recorded: %s", error)
            return ServerProtocol(model, limits, session_id, now)

    def _begin(
        self,
        model: ServedModel,
        limits: ConnectionLimits,
        session_id: str,
        now: float,
        options: RecordingOptions,
    ) -> RecordedProtocol:
        if self._sha256 is None:
            self._sha256 = bundle_sha256(model.bundle)
        self._check_total()
        return record_one(
            model, limits, session_id, now, options, self._disk, self._sha256, self._shared
        )

    def _check_total(self) -> None:
        """See how much room there is: files may have been removed meanwhile.

        Raises:
            RecordingError: There is none.
        """
        if self._shared is None or self._total_limit_bytes is None:
            return
        try:
            used = sum(map(_size, self._folder.glob(f"*{RECORDING_SUFFIX}")))
        except OSError as error:
            raise RecordingError(
                f"expected a folder of recordings at {self._folder}, got: {error.strerror or error}"
            ) from error
        used += self._disk.waiting_bytes
        self._shared.left_bytes = (self._total_limit_bytes - used) // self._writers
        if self._shared.left_bytes < _LEAST_ROOM_BYTES:
            raise RecordingError(
                f"expected {_LEAST_ROOM_BYTES} bytes less than {self._total_limit_bytes} of "
                f"recordings in {self._folder}, got {used}"
            )


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:  # It was removed meanwhile.
        return 0


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
