"""Files that appear as a whole or not at all, also to processes that read them meanwhile."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["file_sha256", "replacing", "write_atomically"]


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A file to write beside another, whose place it takes when the block ends without an error.

    Several processes may replace a file at a time: each writes its own, and the last one stays.

    Args:
        path: The file to replace, which need not be there; its folder must be. A link stays one,
            and the file it leads to is replaced.

    Yields:
        Where to write. It is removed after an error.

    Raises:
        OSError: The file cannot take the other's place.
    """
    target = path.resolve()
    # In the same folder, since only within a file system is moving a file one step.
    beside = target.with_name(f".{target.name}.{os.getpid()}.{os.urandom(4).hex()}.partial")
    try:
        yield beside
        beside.replace(target)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that a reader sees the old content or the new, never a part.

    Args:
        path: See :func:`replacing`.
        content: All of it.

    Raises:
        OSError: It cannot be written.
    """
    with replacing(path) as beside:
        beside.write_bytes(content)


def file_sha256(path: Path) -> str:
    """Of a file's content, in hexadecimal.

    Raises:
        OSError: It cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
