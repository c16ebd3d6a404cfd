"""Tokens that open one session."""

from __future__ import annotations

from cnerta.streamer.access.callers import Caller
from cnerta.streamer.access.session_tokens import SessionTokens

CALLER = Caller("captions")


def test_one_opens_one_session_of_its_caller() -> None:
    tokens = SessionTokens(ttl_s=60.0)
    token = tokens.issue(CALLER, 0.0)
    assert token is not None
    assert tokens.find(["another", token], 1.0) == (token, CALLER)
    assert tokens.find([token], 2.0) == (token, CALLER), "to look is not to use"
    tokens.use(token)
    assert tokens.find([token], 3.0) is None
    assert tokens.issue(CALLER, 0.0) != tokens.issue(CALLER, 0.0)


def test_they_expire() -> None:
    tokens = SessionTokens(ttl_s=60.0)
    token = tokens.issue(CALLER, 0.0)
    assert token is not None
    assert tokens.find([token], 59.9) is not None
    assert tokens.find([token], 60.0) is None


def test_so_many_wait_and_no_more() -> None:
    tokens = SessionTokens(ttl_s=60.0, most=2)
    first = tokens.issue(CALLER, 0.0)
    assert first is not None
    assert tokens.issue(CALLER, 1.0) is not None
    assert tokens.issue(CALLER, 2.0) is None
    tokens.use(first)
    assert tokens.issue(CALLER, 3.0) is not None
    assert tokens.issue(CALLER, 100.0) is not None, "the others have expired"


def test_one_caller_does_not_take_those_of_others() -> None:
    tokens = SessionTokens(ttl_s=60.0, most_of_one=2)
    issued = [tokens.issue(CALLER, 0.0) for _ in range(3)]
    assert issued[1] is not None
    assert issued[2] is None
    assert tokens.issue(Caller("another"), 0.0) is not None
    tokens.use(issued[1])
    tokens.use(issued[1])
    assert tokens.issue(CALLER, 0.0) is not None
    assert tokens.issue(CALLER, 0.0) is None
    assert tokens.issue(CALLER, 60.0) is not None
