"""Messages on their way to one client: numbered when they leave, merged while they wait.

A client that reads slowly must not cost the server more and more memory, so what waits here is
merged: of one entity only the newest state waits, of an acknowledgement or a warning only the
newest; and at the bound the oldest entity changes go first. An inner entity never leaves before the
one around it. Because events get their ``seq`` when they leave, none of this makes a gap. Finals
are never merged or dropped; a reader too slow even for those is over the bound.

Where the session can be resumed, what left is kept in a :class:`History` and leaves again, with the
same numbers, for a client that comes back and has not received it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Final

import msgspec
from msgspec import UNSET

from cnerta.streamer.session.outgoing.history import History
from cnerta.streamer.wire.messages import (
    AudioAck,
    CaptionUpdate,
    EntityRetract,
    EntityUpsert,
    RecognisedTranscript,
    ServerMessage,
    SessionReady,
    SessionSummary,
    UtteranceFinal,
    WarningMessage,
    WarningName,
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
        self._history: History | None = None
        self._greeting: ServerMessage | None = None
        self._replayed = 0  # number of the last event that left for this connection

    def __len__(self) -> int:
        return (self._greeting is not None) + self.seq - self._replayed + len(self._waiting)

    @property
    def waiting_finals(self) -> tuple[str, ...]:
        """The utterances whose final answers have not left."""
        return tuple(m.utterance for m in self._waiting.values() if isinstance(m, UtteranceFinal))

    @property
    def has_summary(self) -> bool:
        """Whether the summary waits."""
        return any(isinstance(m, SessionSummary) for m in self._waiting.values())

    @property
    def held_bytes(self) -> int:
        """Memory of what waits and of what is kept, about."""
        return self._bytes + (0 if self._history is None else self._history.held_bytes)

    def keep_history(self, history: History) -> None:
        """Keep from now on what leaves; to be called before anything does."""
        self._history = history

    def gone_after(self, last_seq: int) -> int:
        """How many events after one of a number cannot leave again."""
        first = self.seq + 1 if self._history is None else self._history.first
        return max(0, first - last_seq - 1)

    def can_replay(self, last_seq: int) -> bool:
        """Whether all events after one of a number can leave again."""
        return self._history is not None and self._history.reaches(last_seq)

    def park(self) -> None:
        """The connection is gone: forget what concerned only it."""
        for key, message in tuple(self._waiting.items()):
            if isinstance(message, AudioAck | SessionReady):
                self._remove(key)
        self._greeting, self._replayed = None, self.seq

    def replay(self, greeting: ServerMessage, last_seq: int) -> None:
        """Let a greeting leave next, and then all events after one of a number.

        What has come to wait while nobody read does not count as a reader that is too slow.
        """
        assert self.can_replay(last_seq), "expected a number that was checked"
        self._greeting, self._replayed = greeting, last_seq
        self._capacity_bytes = max(self._capacity_bytes, self._bytes)

    @property
    def waiting_bytes(self) -> int:
        """Memory of what waits, about."""
        return self._bytes

    @property
    def is_over(self) -> bool:
        """Whether more waits than may, although all that can go is gone."""
        return self._bytes > self._capacity_bytes

    def clear(self) -> None:
        """Forget what waits."""
        self._greeting, self._replayed = None, self.seq
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

    def warn(self, name: WarningName, detail: str) -> None:
        """Add a warning."""
        self.put(WarningMessage(name=name, detail=detail))

    def pop(self) -> ServerMessage | None:
        """The next message to send, if any."""
        if self._greeting is not None:
            greeting, self._greeting = self._greeting, None
            return greeting
        if self._replayed < self.seq:
            assert self._history is not None, "only what is kept is told again"
            self._replayed += 1
            return self._history.event(self._replayed)
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
        self._replayed = self.seq
        event = msgspec.structs.replace(message, seq=self.seq)
        if self._history is not None:
            self._history.add(event)
        return event

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
        if isinstance(message, RecognisedTranscript):
            return ("transcript", message.utterance)
        if isinstance(message, CaptionUpdate):
            return ("caption", message.utterance)
        self._unique += 1
        return self._unique

    def _remove(self, key: Hashable) -> None:
        message = self._waiting.pop(key, None)
        if message is not None:
            self._bytes -= _weight(message)

    def _drop_oldest_change(self) -> bool:
        """Make room: the utterance's final will say what the change said."""
        for key, message in self._waiting.items():
            if isinstance(message, EntityUpsert | CaptionUpdate):
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
    if isinstance(message, CaptionUpdate):
        return _MESSAGE_BYTES * (1 + len(message.entities)) + 4 * len(message.text)
    return _MESSAGE_BYTES
