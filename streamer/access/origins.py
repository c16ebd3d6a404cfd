"""Which web pages may connect: a browser takes any page to any address, this machine's too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final
from urllib.parse import urlsplit

from websockets.http11 import Request

from cnerta.streamer.access.hosts import is_address

__all__ = ["ANY", "is_allowed"]

ANY: Final = "*"
_PORTS: Final = {"http": 80, "https": 443}


def is_allowed(
    request: Request | None, origins: Sequence[str], own_names: Sequence[str] = ()
) -> bool:
    """Whether whoever sent a request may connect.

    Programs that are no browsers name no origin and may. A page may if it is of this server, or if
    its origin is listed. Of this server is what was fetched from the address that it connects to,
    where that is an IP address, ``localhost`` or a name that the operator gave the server: any
    other name can be made to lead here (DNS rebinding), so pages under one are to be listed.

    Args:
        request: The opening handshake.
        origins: Those listed; :data:`ANY` for all.
        own_names: Names of this server, without a port.
    """
    sent = request.headers.get_all("Origin") if request is not None else []
    if request is None or ANY in origins:
        return True
    hosts = request.headers.get_all("Host")
    return all(o in origins or (len(hosts) == 1 and _is_own(o, hosts[0], own_names)) for o in sent)


def _is_own(origin: str, host: str, own_names: Sequence[str]) -> bool:
    try:
        own, page = urlsplit(f"//{host}"), urlsplit(origin)
        default = _PORTS.get(page.scheme)
        is_same = (own.hostname, own.port or default) == (page.hostname, page.port or default)
    except ValueError:
        return False
    return (
        is_same
        and own.hostname is not None
        and (own.hostname in own_names or is_address(own.hostname))
    )
