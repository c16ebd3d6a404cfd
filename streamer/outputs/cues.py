"""Captions from answered utterances: what stands on which line, and from when to when.

No input or output and no clock: `CueTrack` takes the server's `utterance.final` messages and gives
cues that come in order and do not overlap; `cnerta.streamer.outputs.caption_formats` writes them.

A text is broken where breaking hurts least: after punctuation and at pauses, between words, never
inside an entity, a number or a word if it can be avoided, and into lines of about the same length.
That is a shortest path over the places where a line may end, as in Knuth and Plass (Breaking
paragraphs into lines, 1981), with a cost for each place.

Lengths are counted in columns, of which a Chinese character takes two.
"""

from __future__ import annotations

import heapq
import itertools
import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from msgspec import UNSET
from rich.cells import cell_len

from cnerta.streamer.outputs.words import Words, no_words
from cnerta.streamer.wire.messages import UtteranceFinal
from cnerta.streamer.wire.parts import Entity

__all__ = [
    "DEFAULT_LAYOUT",
    "CaptionLayout",
    "CaptionLine",
    "Cue",
    "CueTrack",
    "Mark",
    "break_text",
    "clean",
    "mark_line",
    "roll_up",
]

NARROWEST_LINE: Final = 8

_OPENING: Final = frozenset("（［｛〔《〈「『【“‘([{<")
_CLOSING: Final = frozenset("，。、；：？！…）］｝〕》〉」』】”’,.;:?!)]}>%％～·—")
_SENTENCE_END: Final = frozenset("。？！…?!")
_CLAUSE_END: Final = frozenset("，、；：,;:—")
_HALF_WIDTH_ENDS: Final = frozenset(",;:?!")
_PARTICLES: Final = frozenset("的吗呢吧们")
"""These end a word (there are words that begin with one, but few)."""
_JOINERS: Final = frozenset("'’.-_/@:%+&#")
_ZWJ: Final = "\N{ZERO WIDTH JOINER}"

# What a break costs; a line that is half full costs a quarter of _RAGGED.
_NEVER: Final = 1_000.0
_IN_WORD: Final = 60.0
_IN_ENTITY: Final = 40.0
_IN_CHINESE_WORD: Final = 12.0
_BEFORE_PARTICLE: Final = 4.0
_IN_CLAUSE: Final = 1.5
_AT_WORD: Final = 0.7
_AT_SPACE: Final = 0.5
_AT_CLAUSE: Final = -2.0
_AT_SENTENCE: Final = -3.0
_PER_PAUSE_SECOND: Final = -4.0
_SHORTEST_PAUSE_MS: Final = 150
"""Shorter ones are in the middle of words too."""
_LONGEST_PAUSE_COUNTED_MS: Final = 1_000
_RAGGED: Final = 2.0
_PER_LINE: Final = 0.6
_PER_CUE: Final = 1.2
_BETWEEN_CUES: Final = 0.5
"""A good or a bad place counts so much more where not only the line ends."""
_PER_SECOND_TOO_LONG: Final = 8.0
_ACROSS_LONG_PAUSE: Final = 8.0
_LONG_PAUSE_MS: Final = 1_500


@dataclass(frozen=True, slots=True)
class CaptionLayout:
    """How much text stands on the screen at once and for how long.

    The values are those that Netflix asks of captions in simplified Chinese (Timed Text Style
    Guide): 16 characters a line, two lines, nine characters a second, 5/6 s to 7 s.

    Attributes:
        line_columns: Longest line, in columns.
        lines: Most lines of one cue.
        columns_per_second: Fastest that is comfortable to read.
        shortest_ms: Shortest time a cue stays, where nothing follows.
        longest_ms: Longest time a cue should stay.
    """

    line_columns: int = 32
    lines: int = 2
    columns_per_second: float = 18.0
    shortest_ms: int = 833
    longest_ms: int = 7_000

    def reading_ms(self, columns: int) -> float:
        """How long it takes to read so much."""
        return max(self.shortest_ms, 1_000 * columns / self.columns_per_second)


DEFAULT_LAYOUT: Final = CaptionLayout()


@dataclass(frozen=True, slots=True)
class Mark:
    """One highlighted run of a line, half-open in characters of the line.

    Attributes:
        start: First character.
        end: After the last.
        label: Type of the entity.
        inner: Whether it lies inside another entity.
        mended: Whether it is written otherwise than in the transcript.
    """

    start: int
    end: int
    label: str
    inner: bool
    mended: bool = False


@dataclass(frozen=True, slots=True)
class CaptionLine:
    """One line, with marks that are properly nested: the outer one before the inner ones."""

    text: str
    marks: tuple[Mark, ...] = ()


@dataclass(frozen=True, slots=True)
class Cue:
    """What stands on the screen from one time to another.

    Attributes:
        id: Unique in the session: the utterance and the number of the cue in it.
        utterance: Whose text it is.
        start: First character of the utterance that it shows.
        end: After the last.
        start_ms: On the audio clock.
        end_ms: After `start_ms`.
        lines: At least one, none of them empty.
        voice: Who speaks; empty if unknown.
    """

    id: str
    utterance: str
    start: int
    end: int
    start_ms: int
    end_ms: int
    lines: tuple[CaptionLine, ...]
    voice: str = ""


def clean(text: str) -> str:
    """Replace what no caption format can hold, one character for one.

    White space becomes a space, whatever kind it is; control characters, surrogates and
    noncharacters become U+FFFD.
    """
    return "".join(map(_clean, text))


def _clean(character: str) -> str:
    if character.isspace():
        return " "
    if unicodedata.category(character) in ("Cc", "Cs") or ord(character) & 0xFFFE == 0xFFFE:
        return "\N{REPLACEMENT CHARACTER}"
    # Not of a category of their own: noncharacters in the middle of the Arabic presentation forms.
    return "\N{REPLACEMENT CHARACTER}" if "\ufdd0" <= character <= "\ufdef" else character


def break_text(
    text: str,
    entities: Sequence[tuple[int, int]] = (),
    times: Sequence[tuple[int, int]] = (),
    layout: CaptionLayout = DEFAULT_LAYOUT,
    words: Words = no_words,
    *,
    lead_columns: int = 0,
) -> list[list[tuple[int, int]]]:
    """Divide a text into cues and these into lines.

    Args:
        text: What is said; see `clean`.
        entities: Half-open offsets that should stay in one piece.
        times: Start and end of every character in milliseconds, or nothing if unknown.
        layout: How much fits.
        words: Finds what should stay in one piece rather than not.
        lead_columns: What stands on the first line before the text.

    Returns:
        For every cue its lines, as half-open offsets into the text without the white space around
        them. Together they hold every character of the text that is no white space.
    """
    limit = max(layout.line_columns, NARROWEST_LINE)
    most_lines = max(1, layout.lines)
    # A line starts and ends at characters that are no white space: only those are counted here.
    at = [index for index, character in enumerate(text) if not character.isspace()]
    count = len(at)
    if not count:
        return []
    columns = list(itertools.accumulate(map(cell_len, text), initial=0))
    pauses_ms = [_pause_ms(times, at[i - 1], at[i]) if i else 0 for i in range(count)]
    costs = _break_costs(text, at, entities, pauses_ms, words(text))
    # For every count of characters and every number of a line in its cue, the cheapest division of
    # so many characters of which the last line has this number.
    best = [[_NO_WAY] * most_lines for _ in range(count + 1)]
    best[0][-1] = _Way(cost=0.0, line=0, cue=0, number_before=0)
    for start in range(count):
        waited = 0.0
        for end in range(start + 1, count + 1):
            width = columns[at[end - 1] + 1] - columns[at[start]] + (0 if start else lead_columns)
            if width > limit and end > start + 1:
                break
            if end > start + 1 and pauses_ms[end - 1] > _LONG_PAUSE_MS:
                waited += _ACROSS_LONG_PAUSE
            slack = (limit - width) / limit
            line_cost = _PER_LINE + _RAGGED * slack * slack + waited + costs[end]
            for number, way in enumerate(best[start]):
                if way is _NO_WAY:
                    continue
                between = _PER_CUE + _BETWEEN_CUES * costs[start]
                new_cue = _Way(way.cost + line_cost + between, start, start, number)
                ways = [(0, new_cue)]
                if number + 1 < most_lines:
                    across = _ACROSS_LONG_PAUSE if pauses_ms[start] > _LONG_PAUSE_MS else 0.0
                    ways.append(
                        (number + 1, _Way(way.cost + line_cost + across, start, way.cue, number))
                    )
                for following, longer in ways:
                    late = _too_long(times, at[longer.cue], at[end - 1], layout)
                    cost = longer.cost + late
                    if cost < best[end][following].cost:
                        best[end][following] = replace(longer, cost=cost)
    return _cues_of(best, at)


@dataclass(frozen=True, slots=True)
class _Way:
    """The cheapest division so far: its last line and cue start at these characters."""

    cost: float
    line: int
    cue: int
    number_before: int


_NO_WAY: Final = _Way(math.inf, 0, 0, 0)


def _cues_of(best: list[list[_Way]], at: Sequence[int]) -> list[list[tuple[int, int]]]:
    """Follow the cheapest division from its end."""
    cues: list[list[tuple[int, int]]] = []
    end = len(at)
    number = min(range(len(best[end])), key=lambda number: best[end][number].cost)
    in_cue: list[tuple[int, int]] = []
    while end:
        way = best[end][number]
        in_cue.insert(0, (at[way.line], at[end - 1] + 1))
        if number == 0:
            cues.insert(0, in_cue)
            in_cue = []
        end, number = way.line, way.number_before
    return cues


def _pause_ms(times: Sequence[tuple[int, int]], left: int, right: int) -> int:
    """Silence between two characters, 0 where it is not known."""
    return max(0, times[right][0] - times[left][1]) if times else 0


def _too_long(
    times: Sequence[tuple[int, int]], first: int, last: int, layout: CaptionLayout
) -> float:
    """What it costs that a cue of these characters stays longer than it should."""
    beyond_ms = times[last][1] - times[first][0] - layout.longest_ms if times else 0
    return _PER_SECOND_TOO_LONG * max(0, beyond_ms) / 1_000


def _break_costs(
    text: str,
    at: Sequence[int],
    entities: Sequence[tuple[int, int]],
    pauses_ms: Sequence[int],
    words: Sequence[tuple[int, int]],
) -> list[float]:
    """What it costs to break before each character, and nothing at the end."""
    inside = [0.0] * (len(text) + 1)
    for spans, cost in ((entities, _IN_ENTITY), (words, _IN_CHINESE_WORD)):
        for start, end in spans:
            for index in range(max(start, 0) + 1, min(end, len(text))):
                inside[index] += cost
    costs = [0.0]
    for number in range(1, len(at)):
        left, right = at[number - 1], at[number]
        pause_ms = min(max(0, pauses_ms[number] - _SHORTEST_PAUSE_MS), _LONGEST_PAUSE_COUNTED_MS)
        cost = _place_cost(text[left], text[right], apart=right - left > 1)
        costs.append(cost + inside[right] + _PER_PAUSE_SECOND * pause_ms / 1_000)
    return [*costs, 0.0]


def _place_cost(left: str, right: str, *, apart: bool) -> float:
    """What it costs to break between two characters, with white space between them or without."""
    if not apart and (
        unicodedata.category(right) in ("Mn", "Me", "Mc", "Cf", "Sk") or left == _ZWJ
    ):
        return _NEVER
    if right in _CLOSING or left in _OPENING:
        return _NEVER if not apart else _IN_WORD
    if not apart and left in _HALF_WIDTH_ENDS and _is_of_word(right):
        return _IN_WORD  # 12:30, 3,000: such punctuation ends something before a space.
    if left in _SENTENCE_END:
        return _AT_SENTENCE
    if left in _CLAUSE_END:
        return _AT_CLAUSE
    if apart:
        return _AT_SPACE
    of_word = (_is_of_word(left), _is_of_word(right))
    if all(of_word):
        return _IN_WORD
    if right in _PARTICLES:
        return _BEFORE_PARTICLE
    return _AT_WORD if any(of_word) or left in _PARTICLES else _IN_CLAUSE


def _is_of_word(character: str) -> bool:
    """Whether it is part of a word that is written without gaps and not broken: Latin, digits."""
    return character in _JOINERS or (character.isalnum() and cell_len(character) == 1)


def roll_up(
    text: str, entities: Sequence[tuple[int, int]], columns: int, words: Words = no_words
) -> list[tuple[int, int]]:
    """Divide a text that is still growing into lines, each of which stays as it is once it is full.

    Only an entity that is found later moves a break.

    Args:
        text: What is said so far; see `clean`.
        entities: Half-open offsets that should stay in one piece.
        columns: Longest line.
        words: Finds what should stay in one piece rather than not.

    Returns:
        Half-open offsets of the lines, without the white space around them.
    """
    limit = max(columns, NARROWEST_LINE)
    at = [index for index, character in enumerate(text) if not character.isspace()]
    widths = list(itertools.accumulate(map(cell_len, text), initial=0))
    costs = _break_costs(text, at, entities, [0] * len(at), ())
    lines: list[tuple[int, int]] = []
    start = 0
    while start < len(at):
        end = start + 1
        while end < len(at) and widths[at[end] + 1] - widths[at[start]] <= limit:
            end += 1
        if end < len(at):
            # In the second half of the line, the cheapest place; the latest of several.
            earliest = start + max(1, (end - start) // 2)
            inside = _inside_words(words, text[at[start] : at[end] + 1])
            end = min(
                range(end, earliest - 1, -1),
                key=lambda place: costs[place] + inside.get(at[place] - at[start], 0.0),
            )
        lines.append((at[start], at[end - 1] + 1))
        start = end
    return lines


def _inside_words(words: Words, text: str) -> dict[int, float]:
    """What it costs beside all else to break inside the words of a text.

    Of a growing text only the line and the character after it are looked at, so that what comes
    later changes nothing.
    """
    return {
        place: _IN_CHINESE_WORD for start, end in words(text) for place in range(start + 1, end)
    }


def mark_line(text: str, start: int, end: int, entities: Sequence[Entity]) -> CaptionLine:
    """Cut a line out of a text, with marks where it meets the entities.

    Args:
        text: The whole text; see `clean`.
        start: First character of the line.
        end: After its last.
        entities: What is to be marked, in any order. One that runs over the end of the line is
            marked as far as it goes; of two that cross, the later is marked in two pieces.
    """
    pieces = [
        Mark(
            max(entity.start, start) - start,
            min(entity.end, end) - start,
            entity.label,
            inner=entity.parent is not None,
            mended=entity.original_text is not UNSET,
        )
        for entity in entities
        if entity.start < end and entity.end > start
    ]
    return CaptionLine(text[start:end], _nested(pieces))


def _nested(pieces: Sequence[Mark]) -> tuple[Mark, ...]:
    """Sort marks, outer ones first, and cut those that cross one that began before."""

    def order(mark: Mark) -> tuple[int, int, bool, str]:
        return (mark.start, -mark.end, mark.inner, mark.label)

    waiting = [(order(mark), mark) for mark in pieces]
    heapq.heapify(waiting)
    nested: list[Mark] = []
    open_ends: list[int] = []
    while waiting:
        mark = heapq.heappop(waiting)[1]
        while open_ends and open_ends[-1] <= mark.start:
            open_ends.pop()
        if open_ends and mark.end > open_ends[-1]:
            for part in (
                replace(mark, end=open_ends[-1]),
                replace(mark, start=open_ends[-1]),
            ):
                heapq.heappush(waiting, (order(part), part))
            continue
        nested.append(mark)
        open_ends.append(mark.end)
    return tuple(nested)


def _led(line: CaptionLine, lead: str) -> CaptionLine:
    """A line with something before it."""
    by = len(lead)
    marks = tuple(replace(m, start=m.start + by, end=m.end + by) for m in line.marks)
    return CaptionLine(lead + line.text, marks)


class CueTrack:
    """Makes cues of one utterance after the other, none of which begins before the last has ended.

    A cue stays at least as long as it takes to read, where nothing follows, and half as long in any
    case: where two people speak at once their cues come one after the other.

    Args:
        layout: How much stands on the screen at once.
        words: Finds what should stay on one line.
    """

    def __init__(self, layout: CaptionLayout = DEFAULT_LAYOUT, words: Words = no_words) -> None:
        self._layout = layout
        self._words = words
        self._ends_ms = 0

    def not_before(self, at_ms: int) -> None:
        """Begin no further cue before this time."""
        self._ends_ms = max(self._ends_ms, at_ms)

    def cues(
        self,
        final: UtteranceFinal,
        marked: Sequence[Entity],
        spoken_ms: tuple[float, float],
        *,
        voice: str = "",
        lead: str = "",
    ) -> list[Cue]:
        """Return the cues of an utterance, none if it has no text.

        Args:
            final: The answer.
            marked: Which of its entities are highlighted.
            spoken_ms: From when to when the utterance was spoken as far as the client knows; taken
                where the answer has no times.
            voice: Who speaks.
            lead: What stands before the text, on its first line.
        """
        text = clean(final.text)
        times = _character_times(len(text), final.characters, spoken_ms)
        spans = [(entity.start, entity.end) for entity in final.entities]
        divided = break_text(
            text, spans, times, self._layout, self._words, lead_columns=cell_len(lead)
        )
        cues: list[Cue] = []
        for number, lines in enumerate(divided):
            start, end = lines[0][0], lines[-1][1]
            written = [mark_line(text, first, last, marked) for first, last in lines]
            if not cues:
                written[0] = _led(written[0], lead)
            columns = sum(cell_len(line.text) for line in written)
            follows_ms = (
                times[divided[number + 1][0][0]][0] if number + 1 < len(divided) else math.inf
            )
            start_ms, end_ms = self._place(times[start][0], times[end - 1][1], follows_ms, columns)
            cues.append(
                Cue(
                    id=f"{clean(final.utterance)}-{number + 1}",
                    utterance=final.utterance,
                    start=start,
                    end=end,
                    start_ms=start_ms,
                    end_ms=end_ms,
                    lines=tuple(written),
                    voice=voice,
                )
            )
        return cues

    def _place(
        self, start_ms: int, end_ms: int, follows_ms: float, columns: int
    ) -> tuple[int, int]:
        """When a cue is shown that is spoken from `start_ms` to `end_ms`."""
        reading_ms = self._layout.reading_ms(columns)
        start_ms = max(start_ms, self._ends_ms)
        shown_until = max(end_ms, min(start_ms + reading_ms, follows_ms))
        self._ends_ms = math.ceil(max(shown_until, start_ms + reading_ms / 2))
        return start_ms, self._ends_ms


def _character_times(
    count: int, characters: Sequence[tuple[int, int]], spoken_ms: tuple[float, float]
) -> list[tuple[int, int]]:
    """Start and end of every character: as answered, or spread evenly; never going back."""
    if len(characters) != count:
        first, last = spoken_ms
        step = max(0.0, last - first) / max(1, count)
        characters = [
            (round(first + index * step), round(first + (index + 1) * step))
            for index in range(count)
        ]
    times: list[tuple[int, int]] = []
    latest = 0
    for start, end in characters:
        start = max(start, latest)
        latest = max(start, end)
        times.append((start, latest))
    return times
