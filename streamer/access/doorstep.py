"""Connections that have not said yet what they want: a bounded number from each address."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from cnerta.streamer.access.peers import address_group

__all__ = ["Doorstep"]


class Doorstep:
    """Counts those whose opening handshake has not come yet."""

    def __init__(self, most: int, is_exempt: Callable[[str], bool]) -> None:
        """Begin with none.

        Args:
            most: From one address.
            is_exempt: Whether an address stands for many clients.
        """
        self._most = most
        self._is_exempt = is_exempt
        self._counts: Counter[str] = Counter()

    def enter(self, address: str) -> bool:
        """Another has come. Returns whether it may stay; if so, :meth:`leave` has to follow."""
        group = address_group(address)
        if self._counts[group] >= self._most and not self._is_exempt(address):
            return False
        self._counts[group] += 1
        return True

    def leave(self, address: str) -> None:
        """One has said what it wants, or is gone."""
        group = address_group(address)
        self._counts[group] -= 1
        if not self._counts[group]:
            del self._counts[group]
