"""Messages on their way to one client: numbered when they leave, merged while they wait.

A client that reads slowly must not cost the server more and more memory, so what waits here is
merged: of one entity only the newest state waits, of an acknowledgement or a warning only the
newest; and at the bound the oldest entity changes go first. An inner entity never leaves before the
one around it. Because events get their ``seq`` when they leave, none of this makes a gap. Finals
are never merged or dropped; a reader too slow even for those is over the bound.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Final

import msgspec
from msgspec import UNSET

from cnerta.streamer.wire.messages import (
    AudioAck,
    EntityRetract,
    EntityUpsert,
    ServerMessage,
    UtteranceFinal,
    WarningMessage,
)

__all__ = ["Outbox"]


_MESSAGE_BYTES: Final = 1_000
_PAIR_BYTES: Final = 120


class Outbox:
    """The waiting messages of one session.

    Attributes:
        seq: Number of the last event that left.
        dropped_changes: Entity changes dropped because the client reads too slowly.
    """

    def __init__(self, capacity_bytes: int) -> None:
        self.seq = 0
        self.dropped_changes = 0
        self._capacity_bytes = capacity_bytes
        self._bytes = 0
        self._waiting: OrderedDict[Hashable, ServerMessage] = OrderedDict()
        self._unique = 0
        # Entities the client has heard of and not heard retracted or final.
        self._known: set[str] = set()

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def held_bytes(self) -> int:
        """Memory of what waits, about."""
        return self._bytes

    @property
    def is_over(self) -> bool:
        """Whether more waits than may, although all that can go is gone."""
        return self._bytes > self._capacity_bytes

    def clear(self) -> None:
        """Forget what waits."""
        self._waiting.clear()
        self._bytes = 0

    def put(self, message: ServerMessage) -> None:
        """Add a message. The ``seq`` of an event is filled in when it leaves."""
        key = self._key(message)
        self._remove(key)
        if isinstance(message, EntityRetract) and message.id not in self._known:
            return  # It came and went before the client heard of it.
        self._waiting[key] = message
        self._bytes += _weight(message)
        while self.is_over and self._drop_oldest_change():
            pass

    def pop(self) -> ServerMessage | None:
        """The next message to send, if any."""
        key = self._next_key()
        if key is None:
            return None
        message = self._waiting.pop(key)
        self._bytes -= _weight(message)
        if isinstance(message, EntityUpsert):
            self._known.add(message.entity.id)
        elif isinstance(message, EntityRetract):
            self._known.discard(message.id)
        elif isinstance(message, UtteranceFinal):
            self._known.difference_update(e.id for e in message.entities)
        else:
            return message
        self.seq += 1
        return msgspec.structs.replace(message, seq=self.seq)

    def _next_key(self) -> Hashable | None:
        """What leaves next: the oldest message, but an entity after the one it is in."""
        while self._waiting:
            key = next(iter(self._waiting))
            message = self._waiting[key]
            while (parent := self._unknown_parent(message)) is not None:
                key = ("entity", parent)
                if not isinstance(self._waiting.get(key), EntityUpsert):
                    break  # The parent's change was dropped; the final will tell of both.
                message = self._waiting[key]
            else:
                return key
            self._remove(self._key(message))
            self.dropped_changes += 1
        return None

    def _unknown_parent(self, message: ServerMessage) -> str | None:
        """Id of the entity around one, if the client has not heard of it."""
        if not isinstance(message, EntityUpsert):
            return None
        parent = message.entity.parent
        return None if parent in self._known else parent

    def _key(self, message: ServerMessage) -> Hashable:
        if isinstance(message, EntityUpsert):
            return ("entity", message.entity.id)
        if isinstance(message, EntityRetract):
            return ("entity", message.id)
        if isinstance(message, AudioAck):
            return "ack"
        if isinstance(message, WarningMessage):
            return ("warning", message.name)
        self._unique += 1
        return self._unique

    def _remove(self, key: Hashable) -> None:
        message = self._waiting.pop(key, None)
        if message is not None:
            self._bytes -= _weight(message)

    def _drop_oldest_change(self) -> bool:
        """Make room: the utterance's final will say what the change said."""
        for key, message in self._waiting.items():
            if isinstance(message, EntityUpsert):
                self._remove(key)
                self.dropped_changes += 1
                return True
        return False


def _weight(message: ServerMessage) -> int:
    """About how many bytes of memory a message takes."""
    if isinstance(message, UtteranceFinal):
        text = 4 * len(message.text) + _PAIR_BYTES * len(message.characters)
        readings = 0 if message.readings is UNSET else len(message.readings)
        return _MESSAGE_BYTES * (1 + len(message.entities) + readings) + text
    return _MESSAGE_BYTES
