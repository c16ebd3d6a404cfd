"""Carries bytes between a connection that is encrypted here and another process."""

from __future__ import annotations

import asyncio
import socket
from typing import cast

__all__ = ["NoTransport", "Relay"]


class NoTransport(asyncio.Transport):
    """What a connection is left with that has given its own away: nothing of it gets anywhere."""

    def is_closing(self) -> bool:
        """See :class:`asyncio.Transport`, as for all that follow."""
        return True

    def abort(self) -> None:
        """Nothing is there to be aborted."""

    def close(self) -> None:
        """Nor to be closed."""

    def can_write_eof(self) -> bool:
        """Nor to be ended."""
        return False

    def write(self, data: object) -> None:
        """Nor to be written to."""

    def pause_reading(self) -> None:
        """Nor to be read from."""

    def resume_reading(self) -> None:
        """Likewise."""


class _Side(asyncio.Protocol):
    """One of two connections; what comes from it goes to the other."""

    def __init__(self, ended: asyncio.Future[None]) -> None:
        self.transport: asyncio.Transport | None = None
        self.other: _Side | None = None
        self._ended = ended

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See :class:`asyncio.Protocol`, as for all that follow."""
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Bytes have come."""
        if (to := self._other_transport()) is not None:
            to.write(data)

    def pause_writing(self) -> None:
        """This side takes no more: the other one is not read from."""
        if (to := self._other_transport()) is not None and not to.is_closing():
            to.pause_reading()

    def resume_writing(self) -> None:
        """It does again."""
        if (to := self._other_transport()) is not None and not to.is_closing():
            to.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        """It is gone: the other one ends once it has what was sent."""
        if (to := self._other_transport()) is not None:
            to.close()
        if not self._ended.done():
            self._ended.set_result(None)

    def _other_transport(self) -> asyncio.Transport | None:
        return None if self.other is None else self.other.transport


class Relay:
    """See the module."""

    def __init__(self, transport: asyncio.Transport) -> None:
        """Take over a connection; nothing is read from it until :meth:`run`.

        Args:
            transport: Of the connection; it is not read from at the moment.
        """
        loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[None] = loop.create_future()
        self._outer, self._inner = _Side(self._ended), _Side(self._ended)
        self._outer.other, self._inner.other = self._inner, self._outer
        self._outer.transport = transport
        transport.set_protocol(self._outer)
        self._own, self.other_end = socket.socketpair()
        """The end for the other process; whoever gives it away closes it here."""

    async def run(self) -> None:
        """Carry bytes until either side ends."""
        assert self._outer.transport is not None
        self._own.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.connect_accepted_socket(lambda: self._inner, self._own)
        self._outer.transport.resume_reading()
        await self._ended
