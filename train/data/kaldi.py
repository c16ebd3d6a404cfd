"""Kaldi's data folders: ``text``, ``wav.scp``, and ``segments`` and ``utt2spk`` where they are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import soundfile

from cnerta.models.errors import DataError
from cnerta.models.runtime.labels import Span
from cnerta.train.data.segments import segment_path

__all__ = ["KaldiUtterance", "read_kaldi"]


@dataclass(frozen=True, slots=True)
class KaldiUtterance:
    """An utterance of a folder.

    Attributes:
        name: Its id.
        text: Chinese words without the blanks between them; between Latin words one stays.
        spans: Its entities; None where the folder has no file ``entities``.
        audio: Recording, or a stretch of one.
        speaker: Empty where ``utt2spk`` is not there.
    """

    name: str
    text: str
    spans: tuple[Span, ...] | None
    audio: Path
    speaker: str


def read_kaldi(folder: Path) -> list[KaldiUtterance]:
    """Read a data folder, in the order of ``text``.

    Paths in ``wav.scp`` are relative to the folder, or to where the process runs as in Kaldi.
    Commands in it are not run. Beside Kaldi's own files there may be ``entities``, a line an
    entity: id of the utterance, start and end in characters of its text, type.

    Raises:
        DataError: A file is missing, or a line has another form.
    """
    texts = dict(_lines(folder / "text", 1))
    if not texts:
        raise DataError(f"expected utterances in {folder / 'text'}, got none")
    recordings = {
        name: _recording(folder, name, rest) for name, rest in _lines(folder / "wav.scp", 2)
    }
    speakers = dict(_optional(folder / "utt2spk", 2))
    segments = dict(_optional(folder / "segments", 4))
    entities: dict[str, list[str]] | None = None
    if (folder / "entities").is_file():
        entities = {}
        for name, rest in _lines(folder / "entities", 4):
            entities.setdefault(name, []).append(rest)
        unknown = sorted(set(entities) - set(texts))
        if unknown:
            raise DataError(f"{folder / 'entities'}: expected utterances of text, got {unknown[0]}")
    found = []
    for name, words in texts.items():
        text = _joined(words.split())
        if not text:
            raise DataError(f"{folder / 'text'}: expected a text of {name}, got none")
        spans = None if entities is None else _spans(name, text, entities.get(name, []))
        audio = _audio(folder, name, segments, recordings)
        found.append(KaldiUtterance(name, text, spans, audio, speakers.get(name, "")))
    return found


def _lines(path: Path, fields: int) -> Iterator[tuple[str, str]]:
    """First field and rest of each line that is not empty."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"expected a file of a Kaldi data folder, got {path}: {error}") from error
    for number, line in enumerate(lines, 1):
        if line.strip():
            if len(line.split()) < fields:
                raise DataError(f"{path}, line {number}: expected {fields} fields, got {line!r}")
            name, *rest = line.split(maxsplit=1)
            yield name, "".join(rest).strip()


def _optional(path: Path, fields: int) -> Iterator[tuple[str, str]]:
    return _lines(path, fields) if path.exists() else iter(())


def _recording(folder: Path, name: str, rest: str) -> Path:
    if rest.endswith("|"):
        raise DataError(
            f"{folder / 'wav.scp'}: expected a file for {name}, got a command, which is not run: "
            "write its output to a file"
        )
    beside = folder / rest
    return beside if beside.exists() else Path(rest)


def _audio(folder: Path, name: str, segments: dict[str, str], recordings: dict[str, Path]) -> Path:
    wanted, start, end = name, "", ""
    if segments:
        if name not in segments:
            raise DataError(f"{folder / 'segments'}: expected {name}, got no such utterance")
        wanted, start, end = segments[name].split()[:3]
    if wanted not in recordings:
        raise DataError(f"{folder / 'wav.scp'}: expected {wanted}, got no such recording")
    recording = recordings[wanted]
    if not recording.is_file():
        raise DataError(f"expected the recording of {name}, got {recording}, which is not a file")
    if not segments:
        return recording
    try:
        first, last = float(start), float(end)
        if last < 0:  # Kaldi: up to the recording's end
            last = float(soundfile.info(recording).duration)
    except (ValueError, OSError, soundfile.LibsndfileError) as error:
        raise DataError(f"{folder / 'segments'}: expected times of {name}, got: {error}") from error
    return segment_path(recording, first, last)


def _joined(words: list[str]) -> str:
    """Words as one text: a blank stays only between two that are written in ASCII."""
    text = ""
    for word in words:
        is_latin = bool(text) and text[-1].isascii() and word[0].isascii()
        text += f" {word}" if is_latin else word
    return text


def _spans(name: str, text: str, lines: list[str]) -> tuple[Span, ...]:
    found = set()
    for line in lines:
        try:
            start, end, label = line.split()
            span = Span(int(start), int(end), label)
        except ValueError as error:
            raise DataError(f"expected start, end and type of {name}, got {line!r}") from error
        if not 0 <= span.start < span.end <= len(text):
            raise DataError(f"expected an entity of {name} inside 0..{len(text)}, got {line!r}")
        found.add(span)
    return tuple(sorted(found))
