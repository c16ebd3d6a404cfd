"""Refuses what no working graph gives."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from cnerta.models.errors import InferenceError

__all__ = ["check_plausible"]

_MOST: Final = 1e4
"""Magnitude of frames and scores; those of trained models are below 100."""


def check_plausible(what: str, values: npt.NDArray[np.float32]) -> None:
    """Refuse what no working graph gives: decoded, it would look like an answer without entities.

    Raises:
        InferenceError: Values are NaN, infinite or absurd.
    """
    most = float(np.abs(values).max(initial=0.0))
    if not most <= _MOST:
        raise InferenceError(f"expected {what} between -{_MOST:g} and {_MOST:g}, got {most:g}")
