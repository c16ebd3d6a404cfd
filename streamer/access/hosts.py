"""Under which names the server answers.

Any web page can have its own name lead to this machine, and then read what is answered there (DNS
rebinding). A server that only this machine reaches therefore answers to this machine's names only.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from urllib.parse import urlsplit

from websockets.http11 import Request

from cnerta.streamer.wire.addresses import is_loopback

__all__ = ["Hosts", "is_address", "sent_host"]


@dataclass(frozen=True, slots=True)
class Hosts:
    """The names.

    Attributes:
        names: Those the operator listed, without a port, in lower case.
        is_local: Whether only this machine reaches the server.
    """

    names: tuple[str, ...] = ()
    is_local: bool = True

    def is_own(self, request: Request) -> bool:
        """Whether a request is for this server: it names one host, by a name that is its own.

        Beyond this machine every name is, unless some are listed. Addresses are no names that
        could lead elsewhere.
        """
        host = sent_host(request)
        if host is None:
            return False
        if host in self.names or is_loopback(host):
            return True
        if self.is_local:
            return False
        return not self.names or is_address(host)


def sent_host(request: Request) -> str | None:
    """The host that a request names, without its port; None unless there is exactly one."""
    values = request.headers.get_all("Host")
    if len(values) != 1:
        return None
    try:
        return urlsplit(f"//{values[0]}").hostname
    except ValueError:
        return None


def is_address(host: str) -> bool:
    """Whether a host is an IP address, or ``localhost``: other names may lead anywhere."""
    if host == "localhost":
        return True
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
