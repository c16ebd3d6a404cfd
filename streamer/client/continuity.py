"""One stream of events for the application, whatever sessions they come from.

A stream whose server dies goes on in a new session, which counts its events, its audio and its
entities from the beginning. Here they are put on the stream's own: ``seq`` rises by one without
gaps, times are those of the whole stream, and no entity's id is used twice. Entities that were
shown, and whose utterance is answered anew, are retracted first. An entity is shown as final
together with its utterance's final answer only, so that it never has to be retracted.

No I/O, no clock.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import UNSET, UnsetType, structs

from cnerta.streamer.wire.messages import (
    AudioAck,
    CaptionUpdate,
    EntityRetract,
    EntityUpsert,
    RecognisedTranscript,
    ServerMessage,
    SessionSummary,
    UtteranceFinal,
)
from cnerta.streamer.wire.parts import Entity, MendedText

__all__ = ["Continuity"]


class Continuity:
    """Follows the sessions of one stream.

    Attributes:
        seq: Number of the last event that the application got.
        last_seq: Number of the last event of the session at hand.
        base_ms: Where in the stream the session at hand begins.
        base_samples: The same in samples.
        names_utterances: Whether the server's recogniser names them, in each session from the
            beginning.
    """

    def __init__(self) -> None:
        self.names_utterances = False
        # What the recogniser has not finished.
        self._writing: dict[str, RecognisedTranscript] = {}
        self.seq = 0
        self.last_seq = 0
        self.base_ms = 0
        self.base_samples = 0
        self._sessions = 0
        self._finals = 0
        self._entities = 0
        self._acked_ms = 0
        # What is shown and not final, by utterance and by the application's id.
        self._shown: dict[str, dict[str, EntityUpsert]] = {}
        # What waits for its utterance's final answer.
        self._held: dict[str, list[EntityUpsert]] = {}

    def new_session(self, base_samples: int, base_ms: int) -> list[ServerMessage]:
        """Another session takes over.

        Args:
            base_samples: Where in the stream it begins.
            base_ms: The same in milliseconds.

        Returns:
            What the application has to be told: entities that are shown are found anew, and what a
            recogniser was writing is written anew, as other utterances.
        """
        self._sessions += 1
        self.last_seq, self.base_ms, self.base_samples = 0, base_ms, base_samples
        self._held.clear()
        unfinished = [
            structs.replace(each, revision=each.revision + 1, final=True, text="")
            for each in self._writing.values()
        ]
        self._writing.clear()
        shown = [event for entities in self._shown.values() for event in entities.values()]
        self._shown.clear()
        # Inner entities first: nothing is ever shown inside of what is not.
        retracted = [
            self._numbered(
                EntityRetract(
                    seq=0,
                    utterance=event.utterance,
                    revision=event.revision,
                    id=event.entity.id,
                    reason="withdrawn",
                    behind_live_ms=event.behind_live_ms,
                )
            )
            for event in reversed(shown)
        ]
        return [*retracted, *unfinished]

    def received(self, message: ServerMessage) -> list[ServerMessage]:
        """What the application is told of a message; nothing if it knows it."""
        match message:
            case EntityUpsert() | EntityRetract() | UtteranceFinal():
                if message.seq <= self.last_seq:
                    return []
                self.last_seq = message.seq
                return self._event(structs.replace(message, utterance=self._name(message)))
            case RecognisedTranscript():
                return [self._written(message)]
            case CaptionUpdate():
                entities = [self._placed(entity) for entity in message.entities]
                return [
                    structs.replace(
                        message,
                        utterance=self._name(message),
                        entities=entities,
                        mended=self._placed_text(message.mended),
                    )
                ]
            case AudioAck():
                self._acked_ms = max(self._acked_ms, message.received_ms + self.base_ms)
                return [AudioAck(received_ms=self._acked_ms)]
            case SessionSummary():
                return [self._summary(message)]
            case _:
                return [message]

    def _event(self, event: EntityUpsert | EntityRetract | UtteranceFinal) -> list[ServerMessage]:
        shown = self._shown.setdefault(event.utterance, {})
        match event:
            case EntityUpsert():
                placed = structs.replace(event, entity=self._placed(event.entity))
                if placed.entity.status == "final":
                    self._held.setdefault(event.utterance, []).append(placed)
                    return []
                shown[placed.entity.id] = placed
                return [self._numbered(placed)]
            case EntityRetract():
                retracted = structs.replace(event, id=self._id(event.id))
                shown.pop(retracted.id, None)
                if not shown:
                    del self._shown[event.utterance]
                return [self._numbered(retracted)]
            case UtteranceFinal():
                self._shown.pop(event.utterance, None)
                self._finals += 1
                self._entities += len(event.entities)
                final = structs.replace(
                    event,
                    entities=[self._placed(entity) for entity in event.entities],
                    characters=self._placed_times(event.characters),
                    mended=self._placed_text(event.mended),
                )
                return [self._numbered(e) for e in (*self._held.pop(event.utterance, ()), final)]

    def _name(
        self,
        message: EntityUpsert
        | EntityRetract
        | UtteranceFinal
        | RecognisedTranscript
        | CaptionUpdate,
    ) -> str:
        """The utterance, by the name that the application knows it by."""
        return self._id(message.utterance) if self.names_utterances else message.utterance

    def _written(self, written: RecognisedTranscript) -> RecognisedTranscript:
        start_ms, end_ms = written.start_ms, written.end_ms
        placed = structs.replace(
            written,
            utterance=self._name(written),
            start_ms=None if start_ms is None else start_ms + self.base_ms,
            end_ms=None if end_ms is None else end_ms + self.base_ms,
        )
        if placed.final:
            self._writing.pop(placed.utterance, None)
        else:
            self._writing[placed.utterance] = placed
        return placed

    def _numbered(self, event: EntityUpsert | EntityRetract | UtteranceFinal) -> ServerMessage:
        self.seq += 1
        return structs.replace(event, seq=self.seq)

    def _placed(self, entity: Entity) -> Entity:
        """An entity of the session at hand, in the stream."""
        return structs.replace(
            entity,
            id=self._id(entity.id),
            parent=None if entity.parent is None else self._id(entity.parent),
            start_ms=None if entity.start_ms is None else entity.start_ms + self.base_ms,
            end_ms=None if entity.end_ms is None else entity.end_ms + self.base_ms,
        )

    def _placed_times(self, characters: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
        return [(start + self.base_ms, end + self.base_ms) for start, end in characters]

    def _placed_text(self, mended: MendedText | UnsetType) -> MendedText | UnsetType:
        """A mended text of the session at hand, in the stream."""
        if mended is UNSET:
            return UNSET
        return structs.replace(
            mended,
            entities=[self._placed(entity) for entity in mended.entities],
            characters=self._placed_times(mended.characters),
        )

    def _id(self, entity_id: str) -> str:
        return f"{entity_id}~{self._sessions}" if self._sessions else entity_id

    def _summary(self, summary: SessionSummary) -> SessionSummary:
        if not self._sessions:
            return summary
        return structs.replace(
            summary,
            utterances=self._finals,
            entities=self._entities,
            audio_ms=summary.audio_ms + self.base_ms,
        )
