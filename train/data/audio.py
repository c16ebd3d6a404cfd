"""Recordings to samples, and what training does to them."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soxr

from cnerta.models.errors import DataError
from cnerta.models.runtime.geometry import SAMPLE_RATE
from cnerta.train.data.held import HeldRecording, decode_recording
from cnerta.train.data.recordings import archive_of, read_members, recording_seconds
from cnerta.train.data.sample_store import SampleStore
from cnerta.train.data.segments import read_segment, segment_of

__all__ = ["AudioCache", "change_speed", "read_audio"]

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int16]


def read_audio(path: Path | HeldRecording) -> Floats:
    """Read a recording of any rate and channel count as 16 kHz mono.

    Args:
        path: A file, a path through an archive (see :mod:`cnerta.train.data.recordings`), a
            stretch of a file (see :mod:`cnerta.train.data.segments`), or what is no file of its
            own (see :mod:`cnerta.train.data.held`).

    Returns:
        Samples from -1 to 1. shape: (samples,)

    Raises:
        DataError: The file is missing, unreadable or empty.
    """
    if isinstance(path, HeldRecording):
        return _as_mono(*path.read(), path)
    segment = segment_of(path)
    if segment is not None:
        return _as_mono(*read_segment(segment), path)
    archive = archive_of(path)
    if archive is None:
        return _decode(path, path)
    member = path.relative_to(archive).as_posix()
    for _, content in read_members(archive, {member}):
        return _decode(io.BytesIO(content), path)
    raise DataError(f"expected a recording, got {path}: the archive has none of that name")


def _decode(source: Path | io.BytesIO, path: Path) -> Floats:
    return _as_mono(*decode_recording(source, path), path)


def _as_mono(samples: Floats, rate: int, path: Path | HeldRecording) -> Floats:
    if not len(samples):
        raise DataError(f"expected a recording, got {path}, which has no samples")
    mono = samples.mean(axis=1)
    if rate != SAMPLE_RATE:
        mono = soxr.resample(mono, rate, SAMPLE_RATE)
    clipped: Floats = np.clip(mono, -1.0, 1.0).astype(np.float32)
    return clipped


class AudioCache:
    """Decoded recordings as 16-bit integers, in memory or on disk (115 MB an hour).

    What is no file of its own is decoded anew each time and not kept.

    Args:
        folder: Keep them on disk here, for later runs and other processes; None: in memory.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder
        self.store = None if folder is None else SampleStore(folder)
        self._samples: dict[Path, Integers] = {}
        self._seconds: dict[Path, float] = {}
        self._expected: dict[Path, set[str]] = {}
        self._archive_lock = threading.Lock()

    def expect(self, recordings: Iterable[Path | HeldRecording]) -> None:
        """Announce recordings that will be requested.

        An archive is read from front to back, so all that is wanted of it is decoded together: of
        what was not expected, that is everything.
        """
        for recording in recordings:
            if isinstance(recording, HeldRecording):
                continue
            archive = archive_of(recording)
            if archive is not None:
                member = recording.relative_to(archive).as_posix()
                self._expected.setdefault(archive, set()).add(member)

    def __call__(self, path: Path | HeldRecording) -> Floats:
        """Samples of a recording, -1 to 1. shape: (samples,)."""
        if isinstance(path, HeldRecording):
            return read_audio(path)
        kept = self._kept(path)
        if kept is None:
            archive = archive_of(path)
            if archive is None:
                kept = self._keep(path, read_audio(path))
            else:
                kept = self._from_archive(archive, path)
        samples: Floats = kept.astype(np.float32) / np.float32(32767)
        return samples

    def _kept(self, path: Path) -> Integers | None:
        return self._samples.get(path) if self.store is None else self.store.get(path)

    def _keep(self, path: Path, samples: Floats) -> Integers:
        integers = np.round(samples * 32767).astype(np.int16)
        if self.store is None:
            self._samples[path] = integers
        else:
            self.store.put(path, integers)
        return integers

    def _from_archive(self, archive: Path, path: Path) -> Integers:
        """Decode what is wanted of an archive; returns the one recording that was asked for."""
        # Several threads may need one archive: one of them reads it for all.
        with self._archive_lock:
            found = self._kept(path)
            if found is not None:
                return found
            members = self._expected.get(archive)
            if members is not None and path.relative_to(archive).as_posix() not in members:
                members = None
            for member, content in read_members(archive, members):
                recording = archive / member
                if recording == path:
                    found = self._keep(path, _decode(io.BytesIO(content), path))
                elif self._kept(recording) is None:
                    self._keep(recording, _decode(io.BytesIO(content), recording))
        if found is None:
            raise DataError(f"expected a recording, got {path}: the archive has none of that name")
        return found

    def seconds(self, path: Path | HeldRecording) -> float:
        """Duration as the file's header says, whether or not it was decoded.

        The decoded length can differ by a little, and batches are planned by duration: a resumed
        run, which has decoded nothing yet, must plan as the run before it did.
        """
        if isinstance(path, HeldRecording):
            return path.seconds()
        if path not in self._seconds:
            self._seconds[path] = recording_seconds(path, self.folder)
        return self._seconds[path]


def change_speed(samples: Floats, factor: float) -> Floats:
    """Play faster (factor above 1) or slower, pitch included (Ko et al. 2015)."""
    if factor == 1.0:
        return samples
    changed = soxr.resample(samples, SAMPLE_RATE * factor, SAMPLE_RATE, quality="MQ")
    return np.asarray(changed, np.float32)
