"""Notices a server that has fallen silent: no message, no acknowledgement, not even a pong."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

from websockets.asyncio.client import ClientConnection

__all__ = ["QUIET_S", "ListenedConnection", "pinged_every_s", "watch_silence"]

QUIET_S: Final = 1.5
"""Silence that is told of: whoever watches sees it within two seconds."""
_TICK_S: Final = 0.1
_PING_S: Final = 0.5
_LEAST_TICKS: Final = 10


def pinged_every_s(silence_s: float | None) -> float:
    """How often to ping a server that counts as gone after `silence_s`, in seconds."""
    return _PING_S if silence_s is None else min(_PING_S, silence_s / 4)


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


async def watch_silence(
    connection: ListenedConnection,
    silence_s: float | None,
    tell: Callable[[bool, float], None] | None = None,
) -> None:
    """Tell when nothing comes, and when something comes again; break it off after `silence_s`.

    It is told by turns of this loop, not by the clock: a client that was busy itself for a while
    has not listened. Nor has one that does not take what came.

    Args:
        connection: To the server; pinged as `pinged_every_s` says.
        silence_s: Silence after which it is broken off, in seconds; None: never.
        tell: Called with whether the server is silent, and for how many seconds.
    """
    tick_s, quiet_s = _TICK_S, QUIET_S
    if silence_s is not None:
        tick_s, quiet_s = min(_TICK_S, silence_s / _LEAST_TICKS), min(QUIET_S, silence_s / 2)
    silent_turns, is_quiet = 0, False
    while silence_s is None or silent_turns * tick_s < silence_s:
        await asyncio.sleep(tick_s)
        if connection.heard or not connection.transport.is_reading():
            silent_turns = 0
        else:
            silent_turns += 1
        connection.heard = False
        if tell is not None and is_quiet != (silent_turns * tick_s >= quiet_s):
            is_quiet = not is_quiet
            tell(is_quiet, quiet_s)
    connection.is_silent = True
    connection.transport.abort()
