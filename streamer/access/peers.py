"""Where a connection comes from, through the proxies that are trusted."""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Sequence
from typing import Final

from websockets.http11 import Request

from cnerta.models.errors import ConfigError

__all__ = ["Network", "address_group", "is_in", "parse_network", "peer_address"]

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_IPV6_SITE_BITS: Final = 64
"""Whoever has one IPv6 address has all with the same first half."""


def parse_network(text: str) -> Network:
    """Read an address or a network such as ``10.0.0.0/8``.

    Raises:
        ConfigError: It is neither.
    """
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise ConfigError(
            f"expected an address or a network such as 10.0.0.0/8, got {text!r}"
        ) from None


def peer_address(remote: str, request: Request | None, trusted: Sequence[Network]) -> str:
    """Address of the client.

    ``X-Forwarded-For`` is what anybody may write. So it is read from its end, and only as far as
    trusted proxies wrote it.

    Args:
        remote: Other end of the connection.
        request: The opening handshake.
        trusted: Proxies.
    """
    sent = request.headers.get_all("X-Forwarded-For") if request is not None else []
    hops = [hop.strip() for value in sent for hop in value.split(",")]
    address = remote
    while hops and is_in(address, trusted):
        hop = hops.pop()
        if _parsed(hop) is None:
            break
        address = hop
    return address


@functools.lru_cache(maxsize=1_024)  # asked for each connection that floods
def address_group(address: str) -> str:
    """What is counted as one client: an IPv4 address, the first half of an IPv6 address."""
    parsed = _parsed(address)
    if isinstance(parsed, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((parsed, _IPV6_SITE_BITS), strict=False))
    return address if parsed is None else str(parsed)


def is_in(address: str, networks: Sequence[Network]) -> bool:
    """Whether an address lies in one of the networks."""
    parsed = _parsed(address)
    return parsed is not None and any(parsed in network for network in networks)


def _parsed(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return None
    # A listener for both kinds shows IPv4 addresses as ::ffff:192.0.2.1.
    mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
    return mapped or parsed
