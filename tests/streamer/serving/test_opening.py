"""What is kept of a connection that another process may be given."""

from __future__ import annotations

import pytest

from cnerta.streamer.serving.sharing import opening
from cnerta.streamer.serving.sharing.opening import Opening


def test_every_byte_is_kept_until_it_is_taken() -> None:
    kept = Opening(is_kept=True)
    kept.add(b"GET ")
    kept.add(b"/")
    assert kept.is_kept
    assert kept.take() == b"GET /"
    assert not kept.is_kept
    kept.add(b"more")
    assert not kept.is_kept


def test_nothing_is_kept_of_one_that_stays() -> None:
    for kept in (Opening(is_kept=False), Opening(is_kept=True)):
        kept.forget()
        kept.add(b"GET /")
        assert not kept.is_kept


def test_no_more_than_a_bound_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "_MOST_BYTES", 4)
    kept = Opening(is_kept=True)
    kept.add(b"GET ")
    assert kept.is_kept
    kept.add(b"/")
    assert not kept.is_kept, "a part of it is of no use"
