"""Pronunciations of training text, from pypinyin."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable

from pypinyin import Style, lazy_pinyin, pinyin

__all__ = ["character_readings", "sentence_readings"]

# A reading rarer than this among a character's occurrences is taken for a mistake of the lookup.
_MIN_SHARE = 0.005


def sentence_readings(text: str) -> tuple[str, ...]:
    """The likely reading of each character, by words; the character itself if it has none."""
    # pypinyin hands runs of other characters to ``errors`` whole; one item for each is wanted.
    syllables = lazy_pinyin(
        text,
        style=Style.TONE3,
        neutral_tone_with_five=True,
        errors=list,  # type: ignore[arg-type]
    )
    assert len(syllables) == len(text), "one syllable a character"
    return tuple(syllables)


def character_readings(
    texts: Iterable[str], spoken: Iterable[tuple[str, tuple[str, ...]]], most: int
) -> dict[str, list[str]]:
    """Readings of each character, most frequent first.

    Args:
        texts: Training texts, read by words.
        spoken: Texts whose readings are known.
        most: Readings kept for a character.
    """
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    known = [(text, sentence_readings(text)) for text in texts]
    for text, readings in (*known, *spoken):
        for character, reading in zip(text, readings, strict=True):
            if reading != character:
                counts[character][reading] += 1
    for character, counter in counts.items():
        # A reading the dictionary lists but the texts never needed may still be spoken.
        listed = pinyin(character, style=Style.TONE3, heteronym=True, neutral_tone_with_five=True)
        counter[listed[0][0]] += 1
    return {
        character: [
            reading
            for reading, count in counter.most_common(most)
            if count >= _MIN_SHARE * counter.total()
        ]
        for character, counter in counts.items()
    }
