"""What was found in one utterance, for whoever has all of it at once."""

from __future__ import annotations

import html
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from cnerta.models.label_colours import label_colour
from cnerta.streamer.wire.parts import CharacterReading, Entity

__all__ = ["TaggedUtterance"]

_LINE_EM = 0.12
_GAP_EM = 0.18


@dataclass(frozen=True, slots=True, repr=False)
class TaggedUtterance:
    """The entities of one text, with its recording or without.

    Iterating over it gives the entities; a notebook draws it, and as a string it is its text with
    the entities in brackets: ``[ORG [LOC 北京]大学]``.

    Attributes:
        text: As it was given.
        entities: In the order of the text, an outer one before those within it. ``start`` and
            ``end`` are code points of ``text``, ``start_ms`` and ``end_ms`` times in the recording.
        characters: Start and end of each character of the text in milliseconds; empty without
            audio.
        audio_used: Whether the recording was used. It is not where it is missing, or not of the
            text.
        readings: How characters with several pronunciations were read; empty unless asked for.
    """

    text: str
    entities: tuple[Entity, ...]
    characters: tuple[tuple[int, int], ...]
    audio_used: bool
    readings: tuple[CharacterReading, ...] = ()

    def __iter__(self) -> Iterator[Entity]:
        return iter(self.entities)

    def __len__(self) -> int:
        return len(self.entities)

    def __str__(self) -> str:
        parts: list[str] = []
        for at, character in enumerate([*self.text, ""]):
            parts += [
                *("]" for entity in self if entity.end == at),
                *(f"[{entity.label} " for entity in self if entity.start == at),
                character,
            ]
        return "".join(parts)

    def __repr__(self) -> str:
        return f"<TaggedUtterance {self}>"

    def _repr_html_(self) -> str:
        """The text with its entities underlined, as notebooks show it."""
        edges = {0, len(self.text), *(e.start for e in self), *(e.end for e in self)}
        pieces = [self._piece(start, end) for start, end in pairwise(sorted(edges))]
        return f'<p lang="zh" style="line-height:2.6">{"".join(pieces)}</p>'

    def _piece(self, start: int, end: int) -> str:
        """A stretch of text in which no entity begins or ends."""
        drawn = html.escape(self.text[start:end])
        for entity in reversed([e for e in self if e.start <= start and end <= e.end]):
            colour = label_colour(entity.label).on_paper
            label, title = html.escape(entity.label), html.escape(f"{entity.confidence:.0%}")
            name = f'<sub style="color:{colour}">{label}</sub>' if entity.end == end else ""
            drawn = (
                f'<span title="{label} {title}" style="border-bottom:{_LINE_EM}em solid {colour};'
                f'padding-bottom:{_GAP_EM * self._lines_above(entity):.2f}em">{drawn}{name}</span>'
            )
        return drawn

    def _lines_above(self, entity: Entity) -> int:
        """How many lines lie between an entity's text and its own line."""
        inner = [e for e in self if e.parent == entity.id]
        return 1 + max(map(self._lines_above, inner)) if inner else 0
