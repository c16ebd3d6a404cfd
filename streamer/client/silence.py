"""Notices a server that has fallen silent: no message, no acknowledgement, not even a pong."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from websockets.asyncio.client import ClientConnection

__all__ = ["ListenedConnection", "watch_silence"]

_TICKS: Final = 10


class ListenedConnection(ClientConnection):
    """A connection that knows whether anything came.

    Attributes:
        heard: Whether something came since this was set to False.
        is_silent: It was given up because nothing came.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.heard = True
        self.is_silent = False

    def data_received(self, data: bytes) -> None:
        """See :class:`asyncio.Protocol`."""
        self.heard = True
        super().data_received(data)


async def watch_silence(connection: ListenedConnection, silence_s: float) -> None:
    """Break a connection off when nothing comes for so long.

    It is told by turns of this loop, not by the clock: a client that was busy itself for a while
    has not listened. Nor has one that does not take what came.
    """
    silent_turns = 0
    while silent_turns < _TICKS:
        await asyncio.sleep(silence_s / _TICKS)
        if connection.heard or not connection.transport.is_reading():
            silent_turns = 0
        else:
            silent_turns += 1
        connection.heard = False
    connection.is_silent = True
    connection.transport.abort()
