"""Names that the client expects: where a text has them, and where it has something that sounds so.

A recogniser that does not know a name writes what it sounds like. So a name is looked for by its
characters and by their pronunciation, with and without tones, as the model's own vocabulary knows
it: no dictionary of pronunciations is needed to serve. What is found is a hint to the decoder
(:class:`cnerta.models.runtime.decoding.SpanHint`), which weighs it against everything else it
knows.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from cnerta.models.runtime.decoding import SpanHint
from cnerta.models.runtime.vocabulary import Vocabulary
from cnerta.models.text.normalisation import normalise

__all__ = ["Glossary", "GlossaryMatch", "GlossaryName", "MatchKind", "Strengths", "read_pinyin"]

MatchKind = Literal["characters", "tones", "syllables"]
"""How a name was found: written so, or pronounced so with or without regard to the tones."""

_KINDS: Final[tuple[MatchKind, ...]] = ("characters", "tones", "syllables")
_SYLLABLE: Final = re.compile(r"[a-z]+[1-5]")
_MARKS: Final = {"\u0304": "1", "\u0301": "2", "\u030c": "3", "\u0300": "4"}


@dataclass(frozen=True, slots=True)
class GlossaryName:
    """A name the client expects.

    Attributes:
        text: As it should be written.
        label: Its entity type.
        syllables: Its pronunciation as :func:`read_pinyin` gives it; None: as its characters are
            pronounced.
    """

    text: str
    label: str
    syllables: tuple[str, ...] | None = None

    @property
    def characters(self) -> str:
        """The name as it is in a normalised text."""
        return normalise(self.text).text


@dataclass(frozen=True, slots=True)
class Strengths:
    """How much a name that is found counts, in log-odds of being an entity, by how it was found.

    Measured in ``tests/benchmarks/glossary.py``.

    Attributes:
        characters: Written so.
        tones: Pronounced so.
        syllables: Pronounced so but for tones.
    """

    characters: float = 10.0
    tones: float = 10.0
    syllables: float = 8.0


@dataclass(frozen=True, slots=True)
class GlossaryMatch:
    """A name found in a normalised text.

    Attributes:
        start: First character.
        end: One past the last.
        name: What was found.
        kind: How.
    """

    start: int
    end: int
    name: GlossaryName
    kind: MatchKind


@dataclass(frozen=True, slots=True)
class _Sound:
    """How something may be pronounced: tonal syllables, and the same without tones."""

    tonal: frozenset[str]
    plain: frozenset[str]


class Glossary:
    """Names, ready to be looked for."""

    def __init__(
        self,
        names: Sequence[GlossaryName],
        vocabulary: Vocabulary,
        strengths: Strengths = Strengths(),
    ) -> None:
        self.names = tuple(names)
        self._vocabulary = vocabulary
        self._strengths = strengths
        self._sounds: dict[str, _Sound] = {}
        # By what a name's first character may be: itself, or anything that sounds like it.
        self._by_first: dict[str, list[tuple[GlossaryName, str, tuple[_Sound, ...]]]] = {}
        for name in names:
            characters = name.characters
            if name.syllables is None:
                sounds = tuple(map(self._sound, characters))
            else:
                sounds = tuple(_sound_of({s}) for s in name.syllables)
            for key in {characters[0], *sounds[0].plain}:
                self._by_first.setdefault(key, []).append((name, characters, sounds))

    def find(self, text: str) -> tuple[GlossaryMatch, ...]:
        """Every name in a normalised text, in the order of the text.

        What is found in one place under one label is given once, as the name that fits best.
        """
        if not self._by_first:
            return ()
        best: dict[tuple[int, int, str], GlossaryMatch] = {}
        for start, character in enumerate(text):
            for key in {character, *self._sound(character).plain}:
                for name, characters, sounds in self._by_first.get(key, ()):
                    kind = self._compare(text[start : start + len(characters)], characters, sounds)
                    if kind is None:
                        continue
                    end = start + len(characters)
                    place = (start, end, name.label)
                    known = best.get(place)
                    if known is None or _KINDS.index(kind) < _KINDS.index(known.kind):
                        best[place] = GlossaryMatch(start, end, name, kind)
        return tuple(best[place] for place in sorted(best))

    def hint(self, match: GlossaryMatch) -> SpanHint:
        """What the decoder is told of a match."""
        strength: float = getattr(self._strengths, match.kind)
        return SpanHint(match.start, match.end, match.name.label, strength)

    def _compare(self, piece: str, characters: str, sounds: tuple[_Sound, ...]) -> MatchKind | None:
        if piece == characters:
            return "characters"
        if len(piece) != len(characters):
            return None
        kind: MatchKind = "tones"
        for found, expected, sound in zip(piece, characters, sounds, strict=True):
            if found == expected:
                continue
            heard = self._sound(found)
            if heard.tonal & sound.tonal:
                continue
            if not heard.plain & sound.plain:
                return None
            kind = "syllables"
        return kind

    def _sound(self, character: str) -> _Sound:
        known = self._sounds.get(character)
        if known is None:
            vocabulary = self._vocabulary
            units = vocabulary.units_of(int(vocabulary.encode(character)[0]))
            names = {vocabulary.units[u] for u in units}
            known = _sound_of({n for n in names if _SYLLABLE.fullmatch(n)})
            self._sounds[character] = known
        return known


def read_pinyin(text: str) -> tuple[str, ...] | None:
    """Syllables of a pronunciation in pinyin, such as ``jiang1 da4 qiao2``.

    Tones as digits or as marks (jiāng dà qiáo), or left out for any; ``v`` or ``ü``; syllables
    apart.

    Returns:
        Each syllable in lower case with its tone, ``0`` for any; None if the text is not pinyin.
    """
    syllables: list[str] = []
    for part in text.lower().split():
        decomposed = unicodedata.normalize("NFD", part.replace("ü", "v").replace("u:", "v"))
        tones = [_MARKS[c] for c in decomposed if c in _MARKS]
        letters = "".join(c for c in decomposed if c not in _MARKS).replace("u\u0308", "v")
        spelt = re.fullmatch(r"([a-z]{1,6})([0-5]?)", letters)
        if spelt is None or len(tones) + bool(spelt[2]) > 1:
            return None
        syllables.append(spelt[1] + (spelt[2] or "".join(tones) or "0"))
    return tuple(syllables) or None


def _sound_of(syllables: set[str]) -> _Sound:
    # A syllable without a tone fits any; it is then known by its letters alone.
    tonal = {t for s in syllables for t in ([s[:-1] + d for d in "12345"] if s[-1] == "0" else [s])}
    return _Sound(frozenset(tonal), frozenset(s[:-1] for s in syllables))
