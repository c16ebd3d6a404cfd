"""A stretch of a recording, named by a path like one through an archive.

``call.wav/1.250-3.500.segment`` is what is said in ``call.wav`` from 1.25 s to 3.5 s. So a corpus
that marks utterances in long recordings needs no files of its own for them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import soundfile

from cnerta.models.errors import DataError

__all__ = ["Segment", "read_segment", "segment_of", "segment_path"]

_NAME: Final = re.compile(r"(\d+(?:\.\d+)?)-(\d+(?:\.\d+)?)\.segment")


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of a recording.

    Attributes:
        recording: The file.
        start: In seconds.
        end: In seconds.
    """

    recording: Path
    start: float
    end: float

    @property
    def seconds(self) -> float:
        """How long it is."""
        return self.end - self.start


def segment_path(recording: Path, start: float, end: float) -> Path:
    """The path that names a stretch of a recording, to the millisecond.

    Raises:
        DataError: It is empty, or begins before the recording does.
    """
    if not 0 <= start < end:
        raise DataError(f"expected a stretch of {recording}, got {start:g} s to {end:g} s")
    return recording / f"{start:.3f}-{end:.3f}.segment"


def segment_of(path: Path) -> Segment | None:
    """What such a path names; None for any other path."""
    match = _NAME.fullmatch(path.name)
    return Segment(path.parent, float(match[1]), float(match[2])) if match else None


def read_segment(segment: Segment) -> tuple[npt.NDArray[np.float32], int]:
    """Its samples, without reading the rest of the recording, and their rate.

    Returns:
        shape: (samples, channels), and Hz.

    Raises:
        DataError: There is no such recording, or it is shorter.
    """
    try:
        with soundfile.SoundFile(segment.recording) as file:
            rate = int(file.samplerate)
            # Corpora round ends up: what is missing of the last tenth of a second is silence.
            if segment.end * rate > file.frames + rate / 10:
                raise DataError(
                    f"expected {segment.recording} to last {segment.end:g} s, got "
                    f"{file.frames / rate:g} s"
                )
            file.seek(min(round(segment.start * rate), file.frames))
            samples = file.read(round(segment.seconds * rate), dtype="float32", always_2d=True)
    except (OSError, soundfile.LibsndfileError) as error:
        raise DataError(f"expected a recording, got {segment.recording}: {error}") from error
    return samples, rate
