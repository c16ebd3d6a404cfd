"""How a connection speaks that does not speak the protocol itself."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass

from cnerta.streamer.wire.messages import ClientMessage, ServerMessage

__all__ = ["FLUSH", "Aside", "Closing", "Flush", "Flushed", "Heard", "Reply", "Tongue"]


@dataclass(frozen=True, slots=True)
class Flush:
    """The client wants what was said so far to be written to its end now."""


FLUSH = Flush()


@dataclass(frozen=True, slots=True)
class Flushed:
    """The recogniser has written to its end what was said before a flush.

    Attributes:
        owed: The utterances whose final answers have not left yet.
    """

    owed: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Closing:
    """How a connection is closed.

    Attributes:
        code: Of WebSocket.
        reason: For people.
    """

    code: int
    reason: str


@dataclass(frozen=True, slots=True)
class Reply:
    """A frame for the client that concerns no session.

    Attributes:
        text: The frame.
    """

    text: str


Heard = ClientMessage | bytes | Flush | Reply
"""What a frame says: a message of the protocol, audio, a wish for the recogniser, or nothing that
the session could answer."""
Aside = Flushed | Reply
"""What a client is told beside its session's messages."""


class Tongue(ABC):
    """One connection's translator. No I/O, no time: frames in and messages out, and the reverse."""

    @abstractmethod
    def opening(self) -> Iterable[Heard]:
        """What the client has said by connecting."""

    @abstractmethod
    def hear(self, frame: str | bytes) -> Iterable[Heard]:
        """What a frame of the client says.

        Raises:
            ProtocolError: Nothing that is understood; the connection ends.
        """

    @abstractmethod
    def tell(self, message: ServerMessage | Aside) -> Iterable[str]:
        """The frames that tell the client of a message; perhaps none."""

    @abstractmethod
    def closing(self, code: int, reason: str) -> Closing:
        """How to close where the protocol would close like this."""
