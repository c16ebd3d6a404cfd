"""What a caller may take."""

from __future__ import annotations

import pytest

from cnerta.streamer.access.callers import ANYBODY, Caller, Quota
from cnerta.streamer.access.quotas import Quotas
from cnerta.streamer.wire.errors import ErrorName


def test_sessions_at_once() -> None:
    caller, quotas = Caller("a", Quota(sessions=2)), Quotas()
    for _ in range(2):
        assert quotas.refusal(caller) is None
        quotas.open(caller, 0.0)
    refusal = quotas.refusal(caller)
    assert refusal is not None
    assert refusal.name is ErrorName.OVER_QUOTA
    assert "at most 2 sessions" in refusal.detail
    assert refusal.retry_after_ms
    assert quotas.refusal(Caller("b", Quota(sessions=2))) is None
    quotas.close(caller)
    assert quotas.refusal(caller) is None


@pytest.mark.parametrize(
    ("quota", "amounts", "detail"),
    [
        (Quota(audio_minutes_per_hour=10), {"audio_s": 300.0}, "10 minutes of audio"),
        (Quota(megabytes_per_hour=1), {"size": 500_000}, "1 MB"),
    ],
)
def test_an_hour_s_worth(quota: Quota, amounts: dict[str, float], detail: str) -> None:
    caller, quotas = Caller("a", quota), Quotas()
    quotas.take(caller, 0.0, **amounts)  # type: ignore[arg-type]
    assert quotas.excess(caller, 0.0) is None
    quotas.take(caller, 1.0, **amounts)  # type: ignore[arg-type]
    assert quotas.excess(caller, 1.0) is None, "some of it has flowed out"
    quotas.take(caller, 1.0, **amounts)  # type: ignore[arg-type]
    excess = quotas.excess(caller, 1.0)
    assert excess is not None
    assert excess.name is ErrorName.OVER_QUOTA
    assert detail in excess.detail
    assert excess.retry_after_ms is not None
    later = 1.0 + excess.retry_after_ms / 1000
    assert quotas.excess(caller, later - 60.1) is not None
    assert quotas.excess(caller, later + 0.1) is None
    assert quotas.excess(Caller("b", quota), 1.0) is None, "of each caller"


def test_without_limits_there_are_none() -> None:
    quotas = Quotas()
    quotas.take(ANYBODY, 0.0, audio_s=1e9, size=10**12)
    for _ in range(1_000):
        quotas.open(ANYBODY, 0.0)
    assert quotas.refusal(ANYBODY) is None
    assert quotas.excess(ANYBODY, 0.0) is None


def test_callers_are_forgotten_once_their_hour_is_over() -> None:
    quotas = Quotas()
    busy = Caller("busy", Quota(sessions=1))
    quotas.open(busy, 0.0)
    for n in range(5_000):
        caller = Caller(f"jwt:{n}", Quota(megabytes_per_hour=1))
        quotas.open(caller, 10.0 * n)
        quotas.take(caller, 10.0 * n, size=1)
        quotas.close(caller)
    assert len(quotas._usage) < 2_500
    assert quotas.refusal(busy) is not None, "who is inside is not forgotten"
