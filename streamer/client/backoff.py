"""How long to wait before the next attempt: longer each time, and never all at the same moment."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

__all__ = ["Backoff"]


@dataclass(slots=True)
class Backoff:
    """Exponential backoff with full jitter: any time between none and a bound that doubles.

    After a server's restart its clients come back spread out, however many were cut off at once.

    Attributes:
        first_s: Bound of the first pause.
        longest_s: Bound of all pauses.
        attempts: Pauses so far.
        uniform: Draws from a range.
    """

    first_s: float = 0.25
    longest_s: float = 5.0
    attempts: int = 0
    uniform: Callable[[float, float], float] = field(default=random.uniform)

    def next_pause_s(self) -> float:
        """How long to wait now, in seconds."""
        bound_s = min(self.longest_s, self.first_s * 2 ** min(self.attempts, 32))
        self.attempts += 1
        return self.uniform(0.0, bound_s)

    def reset(self) -> None:
        """All is well again."""
        self.attempts = 0
