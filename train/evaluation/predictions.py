"""What a model found, as JSON lines: a manifest that keeps the gold entities beside."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from cnerta.models.errors import DataError
from cnerta.models.files import replacing
from cnerta.models.runtime.labels import Span
from cnerta.train.data.examples import Example
from cnerta.train.data.held import recording_path

__all__ = ["Prediction", "pair_predictions", "read_predictions", "write_predictions"]


@dataclass(frozen=True, slots=True)
class Prediction:
    """One sentence.

    Attributes:
        text: The sentence.
        found: Entities the model found.
        gold: Annotated entities; None where there is no annotation.
        audio: Recording; None for text only.
    """

    text: str
    found: tuple[Span, ...]
    gold: tuple[Span, ...] | None
    audio: Path | None = None


class _Row(msgspec.Struct, omit_defaults=True):
    text: str
    entities: list[tuple[int, int, str, str]]
    gold: list[tuple[int, int, str, str]] | None = None
    audio: str = ""


def pair_predictions(
    examples: Sequence[Example], found: Sequence[Iterable[Span]]
) -> list[Prediction]:
    """Put what was found beside the examples.

    Raises:
        ValueError: Not as many answers as examples.
    """
    return [
        Prediction(e.text, tuple(spans), e.spans, recording_path(e.audio))
        for e, spans in zip(examples, found, strict=True)
    ]


def write_predictions(path: Path, predictions: Iterable[Prediction]) -> None:
    """Write a line a sentence, ``{"text", "entities", "gold", "audio"}``, in one piece."""
    with replacing(path) as partial, partial.open("wb") as file:
        for prediction in predictions:
            row = _Row(prediction.text, _entities(prediction.text, prediction.found))
            if prediction.gold is not None:
                row.gold = _entities(prediction.text, prediction.gold)
            if prediction.audio is not None:
                row.audio = os.path.relpath(prediction.audio, path.parent)
            file.write(msgspec.json.encode(row) + b"\n")


def read_predictions(path: Path) -> list[Prediction]:
    """Read what :func:`write_predictions` wrote.

    Raises:
        DataError: There is no such file, or a line has another form.
    """
    try:
        rows = [
            msgspec.json.decode(line, type=_Row) for line in path.read_bytes().splitlines() if line
        ]
    except (OSError, msgspec.MsgspecError) as error:
        raise DataError(f"expected predictions in {path}, got: {error}") from error
    return [
        Prediction(
            text=row.text,
            found=_spans(row.entities),
            gold=None if row.gold is None else _spans(row.gold),
            audio=path.parent / row.audio if row.audio else None,
        )
        for row in rows
    ]


def _entities(text: str, spans: Iterable[Span]) -> list[tuple[int, int, str, str]]:
    return [(s.start, s.end, text[s.start : s.end], s.label) for s in spans]


def _spans(entities: Iterable[Sequence[Any]]) -> tuple[Span, ...]:
    return tuple(Span(start, end, label) for start, end, _, label in entities)
