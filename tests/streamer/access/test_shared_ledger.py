"""What several processes count together; each ledger here stands for one of them."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.datastructures import Headers
from websockets.http11 import Request

from cnerta.streamer.access.admission import AccessOptions, Admission, Place
from cnerta.streamer.access.callers import Caller, Quota
from cnerta.streamer.access.session_tokens import SessionTokens
from cnerta.streamer.access.shared_ledger import SharedLedger
from cnerta.streamer.access.tokens import KnownToken, Tokens, digest
from cnerta.streamer.wire.errors import ErrorName

TOKEN = "0123456789abcdef"


@pytest.fixture
def ledgers(tmp_path: Path) -> Iterator[tuple[SharedLedger, SharedLedger]]:
    one, other = (SharedLedger(tmp_path / "ledger", name) for name in "ab")
    yield one, other
    one.close()
    other.close()


def test_what_each_counts_is_added_up_and_forgotten_with_it(
    ledgers: tuple[SharedLedger, SharedLedger],
) -> None:
    one, other = ledgers
    one.places.add("", 2)
    other.places.add("", 3)
    other.addresses.add("192.0.2.1", 1)
    assert one.places.count("") == other.places.count("") == 5
    assert one.addresses.count("192.0.2.1") == 1
    one.places.add("", -2)
    assert other.places.count("") == 3
    other.quotas.open(Caller("captions", Quota(sessions=1)), 0.0)
    assert one.quotas.refusal(Caller("captions", Quota(sessions=1))) is not None
    assert one.meetings.holder("a key") is None
    other.meetings.add("a key", 1)
    assert one.meetings.holder("a key") == "b"
    one.forget("b", 0.0)
    assert one.meetings.holder("a key") is None
    assert one.places.count("") == one.addresses.count("192.0.2.1") == 0
    assert one.quotas.refusal(Caller("captions", Quota(sessions=1))) is None


def test_hourly_bounds_hold_for_all_together(ledgers: tuple[SharedLedger, SharedLedger]) -> None:
    caller = Caller("archive", Quota(audio_minutes_per_hour=10, megabytes_per_hour=100))
    now = 0.0
    for _ in range(310):  # a second of audio in each, again and again
        now += 0.001
        for ledger in ledgers:
            ledger.quotas.take(caller, now, audio_s=1.0, size=1_000)
    assert ledgers[0].quotas.excess(caller, now) is None, "300 s of 600 are its own"
    now += 1.0
    for ledger in ledgers:
        ledger.quotas.take(caller, now)
    excess = ledgers[0].quotas.excess(caller, now + 1.0)
    assert excess is not None
    assert excess.name is ErrorName.OVER_QUOTA
    assert "10 minutes of audio" in excess.detail
    assert excess.retry_after_ms is not None
    later = now + 1.0 + excess.retry_after_ms / 1000
    assert ledgers[1].quotas.excess(caller, later + 0.6) is None
    assert ledgers[1].quotas.excess(Caller("another", caller.quota), now) is None


def test_a_token_opens_one_session_wherever_that_is(
    ledgers: tuple[SharedLedger, SharedLedger],
) -> None:
    one, other = (SessionTokens(ledger.token_records) for ledger in ledgers)
    caller = Caller("captions", Quota(sessions=2, audio_rate=1.5))
    token = one.issue(caller, 0.0)
    assert token is not None
    known = other.find(["another", token], 59.9)
    assert known is not None
    assert known.caller == caller
    assert other.find([token], 60.1) is None
    other.spend(known, 1.0)
    assert one.again(known, 1.0) != known
    back = one.find([token], 100.0)
    assert back is not None
    assert back.is_spent, "its session may be resumed from anywhere"


def test_a_token_opens_another_session_where_a_process_has_died_with_it(
    ledgers: tuple[SharedLedger, SharedLedger],
) -> None:
    one, other = (SessionTokens(ledger.token_records) for ledger in ledgers)
    mine, its = one.issue(Caller("a"), 0.0), one.issue(Caller("b"), 0.0)
    assert mine is not None
    assert its is not None
    for tokens, token in ((one, mine), (other, its)):
        known = tokens.find([token], 0.0)
        assert known is not None
        tokens.spend(known, 0.0)
    ledgers[0].forget("b", 500.0)
    again, still = one.find([its], 559.0), one.find([mine], 559.0)
    assert again is not None
    assert still is not None
    assert (again.is_spent, still.is_spent) == (False, True)
    assert one.find([its], 560.0) is None, "not for ever"


def door(ledger: SharedLedger, **options: Any) -> Admission:
    quota = Quota(sessions=2)
    return Admission(
        AccessOptions(max_sessions_per_address=3, max_final_wait_ms=None),
        origins=(),
        tokens=Tokens([KnownToken(digest(TOKEN), Caller("captions", quota))]),
        is_overloaded=lambda: False,
        ledger=ledger,
        **{"max_sessions": 512, **options},
    )


def enter(admission: Admission, token: str = TOKEN, remote: str = "192.0.2.1") -> Any:
    headers = Headers([("Host", "127.0.0.1"), ("Authorization", f"Bearer {token}")])
    return admission.enter(Request("/v1/stream", headers), remote, 0.0)


def test_doors_of_several_processes_are_one_door(
    ledgers: tuple[SharedLedger, SharedLedger],
) -> None:
    a, b = map(door, ledgers)
    first, second = enter(a), enter(b)
    assert isinstance(first, Place)
    assert isinstance(second, Place)
    assert enter(a).reason == enter(b).reason == "quota"
    token = a.session_tokens.issue(Caller("guest"), 0.0)
    guest = enter(b, token or "")
    assert isinstance(guest, Place)
    assert enter(a, token or "").reason == "token", "it was used at the other one"
    assert enter(a, a.session_tokens.issue(Caller("guest"), 0.0) or "").reason == "address"
    b.start(second)
    b.leave(second)
    a.leave(first)
    assert isinstance(enter(a), Place)


def test_the_last_place_is_taken_once(ledgers: tuple[SharedLedger, SharedLedger]) -> None:
    a, b = (door(ledger, max_sessions=1) for ledger in ledgers)
    place = enter(a)
    assert isinstance(place, Place)
    assert enter(b).reason == "full"
    assert b.why_not_ready(0.0) == "full"
    a.leave(place)
    moved = b.move_in(Place(Caller("captions"), "192.0.2.1"), 0.0)
    assert enter(a).reason == "full", "who moves in takes a place"
    b.leave(moved)
    assert b.why_not_ready(0.0) is None


def test_two_do_not_decide_at_once(ledgers: tuple[SharedLedger, SharedLedger]) -> None:
    one, other = ledgers
    with one.exclusively():
        one.places.add("", 1)
        other._database.execute("PRAGMA busy_timeout = 1")
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            other.places.add("", 1)
        with other.exclusively():
            assert other.places.count("") == 0, "nobody waits for one that does not end"
    assert other.places.count("") == 1


def test_how_the_others_are(ledgers: tuple[SharedLedger, SharedLedger]) -> None:
    one, other = ledgers
    one.publish(10, None, None, 100.0)
    other.publish(11, "overloaded", "engine stalled", 101.0)
    found = {m.name: (m.pid, m.why_not_ready, m.why_not_healthy) for m in one.members(102.0)}
    assert found == {"a": (10, None, None), "b": (11, "overloaded", "engine stalled")}
    assert [m.name for m in one.members(105.5)] == ["b"], "who says nothing any more is left out"
    one.forget("b", 102.0)
    assert [m.name for m in other.members(102.0)] == ["a"]
