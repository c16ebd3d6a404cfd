"""From the client's text to the characters the model was trained on, and back.

The model knows bare characters: no white space, no punctuation, half-width lower-case letters.
Every normalised character comes from exactly one code point of the client's text and remembers
which, so answers can be given in the client's own offsets.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["NORMALISATION", "NormalisedText", "normalise"]

NORMALISATION = "spoken-characters-1"
"""Name of this mapping in a bundle; to be changed with it."""

_FULL_WIDTH_FIRST = 0xFF01
_FULL_WIDTH_LAST = 0xFF5E
_FULL_WIDTH_SHIFT = 0xFF01 - 0x21
# Marks (M*) join the character before them; separators, punctuation, symbols, controls and
# unassigned code points are not spoken.
_SPOKEN_CATEGORIES = frozenset("LN")


@dataclass(frozen=True, slots=True)
class NormalisedText:
    """A client's text and what the model gets to see of it.

    Attributes:
        original: As the client sent it.
        text: Normalised characters.
        offsets: For each normalised character the code-point offset in ``original``.
            shape: (len(text),)
        utf16: For each code-point offset of ``original``, its end included, the same in UTF-16
            units. shape: (len(original) + 1,)
    """

    original: str
    text: str
    offsets: npt.NDArray[np.int64]
    utf16: npt.NDArray[np.int64]

    def original_range(self, start: int, end: int) -> tuple[int, int]:
        """Code-point offsets in ``original`` of the normalised characters ``start`` to ``end``."""
        assert 0 <= start < end <= len(self.offsets), "expected a stretch inside the text"
        return int(self.offsets[start]), int(self.offsets[end - 1]) + 1

    def normalised_range(self, start: int, end: int) -> tuple[int, int]:
        """The normalised characters from code points ``start`` to ``end``; may be none."""
        first, last = np.searchsorted(self.offsets, [start, end])
        return int(first), int(last)


def normalise(text: str) -> NormalisedText:
    """Normalise a text of any kind: an unknown character is the vocabulary's business."""
    kept: list[str] = []
    offsets: list[int] = []
    for offset, character in enumerate(text):
        spoken = _normalise_character(character)
        if spoken is not None:
            kept.append(spoken)
            offsets.append(offset)
    units = np.fromiter((1 + (ord(c) > 0xFFFF) for c in text), np.int64, len(text))
    utf16 = np.concatenate([np.zeros(1, np.int64), np.cumsum(units)])
    return NormalisedText(text, "".join(kept), np.array(offsets, np.int64), utf16)


def _normalise_character(character: str) -> str | None:
    """One character for the model, or None for one that is not spoken."""
    code = ord(character)
    if _FULL_WIDTH_FIRST <= code <= _FULL_WIDTH_LAST:
        character = chr(code - _FULL_WIDTH_SHIFT)
    if unicodedata.category(character)[0] not in _SPOKEN_CATEGORIES:
        return None
    lower = character.lower()
    # Some letters have a lower case of two code points; those stay as they are.
    return lower if len(lower) == 1 else character
