"""What has come on a connection so far, kept as long as another process may be given it."""

from __future__ import annotations

import asyncio
import os
import socket
from typing import Final

from cnerta.streamer.serving.sharing.relay import Relay

__all__ = ["Opening", "other_end"]

_MOST_BYTES: Final = 2**20


class Opening:
    """Every byte from the request's first on, up to a bound."""

    def __init__(self, *, is_kept: bool) -> None:
        """Begin with none.

        Args:
            is_kept: Whether the connection may be given away at all.
        """
        self._bytes: bytearray | None = bytearray() if is_kept else None

    @property
    def is_kept(self) -> bool:
        """Whether all of them are still there."""
        return self._bytes is not None

    def add(self, data: bytes) -> None:
        """More have come."""
        if self._bytes is None:
            return
        self._bytes += data
        if len(self._bytes) > _MOST_BYTES:
            self._bytes = None

    def forget(self) -> None:
        """The connection stays here."""
        self._bytes = None

    def take(self) -> bytes:
        """All of them, once."""
        assert self._bytes is not None, "expected a connection that may be given away"
        taken, self._bytes = bytes(self._bytes), None
        return taken


def other_end(transport: asyncio.Transport) -> tuple[socket.socket, Relay | None]:
    """A socket by which another process can go on with a connection.

    Args:
        transport: Of the connection; it is not read from at the moment.

    Returns:
        The socket, which whoever gives it away closes here, and what has to run here where the
        connection is encrypted: then the transport is the relay's.
    """
    if transport.get_extra_info("ssl_object") is None:
        return socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno())), None
    relay = Relay(transport)
    return relay.other_end, relay
