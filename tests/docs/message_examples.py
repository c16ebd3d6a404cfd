"""An example of every message, by its type, and what fields mean that do not say it themselves."""

from __future__ import annotations

from itertools import pairwise
from typing import Final

from cnerta.streamer.wire.errors import ErrorName
from cnerta.streamer.wire.messages import (
    AudioAck,
    ClientMessage,
    EntityRetract,
    EntityUpsert,
    ErrorMessage,
    Keepalive,
    RecognisedTranscript,
    ServerMessage,
    SessionFinish,
    SessionGoingAway,
    SessionReady,
    SessionStart,
    SessionSummary,
    SessionUpdate,
    Transcript,
    UtteranceFinal,
    WarningMessage,
)
from cnerta.streamer.wire.parts import (
    AudioFormat,
    CharacterReading,
    Entity,
    GlossaryEntry,
    Limits,
    LostHistory,
    ModelInfo,
    PossibleReading,
    ResumeOffer,
    ResumeRequest,
)

__all__ = ["EXAMPLES", "MEANINGS"]

_SENTENCE: Final = "记者看到了南京市长江大桥"
_STARTS_MS: Final = (380, 560, 790, 1010, 1200, 1640, 1800, 1980, 2170, 2430, 2620, 2800, 3010)


def _entity(
    number: int, label: str, start: int, end: int, times: tuple[int, int], confidence: float
) -> Entity:
    return Entity(
        id=f"u1-e{number}",
        version=2,
        status="final",
        label=label,
        text=_SENTENCE[start:end],
        start=start,
        end=end,
        start_utf16=start,
        end_utf16=end,
        parent=None,
        start_ms=times[0],
        end_ms=times[1],
        time_source="alignment",
        confidence=confidence,
        audio_used=True,
    )


_CITY: Final = _entity(1, "LOC", 5, 7, (1640, 1980), 0.97)
_MAYOR: Final = _entity(2, "PER", 9, 12, (2430, 3010), 0.94)

_OFFER: Final = ResumeOffer(token="Zk3q9vN1xT7bR2mW8cY5dL0aHfJ4uEsP", ttl_s=60)

_ALL: Final[tuple[ClientMessage | ServerMessage, ...]] = (
    SessionStart(
        audio=AudioFormat(encoding="pcm_s16le", sample_rate=48_000, channels=1),
        labels=["PER", "LOC"],
        max_delay_ms=1_000,
        readings=True,
        glossary=[GlossaryEntry(text="任萍", label="PER", pronunciation="ren2 ping2")],
        resume=ResumeRequest(token="Zk3q9vN1xT7bR2mW8cY5dL0aHfJ4uEsP", last_seq=412),
    ),
    Transcript(utterance="u1", revision=4, final=True, text=_SENTENCE, start_ms=350, end_ms=3_100),
    SessionUpdate(nested=False, glossary=[]),
    Keepalive(),
    SessionFinish(),
    SessionReady(
        session="b2c94f0e",
        resume=_OFFER,
        model=ModelInfo(
            name="cnerta-fast",
            schema_version=3,
            labels=["LOC", "ORG", "PER"],
            nested=True,
            device="CPUExecutionProvider",
            readings=True,
        ),
        limits=Limits(
            max_frame_bytes=2**20,
            max_text_characters=4_096,
            max_open_utterances=64,
            max_audio_ahead_ms=60_000,
            idle_timeout_ms=30_000,
            retained_audio_ms=60_000,
        ),
        audio_received_ms=0,
        epoch="5f0c2d9a1b7e4c36",
        lost=LostHistory(reason="unknown_token", events=None, utterances=[]),
    ),
    RecognisedTranscript(
        utterance="s1", revision=2, final=False, text="记者看到了南京", start_ms=350
    ),
    EntityUpsert(seq=7, utterance="u1", revision=4, entity=_CITY, behind_live_ms=45),
    EntityRetract(
        seq=8,
        utterance="u1",
        revision=4,
        id="u1-e3",
        reason="superseded",
        behind_live_ms=45,
    ),
    UtteranceFinal(
        seq=10,
        utterance="u1",
        revision=4,
        text=_SENTENCE,
        entities=[_CITY, _MAYOR],
        characters=[*pairwise(_STARTS_MS)],
        time_source="alignment",
        audio_used=True,
        behind_live_ms=45,
        readings=[
            CharacterReading(
                start=8,
                end=9,
                start_utf16=8,
                end_utf16=9,
                text="长",
                reading="zhang3",
                confidence=0.98,
                alternatives=[PossibleReading(reading="chang2", confidence=0.02)],
            )
        ],
    ),
    AudioAck(received_ms=5_000),
    WarningMessage(
        name="revision_not_newer",
        detail="expected a revision above 4 of utterance u1, got 4: it is ignored",
    ),
    ErrorMessage(
        code=ErrorName.UNKNOWN_FIELD.code,
        name=ErrorName.UNKNOWN_FIELD.wire_name,
        retryable=ErrorName.UNKNOWN_FIELD.retryable,
        detail="expected only known fields of keepalive, got 'colour' at $",
    ),
    SessionGoingAway(resume=_OFFER, reason="the server stops"),
    SessionSummary(utterances=1, entities=2, audio_ms=5_000, dropped_interims=0),
)

EXAMPLES: Final = {str(each.__struct_config__.tag): each for each in _ALL}

MEANINGS: Final = {
    "audio": "Format of the audio that follows.",
    "audio_ms": "Audio received.",
    "audio_used": "False: answered from the text alone.",
    "behind_live_ms": "Age of the newest text and audio that this answer has heard.",
    "channels": "Channels, interleaved; mixed down to one.",
    "code": "The code with which the connection closes.",
    "confidence": "Calibrated probability, 0 to 1.",
    "detail": "For a person: what was expected and what came.",
    "dropped_interims": "Interim revisions that stayed unanswered under load.",
    "encoding": "How samples are written.",
    "end": "First code point after it.",
    "end_ms": "Its end on the stream's audio clock; null: unknown.",
    "end_utf16": "The same in UTF-16 units.",
    "EntityRetract.reason": "One of the [reasons](protocol.md#why-an-entity-is-retracted).",
    "ErrorMessage.name": "One of the [errors](protocol.md#errors).",
    "ModelInfo.name": "What the model calls itself.",
    "SessionSummary.entities": "Entities of all final answers.",
    "Transcript.final": "Whether the text will not change any more.",
    "WarningMessage.name": "One of the [warnings](protocol.md#warnings).",
    "entities": "The complete set of entities.",
    "entity": "The entity as it is now.",
    "id": "The entity's id.",
    "idle_timeout_ms": "Silence after which the connection is closed; null: never.",
    "interim": "False: only `utterance.final`.",
    "label": "Entity type.",
    "labels": "Entity types to send; null: all.",
    "limits": "What the server takes from this session.",
    "max_delay_ms": "An unchanged reading is stable after this time.",
    "max_frame_bytes": "Longest frame.",
    "max_open_utterances": "Utterances that may be without a final transcript.",
    "max_text_characters": "Longest text of a transcript, in code points.",
    "min_status": "`stable`: an entity is told of only when it will hardly change.",
    "model": "The model that answers.",
    "nested": "False: only outermost entities.",
    "readings": "True: `utterance.final` tells how characters were pronounced.",
    "reason": "Why.",
    "received_ms": "Audio received so far.",
    "resume": "Lets the client go on elsewhere; null: it cannot.",
    "retryable": "Whether trying again can help.",
    "revision": "Of the transcript that this answers.",
    "schema_version": "Of the model's bundle.",
    "seq": "Rises by one with every event, without gaps.",
    "session": "Id of the session, as in the server's log.",
    "start": "Its first code point in the text.",
    "start_ms": "Its start on the stream's audio clock; null: unknown.",
    "start_utf16": "The same in UTF-16 units.",
    "status": "How settled it is.",
    "text": "The text, as the client sent it.",
    "time_source": "Where the times come from.",
    "utterance": "The caller's id of the utterance.",
    "utterances": "Utterances answered.",
}
"""Of fields whose type has no description of its own."""
