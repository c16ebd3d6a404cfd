"""Recordings that are no files of their own: rows of a data set, members of a shard, cuts.

Wherever an example has a recording it is a path, or one of these: both go through
:func:`cnerta.train.data.audio.read_audio` and :class:`cnerta.train.data.audio.AudioCache`. These
are read anew each time, since whoever holds them need not have all of them decoded in memory.
"""

from __future__ import annotations

import io
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile

from cnerta.models.errors import DataError

__all__ = ["EncodedRecording", "FilePart", "HeldRecording", "decode_recording", "recording_path"]

Floats = npt.NDArray[np.float32]


class HeldRecording(ABC):
    """A recording that something else holds."""

    @property
    @abstractmethod
    def name(self) -> str:
        """What it is called in messages; another one for every recording."""

    @abstractmethod
    def read(self) -> tuple[Floats, int]:
        """Samples and their rate in Hz. shape: (samples, channels).

        Raises:
            DataError: It cannot be read.
        """

    @abstractmethod
    def seconds(self) -> float:
        """How long it is, as its header says.

        Raises:
            DataError: It cannot be read.
        """

    def __str__(self) -> str:
        return self.name


class _Encoded(HeldRecording):
    """One whose content is that of an audio file."""

    @abstractmethod
    def content(self) -> bytes:
        """The file's bytes."""

    def read(self) -> tuple[Floats, int]:
        return decode_recording(io.BytesIO(self.content()), self.name)

    def seconds(self) -> float:
        try:
            return float(soundfile.info(io.BytesIO(self.content())).duration)
        except soundfile.LibsndfileError as error:
            raise DataError(f"expected a recording, got {self.name}: {error}") from error


@dataclass(frozen=True, slots=True, eq=False)
class EncodedRecording(_Encoded):
    """The bytes of an audio file.

    Attributes:
        place: What it is called.
        encoded: The bytes.
    """

    place: str
    encoded: bytes = field(repr=False)

    @property
    def name(self) -> str:
        """The place."""
        return self.place

    def content(self) -> bytes:
        """The bytes."""
        return self.encoded


@dataclass(frozen=True, slots=True)
class FilePart(_Encoded):
    """An audio file inside another file that does not compress it.

    Attributes:
        file: The file around it.
        member: What it is called there.
        offset: Where it begins, in bytes.
        size: Its bytes.
    """

    file: Path
    member: str
    offset: int
    size: int

    @property
    def name(self) -> str:
        """A path through the file."""
        return f"{self.file}/{self.member}"

    def content(self) -> bytes:
        """The bytes, read anew."""
        try:
            with self.file.open("rb") as opened:
                opened.seek(self.offset)
                content = opened.read(self.size)
        except OSError as error:
            raise DataError(f"expected a recording, got {self.name}: {error}") from error
        return content


def decode_recording(source: Path | io.BytesIO, name: object) -> tuple[Floats, int]:
    """Samples of an audio file and their rate. shape: (samples, channels).

    Args:
        source: The file or its content.
        name: What it is called in an error.

    Raises:
        DataError: It is no recording.
    """
    try:
        samples, rate = soundfile.read(source, dtype="float32", always_2d=True)
    except (OSError, soundfile.LibsndfileError) as error:
        raise DataError(f"expected a recording, got {name}: {error}") from error
    return samples, int(rate)


def recording_path(recording: Path | HeldRecording | None) -> Path | None:
    """A path that names a recording, whether or not there is such a file."""
    return Path(recording.name) if isinstance(recording, HeldRecording) else recording
