"""From what the tagger said of a revision to the answer on the stream's clock."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from cnerta.models.runtime.boundaries import character_times
from cnerta.models.runtime.decoding import ScoredSpan, whole_tokens
from cnerta.models.runtime.geometry import FrameGeometry
from cnerta.models.runtime.readings import CharacterReading
from cnerta.streamer.session.names.glossary import GlossaryMatch
from cnerta.streamer.session.revision import TaggedRevision
from cnerta.streamer.wire.parts import TimeSource

__all__ = ["Answer", "CharacterTimes", "make_answer", "spread_times"]

CharacterTimes = tuple[tuple[int, int], ...]
"""[start_ms, end_ms] of each character."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the tagger said of a revision, in normalised characters, on the stream's clock.

    Attributes:
        found: All entities in priority order.
        times: Of each normalised character, or none.
        time_source: Where the times are from.
        encoded_ms: End of the audio that the answer is based on; None if on none.
        readings: How characters with several pronunciations were read; None: not asked.
        names: Names of the client's glossary that the text has, or sounds like.
    """

    found: tuple[ScoredSpan, ...]
    times: CharacterTimes
    time_source: TimeSource
    encoded_ms: float | None
    readings: tuple[CharacterReading, ...] | None = None
    names: tuple[GlossaryMatch, ...] = ()

    def name_of(self, span: ScoredSpan) -> GlossaryMatch | None:
        """The name of the glossary that an entity is, if it is one."""
        return next(
            (
                match
                for match in self.names
                if (match.start, match.end, match.name.label) == (span.start, span.end, span.label)
            ),
            None,
        )


def make_answer(
    tagged: TaggedRevision, given_ms: tuple[int | None, int | None], geometry: FrameGeometry
) -> Answer:
    """Put a result on the stream's clock, and its pieces together.

    Args:
        tagged: The result.
        given_ms: Where the utterance begins and ends by its transcript, on the stream's clock.
        geometry: The model's frames.
    """
    work, alignment = tagged.work, tagged.alignment
    encoded_ms = work.end_frame * geometry.frame_ms if work.has_audio else None
    text = tagged.revision.normalised
    spans, names = _joined(tagged)
    found = whole_tokens(spans, text)
    if alignment is not None:
        exact = character_times(alignment, work.first_frame, work.levels, geometry)
        times = tuple((start, end) for start, end in np.rint(exact).astype(int).tolist())
        readings = tagged.pieces[0].tagged.readings if work.wants_readings else None
        return Answer(found, times, "alignment", encoded_ms, readings, names)
    times = spread_times(*given_ms, len(text.text))
    source: TimeSource = "transcript" if times else "none"
    return Answer(found, times, source, encoded_ms, () if work.wants_readings else None, names)


def spread_times(start_ms: int | None, end_ms: int | None, length: int) -> CharacterTimes:
    """Characters spread evenly over a transcript's own times, if it has both."""
    if start_ms is None or end_ms is None or not length:
        return ()
    edges = [start_ms + round(i * (end_ms - start_ms) / length) for i in range(length + 1)]
    return tuple(pairwise(edges))


def _joined(tagged: TaggedRevision) -> tuple[list[ScoredSpan], tuple[GlossaryMatch, ...]]:
    """Entities and names of all pieces, in the characters of the whole text."""
    if len(tagged.pieces) == 1:
        (piece,) = tagged.pieces
        return list(piece.tagged.spans), piece.names
    spans: list[ScoredSpan] = []
    names: list[GlossaryMatch] = []
    offset = 0
    for piece in tagged.pieces:
        spans += [
            replace(s, start=s.start + offset, end=s.end + offset) for s in piece.tagged.spans
        ]
        names += [replace(m, start=m.start + offset, end=m.end + offset) for m in piece.names]
        offset += piece.length
    return spans, tuple(names)
