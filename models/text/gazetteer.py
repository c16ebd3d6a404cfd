"""The kinds of the words in a text, from word lists: places, persons, verbs.

A model with a gazetteer gets, beside the characters, the kinds of the words that begin at a
character, go through it, end at it or are it: the word sets of SoftLexicon (Ma et al. 2020) without
vectors of the words themselves. A name that training never shows is then known for what it is.

Words are kept as fingerprints of 40 bits. A list of two hundred thousand takes less than a
megabyte, a text is looked up in a few array operations, and of five million lookups one finds what
was not in the list.
"""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cnerta.models.errors import ConfigError
from cnerta.models.text.lexicon import Lexicon

__all__ = ["LONGEST_ENTRY", "SHORTEST_ENTRY", "Gazetteer", "kinds_of"]

SHORTEST_ENTRY, LONGEST_ENTRY = 2, 8

_Ids = npt.NDArray[np.uint64]
_Rows = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]

_BITS = 40
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
# The finaliser of splitmix64: (shift, multiplier), then a last shift.
_ROUNDS = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))
_LAST_SHIFT = 31
_NO_RUN = 1 << _BITS  # no fingerprint is as large

_MOST_COMBINATIONS = 65_535
_MOST_IN_A_BYTE = 255

# Parts of speech of jieba's dictionary that are proper names: persons, transliterated persons,
# places, organisations, others.
_NAMES = frozenset({"nr", "nrt", "ns", "nt", "nz"})
_HISTORICAL = "nrfg"
_LONGEST_PART_OF_SPEECH = 4


class Gazetteer:
    """Words and of what kinds each is.

    A word has a combination of kinds, which is what :meth:`match` tells and ``len`` counts.

    Attributes:
        kinds: Names of the kinds.
        members: Which kinds each combination has. Row 0 stands for no word.
            shape: (1 + combinations, kinds)
    """

    def __init__(
        self,
        fingerprints: _Ids,
        combinations: _Rows,
        members: npt.NDArray[np.bool_],
        kinds: Sequence[str],
    ) -> None:
        """Take the columns.

        Args:
            fingerprints: Of the words, ascending. shape: (words,)
            combinations: Row of ``members`` of each word, from 1. shape: (words,)
            members: shape: (1 + combinations, kinds)
            kinds: Their names.

        Raises:
            ConfigError: The columns do not fit each other.
        """
        if (
            not len(fingerprints)
            or fingerprints.shape != combinations.shape
            or members.shape != (len(members), len(kinds))
            or not 0 < combinations.min() <= combinations.max() < len(members)
            or (fingerprints[1:] <= fingerprints[:-1]).any()
        ):
            raise ConfigError("expected a gazetteer whose columns fit each other")
        self._fingerprints = fingerprints
        self._combinations = combinations
        self.members = members
        self.kinds = tuple(kinds)

    def __len__(self) -> int:
        """Number of combinations; those that :meth:`match` tells run from 1 to this number."""
        return len(self.members) - 1

    @property
    def words(self) -> int:
        """How many words it knows."""
        return len(self._fingerprints)

    @classmethod
    def of(cls, lexicon: Lexicon, rare: int = 0) -> Gazetteer:
        """Fold a lexicon.

        Args:
            lexicon: Its tags become kinds (:func:`kinds_of`). Words of fewer than two or more than
                eight characters are left out.
            rare: So are words that are no names and are counted fewer times than this.

        Raises:
            ConfigError: No word is left, or there are more than 65,535 combinations of kinds.
        """
        rows: dict[frozenset[str], int] = {}
        entries: dict[int, list[tuple[str, int]]] = {}
        tags = lexicon.tags or ("",) * len(lexicon)
        for word, count, tag in zip(lexicon.words, lexicon.counts, tags, strict=True):
            kinds = kinds_of(tag)
            usual = count >= rare or any(map(_is_name, kinds))
            if usual and SHORTEST_ENTRY <= len(word) <= LONGEST_ENTRY:
                row = rows.setdefault(kinds, len(rows) + 1)
                entries.setdefault(len(word), []).append((word, row))
        if not entries or len(rows) > _MOST_COMBINATIONS:
            words = sum(map(len, entries.values()))
            raise ConfigError(
                "expected words of two to eight characters and at most "
                f"{_MOST_COMBINATIONS} combinations of kinds, got {words} words of {len(rows)}"
            )
        found: dict[int, int] = {}
        for of_length in entries.values():
            codes = np.array([[ord(c) for c in word] for word, _ in of_length], np.uint64)
            own = _fingerprints(codes)[:, -1, LONGEST_ENTRY - codes.shape[1]].tolist()
            found.update(zip(own, (row for _, row in of_length), strict=True))
        order = sorted(found)
        own_rows = [found[f] for f in order]
        small = len(rows) <= _MOST_IN_A_BYTE
        combinations: _Rows = (
            np.array(own_rows, np.uint8) if small else np.array(own_rows, np.uint16)
        )
        names = sorted({kind for kinds in rows for kind in kinds})
        members = np.array([[False] * len(names), *([n in kinds for n in names] for kinds in rows)])
        return cls(
            np.array(order, np.uint64),
            combinations,
            members,
            names,
        )

    def prepare(self) -> None:
        """Ready as it is; a lexicon is not."""

    def match(self, text: str) -> npt.NDArray[np.int64]:
        """All words in a text, also those inside others, sorted by (end, start).

        Args:
            text: Normalised.

        Returns:
            (start, end, combination). shape: (matches, 3)
        """
        if len(text) < SHORTEST_ENTRY:
            return np.zeros((0, 3), np.int64)
        codes = np.frombuffer(text.encode("utf-32-le"), np.uint32).astype(np.uint64)
        wanted = _fingerprints(codes[None])[0]
        at = np.searchsorted(self._fingerprints, wanted).clip(max=self.words - 1)
        last, shorter = np.nonzero(self._fingerprints[at] == wanted)
        ends = last + 1
        starts = ends - (LONGEST_ENTRY - shorter)
        found = self._combinations[at[last, shorter]].astype(np.int64)
        return np.stack([starts, ends, found], axis=1)

    def save(self, path: Path) -> None:
        """Write it as one file of compressed arrays."""
        steps = np.diff(self._fingerprints, prepend=np.uint64(0)).astype("<u8")
        with path.open("wb") as file:
            np.savez_compressed(
                file,
                # Byte by byte: the upper bytes of all steps are zeros and take no room.
                steps=np.ascontiguousarray(steps.view(np.uint8).reshape(-1, 8).T),
                combinations=self._combinations,
                members=self.members,
                kinds=np.array(self.kinds),
            )

    @classmethod
    def load(cls, path: Path) -> Gazetteer:
        """Read what :meth:`save` wrote.

        Raises:
            ConfigError: The file is missing or damaged.
        """
        try:
            with path.open("rb") as file, np.load(file) as arrays:
                steps = np.ascontiguousarray(arrays["steps"].T).view("<u8")[:, 0]
                return cls(
                    np.cumsum(steps, dtype=np.uint64),
                    arrays["combinations"],
                    arrays["members"],
                    arrays["kinds"].tolist(),
                )
        except (OSError, EOFError, ValueError, IndexError, KeyError, zipfile.BadZipFile) as error:
            raise ConfigError(f"expected a gazetteer in {path}, got: {error}") from error


def kinds_of(tags: str) -> frozenset[str]:
    """Of which kinds a word is.

    Args:
        tags: Of a lexicon's word, parted by blanks: parts of speech as jieba's dictionary has them,
            of which only names are told apart further than by their first letter, and names of
            lists.
    """
    return frozenset(map(_kind, tags.split()))


def _kind(tag: str) -> str:
    if tag == _HISTORICAL:
        return "nr"
    if tag in _NAMES or len(tag) > _LONGEST_PART_OF_SPEECH:
        return tag
    return tag[:1]


def _is_name(kind: str) -> bool:
    """Names, and what somebody made a list of."""
    return len(kind) > 1


def _fingerprints(codes: _Ids) -> _Ids:
    """Fingerprints of every run of characters that may be an entry.

    A sum over the characters' codes times powers of an odd number, mixed. It is the same for equal
    runs anywhere.

    Args:
        codes: Code points. shape: (texts, length)

    Returns:
        By the run's last character, longest first; ``_NO_RUN`` where a run would begin before the
        text. shape: (texts, length, LONGEST_ENTRY - SHORTEST_ENTRY + 1)
    """
    texts, length = codes.shape
    sums = np.zeros((texts, length, LONGEST_ENTRY - SHORTEST_ENTRY + 1), np.uint64)
    of_length = codes
    for n in range(2, min(LONGEST_ENTRY, length) + 1):
        of_length = of_length[:, :-1] * _MULTIPLIER + codes[:, n - 1 :]
        sums[:, n - 1 :, LONGEST_ENTRY - n] = of_length
    for shift, factor in _ROUNDS:
        sums ^= sums >> np.uint64(shift)
        sums *= np.uint64(factor)
    sums ^= sums >> np.uint64(_LAST_SHIFT)
    sums >>= np.uint64(64 - _BITS)
    for n in range(SHORTEST_ENTRY, LONGEST_ENTRY + 1):
        sums[:, : n - 1, LONGEST_ENTRY - n] = _NO_RUN
    return sums
