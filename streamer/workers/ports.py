"""Sockets that listen, for a process that accepts and does nothing else with what comes."""

from __future__ import annotations

import socket
from typing import Final

__all__ = ["listen"]

_BACKLOG: Final = 1_024
"""Connections wait there while no worker can be given any."""


def listen(host: str, port: int) -> list[socket.socket]:
    """Listen on every address of a host, on the same port.

    Args:
        host: Name or address of an interface.
        port: 0 takes a free one.

    Raises:
        OSError: It cannot be listened on.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    opened: list[socket.socket] = []
    try:
        for family, kind, protocol, _, address in dict.fromkeys(found):
            try:
                one = socket.socket(family, kind, protocol)
            except OSError:  # a family that the system does not have
                continue
            opened.append(one)
            one.setblocking(False)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            if len(opened) > 1:  # on the port that the first one got
                address = (address[0], opened[0].getsockname()[1], *address[2:])
            one.bind(address)
            one.listen(_BACKLOG)
        if not opened:
            raise OSError(f"expected an address of this machine, got {host}")
    except OSError:
        for one in opened:
            one.close()
        raise
    return opened
