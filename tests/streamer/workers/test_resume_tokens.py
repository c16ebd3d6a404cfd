"""Tokens that say which worker has a session."""

from __future__ import annotations

import pytest

from cnerta.streamer.workers.resume_tokens import ResumeTokens

KEY = b"k" * 32


def test_they_lead_to_the_worker_that_made_them() -> None:
    a, b = ResumeTokens("1", KEY), ResumeTokens("2", KEY)
    token = a.new()
    assert b.other_worker(token) == "1"
    assert a.other_worker(token) is None, "it is here"
    assert a.new() != token
    assert len(token) < 128


@pytest.mark.parametrize(
    "change",
    [
        lambda token: token.replace("1.", "3.", 1),
        lambda token: token[:-1],
        lambda token: token + "0",
        lambda token: token.replace(".", "", 1),
        lambda token: "1.guessed",
        lambda token: "",
        lambda token: "..",
        lambda token: "1.\ud800." + token[-16:],
        lambda token: token[:-16] + "\udfff" * 16,
    ],
)
def test_nobody_chooses_a_worker(change: object) -> None:
    assert callable(change)
    token = ResumeTokens("1", KEY).new()
    assert ResumeTokens("2", KEY).other_worker(change(token)) is None
    assert ResumeTokens("2", b"another key").other_worker(token) is None
