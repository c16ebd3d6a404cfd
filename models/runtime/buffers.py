"""Copying between threads that share one GIL.

While numpy copies or computes more than 500 numbers it releases the GIL for other threads, and
gets it back only when they give it up: next to a busy event loop that takes many times as long as
the work. What is done for every stream in a batch keeps the GIL instead.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

__all__ = ["joined"]


def joined(pieces: Iterable[npt.NDArray[np.float32] | bytes]) -> npt.NDArray[np.float32]:
    """Contiguous pieces one after the other, in memory of their own, without releasing the GIL.

    Returns:
        shape: (all numbers of all pieces,)
    """
    # An array is a buffer, though it can say so only from Python 3.12 on.
    return np.frombuffer(bytearray().join(pieces), np.float32)  # type: ignore[arg-type]
