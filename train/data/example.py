"""One utterance with what is known of it, and how a model sees it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from cnerta.models.runtime.labels import Span
from cnerta.models.text.normalisation import NormalisedText, normalise
from cnerta.train.data.held import HeldRecording

__all__ = ["Example", "normalise_example"]


@dataclass(frozen=True, slots=True)
class Example:
    """One utterance.

    Attributes:
        text: Transcript; empty where only the pronunciation is known.
        spans: Annotated entities; None where there is no annotation.
        audio: Recording; None for text only.
        times_ms: Start and end of each character; None where unknown.
        readings: Pinyin of each character, tone digit last; None where unknown.
        breaks: How strong a boundary is heard after each character, 0 to 4; None where unknown.
        isolated: The recording holds this one word and silence around it, so its loud part shows
            roughly where the characters are (see
            :func:`cnerta.train.batches.flat_start.isolated_times`).
        name: The recording's, whether it is used or not; empty where there is none.
        speaker: Who speaks; empty where unknown.
        corpus: A character before the text that tells by whose conventions it is annotated; empty
            for those that the model is to have.
        duplicates: Entities that the annotation has more than once, counted beyond the first.
    """

    text: str
    spans: tuple[Span, ...] | None
    audio: Path | HeldRecording | None = None
    times_ms: tuple[tuple[float, float], ...] | None = None
    readings: tuple[str, ...] | None = None
    breaks: tuple[int, ...] | None = None
    isolated: bool = False
    name: str = ""
    speaker: str = ""
    corpus: str = ""
    duplicates: int = 0


def normalise_example(example: Example) -> Example:
    """The example as a model sees it: normalised characters, and what belongs to them.

    Entities that hold no spoken character at all are left out. A token that is said in other
    characters than it is written in has its time spread evenly over them; what their readings are
    is not known, so then the example has none.
    """
    normalised = normalise(example.text)
    if normalised.text == example.text:
        return example
    spans = None
    if example.spans is not None:
        ranges = [(*normalised.normalised_range(s.start, s.end), s.label) for s in example.spans]
        spans = tuple(sorted({Span(s, e, label) for s, e, label in ranges if s < e}))
    kept = normalised.offsets.tolist()
    times, readings = example.times_ms, example.readings
    if not all(map(normalised.is_plain, range(len(kept)))):
        readings = None
    return replace(
        example,
        text=normalised.text,
        spans=spans,
        times_ms=None if times is None else _spread(times, normalised),
        readings=None if readings is None else tuple(readings[i] for i in kept),
        breaks=None if example.breaks is None else _last_of_each(example.breaks, normalised),
    )


def _spread(
    times: Sequence[tuple[float, float]], text: NormalisedText
) -> tuple[tuple[float, float], ...]:
    """Start and end of each normalised character, from those of the original ones."""
    spread: list[tuple[float, float]] = []
    while (first := len(spread)) < len(text.text):
        start, end = text.original_range(first, first + 1)
        count = text.normalised_range(start, end)[1] - first
        begin, stop = times[start][0], times[end - 1][1]
        edges = [begin + i * (stop - begin) / count for i in range(count)] + [stop]
        spread += pairwise(edges)
    return tuple(spread)


def _last_of_each(breaks: Sequence[int], text: NormalisedText) -> tuple[int, ...]:
    """The boundary after each normalised character: inside a token there is none."""
    levels = []
    for i in range(len(text.text)):
        start, end = text.original_range(i, i + 1)
        ends = text.normalised_range(start, end)[1] == i + 1
        levels.append(breaks[end - 1] if ends else 0)
    return tuple(levels)
