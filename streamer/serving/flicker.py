"""What of one session's entities changed after it had been shown: its flicker."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from cnerta.streamer.wire.messages import EntityRetract, EntityUpsert, ServerMessage, UtteranceFinal
from cnerta.streamer.wire.parts import EntityStatus

__all__ = ["Change", "FlickerWatch"]


@dataclass(frozen=True, slots=True)
class Change:
    """An entity that was shown is another one now, or none.

    Attributes:
        kind: It was taken back, or given another label.
        status: What it was before.
    """

    kind: Literal["retraction", "relabel"]
    status: EntityStatus


class FlickerWatch:
    """Follows the entities that one client is shown, those of open utterances only."""

    def __init__(self) -> None:
        self._shown: dict[str, tuple[str, EntityStatus]] = {}

    def __len__(self) -> int:
        return len(self._shown)

    def see(self, message: ServerMessage) -> Change | None:
        """Take the next message of the session; what it changes of what was shown."""
        if isinstance(message, EntityUpsert):
            entity = message.entity
            before = self._shown.get(entity.id)
            self._shown[entity.id] = (entity.label, entity.status)
            if before is not None and before[0] != entity.label:
                return Change("relabel", before[1])
        elif isinstance(message, EntityRetract):
            before = self._shown.pop(message.id, None)
            if before is not None:
                return Change("retraction", before[1])
        elif isinstance(message, UtteranceFinal):
            for entity in message.entities:
                self._shown.pop(entity.id, None)
        return None
