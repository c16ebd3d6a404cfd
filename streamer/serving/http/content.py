"""The content of a request, which the WebSocket library does not take.

A request for a path that takes content is read by h11. The library gets its head without the
headers that announce content; the content waits here, a little of it at a time, for whoever
answers.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Final

import h11

__all__ = ["BrokenContentError", "RequestContent", "may_have_content"]

_MOST_WAITING: Final = 2**17
_ANNOUNCE: Final = frozenset({b"content-length", b"transfer-encoding", b"expect"})


class BrokenContentError(Exception):
    """The request is none, or broke off."""


def may_have_content(start: bytes, paths: tuple[str, ...]) -> bool | None:
    """Whether a request that starts like this is to POST to one of some paths; None: too short."""
    undecided = False
    for path in paths:
        line = f"POST {path}".encode()
        if len(start) > len(line):
            if start.startswith(line) and start[len(line) : len(line) + 1] in b" ?":
                return True
        elif line.startswith(start):
            undecided = True
    return None if undecided else False


class RequestContent:
    """Reads one request. All methods are for the event loop's thread."""

    def __init__(self, hold: Callable[[], None], release: Callable[[], None]) -> None:
        """Begin.

        Args:
            hold: Lets no more come for a while.
            release: Lets it come again.
        """
        self._parser = h11.Connection(h11.SERVER)
        self._hold = hold
        self._release = release
        self._waiting: deque[bytes] = deque()
        self._bytes = 0
        self._is_held = False
        self._has_head = self._is_over = False
        self._broken = False
        self._news = asyncio.Event()

    @property
    def wants_permission(self) -> bool:
        """Whether the client waits to be told to go on (100)."""
        return self._parser.they_are_waiting_for_100_continue

    def feed(self, data: bytes) -> bytes:
        """Take what has come.

        Returns:
            The head for the library, once, and nothing before and after.

        Raises:
            BrokenContentError: This is no request.
        """
        if self._is_over:
            return b""
        head = b""
        try:
            self._parser.receive_data(data)
            while True:
                event = self._parser.next_event()
                if isinstance(event, h11.Request):
                    head = _without_content(event)
                elif isinstance(event, h11.Data):
                    self._waiting.append(bytes(event.data))
                    self._bytes += len(event.data)
                elif isinstance(event, h11.EndOfMessage):
                    self._is_over = True
                    break
                else:
                    break
        except h11.RemoteProtocolError as error:
            self.end()
            raise BrokenContentError(str(error)) from error
        if self._bytes > _MOST_WAITING and not self._is_held:
            self._is_held = True
            self._hold()
        self._news.set()
        return head

    def end(self) -> None:
        """Nothing more will come."""
        self._broken = self._broken or not self._is_over
        self._is_over = True
        self._news.set()

    async def pieces(self) -> AsyncIterator[bytes]:
        """The content as it comes.

        Raises:
            BrokenContentError: It broke off.
        """
        while True:
            while self._waiting:
                piece = self._waiting.popleft()
                self._bytes -= len(piece)
                if self._is_held and self._bytes <= _MOST_WAITING // 2:
                    self._is_held = False
                    self._release()
                yield piece
            if self._broken:
                raise BrokenContentError("expected the whole content, got a part")
            if self._is_over:
                return
            self._news.clear()
            await self._news.wait()


def _without_content(request: h11.Request) -> bytes:
    lines = [request.method + b" " + request.target + b" HTTP/1.1"]
    lines += [
        name + b": " + value for name, value in request.headers if name.lower() not in _ANNOUNCE
    ]
    return b"\r\n".join([*lines, b"", b""])
