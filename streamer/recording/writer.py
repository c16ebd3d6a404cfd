"""Writes recordings: in a thread of its own, so that no disk ever holds up a session.

A session hands its records over and goes on. Where a disk is slower than what comes, or full, the
recording ends with a record that says so; the session does not.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import threading
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from cnerta.streamer.errors import RecordingError
from cnerta.streamer.recording.file import FIRST_LINE, Full, Header, Record, framed

__all__ = ["DiskThread", "RecordingOptions", "RecordingWriter", "SharedAllowance"]

logger = logging.getLogger(__name__)

_PRIVATE: Final = 0o600
_MOST_WAITING_BYTES: Final = 64 * 2**20


@dataclass(frozen=True, slots=True)
class RecordingOptions:
    """Where a session is recorded, and how much of it.

    Attributes:
        path: The file.
        limit_bytes: Its bound; what comes after is not recorded.
    """

    path: Path
    limit_bytes: int = 2**30


@dataclass(eq=False, slots=True)
class _OpenFile:
    """A file that is written.

    Attributes:
        path: Where.
        descriptor: Of the thread that writes.
        appended: Bytes handed over; of the thread that hands over.
        written: Bytes dealt with; of the thread that writes.
        failure: Why nothing more can be written, if so.
    """

    path: Path
    descriptor: int
    appended: int = 0
    written: int = 0
    failure: str | None = None


class DiskThread:
    """A thread that appends to files, in the order in which it was told to."""

    def __init__(self) -> None:
        self._tasks: queue.SimpleQueue[tuple[_OpenFile, bytes | None] | None] = queue.SimpleQueue()
        self._appended = self._written = 0
        self._thread = threading.Thread(target=self._run, name="cnerta-recording", daemon=True)
        self._thread.start()

    @property
    def waiting_bytes(self) -> int:
        """How much was handed over and is not written yet."""
        return self._appended - self._written

    def append(self, file: _OpenFile, data: bytes) -> None:
        """Append to a file; does not wait."""
        file.appended += len(data)
        self._appended += len(data)
        self._tasks.put((file, data))

    def close_file(self, file: _OpenFile) -> None:
        """Close a file after what was appended; does not wait."""
        self._tasks.put((file, None))

    def stop(self) -> None:
        """End the thread once all that waits is written; does not wait."""
        self._tasks.put(None)

    def join(self) -> None:
        """Wait for its end."""
        self._thread.join()

    def _run(self) -> None:
        while (task := self._tasks.get()) is not None:
            file, data = task
            if data is None:
                self._close(file)
                continue
            if file.failure is None:
                self._write(file, data)
            file.written += len(data)
            self._written += len(data)

    def _write(self, file: _OpenFile, data: bytes) -> None:
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[os.write(file.descriptor, rest) :]
        except OSError as error:
            self._fail(file, error)

    def _close(self, file: _OpenFile) -> None:
        try:
            os.close(file.descriptor)
        except OSError as error:  # Some file systems say only here that there was no room.
            self._fail(file, error)

    def _fail(self, file: _OpenFile, error: OSError) -> None:
        reason = error.strerror or str(error)
        logger.error("the recording %s ends here, it cannot be written: %s", file.path, reason)
        file.failure = reason


class SharedAllowance:
    """What several recordings may take together.

    Attributes:
        left_bytes: Of it.
    """

    def __init__(self, left_bytes: int) -> None:
        self.left_bytes = left_bytes

    def take(self, size: int) -> bool:
        """Take so many bytes. Returns whether there were as many."""
        if size > self.left_bytes:
            return False
        self.left_bytes -= size
        return True


class RecordingWriter:
    """Hands records over to a file until it is full, the disk is, or it is closed.

    Attributes:
        path: The file.
    """

    def __init__(
        self,
        path: Path,
        header: Header,
        *,
        limit_bytes: int,
        disk: DiskThread | None = None,
        shared: SharedAllowance | None = None,
    ) -> None:
        """Begin a file, in the place of one that is there; only its owner may read it.

        Args:
            path: The file.
            header: Its first record.
            limit_bytes: Its bound.
            disk: Writes it; None: a thread of its own, which ends with the recording.
            shared: Bound of this file and others together.

        Raises:
            RecordingError: It cannot be written.
        """
        self.path = path
        self._left = limit_bytes
        self._shared = shared
        self._is_over = False
        self._disk = disk or DiskThread()
        self._own_disk = self._disk if disk is None else None
        try:
            self._file = _OpenFile(path, _created(path))
        except OSError as error:
            if self._own_disk is not None:
                self._own_disk.stop()
            raise RecordingError(
                f"expected to write a recording at {path}, got: {error.strerror or error}"
            ) from error
        self._append(FIRST_LINE)
        self.write(header, header.now)

    def write(self, record: Record, now: float) -> None:
        """Append a record. Where that fails the recording ends, not the session.

        Args:
            record: What happened.
            now: When, for the record that ends a recording that is full.
        """
        file = self._file
        if self._is_over or file.failure is not None:
            return
        frame = framed(record)
        is_full = len(frame) > self._left or not (
            self._shared is None or self._shared.take(len(frame))
        )
        if is_full or file.appended - file.written > _MOST_WAITING_BYTES:
            why = "is full" if is_full else "is slower to write than what comes"
            logger.warning("the recording %s %s and ends here; the session goes on", self.path, why)
            self._append(framed(Full(now)))
            self.end()
            return
        self._left -= len(frame)
        self._append(frame)

    def end(self) -> None:
        """No more will come; does not wait until all is written."""
        if not self._is_over:
            self._disk.close_file(self._file)
            self._is_over = True
            if self._own_disk is not None:
                self._own_disk.stop()

    def close(self) -> None:
        """End the file and wait until all of it is written."""
        self.end()
        if self._own_disk is not None:
            self._own_disk.join()

    def failure(self) -> str | None:
        """Why the file could not be written to its end, once it is closed; None: it could."""
        return self._file.failure

    def discard(self) -> None:
        """End the file and remove it: nothing happened."""
        self.end()
        with contextlib.suppress(OSError):
            self.path.unlink()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _append(self, data: bytes) -> None:
        if not self._is_over:
            self._disk.append(self._file, data)


def _created(path: Path) -> int:
    """Create a file that nobody else can have prepared, and open it.

    Opening one that stands there would keep its owner and mode, and follow a link to elsewhere.
    """
    if path.is_file() or path.is_symlink():
        path.unlink()
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _PRIVATE)
