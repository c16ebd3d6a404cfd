"""The protocol's rules, checked on the messages of one session as they come.

Told what a client sends and gets, it raises at the first message that breaks a rule of
docs/reference/protocol.md. It knows nothing of how the server works.
"""

from __future__ import annotations

from typing import Final

from cnerta.streamer.wire.messages import (
    AudioAck,
    EntityRetract,
    EntityUpsert,
    ErrorMessage,
    ServerMessage,
    SessionReady,
    SessionSummary,
    Transcript,
    UtteranceFinal,
)
from cnerta.streamer.wire.parts import Entity

__all__ = ["TRANSPORT_CODES", "ProtocolRules", "RuleBrokenError"]

_STATUS: Final = {"tentative": 0, "stable": 1, "final": 2}
TRANSPORT_CODES: Final = {1002, 1007, 1009}
"""Closes that the transport names by itself, without a message."""


class RuleBrokenError(AssertionError):
    """A message breaks a rule."""


class ProtocolRules:
    """What a client knows of one session.

    Attributes:
        seq: Of the last event.
        answered: Utterances whose final came.
        owed: Final transcripts that were sent and not answered yet.
        changes_were_dropped: Whether so much waited for the client that changes of entities went,
            which the final tells of.
    """

    def __init__(self) -> None:
        self.seq = 0
        self.answered: set[str] = set()
        self.owed: set[str] = set()
        self.changes_were_dropped = False
        self._texts: dict[tuple[str, int], set[str]] = {}
        self._alive: dict[str, dict[str, Entity]] = {}
        self._versions: dict[str, int] = {}
        self._owners: dict[str, str] = {}
        self._retracted: set[str] = set()
        self._ended: int | None = None
        self._audio_ms = 0
        self._is_open = False

    # --- what the client sends --------------------------------------------------------------------

    def on_sent(self, transcript: Transcript) -> None:
        """The client sends a revision. Offsets are checked against texts told here only."""
        texts = self._texts.setdefault((transcript.utterance, transcript.revision), set())
        texts.add(transcript.text)
        if transcript.final and transcript.utterance not in self.answered:
            self.owed.add(transcript.utterance)

    def on_resumed(self) -> None:
        """The client goes on with the session over another connection, from :attr:`seq`."""
        self._is_open = False
        self._ended = None
        self._audio_ms = 0

    # --- what it gets -----------------------------------------------------------------------------

    def on_message(self, message: ServerMessage) -> None:
        """A message came.

        Raises:
            RuleBrokenError: It should not have.
        """
        _require(self._ended is None, "nothing follows the error or the summary")
        match message:
            case SessionReady():
                _require(not self._is_open, "session.ready comes once")
                self._is_open = True
            case EntityUpsert() | EntityRetract() | UtteranceFinal():
                self._on_event(message)
            case AudioAck():
                _require(message.received_ms >= self._audio_ms, "audio.ack does not fall")
                self._audio_ms = message.received_ms
            case ErrorMessage():
                self._ended = message.code
            case SessionSummary():
                _require(not self.owed, f"every final is answered before the end: {self.owed}")
                self._ended = 1000
            case _:
                pass

    def on_close(self, code: int) -> None:
        """The connection was closed by the server with this code.

        Raises:
            RuleBrokenError: No message, or one of another code, had named it.
        """
        if self._ended is None:
            _require(code in TRANSPORT_CODES, f"an error comes before the close {code}")
        else:
            _require(code == self._ended, f"{self._ended} was announced, not {code}")

    def _on_event(self, event: EntityUpsert | EntityRetract | UtteranceFinal) -> None:
        _require(self._is_open, "session.ready comes before events")
        _require(event.seq == self.seq + 1, f"seq {self.seq + 1} follows {self.seq}")
        self.seq = event.seq
        _require(event.utterance not in self.answered, "nothing follows utterance.final")
        alive = self._alive.setdefault(event.utterance, {})
        match event:
            case EntityUpsert():
                self._on_upsert(event, alive)
            case EntityRetract():
                _require(event.id in alive, "only what was shown is retracted")
                _require(alive[event.id].status != "final", "no final entity is retracted")
                del alive[event.id]
                self._retracted.add(event.id)
            case UtteranceFinal():
                self._on_final(event, alive)

    def _on_upsert(self, event: EntityUpsert, alive: dict[str, Entity]) -> None:
        entity = event.entity
        before = alive.get(entity.id)
        _require(entity.id not in self._retracted, "a retracted id does not come back")
        _require(
            self._owners.setdefault(entity.id, event.utterance) == event.utterance,
            "an id is of one utterance",
        )
        _require(entity.version > self._versions.get(entity.id, 0), "version rises")
        self._versions[entity.id] = entity.version
        if before is not None:
            _require(_STATUS[entity.status] >= _STATUS[before.status], "status only rises")
        _require(
            entity.parent is None or (entity.parent in alive and entity.parent != entity.id),
            "a parent is known before what is inside it",
        )
        texts = self._texts.get((event.utterance, event.revision))
        if texts is not None:
            _require(any(_lies_in(entity, text) for text in texts), "offsets cut out the text")
        alive[entity.id] = entity

    def _on_final(self, event: UtteranceFinal, alive: dict[str, Entity]) -> None:
        own = {entity.id: entity for entity in event.entities}
        _require(len(own) == len(event.entities), "ids of a final are distinct")
        _require({e.status for e in own.values()} <= {"final"}, "entities of a final are final")
        _require(all(e.parent is None or e.parent in own for e in own.values()), "parents are told")
        _require(all(_lies_in(e, event.text) for e in own.values()), "offsets cut out the text")
        if self.changes_were_dropped:
            _require(alive.keys() <= own.keys(), "what was shown and not retracted is in the end")
        else:
            _require(not alive or alive == own, "the deltas add up to the final set")
        texts = self._texts.get((event.utterance, event.revision))
        _require(texts is None or event.text in texts, "the text is the one that was sent")
        edges = [edge for pair in event.characters for edge in pair]
        _require(edges == sorted(edges), "times of characters do not fall")
        _require(len(event.characters) in (0, len(event.text)), "each character has its times")
        _require(event.audio_used == (event.time_source == "alignment"), "times say where from")
        self.answered.add(event.utterance)
        self.owed.discard(event.utterance)
        self._alive.pop(event.utterance, None)


def _lies_in(entity: Entity, text: str) -> bool:
    """Whether an entity's offsets, of both kinds, cut its text out of ``text``."""
    cut = text.encode("utf-16-le", "surrogatepass")[2 * entity.start_utf16 : 2 * entity.end_utf16]
    same = text[entity.start : entity.end] == entity.text
    return same and cut.decode("utf-16-le", "replace") == entity.text


def _require(holds: bool, rule: str) -> None:
    if not holds:
        raise RuleBrokenError(f"expected: {rule}")
