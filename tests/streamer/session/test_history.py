from __future__ import annotations

from msgspec import structs

from cnerta.streamer.session.outgoing.history import History
from cnerta.streamer.wire.codec import encode

from .. import server_messages as wire


def test_events_are_told_again_as_they_were() -> None:
    history = History(10**6)
    events = [wire.final(f"u{n}", 1, "北京" * n, seq=n) for n in range(1, 6)]
    for event in events:
        history.add(event)
    assert history.first == 1
    assert history.reaches(0)
    assert [history.event(n) for n in range(1, 6)] == events


def test_the_oldest_go_at_the_bound_and_the_newest_stays_whatever_its_size() -> None:
    event = wire.final("u", 1, "北京", seq=1)
    size = len(encode(event))
    history = History(3 * size)
    for number in range(1, 8):
        history.add(structs.replace(event, seq=number))
    assert (history.first, history.held_bytes) == (5, 3 * size)
    assert history.reaches(4)
    assert not history.reaches(3)
    history.add(wire.final("u", 1, "北京" * size, seq=8))
    assert (history.first, history.reaches(7), history.reaches(6)) == (8, True, False)


def test_nothing_has_happened_yet() -> None:
    history = History(0)
    assert history.reaches(0)
    assert history.first == 1
