"""What waits of a connection's bytes, and what holds it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cnerta.streamer.serving.reading.unread import SLICE_BYTES, Unread


def taken(unread: Unread) -> list[bytes]:
    return list(iter(unread.take, None))


@given(st.lists(st.binary(max_size=3 * SLICE_BYTES), max_size=5))
def test_all_of_it_comes_in_order_and_in_slices(pieces: list[bytes]) -> None:
    unread = Unread()
    for piece in pieces:
        unread.put(piece)
    assert len(unread) == sum(map(len, pieces))
    slices = taken(unread)
    assert b"".join(slices) == b"".join(pieces)
    assert all(0 < len(piece) <= SLICE_BYTES for piece in slices)
    assert not unread


def test_nothing_is_taken_as_long_as_there_is_one_reason_to_wait() -> None:
    unread = Unread()
    unread.put(b"audio")
    assert unread.hold("queue"), "now it is held, and was not before"
    assert not unread.hold("budget")
    assert unread.take() is None
    assert not unread.release("queue"), "the budget is used up"
    assert not unread.release("queue")
    assert unread.is_held
    assert unread.release("budget")
    assert taken(unread) == [b"audio"]


def test_what_nobody_wants_is_gone() -> None:
    unread = Unread()
    unread.put(b"audio")
    unread.clear()
    assert unread.take() is None
