"""Where recordings are: files in folders, or inside archives as AISHELL-1 publishes them.

AISHELL-1 comes as one archive a speaker (``wav/S0002.tar.gz``, which holds
``train/S0002/BAC009S0002W0122.wav``). A recording in one is named by a path that goes through the
archive: ``wav/S0002.tar.gz/train/S0002/BAC009S0002W0122.wav``. Archives are read from front to
back, so what wants many of their recordings asks for them together.
"""

from __future__ import annotations

import functools
import gzip
import hashlib
import io
import os
import re
import tarfile
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

import msgspec
import soundfile
from tqdm import tqdm

from cnerta.models.errors import DataError
from cnerta.models.files import write_atomically
from cnerta.train.data.held import HeldRecording
from cnerta.train.data.segments import segment_of

__all__ = [
    "AUDIO_SUFFIXES",
    "archive_of",
    "find_recordings",
    "read_members",
    "recording_seconds",
    "speaker_of",
]

AUDIO_SUFFIXES = (".wav", ".flac", ".ogg", ".opus", ".mp3")
_ARCHIVE_SUFFIXES = (".tar.gz", ".tgz")
_UTTERANCE = re.compile(r"BAC\d+(S\d{4})W\d+")
_SPEAKER = re.compile(r"S\d{4}")


def archive_of(path: Path) -> Path | None:
    """The archive that a path goes through; None for a path to a file."""
    for parent in path.parents:
        if parent.name.endswith(_ARCHIVE_SUFFIXES):
            return parent if parent.is_file() else None
    return None


def speaker_of(name: str) -> str:
    """The speaker in one of AISHELL's utterance names; empty for other names."""
    match = _UTTERANCE.fullmatch(name)
    return match[1] if match else ""


def find_recordings(
    root: Path, wanted: Collection[str] | None = None, index: Path | None = None
) -> dict[str, Path]:
    """Every recording below a folder, by its name without suffix.

    Serves AISHELL-1's own layout, unpacked or as archives, and a flat folder alike, because
    utterance names are unique. What is unpacked is not looked for in its archive.

    Args:
        root: The folder.
        wanted: Names that matter: archives of other speakers are not opened. None for all.
        index: Folder that remembers what archives hold.

    Raises:
        DataError: The folder is missing, two recordings have one name, or an archive is damaged.
    """
    if not root.is_dir():
        raise DataError(f"expected an audio root, got {root}, which is not a folder")
    files = sorted(root.rglob("*"))
    loose = [f for f in files if f.suffix.lower() in AUDIO_SUFFIXES]
    unpacked = {f.parent.name for f in loose}
    speakers = None if wanted is None else {speaker_of(n) for n in wanted}
    archives = []
    for file in files:
        if not file.name.endswith(_ARCHIVE_SUFFIXES) or not file.is_file():
            continue
        name = file.name.partition(".")[0]
        other = speakers is not None and bool(_SPEAKER.fullmatch(name)) and name not in speakers
        if name not in unpacked and not other:
            archives.append(file)
    found: dict[str, Path] = {}
    for file in [*loose, *_archived(archives, index)]:
        if file.stem in found:
            raise DataError(
                f"expected one recording of {file.stem}, got two: {found[file.stem]}, {file}"
            )
        found[file.stem] = file
    return found


def _archived(archives: list[Path], index: Path | None) -> Iterator[Path]:
    with ThreadPoolExecutor(os.cpu_count()) as workers:
        listed = workers.map(lambda archive: _durations(archive, index), archives)
        bar = tqdm(
            listed, desc="listing archives", total=len(archives), leave=False, disable=not archives
        )
        for archive, members in zip(archives, bar, strict=True):
            for member in members:
                yield archive / member


def recording_seconds(path: Path | HeldRecording, index: Path | None = None) -> float:
    """Duration as the recording's header says.

    Args:
        path: The recording.
        index: Folder that remembers what archives hold.

    Raises:
        DataError: There is no such recording, or it is not one.
    """
    if isinstance(path, HeldRecording):
        return path.seconds()
    segment = segment_of(path)
    if segment is not None:
        return segment.seconds
    archive = archive_of(path)
    if archive is not None:
        seconds = _durations(archive, index).get(path.relative_to(archive).as_posix())
        if seconds is None:
            raise DataError(f"expected a recording, got {path}: the archive has none of that name")
        return seconds
    try:
        return float(soundfile.info(path).duration)
    except (OSError, soundfile.LibsndfileError) as error:
        raise DataError(f"expected a recording, got {path}: {error}") from error


def _durations(archive: Path, index: Path | None) -> dict[str, float]:
    """Recordings of an archive and their durations in seconds."""
    about = archive.stat()
    return _durations_of(archive, about.st_size, about.st_mtime_ns, index)


# An archive has to be read to its end to know what it holds: once a process is enough.
@functools.cache
def _durations_of(archive: Path, size: int, changed: int, index: Path | None) -> dict[str, float]:
    if index is None:
        return _list(archive)
    key = msgspec.json.encode([str(archive.absolute()), size, changed])
    remembered = index / f"{hashlib.sha256(key).hexdigest()[:40]}.archive"
    try:
        return msgspec.json.decode(remembered.read_bytes(), type=dict[str, float])
    except (FileNotFoundError, msgspec.MsgspecError):
        durations = _list(archive)
    index.mkdir(parents=True, exist_ok=True)
    write_atomically(remembered, msgspec.json.encode(durations))
    return durations


def _list(archive: Path) -> dict[str, float]:
    durations = {}
    for member, content in read_members(archive):
        try:
            durations[member] = float(soundfile.info(io.BytesIO(content)).duration)
        except soundfile.LibsndfileError as error:
            raise DataError(f"expected a recording, got {archive / member}: {error}") from error
    return durations


def read_members(
    archive: Path, members: Collection[str] | None = None
) -> Iterator[tuple[str, bytes]]:
    """Names and contents of an archive's recordings, in its order.

    Args:
        archive: The archive.
        members: The ones to read; None for all.

    Raises:
        DataError: The archive is damaged or cut off.
    """
    try:
        with gzip.open(archive) as unzipped:
            # A stream: going back would mean to unpack from the start again.
            with tarfile.open(fileobj=unzipped, mode="r|") as tar:
                for entry in tar:
                    name = PurePosixPath(entry.name).as_posix()
                    if not entry.isfile() or not name.lower().endswith(AUDIO_SUFFIXES):
                        continue
                    if members is None or name in members:
                        file = tar.extractfile(entry)
                        assert file is not None, "it is a file"
                        yield name, file.read()
            # The end of the compressed data tells whether all of it was right.
            while unzipped.read(1 << 20):
                pass
    except (OSError, EOFError, tarfile.TarError) as error:
        raise DataError(f"expected an archive of recordings, got {archive}: {error}") from error
