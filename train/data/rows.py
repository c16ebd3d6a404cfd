"""Rows of CNERTA's files and of manifests, and the examples that they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cnerta.models.errors import DataError
from cnerta.models.runtime.labels import Span
from cnerta.train.data.example import Example
from cnerta.train.data.prosody import break_levels
from cnerta.train.data.recordings import speaker_of

__all__ = ["example_of_row", "is_wanted", "row_of_example"]


def example_of_row(row: Mapping[str, Any], entity_field: str = "") -> Example:
    """An example without its recording.

    Args:
        row: As CNERTA's files have it, where it has a ``sentence``, or a manifest's.
        entity_field: Field with the entities; default ``entity`` or ``entities``.

    Raises:
        DataError: Something does not fit the text.
        KeyError: There is no text.
        TypeError: A field is of another kind.
        ValueError: The same.
    """
    cnerta = "sentence" in row
    text = row["sentence"] if cnerta else row["text"]
    if not isinstance(text, str) or not text:
        raise DataError(f"expected a text, got {text!r}")
    annotated = row.get(entity_field or ("entity" if cnerta else "entities"))
    if entity_field and annotated is None:
        raise DataError(f"expected the entity field {entity_field!r}, got {sorted(row)}")
    spans = None if annotated is None else _spans(annotated, text)
    times = row.get("characters")
    readings = row.get("readings")
    for name, values in (("characters", times), ("readings", readings)):
        if values is not None and len(values) != len(text):
            raise DataError(f"expected {len(text)} {name}, got {len(values)}")
    prosody, breaks = row.get("prosody"), row.get("breaks")
    if breaks is not None and len(breaks) != len(text):
        raise DataError(f"expected {len(text)} breaks, got {len(breaks)}")
    if prosody is not None:
        breaks = break_levels(text, str(prosody))
    name = Path(row.get("audio") or "").stem
    return Example(
        text=text,
        spans=spans,
        duplicates=len(annotated or ()) - len(spans or ()),
        times_ms=None if times is None else tuple((float(s), float(e)) for s, e in times),
        readings=None if readings is None else tuple(map(str, readings)),
        breaks=None if breaks is None else tuple(map(int, breaks)),
        name=name,
        # What a voice reads is often named after the recording whose text it reads.
        speaker=str(row.get("voice") or row.get("speaker") or speaker_of(name)),
    )


def _spans(annotated: Sequence[Sequence[Any]], text: str) -> tuple[Span, ...]:
    spans = []
    for entity in annotated:
        start, end, mention, label = entity
        if not (isinstance(start, int) and isinstance(end, int) and 0 <= start < end <= len(text)):
            raise DataError(f"expected an entity inside 0..{len(text)}, got {entity}")
        if text[start:end] != mention:
            raise DataError(f"expected {text[start:end]!r} at {start}..{end}, got {mention!r}")
        spans.append(Span(start, end, str(label)))
    return tuple(sorted(set(spans)))


def row_of_example(example: Example) -> dict[str, Any]:
    """The row of a manifest that an example is read from again, without its recording."""
    row: dict[str, Any] = {"text": example.text}
    if example.spans is not None:
        row["entities"] = [
            [s.start, s.end, example.text[s.start : s.end], s.label] for s in example.spans
        ]
    optional = {
        "characters": example.times_ms,
        "readings": example.readings,
        "breaks": example.breaks,
        "speaker": example.speaker or None,
    }
    return row | {name: value for name, value in optional.items() if value is not None}


def is_wanted(
    row: Mapping[str, Any],
    where: Mapping[str, Sequence[str]],
    exclude: Mapping[str, Sequence[str]],
) -> bool:
    """Whether a row is to be read, by the values of its fields as text.

    Args:
        row: The row.
        where: Its field must have one of these values.
        exclude: Its field may have none of these.
    """
    return all(str(row.get(f)) in values for f, values in where.items()) and not any(
        str(row.get(f)) in values for f, values in exclude.items()
    )
