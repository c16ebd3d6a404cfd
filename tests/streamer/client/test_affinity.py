"""Cookies of balancers: they go back to where they came from, until that is of no use."""

from __future__ import annotations

import pytest
from websockets.datastructures import Headers

from cnerta.streamer.client.affinity import Affinity

URL = "ws://captions.example/v1/stream"


def answer(*cookies: str) -> Headers:
    return Headers([("Upgrade", "websocket"), *(("Set-Cookie", cookie) for cookie in cookies)])


def test_what_was_told_is_said_again() -> None:
    affinity = Affinity()
    assert affinity.headers(URL) == {}
    affinity.note(URL, answer("cnerta_replica=a; path=/; HttpOnly", "other=1"))
    assert set(affinity.headers(URL)["Cookie"].split("; ")) == {"cnerta_replica=a", "other=1"}
    affinity.note(URL, answer("cnerta_replica=b; path=/"))
    assert "cnerta_replica=b" in affinity.headers(URL)["Cookie"]
    affinity.note(URL, answer())
    assert "cnerta_replica=b" in affinity.headers(URL)["Cookie"]
    affinity.forget()
    assert affinity.headers(URL) == {}


def test_another_host_hears_nothing_of_it() -> None:
    affinity = Affinity()
    affinity.note(URL, answer("cnerta_replica=a; path=/", "far=1; domain=example.org; path=/"))
    assert affinity.headers("ws://elsewhere.example/v1/stream") == {}
    assert affinity.headers("ws://example.org/v1/stream") == {}


def test_what_is_secure_does_not_cross_the_network_in_clear_text() -> None:
    affinity = Affinity()
    affinity.note("wss://captions.example/v1/stream", answer("cnerta_replica=a; path=/; Secure"))
    assert affinity.headers(URL) == {}
    assert affinity.headers("wss://captions.example/v1/stream") == {"Cookie": "cnerta_replica=a"}


@pytest.mark.parametrize("url", ["ws://127.0.0.1:8765/v1/stream", "ws://localhost/v1/stream"])
def test_machines_without_a_name_of_the_net(url: str) -> None:
    affinity = Affinity()
    affinity.note(url, answer("cnerta_replica=a; path=/"))
    assert affinity.headers(url) == {"Cookie": "cnerta_replica=a"}


def test_a_cookie_that_is_taken_back() -> None:
    affinity = Affinity()
    affinity.note(URL, answer("cnerta_replica=a; path=/"))
    affinity.note(URL, answer("cnerta_replica=; path=/; Max-Age=0"))
    assert affinity.headers(URL) == {}
