"""Web pages of other servers do not reach this one."""

from __future__ import annotations

import pytest
from websockets.datastructures import Headers
from websockets.http11 import Request

from cnerta.streamer.access.origins import is_allowed


def request(host: str | None, *origins: str) -> Request:
    headers = Headers([("Origin", origin) for origin in origins])
    if host is not None:
        headers["Host"] = host
    return Request("/v1/stream", headers)


@pytest.mark.parametrize(
    ("host", "origin", "expected"),
    [
        ("127.0.0.1:8765", "http://127.0.0.1:8765", True),
        ("localhost:8765", "http://localhost:8765", True),
        ("[::1]:8765", "http://[::1]:8765", True),
        ("192.0.2.7", "https://192.0.2.7", True),
        ("192.0.2.7", "https://192.0.2.7:443", True),
        ("127.0.0.1:8765", "http://127.0.0.1:8766", False),
        ("127.0.0.1:8765", "http://localhost:8765", False),
        ("127.0.0.1:8765", "https://evil.example", False),
        ("127.0.0.1:8765", "null", False),
        ("evil.example:8765", "http://evil.example:8765", False),  # a name that leads here
        ("127.0.0.1:port", "http://127.0.0.1:8765", False),
        (None, "http://127.0.0.1:8765", False),
    ],
)
def test_a_page_of_this_server_only(host: str | None, origin: str, expected: bool) -> None:
    assert is_allowed(request(host, origin), ()) is expected


def test_pages_that_are_listed() -> None:
    listed = ("https://captions.example",)
    assert is_allowed(request("captions.example", "https://captions.example"), listed)
    assert not is_allowed(request("captions.example", "https://captions.example:8443"), listed)
    both = request("captions.example", "https://captions.example", "https://evil.example")
    assert not is_allowed(both, listed)
    assert is_allowed(both, ("*",))


def test_programs_name_no_origin() -> None:
    assert is_allowed(request("captions.example"), ())
    assert is_allowed(None, ())
