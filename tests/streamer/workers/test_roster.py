"""Who gets a connection, and when a worker is replaced."""

from __future__ import annotations

from collections import Counter

from cnerta.streamer.workers.messages import Status
from cnerta.streamer.workers.roster import Backoff, Roster, WorkerState


def status(worker: WorkerState, count: int, **more: str) -> Status:
    return Status(pid=1, taken=worker.given, open=count, sessions=count, **more)


def serving(count: int) -> tuple[Roster, list[WorkerState]]:
    roster = Roster()
    workers = [roster.add(1, 0.0) for _ in range(count)]
    assert roster.least_loaded() is None, "none of them serves yet"
    for worker in workers:
        worker.hear(status(worker, 0), 0.0)
    return roster, workers


def give(roster: Roster) -> WorkerState:
    worker = roster.least_loaded()
    assert worker is not None
    worker.given += 1
    return worker


def test_a_crowd_is_spread_evenly_before_anybody_has_said_a_word() -> None:
    roster, _ = serving(3)
    counts = Counter(give(roster).name for _ in range(90))
    assert sorted(counts.values()) == [30, 30, 30]


def test_the_one_with_the_fewest_gets_it() -> None:
    roster, (a, b) = serving(2)
    a.hear(status(a, 9), 1.0)
    b.hear(status(b, 4), 1.0)
    assert [give(roster).name for _ in range(5)] == [b.name] * 5
    assert {give(roster).name for _ in range(2)} == {a.name, b.name}
    b.hear(Status(pid=1, taken=0, open=4, sessions=4), 1.1)
    assert b.load == (False, 4 + b.given), "those on their way count"


def test_who_refuses_gets_it_only_if_all_do() -> None:
    roster, (a, b) = serving(2)
    a.hear(status(a, 0, why_not_ready="overloaded"), 1.0)
    b.hear(status(b, 50), 1.0)
    assert give(roster) is b
    b.hear(status(b, 50, why_not_ready="overloaded"), 1.0)
    assert give(roster) is a, "somebody has to say so"
    a.is_leaving = b.is_leaving = True
    assert roster.least_loaded() is None


def test_names_are_for_good_and_places_are_taken_again() -> None:
    roster = Roster()
    a, b, c = (roster.add(1, 0.0) for _ in range(3))
    assert [w.place for w in (a, b, c)] == [0, 1, 2]
    roster.remove(b)
    d = roster.add(2, 0.0)
    assert d.place == 1
    assert len({w.name for w in (a, b, c, d)}) == 4
    assert roster.find(b.name) is None
    assert roster.find(d.name) is d
    assert len(roster) == 3


def test_what_is_complained_of() -> None:
    _, (worker,) = serving(1)
    assert worker.complaint(29.9) is None
    assert worker.complaint(30.1) == "silent"
    worker.hear(status(worker, 1, why_not_healthy="engine stalled"), 31.0)
    worker.hear(status(worker, 1, why_not_healthy="engine stalled"), 55.0)
    assert worker.complaint(60.9) is None, "another thread may take over"
    assert worker.complaint(61.1) == "unhealthy"
    worker.hear(status(worker, 1), 62.0)
    assert worker.complaint(80.0) is None
    assert Roster().add(1, 0.0).complaint(999.0) is None, "it does not serve yet"


def test_who_dies_again_and_again_is_replaced_more_slowly() -> None:
    backoff = Backoff()
    assert [backoff.next_pause_s(1.0) for _ in range(8)] == [0, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10]
    assert backoff.next_pause_s(61.0) == 0.0
    assert backoff.next_pause_s(1.0) == 0.2
