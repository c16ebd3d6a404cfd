"""Where connections come from."""

from __future__ import annotations

import pytest
from websockets.datastructures import Headers
from websockets.http11 import Request

from cnerta.models.errors import ConfigError
from cnerta.streamer.access.doorstep import Doorstep
from cnerta.streamer.access.peers import address_group, parse_network, peer_address

PROXIES = (parse_network("10.0.0.0/8"), parse_network("192.0.2.7"))


def forwarded(*values: str) -> Request:
    return Request("/v1/stream", Headers([("X-Forwarded-For", value) for value in values]))


@pytest.mark.parametrize(
    ("remote", "values", "expected"),
    [
        ("198.51.100.1", ["203.0.113.9"], "198.51.100.1"),  # anybody can write it
        ("10.0.0.1", ["203.0.113.9"], "203.0.113.9"),
        ("192.0.2.7", ["203.0.113.9"], "203.0.113.9"),
        ("::ffff:10.0.0.1", ["203.0.113.9"], "203.0.113.9"),
        (
            "10.0.0.1",
            ["1.2.3.4, 203.0.113.9"],
            "203.0.113.9",
        ),
        ("10.0.0.1", ["1.2.3.4, 203.0.113.9, 10.0.0.2"], "203.0.113.9"),
        ("10.0.0.1", ["1.2.3.4", "203.0.113.9"], "203.0.113.9"),
        ("10.0.0.1", ["2001:db8::1"], "2001:db8::1"),
        ("10.0.0.1", ["unknown"], "10.0.0.1"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("", ["203.0.113.9"], ""),
    ],
)
def test_what_proxies_say_is_believed_of_trusted_ones_only(
    remote: str, values: list[str], expected: str
) -> None:
    assert peer_address(remote, forwarded(*values), PROXIES) == expected


def test_half_an_ipv6_address_is_one_client() -> None:
    assert address_group("2001:db8:1:2:3::4") == address_group("2001:db8:1:2::9")
    assert address_group("2001:db8:1:2::1") != address_group("2001:db8:1:3::1")
    assert address_group("fe80::1%eth0") == address_group("fe80::2")
    assert address_group("::ffff:192.0.2.1") == address_group("192.0.2.1") == "192.0.2.1"
    assert address_group("192.0.2.1") != address_group("192.0.2.2")
    assert address_group("") == ""


def test_a_proxy_that_is_none_is_named() -> None:
    with pytest.raises(ConfigError, match=r"such as 10.0.0.0/8, got 'proxy.example'"):
        parse_network("proxy.example")


def test_silent_connections_of_one_address_are_bounded() -> None:
    doorstep = Doorstep(2, lambda address: address == "127.0.0.1")
    assert doorstep.enter("192.0.2.1", 0.0)
    assert doorstep.enter("192.0.2.1", 0.0)
    assert not doorstep.enter("192.0.2.1", 0.0)
    assert doorstep.enter("192.0.2.2", 0.0)
    assert all(doorstep.enter("127.0.0.1", 0.0) for _ in range(10))
    doorstep.leave("192.0.2.1")
    assert doorstep.enter("192.0.2.1", 0.0)


def test_connections_of_one_address_come_at_a_bounded_rate() -> None:
    doorstep = Doorstep(2, lambda address: address == "127.0.0.1")

    def hang_up(address: str, now: float) -> bool:
        may_stay = doorstep.enter(address, now)
        if may_stay:
            doorstep.leave(address)
        return may_stay

    assert sum(hang_up("192.0.2.1", 0.0) for _ in range(1_000)) == 128
    assert sum(hang_up("192.0.2.1", 1.0) for _ in range(1_000)) == 32
    assert hang_up("192.0.2.2", 1.0)
    assert all(hang_up("127.0.0.1", 1.0) for _ in range(1_000))
    # What is remembered of addresses is bounded, too.
    for n in range(10_000):
        hang_up(f"198.18.{n // 250}.{n % 250}", 2.0 + n)
    assert len(doorstep._buckets) <= 4_097


def test_who_may_not_come_in_waits_to_be_told_so() -> None:
    doorstep, refused = Doorstep(2, lambda address: False), list[int]()

    def holding(number: int) -> float:
        def refuse() -> None:
            doorstep.release(refuse)
            refused.append(number)

        return doorstep.hold(refuse)

    delays = [holding(n) for n in range(600)]
    assert delays == [1.0] * 512 + [0.0] * 88, "so many are held, and no more"
    doorstep.close()
    assert sorted(refused) == list(range(512))
    assert holding(600) == 1.0
