"""How much of the event loop one connection may take."""

from __future__ import annotations

import pytest

from cnerta.streamer.serving.reading.reading_budget import ReadingBudget


def test_ordinary_frames_only_give_way_now_and_then() -> None:
    budget = ReadingBudget(turn_s=0.002)
    pauses = [budget.spend(0.0002, now=n * 0.04) for n in range(1_000)]
    assert {p for p in pauses if p is not None} == {0.0}
    assert 0 < sum(p is not None for p in pauses) < 200


def test_who_takes_more_than_his_share_waits_for_as_long_as_it_takes() -> None:
    budget, now, spent = ReadingBudget(share=0.05, burst_s=0.1), 0.0, 0.0
    while now < 60.0:
        pause = budget.spend(0.001, now)
        spent += 0.001
        now += 0.001 + (pause or 0.0)
    assert spent / now == pytest.approx(0.05, rel=0.1)


def test_a_burst_is_free() -> None:
    budget = ReadingBudget(burst_s=0.3)
    assert not any(budget.spend(0.001, now=n * 0.001) for n in range(290))
    assert any(budget.spend(0.001, now=0.29 + n * 0.001) for n in range(100))
