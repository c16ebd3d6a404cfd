"""How loud audio is, in dB of full scale."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

__all__ = ["SILENCE_DB", "power_db"]

Floating = TypeVar("Floating", bound=np.floating[Any])

SILENCE_DB = -120.0
"""The level of digital silence, which has none: 20 dB below the last bit of 16-bit audio."""


def power_db(power: npt.NDArray[Floating]) -> npt.NDArray[Floating]:
    """Levels in dB; 0 is a square wave of full scale, :data:`SILENCE_DB` the least.

    Args:
        power: Mean squares of samples from -1 to 1, of any shape.

    Returns:
        Of the same shape and type.
    """
    floor = power.dtype.type(10 ** (SILENCE_DB / 10))
    levels: npt.NDArray[Floating] = 10 * np.log10(power + floor)
    return levels
