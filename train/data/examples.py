"""Readers: from the publishers' files to :class:`Example` values.

Five formats, see :class:`cnerta.train.recipe.Source`:

* CNERTA: JSON lines ``{"sentence", "audio", "entity": [[start, end, text, type], ...]}``, with the
  recordings under an AISHELL-1 root (``wav/{train,dev,test}/S0002/BAC009S0002W0122.wav``, or
  ``wav/S0002.tar.gz`` as published) or flat. Where AISHELL-1's transcripts are, each sentence is
  compared with what was said.
* AISHELL-NER: lines of a name and a text with brackets around entities, recordings as for CNERTA.
* manifest: JSON lines ``{"audio", "text", "entities"}``, audio relative to the file, optionally
  ``characters`` (times in ms), ``readings`` (pinyin of each character) and ``prosody`` (the text
  with its boundaries marked, see :mod:`cnerta.train.data.prosody`).
* kaldi: a data folder, see :mod:`cnerta.train.data.kaldi`.
* words: a folder of single recordings named ``cmn-<hanzi or pinyin>.<ext>``.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec

from cnerta.models.errors import DataError
from cnerta.models.runtime.labels import Span
from cnerta.models.text.normalisation import NormalisedText, normalise
from cnerta.train.data.aishell import Transcripts, find_transcripts, read_bracketed
from cnerta.train.data.kaldi import read_kaldi
from cnerta.train.data.prosody import break_levels
from cnerta.train.data.recordings import archive_of, find_recordings, speaker_of
from cnerta.train.data.shaping import cut, thinned
from cnerta.train.recipe import Source

__all__ = ["Example", "normalise_example", "read_examples", "read_source"]

logger = logging.getLogger(__name__)

_NAMED = 5


@dataclass(frozen=True, slots=True)
class Example:
    """One utterance.

    Attributes:
        text: Transcript; empty where only the pronunciation is known.
        spans: Annotated entities; None where there is no annotation.
        audio: Recording; None for text only.
        times_ms: Start and end of each character; None where unknown.
        readings: Pinyin of each character, tone digit last; None where unknown.
        breaks: How strong a boundary is heard after each character, 0 to 4; None where unknown.
        isolated: The recording holds this one word and silence around it, so its loud part shows
            roughly where the characters are (see
            :func:`cnerta.train.batches.flat_start.isolated_times`).
        name: The recording's, whether it is used or not; empty where there is none.
        speaker: Who speaks; empty where unknown.
        corpus: A character before the text that tells by whose conventions it is annotated; empty
            for those that the model is to have.
        duplicates: Entities that the annotation has more than once, counted beyond the first.
    """

    text: str
    spans: tuple[Span, ...] | None
    audio: Path | None = None
    times_ms: tuple[tuple[float, float], ...] | None = None
    readings: tuple[str, ...] | None = None
    breaks: tuple[int, ...] | None = None
    isolated: bool = False
    name: str = ""
    speaker: str = ""
    corpus: str = ""
    duplicates: int = 0


def read_source(source: Source, data_root: Path, *, cache: Path | None = None) -> list[Example]:
    """Read a source of a recipe.

    Args:
        source: The source.
        data_root: Folder that its paths are relative to.
        cache: Folder that remembers what archives hold.

    Raises:
        DataError: A file is missing or a row does not have the promised form.
    """
    path = data_root / source.path
    if source.format == "words":
        examples = _read_words(path)
    elif source.format == "kaldi":
        _refuse_fields(source)
        examples = _read_kaldi(path)
    else:
        audio_root = data_root / source.audio_root if source.audio_root else None
        examples = read_examples(
            path,
            audio_root=audio_root,
            entity_field=source.entity_field,
            where=source.where,
            exclude=source.exclude,
            allow_missing=source.allow_missing,
            cache=cache,
        )
    if not source.speech:
        examples = [replace(e, audio=None, times_ms=None, breaks=None) for e in examples]
    if (source.longest or source.corpus) and any(e.audio is not None for e in examples):
        raise DataError(f"expected text only in {path}, as longest and corpus want, got recordings")
    if source.longest:
        examples = [piece for e in examples for piece in cut(e, source.longest)]
    examples = [replace(normalise_example(e), corpus=source.corpus) for e in examples]
    if source.longest:
        examples = [e for e in examples if e.text]
    examples = list(thinned(examples, source.nameless))
    if source.limit:
        examples = examples[: source.limit]
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
    allow_missing: bool = False,
    cache: Path | None = None,
) -> list[Example]:
    """Read JSON lines in CNERTA's form or as a plain manifest, or AISHELL-NER's text (``.txt``).

    Args:
        path: The file; or a Kaldi data folder, for which nothing else is looked at.
        audio_root: Where the recordings are. CNERTA's rows have none without it; a manifest's are
            beside the file by default. With a root given, a recording that is missing is an error,
            and so is one that says something else than the row, by AISHELL-1's transcripts.
        entity_field: Field with the entities; default ``entity`` or ``entities``.
        where: Keep rows whose field has one of these values.
        exclude: Drop rows whose field has one of these values.
        allow_missing: Leave rows whose recording is missing or says something else out, and tell
            of them, where they would be an error.
        cache: Folder that remembers what archives hold.

    Raises:
        DataError: The file or a recording is missing, a recording does not say what its row says, a
            row is no JSON object, or an entity does not fit its text.
    """
    if (path / "wav.scp").is_file():
        return _read_kaldi(path)
    if not path.is_file():
        raise DataError(f"expected a data file, got {path}, which is not a file")
    rows = [
        (number, row)
        for number, row in _rows(path)
        if all(str(row.get(f)) in values for f, values in (where or {}).items())
        and not any(str(row.get(f)) in values for f, values in (exclude or {}).items())
    ]
    wanted = {Path(str(row.get("audio"))).stem for _, row in rows}
    finder = _Finder(path, audio_root, wanted, cache)
    examples = []
    for line_number, row in rows:
        try:
            example = _example(row, entity_field)
            audio = finder.find(line_number, row)
        except (DataError, KeyError, TypeError, ValueError) as error:
            detail = f"no field {error}" if isinstance(error, KeyError) else str(error)
            raise DataError(f"{path}, line {line_number}: {detail}") from error
        if audio is not _MISSING:
            examples.append(replace(example, audio=audio))
    finder.complain(len(rows), allow_missing=allow_missing)
    twice = [e.name or e.text for e in examples if e.duplicates]
    if twice:
        more = f" and {len(twice) - _NAMED} more" if len(twice) > _NAMED else ""
        logger.warning(
            "%s: %d entities are annotated twice and count once: %s%s",
            path, sum(e.duplicates for e in examples), ", ".join(twice[:_NAMED]), more,
        )  # fmt: skip
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
        breaks=None if example.breaks is None else _last_of_each(example.breaks, normalised),
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


def _last_of_each(breaks: Sequence[int], text: NormalisedText) -> tuple[int, ...]:
    """The boundary after each normalised character: inside a token there is none."""
    levels = []
    for i in range(len(text.text)):
        start, end = text.original_range(i, i + 1)
        ends = text.normalised_range(start, end)[1] == i + 1
        levels.append(breaks[end - 1] if ends else 0)
    return tuple(levels)


def _rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    if path.suffix == ".txt":
        for number, name, text, entities in read_bracketed(path):
            yield number, {"sentence": text, "audio": name, "entity": entities}
        return
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


def _example(row: dict[str, Any], entity_field: str) -> Example:
    """A row without its recording."""
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
    prosody = row.get("prosody")
    name = Path(row.get("audio") or "").stem
    return Example(
        text=text,
        spans=spans,
        duplicates=len(annotated or ()) - len(spans or ()),
        times_ms=None if times is None else tuple((float(s), float(e)) for s, e in times),
        readings=None if readings is None else tuple(map(str, readings)),
        breaks=None if prosody is None else break_levels(text, str(prosody)),
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


_MISSING = Path()
"""Stands for a recording that should be there and is not, or says something else."""


@dataclass(slots=True)
class _Finder:
    """Finds the recordings of a file's rows, and keeps account of what is wrong with them."""

    path: Path
    audio_root: Path | None
    wanted: set[str]
    cache: Path | None
    recordings: dict[str, Path] | None = field(init=False, default=None)
    transcripts: Transcripts | None = field(init=False, default=None)
    missing: list[str] = field(init=False, default_factory=list)
    different: list[str] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        if self.audio_root is not None:
            self.recordings = find_recordings(self.audio_root, self.wanted, self.cache)
            self.transcripts = find_transcripts(self.audio_root)

    def find(self, line_number: int, row: dict[str, Any]) -> Path | None:
        """The recording of a row; None if it has none or none is wanted."""
        name = row.get("audio")
        if not name or ("sentence" in row and self.recordings is None):
            return None
        stem = Path(name).stem
        if self.recordings is None:
            beside = self.path.parent / str(name)
            found = beside if beside.is_file() or archive_of(beside) is not None else None
        else:
            found = self.recordings.get(stem)
        if found is None:
            self.missing.append(f"{name} (line {line_number})")
            return _MISSING
        if self.transcripts is not None and "sentence" in row:
            difference = self.transcripts.difference(stem, row["sentence"])
            if difference:
                self.different.append(f"{name} (line {line_number}): {difference}")
                return _MISSING
        return found

    def complain(self, rows: int, *, allow_missing: bool) -> None:
        """Tell what was wrong.

        Raises:
            DataError: Something was, and it is not allowed.
        """
        problems = []
        if self.missing:
            where = self.audio_root or self.path.parent
            problems.append(
                f"expected a recording of each of {rows} rows in {where}, got none of "
                f"{len(self.missing)}: {_some(self.missing)}"
            )
        if self.different and self.transcripts is not None:
            problems.append(
                f"expected what {self.transcripts.path} says, got something else in "
                f"{len(self.different)} of {rows} rows: {_some(self.different)}"
            )
        if not problems:
            return
        message = f"{self.path}: {'; and '.join(problems)}"
        if not allow_missing:
            raise DataError(f"{message}. allow_missing = true leaves such rows out")
        logger.warning("%s: left out", message)


def _some(items: Sequence[str]) -> str:
    more = f" and {len(items) - _NAMED} more" if len(items) > _NAMED else ""
    return ", ".join(items[:_NAMED]) + more


def _read_kaldi(folder: Path) -> list[Example]:
    return [
        Example(u.text, u.spans, u.audio, name=u.name, speaker=u.speaker)
        for u in read_kaldi(folder)
    ]


def _refuse_fields(source: Source) -> None:
    """Say so where a setting would change nothing."""
    if source.where or source.exclude or source.entity_field or source.audio_root:
        raise DataError(
            f"expected no where, exclude, entity_field and audio_root with the format "
            f"{source.format!r}, got some for {source.path}"
        )


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
