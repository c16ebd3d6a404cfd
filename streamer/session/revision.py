"""A transcript on its way to its answer: which audio it is answered from, and how far it has come.

An interim revision goes round once. A final whose audio is not where its times say goes round up
to three times, and which round it is in is its :data:`AudioScope`::

    timed ──does not fit, or was cut off──► unassigned ──does not fit──► none
      └──────────────────does not fit, nothing unassigned────────────────►┘
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal, Self

from msgspec import UNSET, UnsetType

from cnerta.models.runtime.alignment import Alignment
from cnerta.models.text.normalisation import NormalisedText
from cnerta.streamer.session.work import TaggedText, TagWork
from cnerta.streamer.wire.messages import Transcript

__all__ = ["AudioScope", "PendingRevision", "TaggedRevision"]

AudioScope = Literal["timed", "unassigned", "none"]
"""Which audio a revision is answered from: what its times say (all unassigned audio if it has
none), all audio since the last final utterance whatever its times say, or none."""


@dataclass(frozen=True, slots=True)
class PendingRevision:
    """A transcript that has not been answered.

    Attributes:
        message: As it came.
        text: Its normalised text; None as long as that is not worked out.
        arrived: When, in seconds.
        received_ms: Audio that had been received by then.
        audio_end_ms: As much of it as is wanted for the answer.
        scope: Which audio.
        earlier: What was found at the given times, while unassigned audio is tried.
        pieces: Of a text that is too long for the model: what was found in its first pieces.
        failures: How often the engine could not do it.
    """

    message: Transcript
    text: NormalisedText | None
    arrived: float
    received_ms: float
    audio_end_ms: float
    scope: AudioScope = "timed"
    earlier: TaggedRevision | None = None
    pieces: tuple[TaggedText, ...] = ()
    failures: int = 0

    @property
    def is_final(self) -> bool:
        """Whether the utterance ends with it."""
        return self.message.final

    @property
    def has_times(self) -> bool:
        """Whether the client said where its audio begins or ends."""
        return self.message.start_ms is not None or self.message.end_ms is not None

    @property
    def speaker(self) -> str | UnsetType:
        """Who speaks, by the transcript; unset if it does not say."""
        return self.message.speaker or UNSET

    @property
    def channel(self) -> int | UnsetType:
        """In which channel, by the transcript; unset if it does not say."""
        return UNSET if self.message.channel is None else self.message.channel

    @property
    def normalised(self) -> NormalisedText:
        """Its text, once it is there."""
        assert self.text is not None, "expected a text that is normalised"
        return self.text

    def widened(self, earlier: TaggedRevision) -> Self:
        """The next round: all audio that no utterance was assigned."""
        return replace(
            self, scope="unassigned", audio_end_ms=self.received_ms, earlier=earlier, pieces=()
        )

    def without_audio(self) -> Self:
        """The last round: from text alone."""
        return replace(self, scope="none", earlier=None, pieces=())

    def behind_live_ms(self, encoded_ms: float | None, now: float) -> int:
        """Age of the newest text and audio that an answer given now is based on.

        The time since the transcript came, and the audio that had come before it but was not
        encoded yet.

        Args:
            encoded_ms: End of the audio that the answer is based on, None if on none.
            now: In seconds.
        """
        missing_ms = 0.0 if encoded_ms is None else max(0.0, self.audio_end_ms - encoded_ms)
        return max(0, round(1000 * (now - self.arrived) + missing_ms))


@dataclass(frozen=True, slots=True)
class TaggedRevision:
    """What the tagger said of a revision.

    Attributes:
        revision: The revision.
        work: What the tagger was given; of a long text, its last piece.
        pieces: What it said of each piece; one, unless the text is too long for the model.
    """

    revision: PendingRevision
    work: TagWork
    pieces: tuple[TaggedText, ...]

    @property
    def alignment(self) -> Alignment | None:
        """Frames of each character, counted from ``work.first_frame``; None without audio."""
        return self.pieces[0].tagged.alignment if self.work.has_audio else None

    @property
    def score(self) -> float:
        """How well the audio fits the text."""
        return -math.inf if self.alignment is None else self.alignment.score
