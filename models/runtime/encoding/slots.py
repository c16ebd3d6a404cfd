"""Who has which place of a table on a device. No device here, only numbers."""

from __future__ import annotations

from collections import deque

from cnerta.models.runtime.encoding.state import KeptCache

__all__ = ["NOBODYS", "Slot", "Slots"]

NOBODYS = 0
"""A slot for rows that only fill a batch up: everybody may write there, and nobody looks."""


class Slot(KeptCache):
    """A stream's place in a table. It is free again when nobody holds this any more.

    Attributes:
        number: Of the place.
        slots: Whose it is.
        end: One past the last frame that may have been written to it.
    """

    __slots__ = ("end", "number", "slots")

    def __init__(self, slots: Slots, number: int) -> None:
        self.slots = slots
        self.number = number
        self.end = 0

    def __del__(self) -> None:
        # In whatever thread lets go of it, in the midst of whatever: a lock could be held there.
        self.slots.free.append(self.number)


class Slots:
    """Gives slots out; may be used by several threads.

    Attributes:
        capacity: Streams that find room at the same time.
        free: Numbers that nobody has.
    """

    def __init__(self, capacity: int) -> None:
        """All are free.

        Args:
            capacity: Streams that find room at the same time.
        """
        self.capacity = capacity
        self.free = deque(range(NOBODYS + 1, NOBODYS + 1 + capacity))

    @property
    def in_use(self) -> int:
        """Slots that somebody has."""
        return self.capacity - len(self.free)

    def take(self) -> Slot | None:
        """A slot that has been free for longest; None: all are taken."""
        try:
            number = self.free.popleft()
        except IndexError:
            return None
        return Slot(self, number)
