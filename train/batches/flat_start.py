"""Rough character times of single-word recordings, to start training from.

CTC alone sits on a plateau for thousands of updates before it finds out which sound goes with which
symbol. The old remedy is a flat start: divide what is loud evenly among the characters. It is exact
for one syllable and nearly so for two; the frames around the division are left open.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from cnerta.models.runtime.geometry import SAMPLE_RATE
from cnerta.models.runtime.loudness import power_db

__all__ = ["isolated_times", "loud_extent"]

_BLOCK_MS = 10
_FLOOR_DB = -35.0
_OPEN_MS = 60.0
_MOST_CHARACTERS = 2


def loud_extent(samples: npt.NDArray[np.float32]) -> tuple[float, float]:
    """First and last moment within 35 dB of the loudest 10 ms, in ms."""
    block = SAMPLE_RATE * _BLOCK_MS // 1000
    blocks = len(samples) // block
    if not blocks:
        return (0.0, 1000.0 * len(samples) / SAMPLE_RATE)
    energy = (samples[: blocks * block].reshape(blocks, block).astype(np.float64) ** 2).mean(axis=1)
    level = power_db(energy)
    loud = np.flatnonzero(level > level.max() + _FLOOR_DB)
    return (float(loud[0] * _BLOCK_MS), float((loud[-1] + 1) * _BLOCK_MS))


def isolated_times(
    samples: npt.NDArray[np.float32], characters: int
) -> tuple[tuple[float, float], ...] | None:
    """Start and end of each character in ms; the time between two is not decided.

    Returns:
        None for words of more than two characters, where an even division is too wrong to teach.
    """
    if characters > _MOST_CHARACTERS:
        return None
    start, end = loud_extent(samples)
    edges = np.linspace(start, end, characters + 1)
    spare = np.full(characters + 1, _OPEN_MS)
    spare[[0, -1]] = 0.0
    spare = np.minimum(spare, (end - start) / (4 * characters))
    return tuple(
        (float(edges[i] + spare[i]), float(edges[i + 1] - spare[i + 1])) for i in range(characters)
    )
