"""What a connection has sent and nobody has taken yet, and why it is not taken at the moment.

No I/O: bytes in, slices out. Whoever owns it reads nothing more from the connection while something
holds it, and does at the end of the input what has to wait until all of that is taken.
"""

from __future__ import annotations

from typing import Final, Literal

__all__ = ["SLICE_BYTES", "HoldReason", "Unread"]

SLICE_BYTES: Final = 2_048
HoldReason = Literal["queue", "budget", "opening", "detached", "content"]
"""The library's queue of frames is full, its share of the event loop is used up, another process
answers its request, another process has it, or the content of its request is not wanted yet."""


class Unread:
    """Bytes that wait, in order."""

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._held: set[HoldReason] = set()

    def __len__(self) -> int:
        """How many wait."""
        return len(self._bytes)

    @property
    def is_held(self) -> bool:
        """Whether none may be taken now."""
        return bool(self._held)

    def put(self, data: bytes) -> None:
        """More have come."""
        self._bytes += data

    def take(self) -> bytes | None:
        """The next slice; None: there is nothing, or it is held."""
        if self._held or not self._bytes:
            return None
        piece = bytes(self._bytes[:SLICE_BYTES])
        del self._bytes[:SLICE_BYTES]
        return piece

    def clear(self) -> None:
        """Nobody wants them any more."""
        self._bytes.clear()

    def hold(self, reason: HoldReason) -> bool:
        """Let none be taken. Returns whether some could be until now."""
        was_held = self.is_held
        self._held.add(reason)
        return not was_held

    def release(self, reason: HoldReason) -> bool:
        """A reason is gone. Returns whether there is no other."""
        self._held.discard(reason)
        return not self._held
