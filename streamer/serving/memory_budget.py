"""How much memory all sessions together may hold, and who gives up what beyond it.

What a session holds is estimated from what it keeps (audio, texts, entities, messages, names), not
measured: the estimate is of this session alone, costs microseconds and is the same everywhere.
Below the bound no new sessions are taken. Beyond it those that hold most give up what they hold
beyond the level at which all would fit: their oldest audio first, then utterances without a final
transcript. Nobody's finals are touched, and sessions that hold little lose nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Final, Protocol

__all__ = ["MemoryBudget", "MemoryHolder", "excesses"]

logger = logging.getLogger(__name__)

_REFUSING_SHARE: Final = 0.85
"""From this share of the budget on, new sessions are refused."""


class MemoryHolder(Protocol):
    """A session as the budget sees it."""

    @property
    def held_bytes(self) -> int:
        """Memory that it holds, about."""
        ...

    def release_memory(self, wanted_bytes: int) -> None:
        """Give up so much, if it can."""
        ...


class MemoryBudget:
    """The bound for all sessions together.

    Attributes:
        held_bytes: What they held when last looked at.
        released: How often a session had to give something up.
    """

    def __init__(self, limit_bytes: int) -> None:
        self.held_bytes = 0
        self.released = 0
        self._limit_bytes = limit_bytes

    @property
    def is_short(self) -> bool:
        """Whether there is too little left for new sessions."""
        return self.held_bytes > _REFUSING_SHARE * self._limit_bytes

    @property
    def is_filling(self) -> bool:
        """Whether to look often."""
        return self.held_bytes > self._limit_bytes / 2

    def balance(self, holders: Sequence[MemoryHolder]) -> None:
        """Look at what is held, and have those give up something that hold too much."""
        held = [holder.held_bytes for holder in holders]
        self.held_bytes = sum(held)
        if self.held_bytes <= self._limit_bytes:
            return
        beyond = self.held_bytes - self._limit_bytes
        for holder, excess in zip(holders, excesses(held, self._limit_bytes), strict=True):
            if excess:
                holder.release_memory(excess)
                self.released += 1
        self.held_bytes = sum(holder.held_bytes for holder in holders)
        logger.warning(
            "sessions held %.0f MB beyond the memory they may; those with most gave up some",
            beyond / 1e6,
        )


def excesses(held: Sequence[int], limit: int) -> list[int]:
    """What each holds beyond the one level at which all together are within a limit.

    Args:
        held: Bytes of each.
        limit: For all together.
    """
    level, left = 0, limit
    count = len(held)
    for number, own in enumerate(sorted(held)):
        share = left // (count - number)
        if own > share:
            level = share
            break
        left -= own
    else:
        return [0] * count
    return [max(0, own - level) for own in held]
