"""Who is let in, and how many: the door without sockets."""

from __future__ import annotations

import random
from typing import Any

import pytest
from websockets.datastructures import Headers
from websockets.http11 import Request

from cnerta.streamer.access.admission import AccessOptions, Admission, Place, Refusal
from cnerta.streamer.access.callers import ANYBODY, Caller, Quota
from cnerta.streamer.access.peers import parse_network
from cnerta.streamer.access.tokens import KnownToken, Tokens, digest
from cnerta.streamer.wire.errors import ErrorName

TOKEN = "0123456789abcdef"
CAPTIONS = Caller("captions", Quota(sessions=1))
PROXY = "10.0.0.1"


def door(
    *, max_sessions: int = 512, tokens: Tokens | None = None, overloaded: bool = False, **more: Any
) -> Admission:
    options = AccessOptions(trusted_proxies=(parse_network(PROXY),), **more)
    return Admission(
        options,
        max_sessions=max_sessions,
        origins=(),
        tokens=tokens or Tokens(),
        is_overloaded=lambda: overloaded,
    )


def request(**headers: str) -> Request:
    named = [(name.replace("_", "-"), value) for name, value in headers.items()]
    return Request("/v1/stream", Headers([("Host", "127.0.0.1"), *named]))


def enter(admission: Admission, remote: str = "192.0.2.1", now: float = 0.0, **headers: str) -> Any:
    return admission.enter(request(**headers), remote, now)


def test_whoever_may_gets_a_place() -> None:
    admission = door()
    place = enter(admission)
    assert isinstance(place, Place)
    assert place.caller is ANYBODY
    assert place.address == "192.0.2.1"


def test_who_may_not_is_told_why() -> None:
    admission = door(tokens=Tokens([KnownToken(digest(TOKEN), CAPTIONS)]))
    refusal = enter(admission, Origin="https://evil.example")
    assert (refusal.reason, refusal.error.name) == ("origin", ErrorName.ORIGIN_REFUSED)
    refusal = enter(admission)
    assert (refusal.reason, refusal.error.name) == ("token", ErrorName.NOT_AUTHORISED)
    place = enter(admission, Authorization=f"Bearer {TOKEN}")
    assert place.caller is CAPTIONS
    refusal = enter(admission, Authorization=f"Bearer {TOKEN}")
    assert (refusal.reason, refusal.error.name) == ("quota", ErrorName.OVER_QUOTA)
    admission.leave(place)
    assert isinstance(enter(admission, Authorization=f"Bearer {TOKEN}"), Place)


def test_a_short_lived_token_is_spent_by_the_session_that_it_opens() -> None:
    admission = door(tokens=Tokens([KnownToken(digest(TOKEN), CAPTIONS)]))
    token = admission.session_tokens.issue(CAPTIONS, 0.0)
    held = enter(admission, Authorization=f"Bearer {TOKEN}")
    assert enter(admission, Authorization=f"Bearer {token}").reason == "quota"
    admission.leave(held)
    place = enter(admission, Authorization=f"Bearer {token}")
    assert place.caller is CAPTIONS, "a refusal does not spend it"
    admission.start(place)
    admission.leave(place)
    assert enter(admission, Authorization=f"Bearer {token}").reason == "token"
    again = admission.enter(
        request(Authorization=f"Bearer {token}"), "192.0.2.1", 1e6, may_come_back=True
    )
    assert isinstance(again, Place)
    assert again.comes_back, "to its session, and nothing else"
    assert not place.comes_back
    admission.leave(again)
    admission.session_tokens.end(place.token.key)
    refusal = admission.enter(
        request(Authorization=f"Bearer {token}"), "192.0.2.1", 1.0, may_come_back=True
    )
    assert isinstance(refusal, Refusal)
    assert refusal.reason == "token"


def test_a_short_lived_token_of_which_no_session_came_opens_another() -> None:
    admission = door(tokens=Tokens([KnownToken(digest(TOKEN), CAPTIONS)]))
    token = admission.session_tokens.issue(CAPTIONS, 0.0)
    place = enter(admission, Authorization=f"Bearer {token}")
    admission.leave(place)
    place = enter(admission, Authorization=f"Bearer {token}")
    assert isinstance(place, Place)
    admission.finish(place)
    assert enter(admission, Authorization=f"Bearer {token}").reason == "token"


def test_one_address_does_not_take_all_places() -> None:
    admission = door(max_sessions_per_address=3, max_waiting_per_address=2)
    first, second = enter(admission), enter(admission)
    refusal = enter(admission)
    assert (refusal.reason, refusal.error.name) == ("address", ErrorName.OVER_QUOTA)
    assert "2 connections without session.start" in refusal.error.detail
    admission.start(first)
    admission.start(first)
    third = enter(admission)
    assert isinstance(third, Place)
    admission.start(second)
    assert "3 connections from one address" in enter(admission).error.detail
    assert isinstance(enter(admission, "192.0.2.2"), Place)
    assert isinstance(enter(admission, PROXY, X_Forwarded_For="192.0.2.3"), Place)
    assert enter(admission, PROXY, X_Forwarded_For="192.0.2.1").reason == "address"
    for place in (first, second, third):
        admission.leave(place)
    assert isinstance(enter(admission), Place)


def test_connections_of_this_machine_are_as_many_as_like() -> None:
    admission = door(max_sessions_per_address=3, max_waiting_per_address=2)
    assert all(isinstance(enter(admission, "127.0.0.1"), Place) for _ in range(10))
    assert admission.stands_for_many("127.0.0.1")
    assert not admission.stands_for_many("127.0.0.2")
    assert admission.stands_for_many(PROXY)
    assert not admission.stands_for_many("192.0.2.1")


def test_those_who_say_nothing_do_not_keep_others_out() -> None:
    admission = door(max_final_wait_ms=500, max_young_sessions=8, max_waiting_per_address=64)
    silent = [enter(admission, "192.0.2.1") for _ in range(64)]
    assert all(isinstance(place, Place) for place in silent)
    assert admission.why_not_ready(0.0) is None
    assert isinstance(enter(admission, "192.0.2.2"), Place)
    # Those who do start count, and so do those of a proxy, who are not one.
    for place in silent[:4]:
        admission.start(place)
    assert admission.why_not_ready(0.0) == "filling"
    many = door(max_final_wait_ms=500, max_young_sessions=8)
    taken = [enter(many, "127.0.0.1") for _ in range(9)]
    assert [isinstance(place, Place) for place in taken] == [True] * 8 + [False]


@pytest.mark.parametrize(
    ("reason", "name", "made"),
    [
        ("full", ErrorName.TRY_AGAIN_LATER, {"max_sessions": 0}),
        ("overloaded", ErrorName.TRY_AGAIN_LATER, {"overloaded": True}),
        ("stopping", ErrorName.GOING_AWAY, {}),
    ],
)
def test_where_there_is_no_room(reason: str, name: ErrorName, made: dict[str, Any]) -> None:
    admission = door(**made)
    admission.is_stopping = reason == "stopping"
    assert admission.why_not_ready(0.0) == reason
    refusal = enter(admission)
    assert (refusal.reason, refusal.error.name) == (reason, name)
    assert (refusal.error.retry_after_ms is not None) == (name is ErrorName.TRY_AGAIN_LATER)


def test_finals_that_wait_too_long_close_the_door() -> None:
    admission = door(max_final_wait_ms=500)
    for _ in range(20):
        admission.load.answered(0.26, 0.0)
    assert admission.why_not_ready(0.0) == "overloaded"
    assert enter(admission).error.retry_after_ms >= 2_000
    assert admission.why_not_ready(3.1) is None, "as soon as they do not any more"
    indifferent = door(max_final_wait_ms=None)
    for _ in range(20):
        indifferent.load.answered(60.0, 0.0)
    assert indifferent.why_not_ready(0.0) is None


def test_many_at_once_are_taken_one_after_the_other() -> None:
    admission = door(max_young_sessions=10)
    taken = [enter(admission, f"192.0.2.{n}", n / 100) for n in range(12)]
    assert [isinstance(each, Place) for each in taken] == [True] * 10 + [False] * 2
    assert taken[-1].reason == "filling"
    assert 1_000 <= taken[-1].error.retry_after_ms <= 1_500
    assert admission.why_not_ready(0.2) == "filling"
    admission.leave(taken[3])
    assert isinstance(enter(admission, now=0.2), Place), "who has left costs nothing any more"
    assert isinstance(enter(admission, now=1.05), Place)
    for _ in range(20):
        admission.load.answered(0.2, 10.0)
    few = [enter(admission, f"192.0.3.{n}", 10.0) for n in range(5)]
    assert [isinstance(each, Place) for each in few] == [True, False, False, False, False], (
        "fewer where finals wait already"
    )


def test_a_server_that_is_there_grows_by_a_quarter() -> None:
    admission = door(max_young_sessions=4)
    for n in range(40):
        assert isinstance(enter(admission, f"192.0.2.{n}", 2.0 * (n // 4)), Place)
    taken = [enter(admission, f"192.0.3.{n}", 100.0) for n in range(12)]
    assert sum(isinstance(each, Place) for each in taken) == 10


def test_the_more_knock_the_later_they_are_asked_to_come_back() -> None:
    admission = door(max_sessions=0)
    first = [enter(admission, f"10.0.{n // 250}.{n % 250}").error for n in range(600)]
    assert 5_000 <= first[0].retry_after_ms <= 7_500
    assert 20_000 <= first[-1].retry_after_ms <= 30_000
    assert enter(admission, now=4.0).error.retry_after_ms <= 7_500


def test_at_three_times_capacity_those_inside_keep_their_bound() -> None:
    """Finals wait the longer the fuller the server is, and all clients come at once."""
    capacity, bound_s, step_s = 200, 0.5, 0.05
    admission = door(max_sessions=10_000)
    dice = random.Random(0)
    inside: list[Place] = []
    knocking = [dice.uniform(0.0, 0.2) for _ in range(3 * capacity)]
    backlog_s, worst = 0.0, []
    for turn in range(round(45 / step_s)):
        now = turn * step_s
        # Beyond its capacity, what is not done piles up.
        backlog_s = max(0.0, backlog_s + step_s * (len(inside) / capacity - 1))
        usual_s = 0.03 / max(0.05, 1 - len(inside) / capacity / 1.02)
        for _ in inside:
            if dice.random() < step_s / 5:
                wait_s = dice.uniform(0.5, 1.5) * usual_s + backlog_s
                admission.load.answered(wait_s, now)
                worst.append(wait_s)
        admission.load.end_turn(backlog_s)
        for client, due in enumerate(knocking):
            if due > now:
                continue
            entered = admission.enter(request(), f"10.1.{client // 250}.{client % 250}", now)
            if isinstance(entered, Refusal):
                assert entered.error.retry_after_ms is not None
                knocking[client] = now + entered.error.retry_after_ms / 1000
            else:
                inside.append(entered)
                knocking[client] = float("inf")
    late = sorted(worst)[round(0.95 * len(worst))]
    assert late < bound_s
    assert len(inside) > 0.6 * capacity, "it is not kept by sending everybody away"
