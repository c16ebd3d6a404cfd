"""What the log says of sessions: that they open and close, and counts. Never a word of theirs."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any, Final, Protocol

import websockets.asyncio.server as ws

from cnerta.streamer.access.admission import Place
from cnerta.streamer.serving.hosted_session import HostedSession
from cnerta.streamer.session.connection import ServerProtocol
from cnerta.streamer.wire.errors import ProtocolError

__all__ = ["Ending", "EndingConnection", "how_it_ended", "log_ended", "log_opened"]

logger = logging.getLogger(__name__)

_BY_THE_TRANSPORT: Final = frozenset({1002, 1003, 1007, 1009})
"""Codes with which the transport closes what breaks WebSocket's own rules; they say why."""
_LOST: Final = 1006


class EndingConnection(Protocol):
    """A connection that is over; :class:`cnerta.streamer.serving.client.Client` is one."""

    @property
    def connection(self) -> ws.ServerConnection:
        """The connection."""
        ...

    @property
    def session(self) -> HostedSession:
        """The session that it had last."""
        ...

    @property
    def parting(self) -> ProtocolError | None:
        """Why it was closed although the session goes on."""
        ...

    @property
    def is_handed_over(self) -> bool:
        """Whether it is not over at all, but another process' matter."""
        ...


@dataclass(frozen=True, slots=True)
class Ending:
    """How a connection ended.

    Attributes:
        code: Of its close; 1006: there was none.
        reason: In a word.
        is_unnamed: The server ended it without saying why.
    """

    code: int
    reason: str
    is_unnamed: bool = False

    @property
    def is_lost(self) -> bool:
        """Whether it broke off."""
        return self.code == _LOST


def how_it_ended(client: EndingConnection) -> Ending:
    """How a connection ended, once it has."""
    transport, close = client.connection.protocol, client.session.protocol.close
    sent, received = transport.close_sent, transport.close_rcvd
    if sent is not None and not transport.close_rcvd_then_sent:
        is_named = close is not None or client.parting is not None
        is_named = is_named or sent.code in _BY_THE_TRANSPORT
        return Ending(sent.code, sent.reason or "by the transport", not is_named)
    if received is None:
        return Ending(_LOST, "lost")
    return Ending(received.code, "by the client")


def log_opened(protocol: ServerProtocol, place: Place, *, is_resumed: bool) -> None:
    """A session has started, or goes on."""
    what = "resumed" if is_resumed else "opened"
    logger.info(
        "session %s %s: peer=%s caller=%s",
        protocol.session_id,
        what,
        place.address,
        place.caller.identity,
        extra=_fields(what, protocol, place),
    )


def log_ended(
    protocol: ServerProtocol, place: Place | None, ending: Ending, seconds: float
) -> None:
    """A connection has ended; of one that never started a session only at level DEBUG.

    A session that waits for another connection is not closed yet: it may come up again.
    """
    stream = protocol.session
    if stream is None or place is None:
        reason = ending.reason if protocol.close is None else protocol.close.reason
        logger.debug("connection %s closed: code=%d %s", protocol.session_id, ending.code, reason)
        return
    summary = stream.summary()
    what = "closed" if protocol.is_closed else "disconnected"
    logger.info(
        "session %s %s: code=%d %s peer=%s caller=%s seconds=%.1f audio_seconds=%.1f "
        "finals=%d entities=%d dropped_interims=%d",
        protocol.session_id,
        what,
        ending.code,
        ending.reason,
        place.address,
        place.caller.identity,
        seconds,
        summary.audio_ms / 1000,
        summary.utterances,
        summary.entities,
        summary.dropped_interims,
        extra=_fields(
            what,
            protocol,
            place,
            code=ending.code,
            reason=ending.reason,
            duration_s=round(seconds, 3),
            audio_s=summary.audio_ms / 1000,
            utterances=summary.utterances,
            entities=summary.entities,
            dropped_interims=summary.dropped_interims,
        ),
    )


def _fields(what: str, protocol: ServerProtocol, place: Place, **others: object) -> dict[str, Any]:
    """What `cnerta.models.command_line.JsonLines` writes of it."""
    who = {"peer": place.address, "caller": place.caller.identity}
    about = {"event": f"session.{what}", "session": protocol.session_id, **who, **others}
    return {"fields": about}
