"""The page's files as HTTP answers: what they are, how long they keep, what they may do.

No sockets here: a path in, an answer out.
"""

from __future__ import annotations

import hashlib
import http
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Final, Self

__all__ = ["PAGE_PATH", "FileAnswer", "PageFiles", "page_files"]

PAGE_PATH: Final = "/page/"
"""Where the files are; the page itself is at ``/``."""
_INDEX: Final = "index.html"
_DEMO: Final = "demo/"
"""Under :data:`PAGE_PATH`: the recordings that come along."""

_TYPES: Final[Mapping[str, str]] = {
    ".css": "text/css; charset=utf-8",
    ".flac": "audio/flac",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
}
"""Content types of what is served; a file of another kind is not."""

_POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "media-src 'self' blob:",
        "connect-src 'self'",
        "worker-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
"""Nothing inline and nothing from elsewhere: what a caption says is never run."""

_HEADERS: Final[Mapping[str, str]] = MappingProxyType(
    {
        # Asked again each time, and answered with 304: a server that was updated shows it at once.
        "Cache-Control": "no-cache",
        "Content-Security-Policy": _POLICY,
        "Cross-Origin-Opener-Policy": "same-origin",
        "Permissions-Policy": "microphone=(self), display-capture=(self), camera=(), "
        "geolocation=()",
    }
)


@dataclass(frozen=True, slots=True)
class FileAnswer:
    """What is sent back for GET.

    Attributes:
        status: 200, or 304 for what is known already.
        headers: Beside those that every answer has.
        content_type: Of the file.
        body: Empty for 304.
    """

    status: http.HTTPStatus
    headers: Mapping[str, str]
    content_type: str
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class _File:
    body: bytes
    content_type: str
    etag: str

    @classmethod
    def read(cls, path: Path) -> Self:
        body = path.read_bytes()
        digest = hashlib.sha256(body).hexdigest()[:32]
        return cls(body, _TYPES[path.suffix], f'"{digest}"')


class PageFiles:
    """The files by their path on the server, read once.

    A path that is not listed is not there, so no path leads out of the folders.

    Args:
        files: The file of each path.
    """

    def __init__(self, files: Mapping[str, _File]) -> None:
        self._files = files

    @classmethod
    def read(cls, page: Path, demo: Path) -> Self:
        """Read what is in two folders.

        Args:
            page: The page, with its sub-folders.
            demo: The recordings that come along; served under ``/page/demo/``.
        """
        files = {PAGE_PATH + name: _File.read(path) for name, path in _served(page)}
        files |= {PAGE_PATH + _DEMO + name: _File.read(path) for name, path in _served(demo)}
        files["/"] = files[PAGE_PATH + _INDEX]
        return cls(files)

    @property
    def paths(self) -> frozenset[str]:
        """All that is served."""
        return frozenset(self._files)

    def answer(self, target: str, if_none_match: str | None = None) -> FileAnswer:
        """Answer a GET.

        Args:
            target: Path, with a query or without; one of `paths`.
            if_none_match: The header of this name.
        """
        file = self._files[target.partition("?")[0]]
        headers = {**_HEADERS, "ETag": file.etag, "Content-Length": str(len(file.body))}
        if if_none_match is not None and _matches(file.etag, if_none_match):
            return FileAnswer(http.HTTPStatus.NOT_MODIFIED, headers, file.content_type)
        return FileAnswer(http.HTTPStatus.OK, headers, file.content_type, file.body)


@cache
def page_files() -> PageFiles:
    """The page and the recordings that are installed with this package."""
    here = Path(__file__).parent
    return PageFiles.read(here, here.parent / "demo")


def _served(folder: Path) -> Iterator[tuple[str, Path]]:
    for path in sorted(folder.rglob("*")):
        if path.suffix in _TYPES and path.is_file():
            yield path.relative_to(folder).as_posix(), path


def _matches(etag: str, header: str) -> bool:
    """Whether `If-None-Match` names this file: proxies may have made the tag a weak one."""
    named = [each.strip().removeprefix("W/") for each in header.split(",")]
    return "*" in named or etag in named
