"""The beginning of what a connection sends: a request, and whether it has content."""

from __future__ import annotations

from collections.abc import Callable

from cnerta.streamer.serving.http.content import RequestContent, may_have_content

__all__ = ["RequestStart"]


class RequestStart:
    """Keeps the content of a request from the WebSocket library, which takes none.

    Attributes:
        content: Of a request that may have some, once that is known.
    """

    def __init__(self, paths: tuple[str, ...]) -> None:
        """Begin with nothing.

        Args:
            paths: What requests with content may be for.
        """
        self.content: RequestContent | None = None
        self._paths = paths
        self._start = bytearray()
        self._is_known = False

    def skip(self) -> None:
        """The request is known to have no content."""
        self._is_known = True

    def feed(self, piece: bytes, new_content: Callable[[], RequestContent]) -> bytes:
        """Take what has come.

        Args:
            piece: Some bytes of it.
            new_content: Makes what reads a request with content.

        Returns:
            What the library gets of it, if anything.

        Raises:
            BrokenContentError: A request with content is none.
        """
        if not self._is_known:
            self._start += piece
            has_content = may_have_content(bytes(self._start), self._paths)
            if has_content is None:
                return b""
            self._is_known = True
            piece, self._start = bytes(self._start), bytearray()
            if has_content:
                self.content = new_content()
        return piece if self.content is None else self.content.feed(piece)
