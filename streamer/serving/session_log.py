"""What the log says of sessions: that they open and close, and counts. Never a word of theirs."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Final

import websockets.asyncio.server as ws

from cnerta.streamer.access.admission import Place
from cnerta.streamer.session.connection import ServerProtocol

__all__ = ["Ending", "how_it_ended", "log_closed", "log_opened"]

logger = logging.getLogger(__name__)

_BY_THE_TRANSPORT: Final = frozenset({1002, 1003, 1007, 1009})
"""Codes with which the transport closes what breaks WebSocket's own rules; they say why."""
_LOST: Final = 1006


@dataclass(frozen=True, slots=True)
class Ending:
    """How a connection ended.

    Attributes:
        code: Of its close; 1006: there was none.
        is_unnamed: The server ended it without saying why.
    """

    code: int
    is_unnamed: bool

    @property
    def is_lost(self) -> bool:
        """Whether it broke off."""
        return self.code == _LOST


def how_it_ended(connection: ws.ServerConnection, protocol: ServerProtocol) -> Ending:
    """How a connection ended, once it has."""
    transport = connection.protocol
    sent, received = transport.close_sent, transport.close_rcvd
    if sent is not None and not transport.close_rcvd_then_sent:
        is_named = protocol.close is not None or sent.code in _BY_THE_TRANSPORT
        return Ending(sent.code, not is_named)
    return Ending(_LOST if received is None else received.code, is_unnamed=False)


def log_opened(protocol: ServerProtocol, place: Place) -> None:
    """A session has started."""
    logger.info(
        "session %s opened: peer=%s caller=%s",
        protocol.session_id,
        place.address,
        place.caller.identity,
    )


def log_closed(
    protocol: ServerProtocol, place: Place | None, ending: Ending, seconds: float
) -> None:
    """A connection has ended; of one that never started a session only at level DEBUG."""
    stream = protocol.session
    reason = "" if protocol.close is None else protocol.close.reason
    if stream is None or place is None:
        logger.debug("connection %s closed: code=%d %s", protocol.session_id, ending.code, reason)
        return
    summary = stream.summary()
    logger.info(
        "session %s closed: code=%d %s peer=%s caller=%s seconds=%.1f audio_seconds=%.1f "
        "finals=%d entities=%d dropped_interims=%d",
        protocol.session_id,
        ending.code,
        reason or ("lost" if ending.is_lost else "by the client"),
        place.address,
        place.caller.identity,
        seconds,
        summary.audio_ms / 1000,
        summary.utterances,
        summary.entities,
        summary.dropped_interims,
    )
