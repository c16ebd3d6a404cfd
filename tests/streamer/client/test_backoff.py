from __future__ import annotations

from cnerta.streamer.client.backoff import Backoff
from cnerta.streamer.client.pace import Pace


def test_the_bound_doubles_up_to_the_longest_and_any_time_below_may_come() -> None:
    drawn: list[tuple[float, float]] = []

    def uniform(low: float, high: float) -> float:
        drawn.append((low, high))
        return high

    backoff = Backoff(0.5, 5.0, uniform=uniform)
    assert [backoff.next_pause_s() for _ in range(6)] == [0.5, 1, 2, 4, 5, 5]
    assert {low for low, _ in drawn} == {0.0}
    backoff.reset()
    assert backoff.next_pause_s() == 0.5
    backoff.attempts = 10**6
    assert backoff.next_pause_s() == 5.0


def test_pauses_differ() -> None:
    assert len({Backoff().next_pause_s() for _ in range(20)}) == 20


def test_audio_waits_when_it_is_too_far_ahead() -> None:
    pace = Pace(1_000)
    assert pace.wait_s(1_000, 0.0) == 0
    assert pace.wait_s(500, 0.0) == 0.5
    assert pace.wait_s(100, 0.5) == 0.1
    assert pace.wait_s(100, 60.0) == 0
    assert Pace(None).wait_s(10**9, 0.0) == 0
