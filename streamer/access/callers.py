"""Who opens a session, as far as the server can tell: by the token that was sent."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

__all__ = ["ANYBODY", "Caller", "Quota"]


@dataclass(frozen=True, slots=True)
class Quota:
    """What one caller may take, in all its sessions together unless said otherwise; None: any.

    Attributes:
        sessions: At once.
        audio_rate: How much faster than real time audio may come in the long run, in each session.
        audio_minutes_per_hour: Audio; an hour's worth may come at once.
        megabytes_per_hour: Frames of all kinds, in units of 10**6 bytes.
    """

    sessions: int | None = None
    audio_rate: float | None = None
    audio_minutes_per_hour: float | None = None
    megabytes_per_hour: float | None = None


@dataclass(frozen=True, slots=True)
class Caller:
    """Whoever a token belongs to.

    Attributes:
        identity: The name that the operator gave it, or a digest of the token. It is no secret and
            the same for as long as the token is, so what is bound to it stays bound.
        quota: What it may take.
    """

    identity: str
    quota: Quota = field(default_factory=Quota)


ANYBODY: Final = Caller("anybody")
"""Everybody, where no token is asked for."""
