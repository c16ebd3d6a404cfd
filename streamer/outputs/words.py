"""Where words are in a Chinese text, from the word list of the default bundle.

Captions break lines between words. A text is divided into as few words as possible; where several
divisions are as short, into those with the longest words. It needs no model and no dictionary of
its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import Final

from cnerta.models.errors import ConfigError
from cnerta.models.runtime.bundle import find_bundle
from cnerta.models.text.gazetteer import Gazetteer

__all__ = ["Words", "bundled_words", "divided", "no_words"]

Words = Callable[[str], Sequence[tuple[int, int]]]
"""Half-open offsets of the words of two characters and more in a text, in order."""

_FILE: Final = "gazetteer.npz"
_PER_SQUARE: Final = 1e-4
"""So small that a word less always counts for more."""


def no_words(text: str) -> Sequence[tuple[int, int]]:
    """No words: lines may end between any two Chinese characters."""
    return ()


@cache
def bundled_words() -> Words:
    """The words of the bundle that comes along; :func:`no_words` where its list is not there."""
    try:
        gazetteer = Gazetteer.load(find_bundle(None) / _FILE)
    except ConfigError:
        return no_words

    def words(text: str) -> Sequence[tuple[int, int]]:
        found = [(int(start), int(end)) for start, end, _ in gazetteer.match(text)]
        return divided(len(text), found)

    return words


def divided(length: int, words: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Choose words that do not overlap, so that together with what is left there are fewest pieces.

    Args:
        length: Of the text.
        words: Half-open offsets, in any order.

    Returns:
        Those chosen, in order.
    """
    ending: dict[int, list[int]] = {}
    for start, end in words:
        ending.setdefault(end, []).append(start)
    costs = [0.0] + [math.inf] * length
    came_from = [0] * (length + 1)
    for end in range(1, length + 1):
        for start in (end - 1, *ending.get(end, ())):
            cost = costs[start] + 1.0 - _PER_SQUARE * (end - start) ** 2
            if cost < costs[end]:
                costs[end], came_from[end] = cost, start
    chosen: list[tuple[int, int]] = []
    at = length
    while at:
        if at - came_from[at] > 1:
            chosen.append((came_from[at], at))
        at = came_from[at]
    return chosen[::-1]
