"""Recordings to samples, and what training does to them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile
import soxr

from cnerta.models.errors import DataError
from cnerta.models.geometry import SAMPLE_RATE

__all__ = ["AudioCache", "change_speed", "read_audio"]

Floats = npt.NDArray[np.float32]


def read_audio(path: Path) -> Floats:
    """Read a recording of any rate and channel count as 16 kHz mono.

    Returns:
        Samples from -1 to 1. shape: (samples,)

    Raises:
        DataError: The file is missing, unreadable or empty.
    """
    try:
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except (OSError, soundfile.LibsndfileError) as error:
        raise DataError(f"expected a recording, got {path}: {error}") from error
    if not len(samples):
        raise DataError(f"expected a recording, got {path}, which has no samples")
    mono = samples.mean(axis=1)
    if rate != SAMPLE_RATE:
        mono = soxr.resample(mono, rate, SAMPLE_RATE)
    clipped: Floats = np.clip(mono, -1.0, 1.0).astype(np.float32)
    return clipped


class AudioCache:
    """Decoded recordings in memory as 16-bit integers (115 MB an hour)."""

    def __init__(self) -> None:
        self._samples: dict[Path, npt.NDArray[np.int16]] = {}
        self._seconds: dict[Path, float] = {}

    def __call__(self, path: Path) -> Floats:
        """Samples of a recording, -1 to 1. shape: (samples,)."""
        if path not in self._samples:
            self._samples[path] = np.round(read_audio(path) * 32767).astype(np.int16)
        samples: Floats = self._samples[path].astype(np.float32) / np.float32(32767)
        return samples

    def seconds(self, path: Path) -> float:
        """Duration as the file's header says, whether or not it was decoded.

        The decoded length can differ by a little, and batches are planned by duration: a resumed
        run, which has decoded nothing yet, must plan as the run before it did.
        """
        if path not in self._seconds:
            try:
                self._seconds[path] = float(soundfile.info(path).duration)
            except (OSError, soundfile.LibsndfileError) as error:
                raise DataError(f"expected a recording, got {path}: {error}") from error
        return self._seconds[path]


def change_speed(samples: Floats, factor: float) -> Floats:
    """Play faster (factor above 1) or slower, pitch included (Ko et al. 2015)."""
    if factor == 1.0:
        return samples
    changed = soxr.resample(samples, SAMPLE_RATE * factor, SAMPLE_RATE, quality="MQ")
    return np.asarray(changed, np.float32)
