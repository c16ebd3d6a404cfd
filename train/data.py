"""Readers: from the publishers' files to :class:`Example` values.

Three formats, see :class:`cnerta.train.recipe.Source`:

* CNERTA: JSON lines ``{"sentence", "audio", "entity": [[start, end, text, type], ...]}``, with the
  recordings under an AISHELL-1 root (``wav/{train,dev,test}/S0002/BAC009S0002W0122.wav``) or flat.
* manifest: JSON lines ``{"audio", "text", "entities"}``, audio relative to the file, optionally
  ``characters`` (times in ms) and ``readings`` (pinyin of each character).
* words: a folder of single recordings named ``cmn-<hanzi or pinyin>.<ext>``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec

from cnerta.models.errors import DataError
from cnerta.models.labels import Span
from cnerta.models.normalisation import NormalisedText, normalise
from cnerta.train.recipe import Source

__all__ = [
    "AUDIO_SUFFIXES",
    "Example",
    "find_recordings",
    "normalise_example",
    "read_examples",
    "read_source",
]

AUDIO_SUFFIXES = (".wav", ".flac", ".ogg", ".opus", ".mp3")


@dataclass(frozen=True, slots=True)
class Example:
    """One utterance.

    Attributes:
        text: Transcript; empty where only the pronunciation is known.
        spans: Annotated entities; None where there is no annotation.
        audio: Recording; None for text only.
        times_ms: Start and end of each character; None where unknown.
        readings: Pinyin of each character, tone digit last; None where unknown.
        isolated: The recording holds this one word and silence around it, so its loud part tells
            roughly where the characters are (see :func:`cnerta.train.flat_start.isolated_times`).
    """

    text: str
    spans: tuple[Span, ...] | None
    audio: Path | None = None
    times_ms: tuple[tuple[float, float], ...] | None = None
    readings: tuple[str, ...] | None = None
    isolated: bool = False


def read_source(source: Source, data_root: Path) -> list[Example]:
    """Read a source of a recipe.

    Raises:
        DataError: A file is missing or a row does not have the promised form.
    """
    path = data_root / source.path
    if source.format == "words":
        examples = _read_words(path)
    else:
        audio_root = data_root / source.audio_root if source.audio_root else None
        examples = read_examples(
            path,
            audio_root=audio_root,
            entity_field=source.entity_field,
            where=source.where,
            exclude=source.exclude,
        )
    examples = [normalise_example(e) for e in examples]
    if source.limit:
        examples = examples[: source.limit]
    if not source.speech:
        examples = [replace(e, audio=None, times_ms=None) for e in examples]
    if not examples:
        raise DataError(f"expected at least one example in {path}, got none")
    return examples


def read_examples(
    path: Path,
    *,
    audio_root: Path | None = None,
    entity_field: str = "",
    where: dict[str, list[str]] | None = None,
    exclude: dict[str, list[str]] | None = None,
) -> list[Example]:
    """Read JSON lines in CNERTA's form or as a plain manifest; which is told from each row.

    Args:
        path: The file.
        audio_root: Where the recordings are. CNERTA's rows have none without it; a manifest's are
            beside the file by default. With a root given, a recording that is missing is an error.
        entity_field: Field with the entities; default ``entity`` or ``entities``.
        where: Keep rows whose field has one of these values.
        exclude: Drop rows whose field has one of these values.

    Raises:
        DataError: The file or a recording is missing, a row is no JSON object, or an entity does
            not fit its text.
    """
    if not path.is_file():
        raise DataError(f"expected a data file, got {path}, which is not a file")
    recordings = find_recordings(audio_root) if audio_root else None
    examples = []
    for line_number, row in _rows(path):
        if any(str(row.get(f)) not in values for f, values in (where or {}).items()):
            continue
        if any(str(row.get(f)) in values for f, values in (exclude or {}).items()):
            continue
        try:
            examples.append(_example(row, path, recordings, entity_field))
        except (DataError, KeyError, TypeError, ValueError) as error:
            detail = f"no field {error}" if isinstance(error, KeyError) else str(error)
            raise DataError(f"{path}, line {line_number}: {detail}") from error
    return examples


def normalise_example(example: Example) -> Example:
    """The example as a model sees it: normalised characters, and what belongs to them.

    Entities that hold no spoken character at all are left out. A token that is said in other
    characters than it is written in has its time spread evenly over them; what their readings are
    is not known, so then the example has none.
    """
    normalised = normalise(example.text)
    if normalised.text == example.text:
        return example
    spans = None
    if example.spans is not None:
        ranges = [(*normalised.normalised_range(s.start, s.end), s.label) for s in example.spans]
        spans = tuple(sorted({Span(s, e, label) for s, e, label in ranges if s < e}))
    kept = normalised.offsets.tolist()
    times, readings = example.times_ms, example.readings
    if not all(map(normalised.is_plain, range(len(kept)))):
        readings = None
    return replace(
        example,
        text=normalised.text,
        spans=spans,
        times_ms=None if times is None else _spread(times, normalised),
        readings=None if readings is None else tuple(readings[i] for i in kept),
    )


def _spread(
    times: Sequence[tuple[float, float]], text: NormalisedText
) -> tuple[tuple[float, float], ...]:
    """Start and end of each normalised character, from those of the original ones."""
    spread: list[tuple[float, float]] = []
    while (first := len(spread)) < len(text.text):
        start, end = text.original_range(first, first + 1)
        count = text.normalised_range(start, end)[1] - first
        begin, stop = times[start][0], times[end - 1][1]
        edges = [begin + i * (stop - begin) / count for i in range(count)] + [stop]
        spread += pairwise(edges)
    return tuple(spread)


def _rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                yield number, msgspec.json.decode(line, type=dict[str, Any])
            except msgspec.MsgspecError as error:
                raise DataError(
                    f"{path}, line {number}: expected a JSON object, got: {error}"
                ) from error


def _example(
    row: dict[str, Any], path: Path, recordings: dict[str, Path] | None, entity_field: str
) -> Example:
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
    return Example(
        text=text,
        spans=spans,
        audio=_recording(row, path, recordings, cnerta=cnerta),
        times_ms=None if times is None else tuple((float(s), float(e)) for s, e in times),
        readings=None if readings is None else tuple(map(str, readings)),
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


def _recording(
    row: dict[str, Any], path: Path, recordings: dict[str, Path] | None, *, cnerta: bool
) -> Path | None:
    name = row.get("audio")
    if not name or (cnerta and recordings is None):
        return None
    if recordings is not None:
        found = recordings.get(Path(name).stem)
        if found is None:
            raise DataError(f"expected a recording of {name!r} under the audio root, got none")
        return found
    beside = path.parent / str(name)
    if not beside.is_file():
        raise DataError(f"expected the recording {beside}, got no such file")
    return beside


def find_recordings(root: Path) -> dict[str, Path]:
    """Every recording below a folder, by its name without suffix.

    Serves AISHELL-1's own layout and a flat folder alike, because utterance names are unique.

    Raises:
        DataError: The folder is missing, or two recordings have one name.
    """
    if not root.is_dir():
        raise DataError(f"expected an audio root, got {root}, which is not a folder")
    found: dict[str, Path] = {}
    for file in sorted(root.rglob("*")):
        if file.suffix.lower() in AUDIO_SUFFIXES:
            if file.stem in found:
                raise DataError(
                    f"expected one recording of {file.stem}, got two: {found[file.stem]}, {file}"
                )
            found[file.stem] = file
    return found


def _read_words(root: Path) -> list[Example]:
    examples = []
    for stem, file in sorted(find_recordings(root).items()):
        name = stem.partition("-")[2]
        if name.isascii() and name[:-1].isalpha() and name[-1:] in tuple("12345"):
            spelling = name.lower().replace("uu", "v").replace("ü", "v")
            examples.append(Example("", None, file, readings=(spelling,), isolated=True))
        elif name and all("\u4e00" <= c <= "\u9fff" for c in name):
            examples.append(Example(name, None, file, isolated=True))
    return examples
