"""A session at home in an event loop: the protocol, its share of the engine, and who waits for it.

The server hosts one for each connection, the local client one for itself.
"""

from __future__ import annotations

import asyncio

from cnerta.streamer.serving.batcher import Batcher
from cnerta.streamer.session.connection import ServerProtocol
from cnerta.streamer.session.work import Lane, Result, Work
from cnerta.streamer.wire.errors import ProtocolError
from cnerta.streamer.wire.messages import ClientMessage, ServerMessage

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

    @property
    def held_bytes(self) -> int:
        """See :class:`cnerta.streamer.serving.memory_budget.MemoryHolder`."""
        return self.protocol.held_bytes

    def release_memory(self, wanted_bytes: int) -> None:
        """See :class:`cnerta.streamer.serving.memory_budget.MemoryHolder`."""
        self.protocol.release_memory(wanted_bytes, _now())
        self._changed()

    def disconnect(self) -> None:
        """The other side is gone."""
        self.protocol.disconnect()
        self._batcher.forget(self)
        self._changed()

    async def next_message(self) -> ServerMessage | None:
        """Wait for the next message; None when there will be no more."""
        while True:
            message = self.protocol.next_message()
            if message is not None:
                return message
            if self.protocol.is_closed:
                return None
            self._news.clear()
            await self._news.wait()

    def _changed(self) -> None:
        if self.protocol.has_messages or self.protocol.is_closed:
            self._news.set()
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
        if self.protocol.has_messages or self.protocol.is_closed:
            self._news.set()


def _now() -> float:
    return asyncio.get_running_loop().time()
