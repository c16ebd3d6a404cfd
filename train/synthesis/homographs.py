"""Homograph pairs: one text, two readings, different entities; only the audio tells which.

南京市长江大桥 read 南京市|长江大桥 is two places, read 南京|市长|江大桥 a place and a person.
A phrase (:mod:`cnerta.train.synthesis.homograph_phrases`), combined from word lists
(:mod:`cnerta.train.synthesis.homograph_words`), is put into a carrier sentence.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from cnerta.models.errors import DataError
from cnerta.models.runtime.labels import Span
from cnerta.train.synthesis.homograph_phrases import FAMILIES, Draw, Kind, Phrase
from cnerta.train.synthesis.homograph_words import Split, WordLists, word_lists
from cnerta.train.synthesis.marked_words import Word, read_words

__all__ = ["HomographPair", "Reading", "homograph_pairs"]


@dataclass(frozen=True, slots=True)
class Reading:
    """One way to read the text.

    Attributes:
        words: The whole sentence.
        entities: Nested gold, sorted; offsets are characters of the sentence.
    """

    words: tuple[Word, ...]
    entities: tuple[Span, ...]

    @property
    def text(self) -> str:
        """The characters, joined."""
        return "".join(word.text for word in self.words)

    @property
    def readings(self) -> tuple[str, ...]:
        """Pinyin of every character."""
        return tuple(pinyin for word in self.words for pinyin in word.pinyin)


@dataclass(frozen=True, slots=True)
class HomographPair:
    """A text with two readings.

    Attributes:
        identifier: Stable name, unique within a split.
        family: Which construction made it.
        kind: Whether pronunciation or only pauses differ.
        split: The split its names and its carrier belong to.
        names: The name-like parts used; those of the two splits are disjoint.
        carrier: The sentence around it, with `{}`.
        first: One reading.
        second: The other.
    """

    identifier: str
    family: str
    kind: Kind
    split: Split
    names: tuple[str, ...]
    carrier: str
    first: Reading
    second: Reading

    @property
    def text(self) -> str:
        """The text both readings share."""
        return self.first.text


def _spans(
    text: str, offset: int, phrase: str, entities: Sequence[tuple[str, str]]
) -> tuple[Span, ...] | None:
    """Offsets of the surfaces, or None where one occurs twice and the offset would be a guess."""
    spans: list[Span] = []
    for surface, label in entities:
        if phrase.count(surface) != 1:
            return None
        start = offset + phrase.index(surface)
        assert text[start : start + len(surface)] == surface
        spans.append(Span(start, start + len(surface), label))
    return tuple(sorted(spans))


def _embed(marked: str, carrier: str) -> tuple[tuple[Word, ...], int]:
    """The words of the carrier with the phrase inside, and the phrase's offset in characters."""
    before, after = carrier.split("{}")
    opening = read_words(before) if before else ()
    return (
        opening + read_words(marked + ("/" if after else "")) + read_words(after.lstrip("/")),
        sum(len(word.text) for word in opening),
    )


def _pair(phrase: Phrase, carrier: str, split: Split, number: int) -> HomographPair | None:
    readings: list[Reading] = []
    for marked, entities in (
        (phrase.first, phrase.first_entities),
        (phrase.second, phrase.second_entities),
    ):
        words, offset = _embed(marked, carrier)
        text = "".join(word.text for word in words)
        surface = "".join(word.text for word in read_words(marked))
        spans = _spans(text, offset, surface, entities)
        if spans is None:
            return None
        readings.append(Reading(words, spans))
    first, second = readings
    if first.text != second.text:
        raise DataError(f"the readings of {phrase.family} differ: {first.text!r}, {second.text!r}")
    if first.entities == second.entities:
        return None
    return HomographPair(
        f"{split}-{number:04d}-{phrase.family}",
        phrase.family,
        phrase.kind,
        split,
        phrase.names,
        re.sub(r"[ /|]", "", carrier),
        first,
        second,
    )


def _carriers(lists: WordLists, phrase: Phrase) -> tuple[str, ...]:
    """Sentences that both readings of a phrase fit into."""
    return lists.news_carriers if phrase.family == "named-verb" else lists.carriers


def _stream(split: Split, seed: int) -> Iterator[HomographPair]:
    rng = random.Random(f"homographs:{split}:{seed}")
    draw = Draw(word_lists(), split, rng)
    seen: set[str] = set()
    number = 0
    misses = 0
    while misses < 2_000:
        phrase = FAMILIES[number % len(FAMILIES)](draw)
        pair = _pair(phrase, draw.one(_carriers(draw.lists, phrase)), split, number)
        # The same phrase in another carrier is allowed once the lists have been gone through.
        if pair is None or pair.text in seen:
            misses += 1
            continue
        misses = 0
        seen.add(pair.text)
        yield pair
        number += 1


def homograph_pairs(
    count: int, *, seed: int = 0, split: Split = "train"
) -> tuple[HomographPair, ...]:
    """Generates pairs; the first n of a longer list are the shorter list.

    Args:
        count: How many.
        seed: Chooses among the combinations, never which split a name belongs to.
        split: Whose names and carriers to use.

    Returns:
        Distinct texts, the families taking turns.

    Raises:
        DataError: More pairs are wanted than the lists can make, or the lists are damaged.
    """
    stream = _stream(split, seed)
    pairs = tuple(pair for pair, _ in zip(stream, range(count), strict=False))
    if len(pairs) < count:
        raise DataError(f"expected {count} homograph pairs, the lists make {len(pairs)}")
    return pairs
