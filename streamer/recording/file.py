"""The file of a recorded session: what came, what went and when, in the order it happened.

A recording holds all that a session's state depends on, so it can be run again and gives the same
events (:mod:`cnerta.streamer.recording.replay`). It holds audio and text: whoever makes one says
so.

The file is a line of text and then frames, appended one by one: length (4 bytes, little endian),
CRC-32 of the content (the same), content (msgpack). What a dead process or machine leaves is read
up to the last whole frame. :mod:`cnerta.streamer.recording.writer` writes it.
"""

from __future__ import annotations

import logging
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from cnerta.streamer.errors import RecordingError
from cnerta.streamer.session.limits import ConnectionLimits
from cnerta.streamer.session.work import Lane
from cnerta.streamer.wire.parts import LostHistory

__all__ = [
    "FIRST_LINE",
    "RECORDING_SUFFIX",
    "AnsweredAlignment",
    "AnsweredSpan",
    "AnsweredText",
    "Disconnected",
    "Failed",
    "Full",
    "Header",
    "Parked",
    "ReceivedAudio",
    "ReceivedMessage",
    "ReceivedText",
    "Recognised",
    "RecognitionEnded",
    "RecognitionOffered",
    "Record",
    "RecordingReader",
    "ReleasedMemory",
    "ResumeOffered",
    "Resumed",
    "Sent",
    "StartedAnew",
    "Ticked",
    "WentAway",
    "WorkDone",
    "WorkTaken",
]

logger = logging.getLogger(__name__)

RECORDING_SUFFIX: Final = ".cns"
FIRST_LINE: Final = b"cnerta-stream session 2\n"
_LENGTH_BYTES: Final = 4
_LONGEST_FRAME: Final = 2**28


class _Record(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Something that happened to a session; times in seconds, on a clock of the process."""


class Header(_Record, frozen=True):
    """How the session began; the first record of a file.

    Attributes:
        started: When, as a date (UTC, ISO 8601).
        package: Version of the package.
        session: Name of the session.
        now: When, on the clock that all records use.
        limits: What the connection could hold.
        bundle: Name of the model.
        bundle_sha256: Hash of its manifest, which holds those of its graphs.
        device: What it ran on.
    """

    started: str
    package: str
    session: str
    now: float
    limits: ConnectionLimits
    bundle: str
    bundle_sha256: str
    device: str


class ReceivedAudio(_Record, frozen=True):
    """A binary frame of the client."""

    now: float
    data: bytes


class ReceivedText(_Record, frozen=True):
    """A text frame of the client."""

    now: float
    data: str


class ReceivedMessage(_Record, frozen=True):
    """A message of a client in the same process, as JSON."""

    now: float
    data: str


class Ticked(_Record, frozen=True):
    """Time passed."""

    now: float


class WentAway(_Record, frozen=True):
    """The server stopped."""

    now: float
    reason: str


class Failed(_Record, frozen=True):
    """The owner ended the session with an error: its name in the protocol, and what was said."""

    now: float
    name: str
    detail: str


class Disconnected(_Record, frozen=True):
    """The other side was gone; so many messages were never sent."""

    now: float
    waiting: int


class ReleasedMemory(_Record, frozen=True):
    """The owner had the session give up so many bytes of memory."""

    now: float
    wanted_bytes: int


class ResumeOffered(_Record, frozen=True):
    """The session can be resumed; the token is no part of a recording."""

    now: float
    ttl_s: int
    epoch: str


class RecognitionOffered(_Record, frozen=True):
    """A recogniser of the server might write the transcript."""

    now: float


class Recognised(_Record, frozen=True):
    """The server's recogniser had written something, as a ``transcript`` of a client."""

    now: float
    data: str


class RecognitionEnded(_Record, frozen=True):
    """The server's recogniser wrote no more."""

    now: float


class Parked(_Record, frozen=True):
    """The connection was gone, and the session waited for another one."""

    now: float


class Resumed(_Record, frozen=True):
    """Another connection took the session over; its client had all events up to a number."""

    now: float
    last_seq: int


class StartedAnew(_Record, frozen=True):
    """What the client wanted to go on with could not be resumed, so this session began."""

    now: float
    lost: LostHistory


class WorkTaken(_Record, frozen=True):
    """The engine was given work of a lane."""

    now: float
    lane: Lane


class AnsweredSpan(msgspec.Struct, frozen=True, array_like=True):
    """See :class:`cnerta.models.runtime.decoding.ScoredSpan`."""

    start: int
    end: int
    label: str
    confidence: float


class AnsweredAlignment(msgspec.Struct, frozen=True, array_like=True):
    """See :class:`cnerta.models.runtime.alignment.Alignment`."""

    starts: list[int]
    ends: list[int]
    peaks: list[int]
    scores: list[float]
    score: float


class AnsweredText(msgspec.Struct, frozen=True, array_like=True):
    """What the model said of a text; see :class:`cnerta.models.runtime.inference.Tagged`."""

    spans: list[AnsweredSpan]
    alignment: AnsweredAlignment | None
    readings: list[tuple[int, list[tuple[str, float]]]]


class WorkDone(_Record, frozen=True):
    """The engine brought work of a lane back.

    Attributes:
        now: When.
        lane: Which.
        answer: What the model said, if a text was tagged.
        failed: It could not be done.
    """

    now: float
    lane: Lane
    answer: AnsweredText | None = None
    failed: bool = False


class Sent(_Record, frozen=True):
    """A message left, as JSON."""

    now: float
    message: bytes


class Full(_Record, frozen=True):
    """The recording had reached its bound and was ended; the session went on."""

    now: float


Record = (
    Header
    | ReceivedAudio
    | ReceivedMessage
    | ReceivedText
    | Ticked
    | WentAway
    | Failed
    | Disconnected
    | ReleasedMemory
    | ResumeOffered
    | RecognitionOffered
    | Recognised
    | RecognitionEnded
    | Parked
    | Resumed
    | StartedAnew
    | WorkTaken
    | WorkDone
    | Sent
    | Full
)

_decoder: msgspec.msgpack.Decoder[Record] = msgspec.msgpack.Decoder(Record)
_encoder: Final = msgspec.msgpack.Encoder()


class RecordingReader:
    """A recording that was written, whole or cut off.

    Attributes:
        header: Its first record.
        is_cut_off: Whether it ends in the middle of a record; known once all are read.
    """

    def __init__(self, path: Path) -> None:
        """Read a file.

        Raises:
            RecordingError: It is not there or no recording of this version.
        """
        try:
            self._data = path.read_bytes()
        except OSError as error:
            raise RecordingError(
                f"expected a recording at {path}, got: {error.strerror or error}"
            ) from error
        self.is_cut_off = False
        if not self._data.startswith(FIRST_LINE):
            raise RecordingError(
                f"expected {FIRST_LINE.decode().strip()!r} at the start of {path}, got no "
                "recording of this version"
            )
        first = next(iter(self), None)
        if not isinstance(first, Header):
            raise RecordingError(f"expected {path} to say how its session began, got none")
        self.header = first

    def __iter__(self) -> Iterator[Record]:
        """All records that are whole, the header first."""
        at = len(FIRST_LINE)
        head = 2 * _LENGTH_BYTES
        while at < len(self._data):
            length = int.from_bytes(self._data[at : at + _LENGTH_BYTES], "little")
            checksum = int.from_bytes(self._data[at + _LENGTH_BYTES : at + head], "little")
            content = self._data[at + head : at + head + length]
            if length > _LONGEST_FRAME or len(content) < length or zlib.crc32(content) != checksum:
                self.is_cut_off = True
                return
            try:
                record = _decoder.decode(content)
            except msgspec.MsgspecError:
                self.is_cut_off = True
                return
            yield record
            at += head + length


def framed(record: Record) -> bytes:
    """A record as it stands in a file."""
    content = _encoder.encode(record)
    length = len(content).to_bytes(_LENGTH_BYTES, "little")
    return length + zlib.crc32(content).to_bytes(_LENGTH_BYTES, "little") + content
