"""How many cores this process may use."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Final

__all__ = ["usable_cores", "workers_for"]

_QUOTA: Final = Path("/sys/fs/cgroup/cpu.max")


def usable_cores(quota: Path = _QUOTA) -> int:
    """Cores that the scheduler gives this process, and that its container pays for.

    Args:
        quota: File of the container's share, of cgroups version 2: microseconds, or ``max``, in
            every so many.
    """
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # not on Linux
        cores = os.cpu_count() or 1
    try:
        share, period = quota.read_text(encoding="ascii").split()
        paid = math.ceil(int(share) / int(period))
    except (OSError, ValueError):  # none, or "max"
        return cores
    return max(1, min(cores, paid))


def workers_for(cores: int, threads: int) -> int:
    """How many workers ``auto`` is: as many as cores, or fewer with several threads each.

    A worker's event loop and its engine take turns for the most part: with one thread it uses a
    core and a bit (docs/results.md).
    """
    return max(1, cores // threads)
