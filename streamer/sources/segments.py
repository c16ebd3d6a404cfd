"""Cuts audio into utterances where nobody speaks."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

__all__ = ["Segment", "SegmentLimits", "Segmenter"]

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class SegmentLimits:
    """When an utterance begins and ends.

    Attributes:
        begins: Probability of speech from which an utterance begins.
        goes_on: Probability above which it goes on.
        silence_ms: So much without speech ends it.
        speech_ms: What has less speech than this is no utterance.
        margin_ms: Audio kept before the beginning.
        longest_ms: It is cut there at the latest.
    """

    begins: float = 0.5
    goes_on: float = 0.35
    silence_ms: int = 500
    speech_ms: int = 250
    margin_ms: int = 300
    longest_ms: int = 25_000


@dataclass(slots=True)
class Segment:
    """One utterance's audio, as far as it has come.

    Attributes:
        start_sample: Where it starts.
        chunks: Its audio.
        speech_end: Samples of it until the last speech.
        ended: Whether no more will come.
        empty: Whether it has turned out to hold next to no speech.
    """

    start_sample: int
    chunks: list[Floats] = field(default_factory=list)
    speech_end: int = 0
    ended: bool = False
    empty: bool = False

    @property
    def samples(self) -> int:
        """Its length so far."""
        return sum(len(chunk) for chunk in self.chunks)

    def audio(self) -> Floats:
        """Its audio so far. shape: (samples,)."""
        return np.concatenate([np.zeros(0, np.float32), *self.chunks])


class Segmenter:
    """Takes chunks of audio with their probability of speech and finds utterances.

    Args:
        chunk_samples: Length of a chunk.
        sample_rate: In Hz.
        limits: When an utterance begins and ends.
    """

    def __init__(
        self, chunk_samples: int, sample_rate: int, limits: SegmentLimits = SegmentLimits()
    ) -> None:
        def chunks(ms: int) -> int:
            return max(1, round(ms * sample_rate / 1_000 / chunk_samples))

        self._limits = limits
        self._silence = chunks(limits.silence_ms)
        self._speech = chunks(limits.speech_ms)
        self._margin = chunks(limits.margin_ms)
        self._longest = chunks(limits.longest_ms)
        self._before: list[Floats] = []
        self._position = 0
        self._segment: Segment | None = None
        self._spoken = self._quiet = 0

    def add(self, chunk: Floats, probability: float) -> Segment | None:
        """Take the next chunk; what is open grows or ends by it.

        Returns:
            An utterance that begins with this chunk.
        """
        begun = None
        segment = self._segment
        if segment is None and probability >= self._limits.begins:
            lead = sum(len(earlier) for earlier in self._before)
            begun = segment = self._segment = Segment(self._position - lead, list(self._before))
            self._before.clear()
            self._spoken = self._quiet = 0
        self._position += len(chunk)
        if segment is None:
            self._before = [*self._before, chunk][-self._margin :]
            return None
        segment.chunks.append(chunk)
        if probability >= self._limits.goes_on:
            self._spoken, self._quiet = self._spoken + 1, 0
            segment.speech_end = segment.samples
        else:
            self._quiet += 1
        if self._quiet >= self._silence or len(segment.chunks) >= self._longest:
            self.end()
        return begun

    def end(self) -> None:
        """End what is open, if anything is."""
        if self._segment is not None:
            self._segment.empty = self._spoken < self._speech
            self._segment.ended = True
            self._segment = None
