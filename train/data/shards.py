"""Shards: tar files in WebDataset's layout, which are read from front to back.

The files of a sample stand beside each other and have one name up to the first dot:
``000000017.json``, a row as a manifest has it, and ``000000017.flac``, its recording if there is
one. A foreign shard may have ``.txt``, the text alone, in place of ``.json``. ``index.json`` beside
the shards, as WebDataset's ``wids`` has it, says how many samples and seconds are in each.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any, Final

import msgspec
import soundfile

from cnerta.models.errors import DataError
from cnerta.models.files import replacing, write_atomically
from cnerta.models.runtime.geometry import SAMPLE_RATE
from cnerta.train.data.audio import read_audio
from cnerta.train.data.example import Example
from cnerta.train.data.held import EncodedRecording, FilePart, HeldRecording
from cnerta.train.data.recordings import AUDIO_SUFFIXES, archive_of, recording_seconds
from cnerta.train.data.rows import example_of_row, is_wanted, row_of_example
from cnerta.train.data.segments import segment_of
from cnerta.train.recipe import Source

__all__ = ["INDEX", "ShardSize", "read_shard", "shard_files", "shard_sizes", "write_shards"]

INDEX: Final = "index.json"
_SUFFIX: Final = ".tar"
_ROW: Final = ".json"
_TEXT: Final = ".txt"


class ShardSize(msgspec.Struct, frozen=True):
    """What the index says of a shard.

    Attributes:
        url: Its file, relative to the index.
        nsamples: Samples in it.
        seconds: Of speech; 0 where the index does not say so.
        spoken: Samples with a recording.
    """

    url: str
    nsamples: int
    seconds: float = 0.0
    spoken: int = 0


class _Index(msgspec.Struct, frozen=True):
    shardlist: list[ShardSize]
    name: str = ""
    wids_version: int = 1


def shard_files(path: Path) -> list[Path]:
    """The shards of a path: a file, those of a folder, or those that a pattern names.

    Raises:
        DataError: There are none.
    """
    if path.is_file():
        return [path]
    if path.is_dir():
        found = sorted(path.glob(f"*{_SUFFIX}"))
    else:
        found = sorted(path.parent.glob(path.name)) if path.parent.is_dir() else []
    if not found:
        raise DataError(f"expected shards, a folder or a pattern of tar files, got {path}")
    return found


def shard_sizes(files: Iterable[Path]) -> dict[Path, ShardSize]:
    """What the index beside them says of shards; nothing of those it does not know.

    Raises:
        DataError: An index cannot be read.
    """
    sizes: dict[Path, ShardSize] = {}
    files = list(files)
    for folder in sorted({f.parent for f in files}):
        index = folder / INDEX
        if not index.is_file():
            continue
        try:
            listed = msgspec.json.decode(index.read_bytes(), type=_Index).shardlist
        except (OSError, msgspec.MsgspecError) as error:
            raise DataError(f"expected an index of shards in {index}, got: {error}") from error
        known = {folder / size.url: size for size in listed}
        sizes |= {f: known[f] for f in files if f in known}
    return sizes


def read_shard(
    shard: Path, source: Source, *, streamed: bool, recordings: bool = True
) -> Iterator[Example]:
    """The samples of a shard in their order.

    Args:
        shard: The tar file, compressed or not.
        source: Which of the samples, and what of them.
        streamed: Read the file once from front to back, and hand recordings over with their
            bytes. Otherwise they are read from their place in the file when they are wanted.
        recordings: Without them, texts alone: the file's recordings are passed over.

    Raises:
        DataError: The file is damaged, or a sample does not have the promised form.
    """
    speech = source.speech and recordings
    # Inside a compressed file nothing has a place of its own.
    held = streamed or shard.suffix != _SUFFIX
    try:
        with tarfile.open(shard, "r|*" if held and speech else "r:*") as tar:
            for key, parts in _samples(tar, shard, held=held, speech=speech):
                example = _example(key, parts, source, shard)
                if example is not None:
                    yield example
    except (OSError, EOFError, tarfile.TarError) as error:
        raise DataError(f"expected a shard, got {shard}: {error}") from error


_Parts = dict[str, bytes | HeldRecording]


def _samples(
    tar: tarfile.TarFile, shard: Path, *, held: bool, speech: bool
) -> Iterator[tuple[str, _Parts]]:
    """Key and files of each sample: neighbours that have one name up to the first dot."""
    key, parts, seen = "", _Parts(), set[str]()

    def sample() -> tuple[str, _Parts]:
        if _ROW not in parts and _TEXT not in parts:
            raise DataError(f"{shard}, sample {key}: expected a .json or .txt, got {sorted(seen)}")
        return key, parts

    for entry in tar:
        if not entry.isfile():
            continue
        path = PurePosixPath(entry.name)
        name, dot, rest = path.name.partition(".")
        own = str(path.parent / name)
        if own != key and seen:
            yield sample()
            parts, seen = {}, set()
        key, suffix = own, (dot + rest).lower()
        seen.add(suffix)
        is_audio = suffix in AUDIO_SUFFIXES
        if suffix not in (_ROW, _TEXT) and not (is_audio and speech):
            continue
        if is_audio and not held:
            parts[suffix] = FilePart(shard, entry.name, entry.offset_data, entry.size)
            continue
        file = tar.extractfile(entry)
        assert file is not None, "it is a file"
        content = file.read()
        recording = EncodedRecording(f"{shard}/{entry.name}", content)
        parts[suffix] = recording if is_audio else content
    if seen:
        yield sample()


def _example(key: str, parts: _Parts, source: Source, shard: Path) -> Example | None:
    """A sample as an example; None if it is not wanted."""
    try:
        row = _row(parts)
        if not is_wanted(row, source.where, source.exclude):
            return None
        if source.text_field:
            row["text"] = row[source.text_field]
        example = example_of_row(row, source.entity_field)
    except (DataError, KeyError, TypeError, ValueError) as error:
        detail = f"no field {error}" if isinstance(error, KeyError) else str(error)
        raise DataError(f"{shard}, sample {key}: {detail}") from error
    spoken = [p for suffix, p in parts.items() if suffix in AUDIO_SUFFIXES]
    audio = spoken[0] if spoken else None
    assert not isinstance(audio, bytes), "only rows are bytes"
    return replace(example, audio=audio, name=str(row.get("name") or key))


def _row(parts: _Parts) -> dict[str, Any]:
    content = parts.get(_ROW)
    if isinstance(content, bytes):
        return msgspec.json.decode(content, type=dict[str, Any])
    text = parts[_TEXT]
    assert isinstance(text, bytes), "only recordings are held otherwise"
    return {"text": text.decode().strip()}


@dataclass(slots=True)
class _Shard:
    """A shard that is being written."""

    file: Path
    samples: int = 0
    spoken: int = 0
    seconds: float = 0.0

    def size(self) -> ShardSize:
        return ShardSize(self.file.name, self.samples, round(self.seconds, 3), self.spoken)


def write_shards(
    examples: Iterable[Example], out: Path, *, per_shard: int, encode: bool = False, name: str = ""
) -> list[ShardSize]:
    """Write examples as shards and their index.

    A shard appears whole or not at all, and the index last: shards without one are what a run left
    that was cut off, and are written anew.

    Args:
        examples: In the order in which they are to be read.
        out: Folder; made if missing.
        per_shard: Samples of a shard.
        encode: Write recordings as training hears them, FLAC of 16 kHz and one channel; otherwise
            those that are files stay as they are.
        name: Of the corpus, for the index.

    Raises:
        DataError: A recording cannot be read, there is no example, the folder has shards already,
            or it cannot be written.
    """
    if (out / INDEX).exists():
        raise DataError(
            f"expected a folder without shards to write to, got {out}, which has an index"
        )
    sizes: list[ShardSize] = []
    rest = iter(examples)
    try:
        out.mkdir(parents=True, exist_ok=True)
        for old in out.glob(f"{'[0-9]' * 6}{_SUFFIX}"):
            old.unlink()
        while True:
            shard = _Shard(out / f"{len(sizes):06}{_SUFFIX}")
            with replacing(shard.file) as partial, tarfile.open(partial, "w") as tar:
                number = len(sizes) * per_shard
                for example in islice(rest, per_shard):
                    _add(tar, f"{number + shard.samples:09}", example, shard, encode=encode)
            if not shard.samples:
                shard.file.unlink()
                break
            sizes.append(shard.size())
        if not sizes:
            raise DataError(f"expected examples to write to {out}, got none")
        index = _Index(sizes, name)
        write_atomically(out / INDEX, msgspec.json.format(msgspec.json.encode(index)))
    except OSError as error:
        raise DataError(f"expected to write shards to {out}, got: {error}") from error
    return sizes


def _add(tar: tarfile.TarFile, key: str, example: Example, shard: _Shard, *, encode: bool) -> None:
    row = row_of_example(example)
    if example.name:
        row["name"] = example.name
    files = {_ROW: b""}
    if example.audio is not None:
        suffix, content = _recording(example.audio, encode=encode)
        seconds = recording_seconds(EncodedRecording(str(example.audio), content))
        row["seconds"] = round(seconds, 4)
        files[suffix] = content
        shard.spoken += 1
        shard.seconds += seconds
    files[_ROW] = msgspec.json.encode(row)
    for suffix, content in files.items():
        entry = tarfile.TarInfo(key + suffix)
        entry.size = len(content)
        tar.addfile(entry, io.BytesIO(content))
    shard.samples += 1


def _recording(audio: Path | HeldRecording, *, encode: bool) -> tuple[str, bytes]:
    """Suffix and content of a recording."""
    is_file = isinstance(audio, Path) and segment_of(audio) is None and archive_of(audio) is None
    if (
        not encode
        and is_file
        and isinstance(audio, Path)
        and audio.suffix.lower() in AUDIO_SUFFIXES
    ):
        return audio.suffix.lower(), audio.read_bytes()
    encoded = io.BytesIO()
    soundfile.write(encoded, read_audio(audio), SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    return ".flac", encoded.getvalue()
