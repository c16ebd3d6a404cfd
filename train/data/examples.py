"""Readers: from the publishers' files to :class:`Example` values.

Eight formats, see :class:`cnerta.train.recipe.Source`:

* CNERTA: JSON lines ``{"sentence", "audio", "entity": [[start, end, text, type], ...]}``, with the
  recordings under an AISHELL-1 root (``wav/{train,dev,test}/S0002/BAC009S0002W0122.wav``, or
  ``wav/S0002.tar.gz`` as published) or flat. Where AISHELL-1's transcripts are, each sentence is
  compared with what was said.
* AISHELL-NER: lines of a name and a text with brackets around entities, recordings as for CNERTA.
* manifest: JSON lines ``{"audio", "text", "entities"}``, audio relative to the file, optionally
  ``characters`` (times in ms), ``readings`` (pinyin of each character) and ``prosody`` (the text
  with its boundaries marked, see :mod:`cnerta.train.data.prosody`).
* kaldi: a data folder, see :mod:`cnerta.train.data.kaldi`.
* huggingface: a data set of Hugging Face's, see :mod:`cnerta.train.data.huggingface`.
* lhotse: cuts of Lhotse's, see :mod:`cnerta.train.data.lhotse_cuts`.
* shards: tar files in WebDataset's layout, see :mod:`cnerta.train.data.shards`.
* words: a folder of single recordings named ``cmn-<hanzi or pinyin>.<ext>``.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import msgspec

from cnerta.models.errors import DataError
from cnerta.train.data.aishell import Transcripts, find_transcripts, read_bracketed
from cnerta.train.data.example import Example, normalise_example
from cnerta.train.data.huggingface import is_dataset_folder, open_table, read_table
from cnerta.train.data.kaldi import read_kaldi
from cnerta.train.data.lhotse_cuts import cut_manifests, read_cuts
from cnerta.train.data.recordings import archive_of, find_recordings
from cnerta.train.data.rows import example_of_row, is_wanted
from cnerta.train.data.shaping import cut, thinned
from cnerta.train.data.shards import read_shard, shard_files
from cnerta.train.recipe import Source

__all__ = [
    "Example",
    "normalise_example",
    "raw_examples",
    "read_examples",
    "read_source",
    "shaped",
]

logger = logging.getLogger(__name__)

_NAMED = 5


def read_source(source: Source, data_root: Path, *, cache: Path | None = None) -> list[Example]:
    """Read a source of a recipe, as a model sees it.

    Args:
        source: The source.
        data_root: Folder that its paths are relative to.
        cache: Folder that remembers what archives hold.

    Raises:
        DataError: A file is missing or a row does not have the promised form.
    """
    read = shaped(raw_examples(source, data_root, cache=cache), source)
    examples = list(islice(read, source.limit or None))
    if not examples:
        path = data_root / source.path
        raise DataError(f"expected at least one example in {path}, got none")
    return examples


def raw_examples(
    source: Source, data_root: Path, *, cache: Path | None = None
) -> Iterable[Example]:
    """The examples of a source as they are written.

    Args:
        source: The source; what shapes it is not looked at.
        data_root: Folder that its paths are relative to.
        cache: Folder that remembers what archives hold.

    Raises:
        DataError: See :func:`read_source`.
    """
    path = data_root / source.path
    if source.format in ("words", "kaldi", "lhotse"):
        _refuse_fields(source)
    if source.format == "words":
        return _read_words(path)
    if source.format == "kaldi":
        return _read_kaldi(path)
    if source.format == "lhotse":
        manifests = cut_manifests(path)
        return (e for m in manifests for e in read_cuts(m, speech=source.speech))
    if source.format == "huggingface":
        return read_table(open_table(source, data_root), source)
    if source.format == "shards":
        files = shard_files(path)
        return (e for f in files for e in read_shard(f, source, streamed=False))
    return read_examples(
        path,
        audio_root=data_root / source.audio_root if source.audio_root else None,
        entity_field=source.entity_field,
        where=source.where,
        exclude=source.exclude,
        allow_missing=source.allow_missing,
        cache=cache,
    )


def shaped(examples: Iterable[Example], source: Source) -> Iterator[Example]:
    """Examples as a source of a recipe wants them, normalised.

    Raises:
        DataError: Something that is for text only is wanted of one with a recording.
    """
    return thinned(_pieces(examples, source), source.nameless)


def _pieces(examples: Iterable[Example], source: Source) -> Iterator[Example]:
    for example in examples:
        if not source.speech:
            example = replace(example, audio=None, times_ms=None, breaks=None)
        if (source.longest or source.corpus) and example.audio is not None:
            raise DataError(
                f"expected text only in {source.path}, as longest and corpus want, got recordings"
            )
        for piece in cut(example, source.longest) if source.longest else (example,):
            seen = replace(normalise_example(piece), corpus=source.corpus)
            if seen.text or not source.longest:
                yield seen


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
        path: The file; or, by what is in it, a folder of Kaldi's, of Hugging Face's or of shards,
            or a manifest of Lhotse's cuts (``.jsonl.gz``), for which nothing else is looked at.
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
    other = _format_of(path)
    if other is not None:
        return list(raw_examples(Source(format=other, path=str(path.absolute())), Path()))
    if not path.is_file():
        raise DataError(f"expected a data file, got {path}, which is not a file")
    rows = [
        (number, row) for number, row in _rows(path) if is_wanted(row, where or {}, exclude or {})
    ]
    wanted = {Path(str(row.get("audio"))).stem for _, row in rows}
    finder = _Finder(path, audio_root, wanted, cache)
    examples = []
    for line_number, row in rows:
        try:
            example = example_of_row(row, entity_field)
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


def _format_of(path: Path) -> Literal["kaldi", "huggingface", "shards", "lhotse"] | None:
    """What a path holds, where that is no file of ours."""
    if (path / "wav.scp").is_file():
        return "kaldi"
    if is_dataset_folder(path):
        return "huggingface"
    if path.suffix == ".tar" or (path.is_dir() and any(path.glob("*.tar"))):
        return "shards"
    return "lhotse" if path.name.endswith(".jsonl.gz") and path.is_file() else None


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
