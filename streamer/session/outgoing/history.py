"""The events that a client may have missed, for when it comes back on another connection.

What left for the client need not have reached it: it may be in the buffers of either machine when
the connection breaks. So every event that leaves is kept here for a while, as it was encoded, and
told again to a client that says which was the last it received. The oldest go first when the bound
is reached.
"""

from __future__ import annotations

from collections import deque

from cnerta.streamer.wire.codec import decode_server, encode
from cnerta.streamer.wire.messages import ServerMessage

__all__ = ["History"]


class History:
    """The last events of one session, numbered without gaps.

    Attributes:
        held_bytes: Size of all that is kept.
    """

    def __init__(self, capacity_bytes: int) -> None:
        """Begin with nothing.

        Args:
            capacity_bytes: Most that is kept; the newest event is kept whatever its size.
        """
        self.held_bytes = 0
        self._capacity_bytes = capacity_bytes
        self._events: deque[bytes] = deque()
        self._next = 1

    def add(self, event: ServerMessage) -> None:
        """Keep the next event, which has its number already."""
        encoded = encode(event)
        self._events.append(encoded)
        self._next += 1
        self.held_bytes += len(encoded)
        while self.held_bytes > self._capacity_bytes and len(self._events) > 1:
            self.held_bytes -= len(self._events.popleft())

    @property
    def first(self) -> int:
        """Number of the oldest event that is kept; that of the next one if none is."""
        return self._next - len(self._events)

    def reaches(self, last_seq: int) -> bool:
        """Whether all events after one of a number are kept."""
        return last_seq + 1 >= self.first

    def event(self, seq: int) -> ServerMessage:
        """An event that is kept, once more."""
        return decode_server(self._events[seq - self.first])
