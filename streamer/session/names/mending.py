"""A text as it would be with the glossary's spelling of the names that only sounded like it.

What the transcript has stays what it is, and so do all offsets into it. The mended text is told
beside it, with the same entities at their places there.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from msgspec import UNSET, structs

from cnerta.streamer.wire.parts import Entity, MendedText

__all__ = ["mend"]


@dataclass(frozen=True, slots=True)
class _Place:
    """A name that is written anew, half-open in the text and in the mended text."""

    start: int
    end: int
    new_start: int
    new_end: int


def mend(
    text: str, entities: Sequence[Entity], characters: Sequence[tuple[int, int]] = ()
) -> MendedText | None:
    """Write all names anew that the glossary spells otherwise; None if there is none.

    Of a name inside another one that is written anew, too, the outer one counts.

    Args:
        text: As the client sent it.
        entities: What was found in it, nested or apart.
        characters: [start_ms, end_ms] of each code point of the text, or nothing. A mended name of
            another length has its time spread evenly.
    """
    places: list[_Place] = []
    parts: list[str] = []
    at = length = 0
    for entity in sorted(entities, key=lambda e: (e.start, -e.end)):
        if entity.suggested_text is UNSET or entity.start < at:
            continue
        parts += [text[at : entity.start], entity.suggested_text]
        new_start = length + entity.start - at
        length = new_start + len(entity.suggested_text)
        places.append(_Place(entity.start, entity.end, new_start, length))
        at = entity.end
    if not places:
        return None
    mended = "".join([*parts, text[at:]])
    return MendedText(
        text=mended,
        entities=_moved(mended, entities, places),
        characters=_times(characters, places) if characters else [],
    )


def _moved(mended: str, entities: Sequence[Entity], places: Sequence[_Place]) -> list[Entity]:
    """The entities at their places in the mended text."""
    starts = [place.start for place in places]
    utf16 = _Utf16(mended)
    parents = {entity.id: entity.parent for entity in entities}
    moved: list[Entity] = []
    kept: set[str] = set()
    for entity in entities:
        start, end = (_moved_to(at, places, starts) for at in (entity.start, entity.end))
        if start is None or end is None:
            continue
        kept.add(entity.id)
        text = mended[start:end]
        moved.append(
            structs.replace(
                entity,
                text=text,
                start=start,
                end=end,
                start_utf16=utf16(start),
                end_utf16=utf16(end),
                suggested_text=UNSET,
                original_text=UNSET if text == entity.text else entity.text,
            )
        )

    def around(entity: Entity) -> str | None:
        parent = entity.parent
        while parent is not None and parent not in kept:
            parent = parents.get(parent)
        return parent

    return [structs.replace(entity, parent=around(entity)) for entity in moved]


def _moved_to(at: int, places: Sequence[_Place], starts: Sequence[int]) -> int | None:
    """Where an offset is in the mended text; None inside a name of another length."""
    number = bisect_right(starts, at) - 1
    if number < 0:
        return at
    place = places[number]
    if at >= place.end:
        return at - place.end + place.new_end
    if at == place.start or place.end - place.start == place.new_end - place.new_start:
        return place.new_start + at - place.start
    return None


def _times(
    characters: Sequence[tuple[int, int]], places: Sequence[_Place]
) -> list[tuple[int, int]]:
    """The times of the mended text's characters."""
    times: list[tuple[int, int]] = []
    at = 0
    for place in places:
        times += characters[at : place.start]
        count = place.new_end - place.new_start
        old = characters[place.start : place.end]
        if count == len(old):
            times += old
        else:
            first, last = old[0][0], old[-1][1]
            edges = [first + round(i * (last - first) / count) for i in range(count + 1)]
            times += pairwise(edges)
        at = place.end
    return [*times, *characters[at:]]


class _Utf16:
    """Offsets of a text in UTF-16 units."""

    def __init__(self, text: str) -> None:
        self._wide = [i for i, c in enumerate(text) if ord(c) > 0xFFFF]

    def __call__(self, at: int) -> int:
        return at + bisect_right(self._wide, at - 1)
