"""Tokens that open one session."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cnerta.streamer.access.callers import Caller, Quota
from cnerta.streamer.access.session_tokens import (
    OwnTokenRecords,
    SessionToken,
    SessionTokens,
    TokenRecords,
)
from cnerta.streamer.access.shared_ledger import SharedLedger
from cnerta.streamer.access.token_signer import TokenSigner

CALLER = Caller("captions", Quota(sessions=3))
KEY, NEW_KEY = b"k" * 32, b"n" * 32


@pytest.fixture(params=["own", "shared"])
def records(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[TokenRecords]:
    if request.param == "own":
        yield OwnTokenRecords()
        return
    ledger = SharedLedger(tmp_path / "ledger", "1")
    yield ledger.token_records
    ledger.close()


def issued(tokens: SessionTokens, now: float = 0.0, caller: Caller = CALLER) -> str:
    token = tokens.issue(caller, now)
    assert token is not None
    return token


def found(tokens: SessionTokens, token: str, now: float = 0.0) -> SessionToken:
    known = tokens.find(["another", "session-another", token], now)
    assert known is not None
    return known


def signing(*keys: bytes, records: TokenRecords | None = None, unix: float = 1e9) -> SessionTokens:
    own = OwnTokenRecords() if records is None else records
    return SessionTokens(own, 60.0, TokenSigner(keys), unix_now=lambda: unix)


def test_one_opens_one_session_of_its_caller(records: TokenRecords) -> None:
    tokens = SessionTokens(records)
    token = issued(tokens)
    known = found(tokens, token, 1.0)
    assert (known.caller, known.is_spent) == (CALLER, False)
    assert found(tokens, token, 2.0) == known, "to look is not to use"
    assert tokens.again(known, 2.0) == known
    spent = tokens.spend(known, 3.0)
    assert spent.is_spent
    assert tokens.again(known, 3.0) == spent != known, "whoever decides on it must notice"
    assert found(tokens, token, 1e6) == spent, "as long as its session is there"
    tokens.end(spent.key)
    assert tokens.find([token], 3.0) is None
    assert tokens.again(known, 3.0) is None
    assert issued(tokens) != issued(tokens)


def test_one_of_which_no_session_came_is_as_it_was(records: TokenRecords) -> None:
    tokens = SessionTokens(records)
    token = issued(tokens)
    known = found(tokens, token)
    tokens.give_back(tokens.spend(known, 1.0))
    assert found(tokens, token, 59.9) == known
    assert tokens.find([token], 60.0) is None


def test_they_expire(records: TokenRecords) -> None:
    tokens = SessionTokens(records, ttl_s=60.0)
    token = issued(tokens)
    assert tokens.find([token], 59.9) is not None
    assert tokens.find([token], 60.0) is None


def test_so_many_wait_and_no_more(records: TokenRecords) -> None:
    tokens = SessionTokens(records, most=2)
    first = issued(tokens)
    issued(tokens, 1.0)
    assert tokens.issue(CALLER, 2.0) is None
    tokens.spend(found(tokens, first, 2.0), 2.0)
    issued(tokens, 3.0)
    issued(tokens, 100.0)
    assert len(records) == 2, "one is spent, the others have expired"


def test_one_caller_does_not_take_those_of_others(records: TokenRecords) -> None:
    tokens = SessionTokens(records, most_of_one=2)
    first = issued(tokens)
    issued(tokens)
    assert tokens.issue(CALLER, 0.0) is None
    issued(tokens, caller=Caller("another"))
    known = found(tokens, first)
    tokens.spend(known, 0.0)
    tokens.end(known.key)
    tokens.end(known.key)
    issued(tokens)
    assert tokens.issue(CALLER, 0.0) is None
    issued(tokens, 60.0)


def test_every_server_with_the_secret_takes_what_one_of_them_has_signed(
    records: TokenRecords,
) -> None:
    token = issued(signing(KEY))
    tokens = signing(KEY, records=records)
    known = found(tokens, token, 5.0)
    assert (known.caller, known.is_spent) == (CALLER, False)
    assert known.expires_at == 65.0
    assert not len(records), "nothing is kept of what is not used"
    assert tokens.again(known, 5.0) == known
    spent = tokens.spend(known, 5.0)
    assert found(tokens, token, 6.0) == spent
    tokens.end(known.key)
    assert tokens.find([token], 7.0) is None, "here it is used up"
    assert found(signing(KEY), token).caller == CALLER, "which another machine does not know"
    tokens.spend(found(tokens, issued(tokens), 66.0), 66.0)
    assert len(records) == 1, "it is forgotten when it would have expired"


def test_what_is_signed_expires_by_the_time_of_the_world() -> None:
    token = issued(signing(KEY))
    assert signing(KEY, unix=1e9 + 59.9).find([token], 7.0) is not None
    assert signing(KEY, unix=1e9 + 60.0).find([token], 7.0) is None


def test_secrets_are_exchanged_without_a_gap() -> None:
    old, both, new = signing(KEY), signing(NEW_KEY, KEY), signing(NEW_KEY)
    assert both.find([issued(old)], 0.0) is not None
    assert new.find([issued(both)], 0.0) is not None
    assert new.find([issued(old)], 0.0) is None
    assert old.find([issued(new)], 0.0) is None


def test_nobody_else_can_sign() -> None:
    tokens = signing(KEY)
    token = issued(tokens)
    body, _, seal = token.rpartition(".")
    other_body, _, other_seal = issued(tokens, caller=Caller("another")).rpartition(".")
    for wrong in (
        f"{other_body}.{seal}",
        f"{body}.{other_seal}",
        f"{body}.",
        f"{body}",
        f"{body}.{seal}=",
        f"{body}.{seal[:-1]}",
        "session-",
        "session-.",
        "session-\u4e2d.\u6587",
        f"session-{'x' * 10_000}.{seal}",
        token.removeprefix("session-"),
    ):
        assert tokens.find([wrong], 0.0) is None, wrong
    assert tokens.find([token], 0.0) is not None
    assert SessionTokens(OwnTokenRecords()).find([token], 0.0) is None, "without a secret"


def test_what_is_remembered_of_signed_ones_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cnerta.streamer.access.session_tokens._MOST_SIGNED", 2)
    tokens = signing(KEY)
    for _ in range(2):
        tokens.spend(found(tokens, issued(tokens)), 0.0)
    assert tokens.find([issued(tokens)], 0.0) is None
