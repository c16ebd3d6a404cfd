"""Characters by how they may be pronounced, as the model's own vocabulary knows it.

Names are looked for by sound. To do that at the speed of a string search, each character stands for
its class: the set of syllables, without tones, that it may be read as. 长 (cháng, zhǎng) is of the
class {chang, zhang}, 张 (zhāng) of {zhang}; a name with 张 is then looked for under both classes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from cnerta.models.runtime.vocabulary import Vocabulary

__all__ = ["Pronunciation", "PronunciationClasses", "pronunciation_classes"]

_SYLLABLE: Final = re.compile(r"[a-z]+[1-5]")
_FIRST_CLASS: Final = 0xF0000
"""Classes are written as characters of a private plane, which no text that is spoken has."""


@dataclass(frozen=True, slots=True)
class Pronunciation:
    """How something may be pronounced.

    Attributes:
        tonal: Syllables with their tones.
        plain: The same without tones.
    """

    tonal: frozenset[str] = frozenset()
    plain: frozenset[str] = frozenset()

    @classmethod
    def of(cls, syllables: frozenset[str]) -> Pronunciation:
        """Of syllables such as ``jiang1``; tone 0 stands for any."""
        # A syllable without a tone fits any; it is then known by its letters alone.
        tonal = {
            t for s in syllables for t in ([s[:-1] + d for d in "12345"] if s[-1] == "0" else [s])
        }
        return cls(frozenset(tonal), frozenset(s[:-1] for s in syllables))


_NONE: Final = Pronunciation()


class PronunciationClasses:
    """The characters of a vocabulary with their pronunciations and classes."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        by_units: dict[tuple[int, ...], Pronunciation] = {}
        marks: dict[frozenset[str], str] = {}
        self._known: dict[str, Pronunciation] = {}
        self._marks: dict[int, str] = {}  # as str.translate takes them
        self._marks_of: dict[str, set[str]] = {}
        for character, units in zip(vocabulary.characters, vocabulary.readings, strict=True):
            pronunciation = by_units.get(units)
            if pronunciation is None:
                names = (vocabulary.units[u] for u in units)
                pronunciation = Pronunciation.of(frozenset(filter(_SYLLABLE.fullmatch, names)))
                by_units[units] = pronunciation
            if not pronunciation.plain:
                continue
            mark = marks.setdefault(pronunciation.plain, chr(_FIRST_CLASS + len(marks)))
            self._known[character] = pronunciation
            self._marks[ord(character)] = mark
            for syllable in pronunciation.plain:
                self._marks_of.setdefault(syllable, set()).add(mark)

    def pronunciation(self, character: str) -> Pronunciation:
        """How a character may be pronounced; nothing if the vocabulary does not say."""
        return self._known.get(character, _NONE)

    def classes_of(self, text: str) -> str:
        """A text with each character's class in its place; itself where it has none."""
        return text.translate(self._marks)

    def classes_like(self, character: str, pronunciation: Pronunciation) -> frozenset[str]:
        """The classes of all that may be meant by a character that is pronounced so."""
        own = self._marks.get(ord(character), character)
        sounding = (self._marks_of.get(s, set()) for s in pronunciation.plain)
        return frozenset({own}.union(*sounding))


@lru_cache(maxsize=4)
def pronunciation_classes(vocabulary: Vocabulary) -> PronunciationClasses:
    """Those of a vocabulary; worked out once, which takes some milliseconds."""
    return PronunciationClasses(vocabulary)
