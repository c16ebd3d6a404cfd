"""Sentences to read: from corpora, and lines whose reading was written down."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

from cnerta.models.errors import DataError
from cnerta.models.runtime.labels import Span
from cnerta.train.synthesis.marked_words import Word, read_words

__all__ = ["MarkedLine", "Sentence", "read_marked", "read_sentences"]


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence to read.

    Attributes:
        key: Unique, usable as a file name.
        text: As in the corpus.
        entities: Gold, copied into the manifest, never looked at.
    """

    key: str
    text: str
    entities: tuple[Span, ...]


@dataclass(frozen=True, slots=True)
class MarkedLine:
    """A text in the notation of `cnerta.train.synthesis.marked_words`, said exactly as marked."""

    key: str
    words: tuple[Word, ...]


def read_sentences(path: Path) -> tuple[Sentence, ...]:
    """Reads CNERTA's JSON lines or a manifest.

    Args:
        path: One object a line: `sentence` and `entity`, or `text` and `entities`; `audio` names
            the recording, which need not exist.

    Raises:
        DataError: The file is missing or a line has another form.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read sentences from {path}: {error}") from error
    sentences: list[Sentence] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            text = row["sentence"] if "sentence" in row else row["text"]
            entities = row["entity"] if "sentence" in row else row.get("entities", [])
            spans = tuple(sorted(Span(int(s), int(e), str(label)) for s, e, _, label in entities))
            key = Path(str(row["audio"])).stem if row.get("audio") else f"{path.stem}-{number:06d}"
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path}:{number}: not a sentence line ({error!r})") from error
        sentences.append(Sentence(key, str(text), spans))
    return tuple(sentences)


def read_marked(path: Path) -> tuple[MarkedLine, ...]:
    """Reads marked lines: `key<tab>marked text`; empty lines and those after `#` are comments.

    Raises:
        DataError: The file is missing or a line has another form.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read marked lines from {path}: {error}") from error
    lines: list[MarkedLine] = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        key, separator, marked = line.partition("\t")
        if not separator or not re.fullmatch(r"[\w.-]+", key):
            raise DataError(f"{path}:{number}: expected `key<tab>marked text`, got {line!r}")
        try:
            lines.append(MarkedLine(key, read_words(marked.strip())))
        except DataError as error:
            raise DataError(f"{path}:{number}: {error}") from error
    return tuple(lines)
