"""Decoded recordings on disk, for several runs and processes at once.

What is kept is samples and not filter-bank energies: speed, loudness and joining change samples,
and an hour of energies is as large, and computed in 1.7 s on one core: nothing beside training.
"""

from __future__ import annotations

import hashlib
import logging
import struct
import zlib
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt
import soundfile
import soxr

from cnerta.models.errors import DataError
from cnerta.models.files import write_atomically
from cnerta.models.runtime.geometry import SAMPLE_RATE
from cnerta.train.data.recordings import archive_of
from cnerta.train.data.segments import segment_of

__all__ = ["SampleStore"]

logger = logging.getLogger(__name__)

# To be raised when decoding changes.
_VERSION = 1
_HEADER = struct.Struct("<4sIQ")
_MAGIC = b"cn16"
_SUFFIX = ".samples"

Integers = npt.NDArray[np.int16]


class SampleStore:
    """A folder of 16 kHz samples, one file a recording.

    A file is named by a hash of what it depends on: the recording's place, size and time of change,
    and how it is decoded. It carries its length and a checksum. Writers may be many: a file appears
    whole or not at all.

    Args:
        folder: Made if it is not there.

    Raises:
        DataError: The folder cannot be made.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(f"expected a folder for a cache, got {folder}: {error}") from error

    def get(self, recording: Path) -> Integers | None:
        """Samples of a recording; None if they are not here or damaged. shape: (samples,)."""
        path = self._path(recording)
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return None
        samples = _unpack(content)
        if samples is None:
            logger.warning("%s is damaged: %s is decoded again", path, recording)
        return samples

    def put(self, recording: Path, samples: Integers) -> None:
        """Keep samples.

        Raises:
            DataError: The disk is full, or the folder may not be written.
        """
        path = self._path(recording)
        payload = np.ascontiguousarray(samples, "<i2").tobytes()
        header = _HEADER.pack(_MAGIC, zlib.crc32(payload), len(samples))
        try:
            path.parent.mkdir(exist_ok=True)
            write_atomically(path, header + payload)
        except OSError as error:
            raise DataError(
                f"expected to write to the cache {self.folder}, got: {error}"
            ) from error

    def size(self) -> tuple[int, int]:
        """How many recordings are kept, and their bytes."""
        sizes = [f.stat().st_size for f in self.folder.glob(f"*/*{_SUFFIX}")]
        return len(sizes), sum(sizes)

    def _path(self, recording: Path) -> Path:
        segment = segment_of(recording)
        file = segment.recording if segment else archive_of(recording) or recording
        try:
            about = file.stat()
        except OSError as error:
            raise DataError(f"expected a recording, got {recording}: {error}") from error
        key = [
            _VERSION,
            SAMPLE_RATE,
            soxr.__version__,
            soundfile.__libsndfile_version__,
            str(recording.absolute()),
            about.st_size,
            about.st_mtime_ns,
        ]
        digest = hashlib.sha256(msgspec.json.encode(key)).hexdigest()[:40]
        return self.folder / digest[:2] / f"{digest[2:]}{_SUFFIX}"


def _unpack(content: bytes) -> Integers | None:
    if len(content) < _HEADER.size:
        return None
    magic, checksum, count = _HEADER.unpack_from(content)
    payload = memoryview(content)[_HEADER.size :]
    if magic != _MAGIC or len(payload) != 2 * count or zlib.crc32(payload) != checksum:
        return None
    return np.frombuffer(payload, "<i2").astype(np.int16, copy=False)
