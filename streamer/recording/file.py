"""The file of a recorded session: what came, what went and when, in the order it happened.

A recording holds all that a session's state depends on, so it can be run again and gives the same
events (:mod:`cnerta.streamer.recording.replay`). It holds audio and text: whoever makes one says
so.

The file is a line of text and then frames, appended one by one: length (4 bytes, little endian),
CRC-32 of the content (the same), content (msgpack). Each is handed to the system at once, so that a
process that is killed loses nothing it had written; what a dead machine leaves is read up to the
last whole frame.
"""

from __future__ import annotations

import logging
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import msgspec

from cnerta.streamer.errors import RecordingError
from cnerta.streamer.session.limits import ConnectionLimits

__all__ = [
    "RECORDING_SUFFIX",
    "AnsweredAlignment",
    "AnsweredSpan",
    "AnsweredText",
    "Disconnected",
    "EncodeTaken",
    "Encoded",
    "Failed",
    "Full",
    "Header",
    "ReceivedAudio",
    "ReceivedMessage",
    "ReceivedText",
    "Record",
    "RecordingOptions",
    "RecordingReader",
    "RecordingWriter",
    "Sent",
    "TagTaken",
    "Tagged",
    "Ticked",
    "WentAway",
    "WorkFailed",
]

logger = logging.getLogger(__name__)

RECORDING_SUFFIX: Final = ".cns"
_FIRST_LINE: Final = b"cnerta-stream session 1\n"
_LENGTH_BYTES: Final = 4
_LONGEST_FRAME: Final = 2**28
_PRIVATE: Final = 0o600


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


class WorkFailed(_Record, frozen=True):
    """The engine could not do what it was given."""

    now: float


class Disconnected(_Record, frozen=True):
    """The other side was gone; so many messages were never sent."""

    now: float
    waiting: int


class EncodeTaken(_Record, frozen=True):
    """The engine asked for audio; ``found`` if there was some."""

    found: bool


class Encoded(_Record, frozen=True):
    """It brought it back."""


class TagTaken(_Record, frozen=True):
    """The engine asked for a text; ``found`` if there was one."""

    now: float
    found: bool


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


class Tagged(_Record, frozen=True):
    """The engine brought back what the model said of a revision's texts."""

    now: float
    answers: list[AnsweredText]


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
    | WorkFailed
    | Disconnected
    | EncodeTaken
    | Encoded
    | TagTaken
    | Tagged
    | Sent
    | Full
)

_decoder: msgspec.msgpack.Decoder[Record] = msgspec.msgpack.Decoder(Record)
_encoder: Final = msgspec.msgpack.Encoder()


@dataclass(frozen=True, slots=True)
class RecordingOptions:
    """Where a session is recorded, and how much of it.

    Attributes:
        path: The file.
        limit_bytes: Its bound; what comes after is not recorded.
    """

    path: Path
    limit_bytes: int = 2**30


class RecordingWriter:
    """Appends records to a file until it is full, the disk is, or it is closed.

    Attributes:
        path: The file.
    """

    def __init__(self, path: Path, header: Header, *, limit_bytes: int) -> None:
        """Begin a file, in the place of one that is there; only its owner may read it.

        Raises:
            RecordingError: It cannot be written.
        """
        self.path = path
        self._left = limit_bytes
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, _PRIVATE)
        except OSError as error:
            raise RecordingError(
                f"expected to write a recording at {path}, got: {error.strerror or error}"
            ) from error
        self._descriptor: int | None = descriptor
        self._append(_FIRST_LINE)
        self.write(header, header.now)

    def write(self, record: Record, now: float) -> None:
        """Append a record. Where that fails the recording ends, not the session.

        Args:
            record: What happened.
            now: When, for the record that ends a recording that is full.
        """
        if self._descriptor is None:
            return
        frame = _framed(record)
        if len(frame) > self._left:
            logger.warning("the recording %s is full and ends here; the session goes on", self.path)
            self._append(_framed(Full(now)))
            self.close()
            return
        self._left -= len(frame)
        self._append(frame)

    def close(self) -> None:
        """End the file."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _append(self, data: bytes) -> None:
        assert self._descriptor is not None, "expected an open recording"
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
        except OSError as error:
            reason = error.strerror or error
            logger.error("the recording %s ends here, it cannot be written: %s", self.path, reason)
            self.close()


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
        if not self._data.startswith(_FIRST_LINE):
            raise RecordingError(
                f"expected {_FIRST_LINE.decode().strip()!r} at the start of {path}, got no "
                "recording of this version"
            )
        first = next(iter(self), None)
        if not isinstance(first, Header):
            raise RecordingError(f"expected {path} to say how its session began, got none")
        self.header = first

    def __iter__(self) -> Iterator[Record]:
        """All records that are whole, the header first."""
        at = len(_FIRST_LINE)
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


def _framed(record: Record) -> bytes:
    content = _encoder.encode(record)
    length = len(content).to_bytes(_LENGTH_BYTES, "little")
    return length + zlib.crc32(content).to_bytes(_LENGTH_BYTES, "little") + content
