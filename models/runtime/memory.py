"""Gives memory that is not in use back to the system.

What the runtime and numpy have freed stays with the process: the C library keeps it for the next
time. After a large batch that may be a hundred megabytes.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable

__all__ = ["give_back"]


def give_back() -> None:
    """Give back what is free; takes some milliseconds, without the GIL.

    Does nothing where the C library cannot (it is glibc's ``malloc_trim``).
    """
    trim = _malloc_trim()
    if trim is not None:
        trim(0)


@functools.cache
def _malloc_trim() -> Callable[[int], int] | None:
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):  # another C library, or Windows
        return None
    trim.argtypes = [ctypes.c_size_t]
    trim.restype = ctypes.c_int
    found: Callable[[int], int] = trim
    return found
