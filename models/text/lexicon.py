"""Word lists, and which of their words occur in a text.

A text encoder with a lexicon gets the words of a text as integer triples (start, end, word id):
half-open character offsets, the ids from 1 in the lexicon's order; 0 is padding.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import ahocorasick
import numpy as np
import numpy.typing as npt

from cnerta.models.errors import ConfigError
from cnerta.models.text.normalisation import normalise

__all__ = [
    "LONGEST_WORD",
    "NO_WORD",
    "Lexicon",
    "load_lexicon",
    "pad_matches",
    "read_lexicon",
    "read_word_list",
    "save_lexicon",
]

NO_WORD = 0
LONGEST_WORD = 10
"""Longer words are left out: they are phrases, and a match costs as much as a short one."""

_MOST = 2**31 - 1


@dataclass(frozen=True)
class Lexicon:
    """A word list.

    Attributes:
        words: Without repetition, as the model sees text (normalised). The id of ``words[i]`` is
            ``i + 1``.
        counts: Of each word, 0 for a word that was not met, at most 2**31 - 1.
        tags: What kind of word each is, such as a dictionary's part of speech; several are parted
            by blanks. Empty where the lists tell nothing.
    """

    words: tuple[str, ...]
    counts: tuple[int, ...]
    tags: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check the columns.

        Raises:
            ConfigError: A word repeats or is empty, a count is out of range, or a column has
                another length than ``words``.
        """
        if not all(self.words) or len(set(self.words)) != len(self.words):
            raise ConfigError("expected every word of a lexicon once, got a repeated or empty one")
        if len(self.counts) != len(self.words) or len(self.tags) not in (0, len(self.words)):
            raise ConfigError(
                f"expected counts and tags of {len(self.words)} words, got {len(self.counts)} and "
                f"{len(self.tags)}"
            )
        if any(not 0 <= count <= _MOST for count in self.counts):
            raise ConfigError(f"expected counts of 0 to {_MOST}, got others")

    def __len__(self) -> int:
        """Number of words; ids run from 1 to this number."""
        return len(self.words)

    @cached_property
    def _automaton(self) -> Any:
        automaton = ahocorasick.Automaton(ahocorasick.STORE_INTS)
        for word_id, word in enumerate(self.words, 1):
            automaton.add_word(word, word_id)
        automaton.make_automaton()
        return automaton

    def prepare(self) -> None:
        """Get ready now, which takes a second for half a million words, not at the first text."""
        _ = self._automaton

    def match(self, text: str) -> npt.NDArray[np.int64]:
        """All words in a text, also those inside others, sorted by (end, start).

        Args:
            text: Normalised.

        Returns:
            (start, end, word id). shape: (matches, 3)
        """
        if not self.words or not text:
            return np.zeros((0, 3), np.int64)
        # Found end by end, and at each end the longest first: in order as they come.
        found = [
            (last + 1 - len(self.words[word - 1]), last + 1, word)
            for last, word in self._automaton.iter(text)
        ]
        return np.array(found, np.int64).reshape(-1, 3)

    def counted(self, texts: Iterable[str]) -> Lexicon:
        """The same words, those of some texts first, with how often they occur there.

        As Ma et al. (2020, section 3.2) count: an occurrence inside a longer word does not count,
        so that short words do not win by being parts of others. A word that never stands alone
        counts 1, one that does not occur at all 0.

        Args:
            texts: Normalised.
        """
        counts = np.zeros(len(self.words) + 1, np.int64)
        seen = np.zeros(len(self.words) + 1, bool)
        for text in texts:
            matches = self.match(text)
            seen[matches[:, 2]] = True
            np.add.at(counts, matches[_outermost(matches), 2], 1)
        counts = np.where(seen, np.clip(counts, 1, _MOST), 0)[1:]
        order = np.argsort(~seen[1:], kind="stable").tolist()
        return replace(
            self,
            words=tuple(self.words[i] for i in order),
            counts=tuple(counts[order].tolist()),
            tags=tuple(self.tags[i] for i in order) if self.tags else (),
        )


def _outermost(matches: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Which matches lie in no longer match. shape: (matches,)."""
    starts, ends = matches[:, 0], matches[:, 1]
    inside = (starts[:, None] >= starts) & (ends[:, None] <= ends)
    shorter = (ends - starts)[:, None] < ends - starts
    return np.logical_not((inside & shorter).any(axis=1))


def pad_matches(rows: Sequence[npt.NDArray[np.int64]]) -> npt.NDArray[np.int64]:
    """Matches of several texts as one array, at least one row of padding where there are none.

    Returns:
        shape: (texts, matches, 3)
    """
    padded = np.zeros((len(rows), max(1, *(len(r) for r in rows)), 3), np.int64)
    for place, row in zip(padded, rows, strict=True):
        place[: len(row)] = row
    return padded


def read_word_list(path: Path) -> Iterator[tuple[str, int, str]]:
    """Read a word list, whatever its form.

    One word a line, then nothing, a count (THUOCL), a count and tags (jieba's dictionary, or what
    :func:`save_lexicon` writes), or a vector (word2vec's text form, whose first line may be a
    header). Fields are parted by white space. Words are normalised; those that lose a character in
    it are left out.

    Yields:
        (word, count, tags); 1 where there is no count.

    Raises:
        ConfigError: The file cannot be read.
    """
    try:
        with path.open(encoding="utf-8-sig") as file:
            for number, line in enumerate(file):
                word, *fields = line.split(maxsplit=3) or [""]
                if number == 0 and len(fields) == 1 and word.isdigit() and fields[0].isdigit():
                    continue  # word2vec's header: words and dimensions
                known = normalise(word).text
                if not known or len(known) != len(word):
                    continue
                vector = len(fields) > 1 and _is_number(fields[1])
                counted = fields and fields[0].isdigit() and not vector
                tags = [] if vector else fields[1:]
                yield known, min(int(fields[0]), _MOST) if counted else 1, " ".join(tags).strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"expected a readable word list in {path}, got: {error}") from error


def _is_number(field: str) -> bool:
    try:
        float(field)
    except ValueError:
        return False
    return True


def read_lexicon(paths: Sequence[Path], longest: int = LONGEST_WORD) -> Lexicon:
    """Read word lists as one lexicon, words in the order they first come.

    A word of several lists has the largest of its counts and all of its tags. A list without tags
    gives its name (``THUOCL_diming``) as one.

    Args:
        paths: See :func:`read_word_list`.
        longest: Longer words are left out.

    Raises:
        ConfigError: A file cannot be read, or there is no word at all.
    """
    counts: dict[str, int] = {}
    tags: dict[str, dict[str, None]] = {}
    for path in paths:
        for word, count, tag in read_word_list(path):
            if len(word) > longest:
                continue
            counts[word] = max(count, counts.get(word, 0))
            tags.setdefault(word, {}).update(dict.fromkeys(tag.split() or [path.stem]))
    if not counts:
        raise ConfigError(f"expected words in {', '.join(map(str, paths))}, got none")
    joined = {t: " ".join(t) for t in {tuple(t) for t in tags.values()}}
    return Lexicon(
        tuple(counts), tuple(counts.values()), tuple(joined[tuple(tags[word])] for word in counts)
    )


def save_lexicon(path: Path, lexicon: Lexicon) -> None:
    """Write a lexicon: word, count and tags a line, parted by tabulators."""
    tags = lexicon.tags or ("",) * len(lexicon)
    rows = zip(lexicon.words, lexicon.counts, tags, strict=True)
    content = "".join(f"{word}\t{count}\t{tag}\n" for word, count, tag in rows)
    path.write_bytes(content.encode())


def load_lexicon(path: Path) -> Lexicon:
    """Read what :func:`save_lexicon` wrote, every word of it in its place.

    Raises:
        ConfigError: The file is damaged.
    """
    try:
        lines = path.read_bytes().decode().split("\n")[:-1]
        words, counts, tags = zip(*(line.split("\t") for line in lines), strict=True)
        return Lexicon(words, tuple(map(int, counts)), tags if any(tags) else ())
    except ValueError as error:
        raise ConfigError(f"expected a lexicon in {path}, got: {error}") from error
