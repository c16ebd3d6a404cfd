"""From the client's text to the characters the model was trained on, and back.

The model knows what is said: simplified characters and lower-case letters, no figures, no white
space, no punctuation. A text on its way there goes through four steps:

1. every code point for itself: full-width forms, compatibility forms and capitals;
2. tokens with figures in them are read out (:mod:`cnerta.models.text.spoken_numbers`);
3. what is not spoken is dropped: white space, punctuation, symbols, emoji;
4. traditional characters become simplified ones, by OpenCC.

Every normalised character remembers the stretch of the client's text that it comes from: one code
point, or a whole token such as ``3.5%``, all of whose characters come from all of it. So answers
can be given in the client's own offsets, in whole tokens.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt
import opencc

from cnerta.models.text.spoken_numbers import numeral, spoken_tokens

__all__ = ["KNOWN_NORMALISATIONS", "NORMALISATION", "NormalisedText", "normalise", "simplified"]

NORMALISATION: Final = "spoken-characters-2"
"""Name of this mapping in a bundle; to be changed with it."""

KNOWN_NORMALISATIONS: Final = frozenset({NORMALISATION, "spoken-characters-1"})
"""Names of bundles that this mapping serves.

The first one left figures and traditional characters as they were. Bundles trained with it have
met neither: their training texts are the same under both.
"""

# Marks (M*) join the character before them; separators, punctuation, symbols, controls and
# unassigned code points are not spoken.
_SPOKEN_CATEGORIES: Final = frozenset("LN")
# Forms of one thing that the number reader need not know apart.
_SAME_MARKS: Final = {"〇": "零", "−": "-", "：": ":", "￥": "¥", "∼": "~", "﹪": "%"}
_MOST_CONVERSIONS: Final = 4


@dataclass(frozen=True, slots=True)
class NormalisedText:
    """A client's text and what the model gets to see of it.

    Attributes:
        original: As the client sent it.
        text: Normalised characters.
        offsets: For each normalised character the code-point offset in ``original`` where the token
            begins that it comes from; never falls. shape: (len(text),)
        ends: Where that token ends; never falls. shape: (len(text),)
        utf16: For each code-point offset of ``original``, its end included, the same in UTF-16
            units. shape: (len(original) + 1,)
    """

    original: str
    text: str
    offsets: npt.NDArray[np.int64]
    ends: npt.NDArray[np.int64]
    utf16: npt.NDArray[np.int64]

    def original_range(self, start: int, end: int) -> tuple[int, int]:
        """Code-point offsets in ``original`` of the tokens of characters ``start`` to ``end``."""
        assert 0 <= start < end <= len(self.offsets), "expected a stretch inside the text"
        return int(self.offsets[start]), int(self.ends[end - 1])

    def normalised_range(self, start: int, end: int) -> tuple[int, int]:
        """The characters of all tokens that code points ``start`` to ``end`` touch; may be none."""
        first = np.searchsorted(self.ends, start, side="right")
        last = np.searchsorted(self.offsets, end, side="left")
        return int(first), max(int(first), int(last))

    def is_plain(self, index: int) -> bool:
        """Whether a normalised character stands for one code point, and alone."""
        start, end = self.original_range(index, index + 1)
        return end == start + 1 and self.normalised_range(start, end) == (index, index + 1)


def normalise(text: str) -> NormalisedText:
    """Normalise a text of any kind; characters that the vocabulary does not have stay."""
    folded = "".join(map(_fold, text))
    tokens = {t.start: t for t in spoken_tokens(folded)} if _has_figures(folded) else {}
    kept: list[str] = []
    offsets: list[int] = []
    ends: list[int] = []
    at = 0
    while at < len(text):
        token = tokens.get(at)
        spoken = _spoken(folded[at]) if token is None else token.spoken
        end = at + 1 if token is None else token.end
        kept.append(spoken)
        offsets += [at] * len(spoken)
        ends += [end] * len(spoken)
        at = end
    code_points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")
    utf16 = np.zeros(len(text) + 1, np.int64)
    np.cumsum(1 + (code_points > 0xFFFF), out=utf16[1:])
    return NormalisedText(
        text,
        simplified("".join(kept)),
        np.array(offsets, np.int64),
        np.array(ends, np.int64),
        utf16,
    )


@lru_cache(maxsize=1 << 16)
def _fold(character: str) -> str:
    """One code point for another: half-width, lower-case, with ASCII figures."""
    same = _SAME_MARKS.get(character)
    if same is not None:
        return same
    if unicodedata.category(character) == "Nd":
        return str(unicodedata.decimal(character))
    compatible = unicodedata.normalize("NFKC", character)
    # Numerals and units that are one character (Ⅳ, ㎡) are read out, not spelt.
    folded = compatible if len(compatible) == 1 and not _is_numeral(character) else character
    lower = folded.lower()
    # Some letters have a lower case of two code points; those stay as they are.
    return lower if len(lower) == 1 else folded


@lru_cache(maxsize=1 << 16)
def _spoken(folded: str) -> str:
    """What is said of a code point that is no part of a token; nothing if it is not spoken."""
    if _is_numeral(folded):
        return numeral(folded) or folded
    return folded if unicodedata.category(folded)[0] in _SPOKEN_CATEGORIES else ""


def _is_numeral(character: str) -> bool:
    return unicodedata.category(character) in ("Nl", "No")


def _has_figures(folded: str) -> bool:
    return any("0" <= c <= "9" for c in folded)


@cache
def _converter() -> opencc.OpenCC:
    # The standard of Hong Kong takes in what the plain one knows and a few more shapes.
    return opencc.OpenCC("hk2s")


def simplified(text: str) -> str:
    """A text in simplified characters, character by character; simplified text stays as it is.

    Which character it is may depend on the word (乾隆, but 乾净 has 干), and a word may appear only
    now that its first part is converted; so it is done until nothing changes.
    """
    for _ in range(_MOST_CONVERSIONS):
        converted: str = _converter().convert(text)
        if len(converted) != len(text):
            parts = [(c, _converter().convert(c)) for c in text]
            converted = "".join(new if len(new) == 1 else old for old, new in parts)
        if converted == text:
            break
        text = converted
    return text
