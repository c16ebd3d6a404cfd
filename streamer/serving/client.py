"""A connection of a server, and the session that it has at the moment.

A connection begins with a session of its own. When its client asks to go on with another one, that
one takes its place, and the connection that had it is dismissed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from cnerta.streamer.apis.tongue import Aside, Tongue
from cnerta.streamer.serving.account import Account
from cnerta.streamer.serving.hosted_session import HostedSession
from cnerta.streamer.serving.parking import ParkedSession
from cnerta.streamer.serving.reading.metered_connection import MeteredConnection
from cnerta.streamer.session.connection import Close
from cnerta.streamer.wire.codec import encode
from cnerta.streamer.wire.errors import ErrorName, ProtocolError
from cnerta.streamer.wire.messages import ServerMessage

__all__ = ["Client"]

_CLEAN_CODES = (1000, 1005)


@dataclass(eq=False, slots=True)
class Client:
    """A connection and its session.

    Attributes:
        connection: The connection.
        entry: Its session, as it is known to the parking lot.
        account: Follows what becomes of it.
        tongue: Translates for it; None: it speaks the protocol.
        farewell: Why the connection is closed although the session goes on.
        is_handed_over: Whether another process has the connection now.
        closed_at: When nothing more was to be said while the connection was still there.
    """

    connection: MeteredConnection
    entry: ParkedSession
    account: Account
    tongue: Tongue | None = None
    farewell: ProtocolError | None = None
    is_handed_over: bool = False
    closed_at: float | None = None

    def __post_init__(self) -> None:
        self.session.attach(self)

    @property
    def session(self) -> HostedSession:
        """The session."""
        return self.entry.session

    @property
    def parting(self) -> ProtocolError | None:
        """Why the connection is to be closed, with this error, although the session goes on."""
        return self.farewell or self.session.protocol.parting

    @property
    def is_superseded(self) -> bool:
        """Whether its session has another connection now."""
        return self.farewell is not None and self.farewell.name is ErrorName.SUPERSEDED

    @property
    def is_closing(self) -> bool:
        """Whether nothing more is to be said."""
        return self.parting is not None or self.session.protocol.is_closed

    @property
    def closed_cleanly(self) -> bool:
        """Whether its client has said that it will not come back, or has had the last message."""
        received = self.connection.protocol.close_rcvd
        if received is None:
            return False
        return received.code in _CLEAN_CODES or self.session.protocol.close is not None

    def written(self, message: ServerMessage | Aside) -> Iterable[str | bytes]:
        """The frames that tell its client of a message."""
        if self.tongue is not None:
            return self.tongue.tell(message)
        return () if isinstance(message, Aside) else (encode(message),)

    def closing(self, close: Close) -> Close:
        """How to close, as its client understands it."""
        if self.tongue is None:
            return close
        own = self.tongue.closing(close.code, close.reason)
        return Close(own.code, own.reason)

    def dismiss(self, error: ProtocolError) -> None:
        """Close the connection with an error; the session goes on without it."""
        self.farewell = error
        self.session.attach(None)

    def leave(self) -> None:
        """Another process has the connection: nothing more is said from here."""
        self.is_handed_over = True
        self.session.attach(None)

    def take_over(self, entry: ParkedSession) -> None:
        """Go on with another session."""
        self.entry = entry
        entry.session.attach(self)

    async def next_message(self) -> ServerMessage | Aside | None:
        """Wait for the next message to send; None if there will be no more."""
        while True:
            session = self.session
            message = await session.next_message(self)
            if message is not None or session is self.session:
                return message
