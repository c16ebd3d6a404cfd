"""How much of an unfinished utterance may be shown: what is settled, or has been held long enough.

For whoever must not show a name before it is known to be one. Of the text that was answered last, a
beginning is *released*. A character is released when it is settled,

* within entities: when all of them are stable,
* outside: when as many answers in a row as make an entity stable found none there, and
  ``edge_characters`` follow it, so that a name that begins with it would have been seen whole,

or when it has been there for ``hold_ms``; and when all characters before it are. An entity is never
released in part: where it begins in the released text, it is released to its end, and so told
together with its characters. What is released stays so, as long as the character is still there:
only exchanged characters are held anew.

Offsets are code points of the text as the client sent it. No I/O; the time is passed in.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from cnerta.models.runtime.labels import Span
from cnerta.streamer.session.span_matching import compare_texts
from cnerta.streamer.session.stabiliser import StabiliserOptions
from cnerta.streamer.wire.messages import CaptionUpdate
from cnerta.streamer.wire.parts import Entity

__all__ = ["EDGE_CHARACTERS", "HeldText"]

EDGE_CHARACTERS: Final = 4
"""Measured in ``tests/benchmarks/hold_back.py``."""

_Reading = tuple[tuple[str, int, int], ...]
"""The entities around a character: label, and how far they reach before and after it."""


@dataclass(slots=True)
class _Character:
    """A character of the text that was answered last.

    Attributes:
        since: When the revision came that brought it, in seconds.
        reading: The entities around it.
        agreements: Answers in a row with this reading.
    """

    since: float
    reading: _Reading
    agreements: int = 1


@dataclass(slots=True)
class HeldText:
    """The text of one utterance that was answered last, and how much of it is released."""

    _revision: int = 0
    _text: str = ""
    _characters: list[_Character] = field(default_factory=list)
    _released: int = 0
    _told: tuple[object, ...] | None = None

    def __len__(self) -> int:
        return len(self._characters)

    def answered(
        self, revision: int, text: str, entities: Sequence[Entity], arrived: float
    ) -> None:
        """Take a text with the entities that were found in it.

        Args:
            revision: Its number.
            text: As the client sent it.
            entities: All of them, tentative ones too.
            arrived: When it came, in seconds.
        """
        readings: list[list[tuple[str, int, int]]] = [[] for _ in text]
        for entity in entities:
            for i in range(entity.start, entity.end):
                readings[i].append((entity.label, i - entity.start, entity.end - i))
        characters = [_Character(arrived, tuple(sorted(each))) for each in readings]
        change = compare_texts(self._text, text)
        was_released = [False] * len(text)
        for i, (before, place) in enumerate(zip(self._characters, change.places, strict=True)):
            if place is None or not change.kept[i]:
                continue
            now = characters[place]
            now.since = before.since
            was_released[place] = i < self._released
            if now.reading == before.reading:
                now.agreements = before.agreements + 1
        self._revision, self._text, self._characters = revision, text, characters
        self._released = next((i for i, was in enumerate(was_released) if not was), len(text))

    def release(
        self,
        utterance: str,
        entities: Sequence[Entity],
        stabiliser: StabiliserOptions,
        hold_ms: int,
        now: float,
    ) -> CaptionUpdate | None:
        """Release what may be; nothing if there is no news.

        Args:
            utterance: Whose text it is.
            entities: Those of the text that was answered last, as they are now.
            stabiliser: When an entity is stable.
            hold_ms: How long a character is held at most.
            now: In seconds.
        """
        tentative = _merged(Span(e.start, e.end, "") for e in entities if e.status == "tentative")
        starts = [span.start for span in tentative]
        while self._released < len(self._text):
            at = self._released
            character = self._characters[at]
            is_old = 1000 * (now - character.since) >= hold_ms
            if not is_old and not self._is_settled(at, character, tentative, starts, stabiliser):
                break
            self._released += 1
        end = self._released
        inside: list[Entity] = []
        for entity in sorted(entities, key=lambda e: (e.start, -e.end)):
            if entity.start >= end:
                break
            inside.append(entity)
            end = max(end, entity.end)
        shown = tuple((e.id, e.version, e.label, e.start, e.end, e.status) for e in inside)
        news = (self._text[:end], shown, len(self._text) - end)
        if news == (self._told or ("", (), 0)):
            return None
        self._told = news
        return CaptionUpdate(
            utterance=utterance,
            revision=self._revision,
            text=self._text[:end],
            entities=inside,
            held=len(self._text) - end,
        )

    def tell_again(self) -> None:
        """What was told may not have arrived."""
        self._told = None

    def withdraw(self, utterance: str) -> CaptionUpdate | None:
        """The utterance is forgotten: nothing of it is to be shown; nothing if nothing is."""
        if self._told is None or not self._told[0]:
            return None
        self._told = None
        return CaptionUpdate(
            utterance=utterance, revision=self._revision, text="", entities=[], held=0
        )

    def _is_settled(
        self,
        at: int,
        character: _Character,
        tentative: Sequence[Span],
        starts: Sequence[int],
        stabiliser: StabiliserOptions,
    ) -> bool:
        if character.reading:
            before = bisect_right(starts, at) - 1
            return before < 0 or tentative[before].end <= at
        return (
            character.agreements >= stabiliser.agreeing_revisions
            and len(self._text) - at - 1 >= EDGE_CHARACTERS
        )


def _merged(spans: Iterable[Span]) -> list[Span]:
    """Spans that overlap as one, in order."""
    merged: list[Span] = []
    for span in sorted(spans):
        if merged and span.start < merged[-1].end:
            last = merged.pop()
            span = Span(last.start, max(last.end, span.end), "")
        merged.append(span)
    return merged
