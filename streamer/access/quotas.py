"""What callers have taken of what they may take, all sessions of each together."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Final

from cnerta.streamer.access.callers import Caller, Quota
from cnerta.streamer.wire.errors import ErrorName, ProtocolError

__all__ = ["Quotas", "hour_of", "over_an_hour", "too_many_sessions"]

_HOUR_S: Final = 3_600.0
_PRUNE_AT: Final = 1_024
_MINUTES: Final = 60
"""After being over, there is room again for a minute's worth."""


@dataclass(slots=True)
class _Hourly:
    """A bucket that runs empty in an hour.

    Attributes:
        level: What is in it, as of ``at``.
        at: In seconds.
    """

    level: float = 0.0
    at: float = 0.0

    def add(self, amount: float, capacity: float, now: float) -> None:
        """Something was taken."""
        self.level, self.at = self.level_at(capacity, now) + amount, now

    def level_at(self, capacity: float, now: float) -> float:
        """What is left in it."""
        return max(0.0, self.level - capacity * (now - self.at) / _HOUR_S)


@dataclass(slots=True)
class _Usage:
    sessions: int = 0
    audio_s: _Hourly = field(default_factory=_Hourly)
    megabytes: _Hourly = field(default_factory=_Hourly)

    def is_over(self, now: float) -> bool:
        """Whether nothing of what was taken counts any more."""
        return now - max(self.audio_s.at, self.megabytes.at) > 2 * _HOUR_S


class Quotas:
    """Counts by the callers' identities. Times in seconds."""

    def __init__(self) -> None:
        self._usage: defaultdict[str, _Usage] = defaultdict(_Usage)
        self._prune_at = _PRUNE_AT

    def open(self, caller: Caller, now: float) -> None:
        """A session of the caller begins."""
        if len(self._usage) >= self._prune_at:
            self._forget_idle(now)
        self._usage[caller.identity].sessions += 1

    def close(self, caller: Caller) -> None:
        """It ends."""
        self._usage[caller.identity].sessions -= 1

    def take(self, caller: Caller, now: float, *, audio_s: float = 0.0, size: int = 0) -> None:
        """The caller sent so much audio, and frames of so many bytes."""
        usage, quota = self._usage[caller.identity], caller.quota
        if quota.audio_minutes_per_hour is not None:
            usage.audio_s.add(audio_s, 60 * quota.audio_minutes_per_hour, now)
        if quota.megabytes_per_hour is not None:
            usage.megabytes.add(size / 1e6, quota.megabytes_per_hour, now)

    def _forget_idle(self, now: float) -> None:
        """Forget callers whose hour is over; signed tokens can name any number of them."""
        for identity, usage in list(self._usage.items()):
            if not usage.sessions and usage.is_over(now):
                del self._usage[identity]
        self._prune_at = max(_PRUNE_AT, 2 * len(self._usage))

    def refusal(self, caller: Caller) -> ProtocolError | None:
        """Why the caller may not open one more session, if so; see also :meth:`excess`."""
        most = caller.quota.sessions
        if most is None or self._usage[caller.identity].sessions < most:
            return None
        return too_many_sessions(most)

    def excess(self, caller: Caller, now: float) -> ProtocolError | None:
        """What of its hour the caller has used up, if so."""
        usage = self._usage[caller.identity]
        for what, (shown, capacity) in hour_of(caller.quota).items():
            bucket = usage.audio_s if what == "audio_s" else usage.megabytes
            over = over_an_hour(shown, bucket.level_at(capacity, now), capacity)
            if over is not None:
                return over
        return None


def hour_of(quota: Quota) -> dict[str, tuple[str, float]]:
    """What is bounded by the hour: for ``audio_s`` and ``megabytes``, in words and as a number."""
    bounds: dict[str, tuple[str, float]] = {}
    minutes, megabytes = quota.audio_minutes_per_hour, quota.megabytes_per_hour
    if minutes is not None:
        bounds["audio_s"] = (f"{minutes:g} minutes of audio", 60 * minutes)
    if megabytes is not None:
        bounds["megabytes"] = (f"{megabytes:g} MB", megabytes)
    return bounds


def too_many_sessions(most: int) -> ProtocolError:
    """A caller has all the sessions that it may have at once."""
    return ProtocolError(
        ErrorName.OVER_QUOTA,
        f"expected at most {most} sessions with this token at once, got one more",
    )


def over_an_hour(what: str, level: float, capacity: float) -> ProtocolError | None:
    """A caller's bucket is full, if it is.

    Args:
        what: May flow in an hour, in words.
        level: What is in the bucket.
        capacity: What goes in; it runs empty in an hour.
    """
    if level < capacity:
        return None
    wait_s = (level - capacity * (1 - 1 / _MINUTES)) * _HOUR_S / capacity
    return ProtocolError(
        ErrorName.OVER_QUOTA,
        f"expected at most {what} an hour with this token, got more",
        retry_after_ms=round(1000 * wait_s),
    )
