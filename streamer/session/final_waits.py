"""How long final transcripts wait for the engine, apart from what their own client brings about.

A final that stands behind others of its session, or behind its client's own text budget, does not
wait for the engine yet. So a client that sends more than its share lengthens no time here, while a
server that has more to do than it can lengthens everybody's.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Final

__all__ = ["FinalWaits", "TakenWaits"]

_MOST: Final = 256
"""Where nobody asks, the last ones are kept."""


@dataclass(frozen=True, slots=True)
class TakenWaits:
    """What there was to tell. All times in seconds.

    Attributes:
        answered: How long those waited that were answered meanwhile.
        waiting: How long one has waited that is not answered yet; None: there is none.
    """

    answered: tuple[float, ...] = ()
    waiting: float | None = None


@dataclass(slots=True)
class FinalWaits:
    """Follows the final that is first in line. All times in seconds.

    Attributes:
        since: From when on it waits for the engine; None: there is none.
        answered: How long those waited that were answered since the last :meth:`take`.
    """

    since: float | None = None
    answered: deque[float] = field(default_factory=lambda: deque(maxlen=_MOST))

    def begin(self, now: float) -> None:
        """A final has come; it waits from now on, unless another stands before it."""
        if self.since is None:
            self.since = now

    def restart(self, now: float) -> None:
        """What it waited for was not the engine, or the engine did some of it."""
        if self.since is not None:
            self.since = now

    def answer(self, now: float, *, is_last: bool) -> None:
        """It is answered; the next one's turn begins, unless it was the last."""
        if self.since is not None:
            self.answered.append(now - self.since)
        self.since = None if is_last else now

    def take(self, now: float) -> TakenWaits:
        """What there is to tell; each answer is told once."""
        taken = tuple(self.answered)
        self.answered.clear()
        return TakenWaits(taken, None if self.since is None else now - self.since)
