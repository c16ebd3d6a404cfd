"""Under which names the server answers."""

from __future__ import annotations

import pytest
from websockets.datastructures import Headers
from websockets.http11 import Request

from cnerta.streamer.access.hosts import Hosts
from cnerta.streamer.access.origins import is_allowed

NAMES = ("captions.example",)


def asked(*hosts: str, **more: str) -> Request:
    headers = [("Host", host) for host in hosts]
    return Request("/", Headers([*headers, *more.items()]))


@pytest.mark.parametrize(
    ("host", "local", "local_named", "public", "public_named"),
    [
        ("localhost:8765", True, True, True, True),
        ("127.0.0.1:8765", True, True, True, True),
        ("127.1.2.3", True, True, True, True),
        ("[::1]:8765", True, True, True, True),
        ("captions.example", False, True, True, True),
        ("CAPTIONS.example:443", False, True, True, True),
        ("evil.example", False, False, True, False),
        ("evil.captions.example", False, False, True, False),
        ("192.0.2.1", False, False, True, True),
        ("", False, False, False, False),
        ("[::1", False, False, False, False),
    ],
)
def test_names(host: str, local: bool, local_named: bool, public: bool, public_named: bool) -> None:
    request = asked(host)
    assert Hosts().is_own(request) is local
    assert Hosts(NAMES).is_own(request) is local_named
    assert Hosts(is_local=False).is_own(request) is public
    assert Hosts(NAMES, is_local=False).is_own(request) is public_named


def test_a_request_names_one_host() -> None:
    assert not Hosts(is_local=False).is_own(asked())
    assert not Hosts(is_local=False).is_own(asked("localhost", "localhost"))


def test_a_page_of_a_name_that_was_given_is_the_servers_own() -> None:
    request = asked("captions.example", Origin="https://captions.example")
    assert not is_allowed(request, ())
    assert is_allowed(request, (), NAMES)
    assert not is_allowed(asked("captions.example", Origin="https://evil.example"), (), NAMES)
