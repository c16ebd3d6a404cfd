"""A session at home in an event loop: the protocol, its share of the engine, and who waits for it.

The server hosts one for each connection, the local client one for itself. One that is parked has no
connection: what is owed goes on, and waits.
"""

from __future__ import annotations

import asyncio

from cnerta.streamer.serving.batcher import Batcher
from cnerta.streamer.session.connection import ServerProtocol
from cnerta.streamer.session.work import Lane, Result, Work
from cnerta.streamer.wire.errors import ProtocolError
from cnerta.streamer.wire.messages import ClientMessage, ServerMessage
from cnerta.streamer.wire.parts import LostHistory

__all__ = ["HostedSession"]


class HostedSession:
    """Keeps a protocol, the batcher and the task that sends its messages informed of each other.

    It is what the batcher knows as a work source. All methods are for the event loop's thread.

    Attributes:
        protocol: The session itself.
    """

    def __init__(self, protocol: ServerProtocol, batcher: Batcher) -> None:
        self.protocol = protocol
        self._batcher = batcher
        self._news = asyncio.Event()
        self._reader: object = None

    # --- for the owner ----------------------------------------------------------------------------

    def receive(self, data: str | bytes) -> None:
        """Take a frame."""
        self.protocol.receive(data, _now())
        self._changed()

    def receive_message(self, message: ClientMessage) -> None:
        """Take a message that is decoded already."""
        self.protocol.receive_message(message, _now())
        self._changed()

    def tick(self) -> None:
        """Let time pass."""
        self.protocol.tick(_now())
        self._changed()

    def go_away(self, reason: str) -> None:
        """Ask the session to come to its end."""
        self.protocol.go_away(reason)
        self._changed()

    def fail(self, error: ProtocolError) -> None:
        """End the session with an error."""
        self.protocol.fail(error)
        self._changed()

    def disconnect(self) -> None:
        """The other side is gone."""
        self.protocol.disconnect()
        self._batcher.forget(self)
        self._changed()

    def park(self) -> None:
        """The other side is gone, and may come back."""
        self.protocol.park()
        self.attach(None)
        self._changed()

    def resume(self, last_seq: int) -> None:
        """The other side is back, and has received all events up to a number."""
        self.protocol.resume(last_seq, _now())
        self._changed()

    def start_anew(self, lost: LostHistory) -> None:
        """Begin a session in the place of the one that was asked for."""
        self.protocol.start_anew(lost)
        self._changed()

    def attach(self, reader: object) -> None:
        """From now on only this reader gets messages; whoever waits for another gets none."""
        self._reader = reader
        # Whoever waits has this event: a new one is for those who come.
        self._news.set()
        self._news = asyncio.Event()

    async def next_message(self, reader: object = None) -> ServerMessage | None:
        """Wait for the next message; None when there will be no more on this connection.

        Args:
            reader: Who asks, see :meth:`attach`.
        """
        while self._reader is reader and self.protocol.parting is None:
            message = self.protocol.next_message()
            if message is not None:
                return message
            if self.protocol.is_closed:
                return None
            news = self._news
            news.clear()
            await news.wait()
        return None

    def _changed(self) -> None:
        self._wake()
        if not self.protocol.is_closed:
            self._batcher.notify(self)

    # --- for the batcher --------------------------------------------------------------------------

    @property
    def is_urgent(self) -> bool:
        """See :class:`cnerta.streamer.serving.batcher.WorkSource`, as for all that follow."""
        return self.protocol.is_urgent

    def lanes(self) -> list[Lane]:
        """The lanes that may have work for it."""
        return self.protocol.lanes()

    def next_work(self, lane: Lane, now: float) -> Work | None:
        """What the lane is to do next, if anything."""
        return self.protocol.next_work(lane, now)

    def work_done(self, work: Work, result: Result | Exception, now: float) -> None:
        """Take back a result."""
        self.protocol.work_done(work, result, now)
        self._wake()

    def fail_internally(self) -> None:
        """The session itself met a fault."""
        self.protocol.fail_internally()
        self._wake()

    def _wake(self) -> None:
        # The batcher asks for more work by itself.
        protocol = self.protocol
        if protocol.has_messages or protocol.is_closed or protocol.parting is not None:
            self._news.set()


def _now() -> float:
    return asyncio.get_running_loop().time()
