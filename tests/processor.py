"""What of this machine's processor decides how answers come out.

Products of 8-bit weights are computed in two ways. Processors with VNNI add them up exactly; x86
ones without it add two neighbours in 16 bits, and cut off what exceeds that.
"""

from __future__ import annotations

import platform
from pathlib import Path

__all__ = ["adds_exactly", "described"]


def adds_exactly() -> bool:
    """Whether sums of products of 8-bit numbers are exact; taken for granted where nobody says."""
    flags = _flags()
    return not flags or any("vnni" in flag for flag in flags)


def described() -> str:
    """What decides which kernels run."""
    return " ".join([platform.machine(), *(f for f in _flags() if f.startswith(("avx", "amx")))])


def _flags() -> list[str]:
    """Extensions of an x86 processor, sorted; none where Linux does not list them."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return []
    return sorted(next((li.split(":")[1].split() for li in lines if li.startswith("flags")), []))
