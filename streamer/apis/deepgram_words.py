"""A text as words with times: a Han character is a word, and what has no space within is one."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Word", "split_words", "word_range"]


@dataclass(frozen=True, slots=True)
class Word:
    """A word. Times in milliseconds.

    Attributes:
        text: Without marks.
        written: With the marks beside it.
        start: Where it begins in the text, in code points.
        end: Where it ends, without marks.
        start_ms: Where it begins in the audio.
        end_ms: Where it ends there.
    """

    text: str
    written: str
    start: int
    end: int
    start_ms: float
    end_ms: float


def split_words(
    text: str, times: Sequence[tuple[int, int]], start_ms: float, end_ms: float
) -> list[Word]:
    """Take a text apart.

    Args:
        text: The text.
        times: Of each character, [start, end] in ms; empty where they are not known, and then the
            characters are taken to last equally long.
        start_ms: Where the text begins.
        end_ms: Where it ends.
    """
    share = max(0.0, end_ms - start_ms) / max(1, len(text))

    def begins(at: int) -> float:
        return times[at][0] if times else start_ms + share * at

    def ends(at: int) -> float:
        return times[at][1] if times else start_ms + share * (at + 1)

    words: list[Word] = []
    marks = ""  # before the first word
    at = 0
    while at < len(text):
        if _is_space(text[at]):
            at += 1
            continue
        if _is_mark(text[at]):
            if words and not _is_apart(text, words[-1], at):
                last = words.pop()
                written = last.written + text[at]
                words.append(
                    Word(last.text, written, last.start, last.end, last.start_ms, last.end_ms)
                )
            else:
                marks += text[at]
            at += 1
            continue
        first = at
        at += 1
        if not _is_han(text[first]):
            while at < len(text) and _goes_on(text, at):
                at += 1
        word = text[first:at]
        words.append(Word(word, marks + word, first, at, begins(first), ends(at - 1)))
        marks = ""
    return words


def word_range(words: Sequence[Word], start: int, end: int) -> tuple[int, int]:
    """The words, from and up to, that characters of a text are in."""
    inside = [i for i, word in enumerate(words) if word.start < end and start < word.end]
    if not inside:
        return 0, 0
    return inside[0], inside[-1] + 1


def _goes_on(text: str, at: int) -> bool:
    """Whether the word before goes on: 3.5 and e-mail do, a full stop does not."""
    character = text[at]
    if _is_space(character) or _is_han(character):
        return False
    if not _is_mark(character):
        return True
    after = text[at + 1 : at + 2]
    return character.isascii() and bool(after) and not (_is_mark(after) or _is_space(after))


def _is_apart(text: str, word: Word, at: int) -> bool:
    """Whether there is a space between a word and a mark."""
    return any(_is_space(c) for c in text[word.end : at])


def _is_space(character: str) -> bool:
    return character.isspace()


def _is_mark(character: str) -> bool:
    return unicodedata.category(character)[0] in "PZCS"


def _is_han(character: str) -> bool:
    return unicodedata.category(character) == "Lo"
