"""Audio of files that libsndfile does not read, such as M4A, MP4, MKV and WebM, through PyAV.

PyAV (FFmpeg's libraries) is optional: ``pip install 'cnerta-stream[media]'``. It is imported only
when such a file is opened.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from cnerta.streamer.errors import AudioFileError

__all__ = ["MediaFile"]

GAP_S: Final = 0.05
"""Longer gaps between the times of two frames are silence; shorter ones are rounding."""
LONGEST_GAP_S: Final = 6 * 3_600.0


class MediaFile:
    """The first audio track of a file, mixed to one channel.

    Time counts from where the file starts, as for a player: where a film's sound starts later than
    its picture, and where there is a gap, there is silence.

    Args:
        path: The file.

    Raises:
        AudioFileError: PyAV is missing, or it reads no audio in the file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._av = importlib.import_module("av")
        except ImportError as error:
            raise AudioFileError(
                f"expected audio that libsndfile reads (WAV, FLAC, Ogg, MP3, AIFF …) in {path}, "
                "got something else. M4A, MP4, MKV and WebM are read with PyAV: "
                "pip install 'cnerta-stream[media]'"
            ) from error
        with self._opened() as (container, track):
            self.sample_rate: int = track.rate
            microseconds = container.duration
        if microseconds is not None:
            self.duration_ms: float = microseconds / 1_000
        else:  # It was written to a pipe, or is being written.
            samples = sum(len(block) for block in self.blocks())
            self.duration_ms = 1_000 * samples / self.sample_rate

    def blocks(self) -> Iterator[npt.NDArray[np.float32]]:
        """Yield the samples. Each block: float32, (samples,).

        Raises:
            AudioFileError: The file is damaged further in.
        """
        with self._opened() as (container, track):
            same = self._av.AudioResampler(format="fltp", rate=self.sample_rate)
            # Where in the file's time the next sample is; times are those of the first track.
            origin_s = (container.start_time or 0) / self._av.time_base
            samples = 0
            for decoded in container.decode(track):
                if decoded.time is not None:
                    missing_s = decoded.time - origin_s - samples / self.sample_rate
                    if GAP_S < missing_s < LONGEST_GAP_S:
                        gap = round(missing_s * self.sample_rate)
                        samples += gap
                        yield from _silence(gap, self.sample_rate)
                for frame in same.resample(decoded):
                    # shape: (channels, samples)
                    mono = frame.to_ndarray().mean(axis=0, dtype=np.float32)
                    samples += len(mono)
                    yield mono

    @contextlib.contextmanager
    def _opened(self) -> Iterator[tuple[Any, Any]]:
        try:
            with self._av.open(str(self._path), metadata_errors="replace") as container:
                if not container.streams.audio:
                    raise AudioFileError(f"expected audio in {self._path}, got a file without any")
                yield container, container.streams.audio[0]
        except (self._av.FFmpegError, OSError, ValueError) as error:
            raise AudioFileError(
                f"expected audio that FFmpeg or libsndfile reads in {self._path}, got: {error}"
            ) from error


def _silence(samples: int, sample_rate: int) -> Iterator[npt.NDArray[np.float32]]:
    """Yield so much silence, not more than a second at a time."""
    for start in range(0, samples, sample_rate):
        yield np.zeros(min(sample_rate, samples - start), np.float32)
