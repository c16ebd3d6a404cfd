"""Whether the server keeps up."""

from __future__ import annotations

from cnerta.streamer.access.load import LoadWatch


def test_all_but_one_in_twenty() -> None:
    load = LoadWatch(window_s=3.0)
    assert load.wait_s(0.0) == 0.0
    for n in range(100):
        load.answered(9.0 if n % 25 == 0 else 0.1, 1.0)
    assert load.wait_s(1.0) == 0.1
    for _ in range(5):
        load.answered(9.0, 1.0)
    assert load.wait_s(1.0) == 9.0


def test_one_slow_answer_of_few_is_no_sign() -> None:
    load = LoadWatch()
    for wait_s in (0.1, 0.1, 5.0):
        load.answered(wait_s, 1.0)
    assert load.wait_s(1.0) == 0.0
    for _ in range(5):
        load.waiting(6.0)
    load.end_turn(0.0)
    assert load.wait_s(1.0) == 6.0


def test_what_is_long_ago_does_not_count() -> None:
    load = LoadWatch(window_s=3.0)
    for _ in range(20):
        load.answered(2.0, 1.0)
    assert load.wait_s(4.0) == 2.0
    assert load.wait_s(4.1) == 0.0


def test_what_still_waits_counts_while_it_does() -> None:
    load = LoadWatch()
    for _ in range(20):
        load.answered(0.1, 1.0)
        load.waiting(0.05)
    load.end_turn(0.0)
    assert load.wait_s(1.0) == 0.1, "it may be answered at once"
    for _ in range(10):
        load.waiting(2.0)
    load.end_turn(0.0)
    assert load.wait_s(1.0) == 2.0
    load.end_turn(0.0)
    assert load.wait_s(1.0) == 0.1


def test_an_event_loop_that_lags_keeps_nobody_s_promise() -> None:
    load = LoadWatch()
    for _ in range(4):
        load.end_turn(0.7)
    assert load.wait_s(1.0) == 0.0, "now and then one may be late"
    load.end_turn(0.7)
    assert load.wait_s(1.0) == 0.7
    for _ in range(5):
        load.end_turn(0.0)
    assert load.wait_s(1.0) == 0.0
