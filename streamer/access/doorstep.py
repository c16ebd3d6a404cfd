"""Connections that have not said yet what they want: how many of one address, and how often."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from typing import Final

from cnerta.streamer.access.peers import address_group

__all__ = ["Doorstep"]

_PER_S: Final = 32.0
_BURST: Final = 128.0
"""So many connections may come at once, before they may come at a steady rate only: each costs the
event loop about a millisecond, whatever becomes of it."""
_MOST_KNOWN: Final = 4_096
_HELD_S: Final = 1.0
"""So long waits who may not come in. Who is refused at once is back at once, thousands of times a
second."""
_MOST_HELD: Final = 512
"""More do not wait, or they would take up what a process may have open."""


class Doorstep:
    """Counts those whose opening handshake has not come yet, and how often they come."""

    def __init__(self, most: int, is_exempt: Callable[[str], bool], *, share: int = 1) -> None:
        """Begin with none.

        Args:
            most: From one address at once.
            is_exempt: Whether an address stands for many clients.
            share: Over how many doorsteps what comes is spread evenly.
        """
        self._most = math.ceil(most / share)
        self._per_s, self._burst = _PER_S / share, _BURST / share
        self._is_exempt = is_exempt
        self._counts: Counter[str] = Counter()
        # A leaky bucket for each address: how full it was, and when.
        self._buckets: dict[str, tuple[float, float]] = {}
        self._held: set[Callable[[], None]] = set()

    def enter(self, address: str, now: float) -> bool:
        """Another has come.

        Args:
            address: From where.
            now: In seconds.

        Returns:
            Whether it may stay; if so, :meth:`leave` has to follow.
        """
        group = address_group(address)
        if not self._is_exempt(address):
            level = self._level(group, now)
            if self._counts[group] >= self._most or level >= self._burst:
                return False
            self._fill(group, level + 1, now)
        self._counts[group] += 1
        return True

    def leave(self, address: str) -> None:
        """One has said what it wants, or is gone."""
        group = address_group(address)
        self._counts[group] -= 1
        if not self._counts[group]:
            del self._counts[group]

    def hold(self, refuse: Callable[[], None]) -> float:
        """One may not stay.

        Args:
            refuse: Ends the connection; :meth:`release` has to follow.

        Returns:
            Seconds until that is to happen; less if the server closes.
        """
        if len(self._held) >= _MOST_HELD:
            return 0.0
        self._held.add(refuse)
        return _HELD_S

    def release(self, refuse: Callable[[], None]) -> None:
        """One who might not stay is gone."""
        self._held.discard(refuse)

    def close(self) -> None:
        """Nobody waits any longer to be refused."""
        for refuse in list(self._held):
            refuse()

    def _level(self, group: str, now: float) -> float:
        level, at = self._buckets.get(group, (0.0, now))
        return max(0.0, level - self._per_s * (now - at))

    def _fill(self, group: str, level: float, now: float) -> None:
        self._buckets[group] = (level, now)
        if len(self._buckets) > _MOST_KNOWN:
            self._buckets = {g: b for g, b in self._buckets.items() if self._level(g, now) > 0}
