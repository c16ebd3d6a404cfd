"""Whether the server keeps up: by how long finals have waited lately, not by a count of sessions.

How many sessions a machine can serve depends on the machine, the model and on what they send. What
clients are promised is the time to a final answer, so that is what is watched: its 95th percentile
over the last seconds, finals that still wait included. A session's first final comes seconds after
it begins, though. So what waits for the engine at the moment, and for the event loop, counts, too.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from typing import Final

__all__ = ["LoadWatch"]

_WINDOW_S: Final = 3.0
_QUANTILE: Final = 0.95
_FEWEST: Final = 8
"""With fewer times than this one slow answer is no sign yet."""
_TURNS: Final = 9
"""Of the event loop: half of them have to be slow before that says something."""
_MOST: Final = 4_096


@dataclass(slots=True)
class LoadWatch:
    """Collects waits. All times in seconds; ``now`` rises.

    Attributes:
        window_s: For so long a wait counts.
    """

    window_s: float = _WINDOW_S
    _answered: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=_MOST))
    _waiting: list[float] = field(default_factory=list)
    _collected: list[float] = field(default_factory=list)
    _delays: deque[float] = field(default_factory=lambda: deque([0.0] * _TURNS, maxlen=_TURNS))

    def answered(self, wait_s: float, now: float) -> None:
        """A final was answered after so long."""
        self._answered.append((now, wait_s))

    def waiting(self, wait_s: float) -> None:
        """A final has waited for so long and still does; part of a turn."""
        self._collected.append(wait_s)

    def end_turn(self, delay_s: float) -> None:
        """All sessions have told of what still waits.

        Args:
            delay_s: How long work waits for the engine, or how late the turn was.
        """
        self._waiting, self._collected = self._collected, []
        self._delays.append(delay_s)

    def wait_s(self, now: float) -> float:
        """How long all but one in twenty finals waited at most, lately."""
        while self._answered and now - self._answered[0][0] > self.window_s:
            self._answered.popleft()
        answered = [wait for _, wait in self._answered]
        usual = _quantile(answered, _QUANTILE)
        # What still waits counts as far as it waits longer: it may be answered at once.
        waits = [*answered, *(wait for wait in self._waiting if wait > usual)]
        delay = _quantile(list(self._delays), 0.5)
        return max(delay, _quantile(waits, _QUANTILE) if len(waits) >= _FEWEST else 0.0)


def _quantile(values: list[float], share: float) -> float:
    """The nearest rank; 0 without values."""
    return sorted(values)[math.ceil(share * len(values)) - 1] if values else 0.0
