"""Data sets of Hugging Face's ``datasets``: a row an utterance, recordings decoded when wanted.

Entities come in one of three forms:

* a column of lists of ``{"start", "end", "label"}``, offsets in characters, the end exclusive;
* the same as a JSON text, or as a manifest has it: ``[[start, end, text, type], ...]``;
* ``tokens`` with ``ner_tags`` beside them: BIO, BIOES or BILOU, as names or as class labels.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from cnerta.models.errors import DataError
from cnerta.models.runtime.labels import Span
from cnerta.train.data.example import Example
from cnerta.train.data.held import EncodedRecording, HeldRecording
from cnerta.train.data.rows import example_of_row, is_wanted
from cnerta.train.recipe import Source

__all__ = ["Table", "is_dataset_folder", "open_table", "read_table", "tagged_spans"]

_TEXTS: Final = ("text", "sentence", "transcription", "transcript")
_ENTITIES: Final = ("entities", "entity")
_TOKENS: Final = "tokens"
_TAGS: Final = "ner_tags"
_MARKS: Final = (("dataset_info.json", "state.json"), ("dataset_dict.json",))


@dataclass(frozen=True, slots=True)
class Table:
    """A split of a data set whose rows stay where they are, on the disk.

    Attributes:
        name: As it was asked for.
        rows: The library's data set, its recordings not decoded.
        audio: Column of the recordings; empty if there is none.
    """

    name: str
    rows: Any = field(repr=False)
    audio: str

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True, slots=True)
class RowRecording(HeldRecording):
    """The recording in a row.

    Attributes:
        table: The data set.
        row: Number of the row.
    """

    table: Table
    row: int

    @property
    def name(self) -> str:
        return f"{self.table.name}/{self.row}"

    def read(self) -> tuple[Any, int]:
        return self._encoded().read()

    def seconds(self) -> float:
        return self._encoded().seconds()

    def _encoded(self) -> EncodedRecording:
        held = self.table.rows[self.row][self.table.audio]
        content = held.get("bytes")
        if content is None:
            try:
                content = Path(held["path"]).read_bytes()
            except (OSError, TypeError, KeyError) as error:
                raise DataError(f"expected a recording in {self.name}, got: {error}") from error
        return EncodedRecording(self.name, content)


def is_dataset_folder(path: Path) -> bool:
    """Whether a folder is what ``save_to_disk`` writes."""
    return any(all((path / name).is_file() for name in names) for names in _MARKS)


def open_table(source: Source, data_root: Path) -> Table:
    """Open a data set: a folder below the data root, or a name on the hub.

    A folder is one that ``save_to_disk`` has written, or one of Parquet, JSON or CSV files that
    ``load_dataset`` reads.

    Raises:
        DataError: The package ``datasets`` is not installed, there is no such data set or split, or
            a column that is named is not there.
    """
    try:
        import datasets
    except ImportError as error:
        raise DataError(
            f"expected the package datasets to read {source.path}, got none: "
            "pip install 'cnerta-stream[corpora]'"
        ) from error
    folder = data_root / source.path
    split = source.split
    try:
        if is_dataset_folder(folder):
            rows = datasets.load_from_disk(str(folder))
        else:
            place = str(folder) if folder.exists() else source.path
            rows = datasets.load_dataset(place)
    except Exception as error:
        # What the library raises has no common root: of files, of the network, of Arrow.
        raise DataError(f"expected a data set {source.path}, got: {error}") from error
    if isinstance(rows, datasets.DatasetDict):
        if not split and len(rows) == 1:
            (split,) = rows
        if split not in rows:
            raise DataError(f"expected a split of {sorted(rows)} of {folder}, got {split!r}")
        rows = rows[split]
    elif split:
        raise DataError(f"expected no split of {folder}, which is a single one, got {split!r}")
    columns = rows.features
    for name in (source.audio_field, source.text_field, source.entity_field):
        if name and name not in columns:
            raise DataError(f"expected a column of {sorted(columns)} in {folder}, got {name!r}")
    spoken = [name for name, kind in columns.items() if isinstance(kind, datasets.Audio)]
    audio = source.audio_field or next(iter(spoken), "")
    if len(spoken) > 1 and not source.audio_field:
        raise DataError(f"expected audio_field to name one of {spoken} of {folder}, got none")
    if not source.speech:
        audio = ""
    unread = [name for name in spoken if name != audio]
    rows = rows.remove_columns(unread)
    if audio:
        rows = rows.cast_column(audio, datasets.Audio(decode=False))
    name = f"{source.path}/{split}" if split else source.path
    return Table(name, rows, audio)


def read_table(
    table: Table, source: Source, first: int = 0, last: int | None = None
) -> Iterator[Example]:
    """The rows from one to another; no recording is read.

    Raises:
        DataError: A row does not have the promised form.
    """
    numbers = range(first, len(table) if last is None else min(last, len(table)))
    columns = table.rows.features
    texts = table.rows.remove_columns([table.audio] if table.audio else [])
    names = _class_names(columns.get(source.entity_field or _TAGS))
    for number in numbers:
        row = texts[number]
        if not is_wanted(row, source.where, source.exclude):
            continue
        try:
            example = example_of_row(_manifest_row(row, source, names))
        except (DataError, KeyError, TypeError, ValueError) as error:
            detail = f"no field {error}" if isinstance(error, KeyError) else str(error)
            raise DataError(f"{table.name}, row {number}: {detail}") from error
        audio = RowRecording(table, number) if table.audio else None
        yield Example(
            text=example.text, spans=example.spans, audio=audio, times_ms=example.times_ms,
            readings=example.readings, breaks=example.breaks, speaker=example.speaker,
            name=f"{table.name}/{number}" if audio else "", duplicates=example.duplicates,
        )  # fmt: skip


def _manifest_row(row: Mapping[str, Any], source: Source, names: Sequence[str]) -> dict[str, Any]:
    """A row as a manifest has it."""
    own = {k: v for k, v in row.items() if k in ("characters", "readings", "prosody", "speaker")}
    tags = row.get(source.entity_field or _TAGS)
    if _TOKENS in row and tags is not None and _is_tags(tags):
        text, spans = tagged_spans(row[_TOKENS], [_tag(t, names) for t in tags])
        return {**own, "text": text, "entities": _listed(spans, text)}
    found = source.text_field or next((n for n in _TEXTS if n in row), _TEXTS[0])
    text = row[found]
    field_name = source.entity_field or next((n for n in _ENTITIES if n in row), "")
    annotated = row[field_name] if field_name else None
    if annotated is not None:
        own["entities"] = _entities(annotated, str(text))
    return {**own, "text": text}


def _is_tags(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(v, (int, str)) for v in value)


def _class_names(feature: Any) -> list[str]:
    """Names of the class labels of a column of lists; none if it has no such."""
    return list(getattr(getattr(feature, "feature", None), "names", None) or ())


def _tag(value: int | str, names: Sequence[str]) -> str:
    if isinstance(value, str):
        return value
    if not 0 <= value < len(names):
        raise DataError(f"expected a tag below {len(names)}, the column's names, got {value}")
    return names[value]


def _entities(annotated: Any, text: str) -> list[list[Any]]:
    """Entities in any of their forms, as a manifest has them."""
    if isinstance(annotated, str):
        annotated = json.loads(annotated)
    if isinstance(annotated, Mapping):  # a list of tables may come as a table of lists
        annotated = [
            dict(zip(annotated, row, strict=True)) for row in zip(*annotated.values(), strict=True)
        ]
    found = []
    for entity in annotated:
        if isinstance(entity, Mapping):
            start, end = entity["start"], entity["end"]
            label = entity["label"] if "label" in entity else entity["type"]
            found.append([start, end, entity.get("text") or text[start:end], label])
        else:
            found.append(list(entity))
    return found


def _listed(spans: Sequence[Span], text: str) -> list[list[Any]]:
    return [[s.start, s.end, text[s.start : s.end], s.label] for s in spans]


def tagged_spans(tokens: Sequence[str], tags: Sequence[str]) -> tuple[str, list[Span]]:
    """Text and entities of tokens with BIO, BIOES or BILOU tags.

    Tokens are joined without blanks; only between two that are written in ASCII there is one. An
    ``I-`` that continues nothing begins an entity, as conlleval counts.

    Raises:
        DataError: There are not as many tags as tokens, or a tag is none.
    """
    if len(tokens) != len(tags):
        raise DataError(f"expected a tag for each of {len(tokens)} tokens, got {len(tags)}")
    text = ""
    spans: list[Span] = []
    begun: tuple[int, str] | None = None  # start and type of the entity that is open
    end = 0
    for token, tag in zip(tokens, tags, strict=True):
        kind, _, label = tag.partition("-")
        if kind not in tuple("BIOLEUSM") or (kind == "O") == bool(label):
            raise DataError(f"expected tags such as O and B-PER, got {tag!r}")
        if begun and (kind in "OBUS" or label != begun[1]):
            spans.append(Span(begun[0], end, begun[1]))
            begun = None
        if text and token and text[-1].isascii() and token[0].isascii():
            text += " "
        start, end = len(text), len(text) + len(token)
        text += token
        if kind != "O" and begun is None:
            begun = (start, label)
        if begun and kind in "LEUS":
            spans.append(Span(begun[0], end, begun[1]))
            begun = None
    if begun:
        spans.append(Span(begun[0], end, begun[1]))
    return text, spans
