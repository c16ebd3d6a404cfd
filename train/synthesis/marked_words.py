"""A text with marks that say how it is read.

A space divides words said in one breath, `/` marks where a pause is possible and `|` where the
reading needs its boundary; `|180` fixes that pause, in ms. `词(ci2)` gives a word's pronunciation;
without it pypinyin's phrase dictionary does.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from pypinyin import Style, lazy_pinyin

from cnerta.models.errors import DataError

__all__ = ["Break", "Word", "read_words", "usual_pinyin"]

Break = Literal["none", "optional", "decisive"]

_WORD = re.compile(
    r"(?P<text>[\u3400-\u9fff]+)(?:\((?P<pinyin>[a-zü0-9 ]+)\))?(?P<mark>[ /|]*)(?P<pause>[0-9]*) *"
)


@dataclass(frozen=True, slots=True)
class Word:
    """A word as said.

    Attributes:
        text: Its characters.
        pinyin: One reading a character, tone as a digit, 5 for neutral.
        following: Whether a pause after it is out of place, possible, or what makes the reading.
        pause_ms: Length of that pause where the notation gives one; else it is drawn.
    """

    text: str
    pinyin: tuple[str, ...]
    following: Break = "none"
    pause_ms: float | None = None


def usual_pinyin(text: str) -> tuple[str, ...]:
    """One reading a character, as pypinyin's phrase dictionary has it."""
    return tuple(lazy_pinyin(text, style=Style.TONE3, neutral_tone_with_five=True))


def read_words(marked: str) -> tuple[Word, ...]:
    """Parse the notation of this module's docstring.

    Raises:
        DataError: Something that is neither a character, a reading nor a mark.
    """
    words: list[Word] = []
    position = 0
    while position < len(marked):
        match = _WORD.match(marked, position)
        if match is None:
            raise DataError(f"expected a Chinese word at {marked[position:]!r} of {marked!r}")
        text, mark = match["text"], match["mark"]
        pinyin = tuple(match["pinyin"].split()) if match["pinyin"] else usual_pinyin(text)
        if len(pinyin) != len(text):
            raise DataError(f"expected {len(text)} syllables for {text!r}, got {' '.join(pinyin)}")
        following: Break = "decisive" if "|" in mark else "optional" if "/" in mark else "none"
        pause = float(match["pause"]) if match["pause"] else None
        words.append(Word(text, pinyin, following, pause))
        position = match.end()
    return tuple(words)
