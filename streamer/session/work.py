"""What a session asks of the engine: samples to encode, texts to tag."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from cnerta.models.runtime.boundaries import LEVELS_PER_FRAME
from cnerta.models.runtime.decoding import SpanHint
from cnerta.models.runtime.inference import AcousticState
from cnerta.streamer.session.glossary import GlossaryMatch

__all__ = ["EncodeWork", "TagWork"]

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class EncodeWork:
    """Samples to encode.

    Attributes:
        samples: 16 kHz, -1 to 1. shape: (n * hop_samples,)
        state: What the last chunk left; None if the samples are a whole utterance.
    """

    samples: Floats
    state: AcousticState | None


@dataclass(frozen=True, slots=True)
class TagWork:
    """A revision to tag.

    Attributes:
        texts: The normalised text, in pieces if the model cannot take it whole; none if empty.
        frames: Frames for each piece. shape of each: (time, width)
        first_frame: Number of the first frame in the stream.
        end_frame: One past the last that was listened to; silence at the end is left out.
        wants_readings: Tell how characters with several pronunciations were read.
        levels: How loud the samples of the frames are, see
            :func:`cnerta.models.runtime.boundaries.sound_levels`. shape: (time, LEVELS_PER_FRAME)
        hints: What the client's glossary speaks for in each text; none at all if in none.
        names: The names of the glossary that were found, in the characters of all texts together.
    """

    texts: tuple[str, ...]
    frames: tuple[Floats, ...]
    first_frame: int
    end_frame: int = 0
    wants_readings: bool = False
    levels: Floats = field(default_factory=lambda: np.zeros((0, LEVELS_PER_FRAME), np.float32))
    hints: tuple[tuple[SpanHint, ...], ...] = ()
    names: tuple[GlossaryMatch, ...] = ()

    @property
    def has_audio(self) -> bool:
        """Whether the answer will be from audio and text, not from text alone."""
        return any(len(f) for f in self.frames)
