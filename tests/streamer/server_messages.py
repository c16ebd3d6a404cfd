"""Server messages for tests, with what a test does not care about filled in."""

from __future__ import annotations

from typing import Any

from cnerta.streamer.wire.messages import EntityUpsert, SessionReady, SessionSummary, UtteranceFinal
from cnerta.streamer.wire.parts import Entity, Limits, ModelInfo


def entity(label: str, text: str, start: int, **changes: Any) -> Entity:
    end = start + len(text)
    values: dict[str, Any] = {
        "id": f"{label}{start}",
        "version": 1,
        "status": "tentative",
        "label": label,
        "text": text,
        "start": start,
        "end": end,
        "start_utf16": start,
        "end_utf16": end,
        "parent": None,
        "start_ms": 300,
        "end_ms": 900,
        "time_source": "alignment",
        "confidence": 0.93,
        "audio_used": True,
    }
    return Entity(**{**values, **changes})


def upsert(utterance: str, revision: int, found: Entity, seq: int = 1) -> EntityUpsert:
    return EntityUpsert(
        seq=seq, utterance=utterance, revision=revision, entity=found, behind_live_ms=40
    )


def final(
    utterance: str, revision: int, text: str, *entities: Entity, seq: int = 1
) -> UtteranceFinal:
    return UtteranceFinal(
        seq=seq,
        utterance=utterance,
        revision=revision,
        text=text,
        entities=list(entities),
        characters=[],
        time_source="alignment",
        audio_used=True,
        behind_live_ms=40,
    )


def ready(**limits: Any) -> SessionReady:
    values: dict[str, Any] = {
        "max_frame_bytes": 2**20,
        "max_text_characters": 4_096,
        "max_open_utterances": 64,
        "max_audio_ahead_ms": None,
        "idle_timeout_ms": None,
        "retained_audio_ms": 60_000,
    }
    return SessionReady(
        session="s1",
        resume=None,
        model=ModelInfo(
            name="tiny",
            schema_version=1,
            labels=["PER", "LOC", "ORG"],
            nested=True,
            device="CPUExecutionProvider",
        ),
        limits=Limits(**{**values, **limits}),
        audio_received_ms=0,
    )


def summary(utterances: int = 1) -> SessionSummary:
    return SessionSummary(utterances=utterances, entities=2, audio_ms=2_300, dropped_interims=0)
