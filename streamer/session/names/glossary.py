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
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise, product
from typing import Final, Literal, Self

import ahocorasick

from cnerta.models.runtime.decoding import SpanHint
from cnerta.models.runtime.vocabulary import Vocabulary
from cnerta.models.text.normalisation import normalise
from cnerta.streamer.session.names.pronunciation_classes import Pronunciation, pronunciation_classes
from cnerta.streamer.wire.errors import ErrorName, ProtocolError
from cnerta.streamer.wire.parts import GlossaryEntry

__all__ = ["Glossary", "GlossaryMatch", "GlossaryName", "MatchKind", "Strengths", "read_pinyin"]

MatchKind = Literal["characters", "tones", "syllables"]
"""How a name was found: written so, or pronounced so with or without regard to the tones."""

_KINDS: Final[tuple[MatchKind, ...]] = ("characters", "tones", "syllables")
_COMPARISONS_A_CHARACTER: Final = 8
_LEAST_COMPARISONS: Final = 2_000
"""More candidates than this and so many a character are not looked at: ordinary names have less
than one a character, but a client may send 500 that fit everywhere."""
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

    @classmethod
    def of(cls, entry: GlossaryEntry) -> Self:
        """What a client's entry means.

        Raises:
            ProtocolError: There is nothing to pronounce in it, or its pronunciation is not one of
                its characters.
        """
        said = entry.pronunciation
        name = cls(entry.text, entry.label, None if said is None else read_pinyin(said))
        if not name.characters:
            raise ProtocolError(
                ErrorName.INVALID_GLOSSARY,
                f"expected a name with something to pronounce, got {entry.text!r}",
            )
        if said is not None and len(name.syllables or ()) != len(name.characters):
            raise ProtocolError(
                ErrorName.INVALID_GLOSSARY,
                f"expected {len(name.characters)} syllables of pinyin for {entry.text!r}, such "
                f"as 'jiang1 da4 qiao2', got {said[:60]!r}",
            )
        return name


@dataclass(frozen=True, slots=True)
class Strengths:
    """How much a name that is found counts, in log-odds of being an entity, by how it was found.

    Measured in ``tests/benchmarks/glossary.py``.

    Attributes:
        characters: Written so.
        tones: Pronounced so.
        syllables: Pronounced so but for tones.
        inner: Of a name that is only pronounced so, for each character between its first and its
            last, as a share of the half that each end is given. Other words often stand there
            (比例时 for 比利时), and a long name is hardly one by chance.
    """

    characters: float = 10.0
    tones: float = 10.0
    syllables: float = 8.0
    inner: float = 1.0


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
class _Pattern:
    """A name in the form that is compared.

    Attributes:
        name: The name.
        characters: As they are in a normalised text.
        pronunciations: Of each character.
    """

    name: GlossaryName
    characters: str
    pronunciations: tuple[Pronunciation, ...]


class Glossary:
    """Names, ready to be looked for.

    An Aho-Corasick automaton finds places where two neighbouring characters of a name, its *seed*,
    are or sound so; only there the whole name is compared. Of each name the pair is taken that the
    fewest others share, so many names that begin alike cost no more than one. What a text costs is
    in proportion to its length, whatever the names are.

    Attributes:
        names: All of them.
        characters: How many they have together.
    """

    def __init__(
        self,
        names: Iterable[GlossaryName],
        vocabulary: Vocabulary,
        strengths: Strengths = Strengths(),
    ) -> None:
        self.names = tuple(names)
        self._classes = pronunciation_classes(vocabulary)
        self._strengths = strengths
        patterns = [self._pattern(name) for name in self.names]
        self.characters = sum(len(pattern.characters) for pattern in patterns)
        shared = Counter(pair for p in patterns for pair in pairwise(p.characters))
        seeds: dict[str, list[tuple[_Pattern, int]]] = {}
        for pattern in patterns:
            at = _rarest_pair(pattern.characters, shared)
            alike = [
                sorted(self._classes.classes_like(c, p))
                for c, p in zip(
                    pattern.characters[at : at + 2],
                    pattern.pronunciations[at : at + 2],
                    strict=True,
                )
            ]
            for seed in map("".join, product(*alike)):
                seeds.setdefault(seed, []).append((pattern, at))
        self._automaton = ahocorasick.Automaton()
        for seed, found in seeds.items():
            self._automaton.add_word(seed, (len(seed), tuple(found)))
        self._automaton.make_automaton()

    def find(self, text: str) -> tuple[GlossaryMatch, ...]:
        """Every name in a normalised text, in the order of the text.

        What is found in one place under one label is given once, as the name that fits best.
        """
        if not self.names or not text:
            return ()
        best: dict[tuple[int, int, str], GlossaryMatch] = {}
        comparisons = _LEAST_COMPARISONS + _COMPARISONS_A_CHARACTER * len(text)
        for last, (length, patterns) in self._automaton.iter(self._classes.classes_of(text)):
            for pattern, at in patterns:
                start = last + 1 - length - at
                end = start + len(pattern.characters)
                if start < 0 or end > len(text):
                    continue
                comparisons -= 1
                if comparisons < 0:
                    return tuple(best[place] for place in sorted(best))
                kind = self._compare(text[start:end], pattern)
                if kind is None:
                    continue
                place = (start, end, pattern.name.label)
                known = best.get(place)
                if known is None or _KINDS.index(kind) < _KINDS.index(known.kind):
                    best[place] = GlossaryMatch(start, end, pattern.name, kind)
        return tuple(best[place] for place in sorted(best))

    def hint(self, match: GlossaryMatch) -> SpanHint:
        """What the decoder is told of a match."""
        strength: float = getattr(self._strengths, match.kind)
        is_heard = match.kind != "characters" and match.end - match.start > 2
        inner = self._strengths.inner * strength / 2 if is_heard else 0.0
        return SpanHint(match.start, match.end, match.name.label, strength, inner)

    def _pattern(self, name: GlossaryName) -> _Pattern:
        characters = name.characters
        if name.syllables is None:
            sounds = tuple(map(self._classes.pronunciation, characters))
        else:
            sounds = tuple(Pronunciation.of(frozenset({s})) for s in name.syllables)
        return _Pattern(name, characters, sounds)

    def _compare(self, piece: str, pattern: _Pattern) -> MatchKind | None:
        if piece == pattern.characters:
            return "characters"
        kind: MatchKind = "tones"
        for found, expected, sound in zip(
            piece, pattern.characters, pattern.pronunciations, strict=True
        ):
            if found == expected:
                continue
            heard = self._classes.pronunciation(found)
            if heard.tonal & sound.tonal:
                continue
            if not heard.plain & sound.plain:
                return None
            kind = "syllables"
        return kind


def _rarest_pair(characters: str, shared: Counter[tuple[str, str]]) -> int:
    """Where the two neighbouring characters are that the fewest names share; the last of several.

    Names that are alike but for one character differ at their ends more often.
    """
    pairs = list(pairwise(characters))
    return min(range(len(pairs)), key=lambda i: (shared[pairs[i]], -i), default=0)


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
