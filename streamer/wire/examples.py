"""An example of every message, by its type: the reference and the AsyncAPI document show them."""

from __future__ import annotations

from itertools import pairwise
from typing import Final

from cnerta.streamer.wire.errors import ErrorName
from cnerta.streamer.wire.messages import (
    AudioAck,
    CaptionUpdate,
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

__all__ = ["EXAMPLES"]

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
        hold_ms=2_000,
        readings=True,
        glossary=[GlossaryEntry(text="任萍", label="PER", pronunciation="ren2 ping2")],
        resume=ResumeRequest(token="Zk3q9vN1xT7bR2mW8cY5dL0aHfJ4uEsP", last_seq=412),
    ),
    Transcript(
        utterance="u1",
        revision=4,
        final=True,
        text=_SENTENCE,
        start_ms=350,
        end_ms=3_100,
        speaker="主持人",
        channel=0,
    ),
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
    CaptionUpdate(utterance="u1", revision=3, text=_SENTENCE[:7], entities=[_CITY], held=2),
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
        speaker="主持人",
        channel=0,
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

EXAMPLES: Final[dict[str, ClientMessage | ServerMessage]] = {
    str(each.__struct_config__.tag): each for each in _ALL
}
