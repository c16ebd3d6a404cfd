"""What Deepgram's clients are told of words, entities and models, live or of a whole file."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Final

from cnerta.streamer.apis.deepgram_messages import FoundEntity, ModelInfo, WordItem
from cnerta.streamer.apis.deepgram_words import Word, word_range
from cnerta.streamer.wire.parts import Entity
from cnerta.streamer.wire.parts import ModelInfo as ServedModelInfo

__all__ = ["LABELS", "SURE", "model_info", "model_uuid", "seconds", "told_entity", "told_words"]

LABELS: Final = {"PER": "NAME", "LOC": "LOCATION", "GPE": "LOCATION", "ORG": "ORGANIZATION"}
"""What Deepgram calls types of entities; others keep their name."""
SURE: Final = 1.0
"""Recognisers here do not say how sure they are of a word, and their clients want a number."""


def seconds(ms: float | None) -> float:
    """Milliseconds as they tell times."""
    return round((ms or 0) / 1000, 3)


def told_words(words: Sequence[Word]) -> list[WordItem]:
    """Words with their times."""
    return [
        WordItem(
            word=word.text,
            start=seconds(word.start_ms),
            end=seconds(word.end_ms),
            confidence=SURE,
            punctuated_word=word.written,
        )
        for word in words
    ]


def told_entity(entity: Entity, words: Sequence[Word], *, first_word: int = 0) -> FoundEntity:
    """An entity by the words it has.

    Args:
        entity: In the text of the words.
        words: Of that text.
        first_word: Number of the first of these.
    """
    first, behind = word_range(words, entity.start, entity.end)
    return FoundEntity(
        label=LABELS.get(entity.label, entity.label),
        value=entity.text,
        raw_value=entity.text,
        confidence=entity.confidence,
        start_word=first_word + first,
        end_word=first_word + behind,
        id=entity.id,
        parent=entity.parent,
        status=entity.status,
        start=None if entity.start_ms is None else seconds(entity.start_ms),
        end=None if entity.end_ms is None else seconds(entity.end_ms),
    )


def model_info(model: ServedModelInfo) -> ModelInfo:
    """What the model is called."""
    return ModelInfo(name=model.name, version=str(model.schema_version), arch="cnerta")


def model_uuid(model: ModelInfo) -> str:
    """The same for the same model."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"cnerta:{model.name}"))
