"""How far the transcript's clock is off from the clock of the received audio.

A recogniser may have begun to count earlier or later than we did: all its times are then off by
one constant. Every utterance whose audio was found tells where its text really was, and so which
offsets would put its given times around it: an interval, because recognisers give times with some
silence on either side. Where the intervals of most recent utterances meet is the offset (the
interval intersection of Marzullo 1984, by which NTP tells true clocks from false ones): the odd
utterance that was found in the wrong place does not meet the others, and does not count.

Values in, values out: no clock, no audio, no text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Self

__all__ = ["ClockSkew", "Offsets"]

_REMEMBERED: Final = 5
_AGREEING: Final = 3
"""Of the last five utterances three must agree: a change for good is known after three."""


@dataclass(frozen=True, slots=True)
class Offsets:
    """The offsets that would put an utterance's given times around where its text was heard.

    Attributes:
        least: Milliseconds to add to the transcript's times, at least.
        most: At most.
    """

    least: int
    most: int

    @classmethod
    def measure(cls, given_ms: tuple[int, int], heard_ms: tuple[int, int]) -> Self:
        """Compare the times of a transcript with where its text was heard, [start, end] each.

        Usually the given times hold some silence on both sides. Where they are shorter than what
        was heard, no offset puts them around it, and the best ones put them inside.
        """
        start, end = heard_ms[0] - given_ms[0], heard_ms[1] - given_ms[1]
        return cls(min(start, end), max(start, end))

    def allows(self, offset_ms: int, slack_ms: int) -> bool:
        """Whether an offset would do, give or take ``slack_ms``."""
        return self.least - slack_ms <= offset_ms <= self.most + slack_ms


@dataclass(frozen=True, slots=True)
class ClockSkew:
    """What is known of the transcript's clock.

    Attributes:
        slack_ms: Skews up to this are left alone, and measurements closer than this agree.
        offset_ms: To be added to the transcript's times; 0 until another offset is established.
        recent: The last measurements, oldest first.
    """

    slack_ms: int
    offset_ms: int = 0
    recent: tuple[Offsets, ...] = ()

    @property
    def is_settled(self) -> bool:
        """Whether enough recent utterances were where the offset put them."""
        return sum(map(self._is_content, self.recent)) >= _AGREEING

    def after(self, measured: Offsets) -> ClockSkew:
        """What is known after one more utterance.

        The offset stays as long as it would do for most of the utterances that agree with each
        other, so that it does not follow every breath; only then it moves to where they agree. One
        that is settled moves only when no utterance in a row of three was where it put them, for
        odd utterances may agree by chance; or when the new one would do for all that were, and for
        two more besides: then the old one was right only by the silence around them.
        """
        recent = (*self.recent, measured)[-_REMEMBERED:]
        known = replace(self, recent=recent)
        place = self._meeting_place(recent)
        if place is None:
            return known
        content = [m for m in recent if self._is_content(m)]
        agreeing = [m for m in recent if m.allows(place, self._tolerance_ms)]
        both = [m for m in agreeing if self._is_content(m)]
        is_better = len(both) == len(content) <= len(agreeing) - 2
        is_alive = self.is_settled and any(map(self._is_content, recent[-_AGREEING:]))
        if is_alive and not is_better:
            return known
        return known if 2 * len(both) > len(agreeing) else replace(known, offset_ms=place)

    def _is_content(self, measured: Offsets) -> bool:
        """Whether an utterance was where the offset puts it."""
        return measured.allows(self.offset_ms, self.slack_ms)

    @property
    def _tolerance_ms(self) -> int:
        # Half of the slack, so that two measurements as far apart as the slack still agree.
        return self.slack_ms // 2

    def _meeting_place(self, recent: Sequence[Offsets]) -> int | None:
        """The middle of where most intervals meet, if enough of them do."""
        tolerance_ms = self._tolerance_ms
        meetings: list[tuple[int, int]] = []
        for edge in (m.least - tolerance_ms for m in recent):
            there = [m for m in recent if m.allows(edge, tolerance_ms)]
            end = min(m.most for m in there) + tolerance_ms
            meetings.append((len(there), (edge + end) // 2))
        most = max(count for count, _ in meetings)
        if most < _AGREEING:
            return None
        places = [place for count, place in meetings if count == most]
        return min(places, key=lambda place: abs(place - self.offset_ms))
