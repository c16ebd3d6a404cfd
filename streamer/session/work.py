"""What a session asks of the engine, and what the engine brings back.

There are three lanes, because what is asked for has different rhythms: samples are encoded in the
lane ``audio``, texts are tagged in the lane ``text``, and what has to be done before that, and
takes time in proportion to what a client sends, is done in the lane ``preparation``. A session has
at most one piece of work away in each.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from cnerta.models.runtime.boundaries import LEVELS_PER_FRAME
from cnerta.models.runtime.inference import AcousticState, Tagged
from cnerta.models.runtime.vocabulary import Vocabulary
from cnerta.models.text.normalisation import NormalisedText, normalise
from cnerta.streamer.session.names.glossary import Glossary, GlossaryMatch, GlossaryName
from cnerta.streamer.wire.parts import GlossaryEntry

__all__ = [
    "LANES",
    "CompileWork",
    "EncodeWork",
    "EncodedAudio",
    "Lane",
    "NormaliseWork",
    "Result",
    "TagWork",
    "TaggedText",
    "Work",
    "lane_of",
]

Floats = npt.NDArray[np.float32]
Lane = Literal["audio", "preparation", "text"]
LANES: Final[tuple[Lane, ...]] = ("audio", "preparation", "text")


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
class EncodedAudio:
    """The frames of an :class:`EncodeWork`.

    Attributes:
        frames: shape: (n, width)
        state: For the next chunk; None if the samples were a whole utterance.
    """

    frames: Floats
    state: AcousticState | None


@dataclass(frozen=True, slots=True)
class NormaliseWork:
    """A text that is too long to be normalised in the event loop; the result is what it becomes.

    Attributes:
        text: As the client sent it.
    """

    text: str

    def run(self) -> NormalisedText:
        """Do it."""
        return normalise(self.text)


@dataclass(frozen=True, slots=True)
class CompileWork:
    """Glossary entries to make a :class:`Glossary` of, which is the result.

    Attributes:
        entries: As the client sent them.
        vocabulary: The model's, which knows how characters are pronounced.
    """

    entries: tuple[GlossaryEntry, ...]
    vocabulary: Vocabulary

    def run(self) -> Glossary:
        """Do it.

        Raises:
            ProtocolError: A name cannot be used.
        """
        return Glossary(map(GlossaryName.of, self.entries), self.vocabulary)


@dataclass(frozen=True, slots=True)
class TagWork:
    """A text, or a piece of a long one, to tag.

    Attributes:
        text: Normalised; may be empty.
        frames: Its frames, none for an answer from text alone. shape: (time, width)
        first_frame: Number of the first frame in the stream.
        end_frame: One past the last that the answer is about; silence at the end is left out of
            ``frames``.
        wants_readings: Tell how characters with several pronunciations were read.
        levels: How loud the samples of the frames are, see
            :func:`cnerta.models.runtime.boundaries.sound_levels`. shape: (time, LEVELS_PER_FRAME)
        glossary: Names to look for in the text; None: none.
        is_alone: Not in a batch with others: it has failed before.
    """

    text: str
    frames: Floats
    first_frame: int
    end_frame: int = 0
    wants_readings: bool = False
    levels: Floats = field(default_factory=lambda: np.zeros((0, LEVELS_PER_FRAME), np.float32))
    glossary: Glossary | None = None
    is_alone: bool = False

    @property
    def has_audio(self) -> bool:
        """Whether the answer will be from audio and text, not from text alone."""
        return len(self.frames) > 0


@dataclass(frozen=True, slots=True)
class TaggedText:
    """What was found in the text of a :class:`TagWork`.

    Attributes:
        length: Characters of the text.
        tagged: What the model said.
        names: Names of the glossary that the text has, or sounds like.
    """

    length: int
    tagged: Tagged
    names: tuple[GlossaryMatch, ...] = ()


Work = EncodeWork | NormaliseWork | CompileWork | TagWork
Result = EncodedAudio | NormalisedText | Glossary | TaggedText


def lane_of(work: Work) -> Lane:
    """The lane that a piece of work is done in."""
    match work:
        case EncodeWork():
            return "audio"
        case TagWork():
            return "text"
        case NormaliseWork() | CompileWork():
            return "preparation"
