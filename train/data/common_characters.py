"""Makes ``streamer/sources/syllables.txt``: the character that is most often read as a syllable.

    python -m cnerta.train.data.common_characters > streamer/sources/syllables.txt

Counted are the words of jieba's dictionary with its frequencies, read by pypinyin as words, so that
a character with several readings counts for each as often as it is read so.
"""

from __future__ import annotations

import sys
from collections import Counter, defaultdict
from pathlib import Path

import jieba

from cnerta.train.data.pronunciations import sentence_readings

__all__ = ["common_characters"]


def common_characters(dictionary: Path) -> dict[str, str]:
    """The most frequent character of every syllable.

    Args:
        dictionary: Lines of word, frequency and kind, as jieba's.
    """
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for line in dictionary.read_text(encoding="utf-8").splitlines():
        word, frequency, *_ = line.split(" ")
        if not all("\u4e00" <= character <= "\u9fff" for character in word):
            continue
        for character, syllable in zip(word, sentence_readings(word), strict=True):
            if syllable[-1:].isdecimal():
                counts[syllable][character] += int(frequency)
    return {syllable: found.most_common(1)[0][0] for syllable, found in sorted(counts.items())}


if __name__ == "__main__":
    found = common_characters(Path(jieba.__file__).with_name("dict.txt"))
    sys.stdout.writelines(f"{syllable} {character}\n" for syllable, character in found.items())
