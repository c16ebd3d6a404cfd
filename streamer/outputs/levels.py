"""How loud the last seconds were, column by column of a picture."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

__all__ = ["CELL_MS", "NO_AUDIO", "Levels"]

CELL_MS: Final = 125
"""How much audio one column shows: about as long as it takes to say what fits into it."""
CELLS_KEPT: Final = 400


@dataclass(frozen=True, slots=True)
class Levels:
    """How loud the audio was, column by column.

    Attributes:
        first: Number of the first column that is kept, counted from the start of the audio.
        dbfs: The loudest block of each column from there on, in dB of full scale.
    """

    first: int = 0
    dbfs: tuple[float, ...] = ()

    def with_block(self, audio_ms: float, level_dbfs: float) -> Levels:
        """After a block that ends at `audio_ms`."""
        column = max(0, math.ceil(audio_ms / CELL_MS) - 1)
        missing = column - self.first - len(self.dbfs) + 1
        if missing <= 0:
            if not self.dbfs or level_dbfs <= self.dbfs[-1]:
                return self
            return Levels(self.first, (*self.dbfs[:-1], level_dbfs))
        kept = (*self.dbfs, *[-math.inf] * min(missing - 1, CELLS_KEPT), level_dbfs)[-CELLS_KEPT:]
        return Levels(column + 1 - len(kept), kept)

    def at(self, column: int) -> float:
        """The level of a column, silence where none is kept."""
        index = column - self.first
        return self.dbfs[index] if 0 <= index < len(self.dbfs) else -math.inf


NO_AUDIO: Final = Levels()
