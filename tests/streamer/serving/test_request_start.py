"""The content of a request, and the head that the WebSocket library gets."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnerta.streamer.serving.http.content import BrokenContentError, RequestContent
from cnerta.streamer.serving.reading.request_start import RequestStart

PATH = "/v1/entities"
PLAIN = b"GET /v1/stream HTTP/1.1\r\nHost: a\r\n\r\n\x82\x80\0\0\0\0"
HEAD = b"POST /v1/entities HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n"


def fed(start: RequestStart, data: bytes, cuts: list[int]) -> bytes:
    ends = [*sorted(cut % len(data) for cut in cuts), len(data)]
    begins = [0, *ends]
    return b"".join(
        start.feed(data[a:b], lambda: RequestContent(lambda: None, lambda: None))
        for a, b in zip(begins, ends, strict=False)
    )


async def content_of(start: RequestStart) -> bytes:
    assert start.content is not None
    return b"".join([piece async for piece in start.content.pieces()])


@given(st.lists(st.integers(0, 1_000), max_size=8))
def test_the_library_gets_what_has_no_content_byte_by_byte(cuts: list[int]) -> None:
    start = RequestStart((PATH,))
    assert fed(start, PLAIN, cuts) == PLAIN
    assert start.content is None


@pytest.mark.parametrize("cuts", [[], [3], [1, 20], [60, 61], list(range(1, 60))])
async def test_content_is_kept_from_it(cuts: list[int]) -> None:
    start = RequestStart((PATH,))
    head = fed(start, HEAD + b"text", cuts)
    assert head.lower().startswith(b"post /v1/entities http/1.1\r\nhost: a\r\n\r\n")
    assert await content_of(start) == b"text"


def test_what_is_known_to_have_none_is_not_looked_at() -> None:
    start = RequestStart((PATH,))
    start.skip()
    assert fed(start, HEAD, []) == HEAD


def test_a_request_that_is_none_is_an_error() -> None:
    start = RequestStart((PATH,))
    with pytest.raises(BrokenContentError):
        fed(start, b"POST /v1/entities HTTP/1.1\r\nno header\r\n\r\n", [])
