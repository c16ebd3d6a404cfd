from __future__ import annotations

import logging
import os
import threading
from pathlib import Path

import numpy as np
import pytest
import soundfile

from cnerta.models.errors import DataError
from cnerta.train.data import audio, sample_store
from cnerta.train.data.audio import AudioCache
from cnerta.train.data.sample_store import SampleStore


def recording(path: Path, hertz: float = 440, rate: int = 44_100) -> Path:
    soundfile.write(path, 0.3 * np.sin(2 * np.pi * hertz * np.arange(rate // 3) / rate), rate)
    return path


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """What was decoded, in order."""
    done: list[Path] = []
    read = audio.read_audio

    def counted(path: Path) -> np.ndarray:
        done.append(path)
        return read(path)

    monkeypatch.setattr(audio, "read_audio", counted)
    return done


def test_the_disk_gives_what_memory_gives(tmp_path: Path, decoded: list[Path]) -> None:
    path = recording(tmp_path / "a.wav")
    expected = AudioCache()(path)
    first, later = AudioCache(tmp_path / "cache"), AudioCache(tmp_path / "cache")
    for cache in (first, first, later):
        np.testing.assert_array_equal(cache(path), expected)
    assert decoded == [path, path], "once for memory, once for the disk"
    store = later.store
    assert store is not None
    count, size = store.size()
    assert count == 1
    assert size == 2 * len(expected) + 16


def test_what_changed_is_decoded_again(
    tmp_path: Path, decoded: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = recording(tmp_path / "a.wav")
    cache = AudioCache(tmp_path / "cache")
    old = cache(path)
    about = path.stat()
    recording(path, hertz=880)
    os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns + 1))
    new = cache(path)
    assert np.abs(new - old).max() > 0.1
    monkeypatch.setattr(sample_store, "_VERSION", 2)
    np.testing.assert_array_equal(cache(path), new)
    assert len(decoded) == 3


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "other"])
def test_damaged_files_are_noticed_and_made_again(
    tmp_path: Path, decoded: list[Path], caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    path = recording(tmp_path / "a.wav")
    cache = AudioCache(tmp_path / "cache")
    expected = cache(path)
    (file,) = (tmp_path / "cache").glob("*/*.samples")
    content = bytearray(file.read_bytes())
    if damage == "flip":
        content[1000] ^= 1
    damaged = {"cut": content[:-100], "flip": content, "empty": b"", "other": b"x" * 4000}[damage]
    file.write_bytes(damaged)
    with caplog.at_level(logging.WARNING):
        np.testing.assert_array_equal(cache(path), expected)
    assert "is damaged" in caplog.text
    np.testing.assert_array_equal(cache(path), expected)
    assert len(decoded) == 2


def test_many_writers_leave_whole_files(tmp_path: Path) -> None:
    path = recording(tmp_path / "a.wav")
    samples = np.arange(100_000, dtype=np.int16)
    store = SampleStore(tmp_path / "cache")
    store.put(path, samples)
    torn: list[object] = []
    done = threading.Event()

    def write() -> None:
        while not done.is_set():
            SampleStore(tmp_path / "cache").put(path, samples)

    writers = [threading.Thread(target=write) for _ in range(3)]
    for writer in writers:
        writer.start()
    for _ in range(300):
        found = store.get(path)
        if found is None or not np.array_equal(found, samples):
            torn.append(found)
    done.set()
    for writer in writers:
        writer.join()
    assert not torn
    assert [f.suffix for f in (tmp_path / "cache").rglob("*.*")] == [".samples"]


def test_a_place_that_cannot_be_written_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="expected a folder for a cache"):
        AudioCache(tmp_path / "file")
    path = recording(tmp_path / "a.wav")
    cache = AudioCache(tmp_path / "cache")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(DataError, match="No space left"):
        cache(path)
