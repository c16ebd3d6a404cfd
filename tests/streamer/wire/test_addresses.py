from __future__ import annotations

from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnerta.streamer.wire.addresses import exposes_secret, is_loopback, parse_address, redact


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("ws://127.0.0.1:8765", "ws://127.0.0.1:8765"),
        ("wss://host/v1/stream", "wss://host/v1/stream"),
        ("wss://ann:s3cret@host:1/v1", "wss://***@host:1/v1"),
        ("wss://s3cret@host", "wss://***@host"),
        ("wss://ann:s3/cr?et@host", "wss://***@host"),
        ("wss://ann:s3 cr@et@host", "wss://***@host"),
        ("ann:s3cret@host:8765", "***@host:8765"),
        ("wss://host/?token=s3cret&model=zh", "wss://host/?token=***&model=***"),
        ("wss://host?s3cret", "wss://host?***"),
        ("wss://host/a#s3cret", "wss://host/a#***"),
        (
            "expected 'wss://ann:s3cret@host/?key=s3cret', got https://host?key=s3cret and more",
            "expected 'wss://***@host/?key=***', got https://host?key=*** and more",
        ),
        ("expected X, got ann:s3cret@host and 12:30", "expected X, got ***@host and 12:30"),
        ("no address at all: a@b, 3 = 4 ?", "no address at all: a@b, 3 = 4 ?"),
    ],
)
def test_secrets_are_taken_out(text: str, shown: str) -> None:
    assert redact(text) == shown


@given(
    password=st.text(st.characters(exclude_characters="*", codec="utf-8"), min_size=8),
    rest=st.sampled_from(["", "/v1", "/v1?a=b"]),
)
def test_no_password_is_ever_shown(password: str, rest: str) -> None:
    shown = redact(f"wss://ann:{password}@host{rest}")
    assert password not in shown
    assert shown.startswith("wss://***@host")


def test_what_was_redacted_stays_as_it_is() -> None:
    once = redact("wss://ann:s3cret@host/?token=s3cret#x")
    assert redact(once) == once


@pytest.mark.parametrize(
    ("url", "exposes"),
    [
        ("ws://host", False),
        ("ws://host?language=zh&keywords=a&author=b", False),
        ("ws://ann:pw@host", True),
        ("ws://ann@host", True),
        ("ws://host?token=x", True),
        ("ws://host?api_key=x", True),
        ("ws://host?apiKey=x", True),
        ("ws://host?X-Auth-Token=x", True),
        ("http://host?key=", True),
        ("wss://ann:pw@host?token=x", False),
        ("https://host?token=x", False),
        ("ws://ann:pw@127.0.0.1?token=x", False),
        ("ws://ann:pw@[::1]:8765", False),
        ("ws://ann:pw@localhost", False),
        ("ws://ann:pw@localhost.example", True),
        ("ws://ann:pw@127.0.0.1.example", True),
    ],
)
def test_secrets_travel_encrypted_or_stay_on_this_machine(url: str, exposes: bool) -> None:
    assert exposes_secret(urlsplit(url)) is exposes


def test_a_key_beside_the_address_is_a_secret_too() -> None:
    assert exposes_secret(urlsplit("ws://host"), sends_key=True)
    assert not exposes_secret(urlsplit("wss://host"), sends_key=True)
    assert not exposes_secret(urlsplit("ws://127.9.9.9"), sends_key=True)


@pytest.mark.parametrize(
    "text",
    ["", "host", "http://host", "ws://", "ws://a:b", "ws://a:0", "ws://[::1", "ws://a:99999"],
)
def test_what_is_no_address(text: str) -> None:
    assert parse_address(text, ("ws", "wss")) is None


def test_an_address() -> None:
    address = parse_address("wss://ann:pw@[::1]:8765/a?b=c", ("ws", "wss"))
    assert address is not None
    assert (address.hostname, address.port, address.path) == ("::1", 8765, "/a")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_this_machine(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "10.0.0.1", "example.com", "", "localhost.example"])
def test_another_machine(host: str) -> None:
    assert not is_loopback(host)
