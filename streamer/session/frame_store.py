"""The acoustic frames of a stream that an answer may still need, numbered from its start."""

from __future__ import annotations

from collections import deque

import numpy as np
import numpy.typing as npt

__all__ = ["FrameStore"]

Floats = npt.NDArray[np.float32]


class FrameStore:
    """A window over the stream's frames that moves forward.

    Attributes:
        first: Number of the oldest frame kept.
        end: One past the number of the newest.
    """

    def __init__(self, width: int) -> None:
        self.first = 0
        self.end = 0
        self._width = width
        self._blocks: deque[Floats] = deque()

    @property
    def held_bytes(self) -> int:
        """Memory of the frames that are kept."""
        return 4 * self._width * (self.end - self.first)

    def append(self, frames: Floats) -> None:
        """Add the next frames. shape: (count, width)."""
        assert frames.ndim == 2
        assert frames.shape[1] == self._width
        self._blocks.append(frames)
        self.end += len(frames)

    def drop_before(self, number: int) -> None:
        """Forget the frames before ``number``, up to all there are."""
        number = min(number, self.end)
        while self._blocks and self.first + len(self._blocks[0]) <= number:
            self.first += len(self._blocks.popleft())
        if self._blocks and self.first < number:
            # A copy, because a slice would keep the whole block alive.
            self._blocks[0] = self._blocks[0][number - self.first :].copy()
            self.first = number

    def window(self, start: int, end: int) -> Floats:
        """The frames ``start`` to ``end`` as far as they are here. shape: (count, width)."""
        start, end = max(start, self.first), min(end, self.end)
        if start >= end:
            return np.zeros((0, self._width), np.float32)
        found: list[Floats] = []
        at = self.first
        for block in self._blocks:
            if at < end and at + len(block) > start:
                found.append(block[max(0, start - at) : end - at])
            at += len(block)
        return np.concatenate(found)
