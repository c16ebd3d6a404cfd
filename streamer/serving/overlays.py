"""Captions on their way from a page to its overlays in OBS and other browsers.

A page that is asked to shows what it shows to whoever has its key, as one message that replaces the
one before. Nothing is queued: an overlay that reads slowly skips. The server looks into none of it,
and keeps one message a key, for as long as somebody is there.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import parse_qs, urlsplit

from websockets.exceptions import ConnectionClosed
from websockets.frames import CloseCode

from cnerta.streamer.access.admission import Admission
from cnerta.streamer.serving.reading.metered_connection import MeteredConnection

__all__ = ["OVERLAY_PATH", "Overlays"]

OVERLAY_PATH: Final = "/v1/overlay"
"""With ``?key=KEY`` for an overlay, and ``&show=1`` for the page that it shows."""
_KEY: Final = re.compile(r"[A-Za-z0-9_-]{16,64}")
_MOST_CHARACTERS: Final = 2**15
_MOST_KEYS: Final = 64
_MOST_OVERLAYS: Final = 16
_FRESH_S: Final = 6.0
"""An overlay that comes, or comes again with its scene, is not shown what is older."""
_PAUSE_S: Final = 0.02
_PATIENCE_S: Final = 60.0


@dataclass(eq=False, slots=True)
class _Showing:
    """What is shown under one key, and to whom.

    Attributes:
        message: The newest; "": none yet.
        shown_at: When it came, in seconds.
        pages: How many pages show it.
        overlays: What wakes each overlay.
    """

    message: str = ""
    shown_at: float = 0.0
    pages: int = 0
    overlays: set[asyncio.Event] = field(default_factory=set)

    @property
    def is_over(self) -> bool:
        return not self.pages and not self.overlays


class Overlays:
    """All that is shown. All methods are for the event loop's thread."""

    def __init__(self, admission: Admission) -> None:
        """Show nothing yet.

        Args:
            admission: Who may.
        """
        self._admission = admission
        self._showings: dict[str, _Showing] = {}
        self._connections: set[MeteredConnection] = set()

    async def serve(self, connection: MeteredConnection) -> None:
        """Serve one connection, of a page or of an overlay, to its end."""
        assert connection.request is not None
        asked = parse_qs(urlsplit(connection.request.path).query)
        key = asked.get("key", [""])[0]
        is_page = asked.get("show") == ["1"]
        refusal = self._refusal(connection, key, is_page=is_page)
        if refusal is not None:
            await connection.close(*refusal)
            return
        showing = self._showings.setdefault(key, _Showing())
        self._connections.add(connection)
        watchdog = asyncio.create_task(self._leave_the_dead(connection))
        try:
            await (self._show(connection, showing) if is_page else self._tell(connection, showing))
        except ConnectionClosed:
            pass
        finally:
            watchdog.cancel()
            self._connections.discard(connection)
            if showing.is_over and self._showings.get(key) is showing:
                del self._showings[key]

    async def close(self) -> None:
        """The server stops."""
        for connection in list(self._connections):
            await connection.close(CloseCode.GOING_AWAY, "shutdown")

    def _refusal(
        self, connection: MeteredConnection, key: str, *, is_page: bool
    ) -> tuple[CloseCode, str] | None:
        request, now = connection.request, asyncio.get_running_loop().time()
        if not self._admission.may_come_from_there(request):
            return CloseCode.POLICY_VIOLATION, "expected an origin that is allowed here"
        if not _KEY.fullmatch(key):
            return CloseCode.POLICY_VIOLATION, "expected a key of 16 to 64 letters and digits"
        known = self._showings.get(key)
        caller, token = self._admission.caller(request, now)
        is_caller = caller is not None and (token is None or not token.is_spent)
        if is_page and not is_caller:
            return CloseCode.POLICY_VIOLATION, "expected a valid token, got none"
        # The key of what a caller shows is as good as a token, for this alone.
        if not is_caller and (known is None or not known.pages):
            return CloseCode.TRY_AGAIN_LATER, "expected a page that shows captions, got none yet"
        is_full = known is not None and not is_page and len(known.overlays) >= _MOST_OVERLAYS
        if is_full or (known is None and len(self._showings) >= _MOST_KEYS):
            return CloseCode.TRY_AGAIN_LATER, "expected fewer overlays, got one more"
        return None

    async def _show(self, connection: MeteredConnection, showing: _Showing) -> None:
        showing.pages += 1
        try:
            async for frame in connection:
                if not isinstance(frame, str) or len(frame) > _MOST_CHARACTERS:
                    why = f"expected text of at most {_MOST_CHARACTERS} characters"
                    await connection.close(CloseCode.MESSAGE_TOO_BIG, why)
                    return
                showing.message, showing.shown_at = frame, asyncio.get_running_loop().time()
                for overlay in showing.overlays:
                    overlay.set()
                # No page changes what it shows more often; what comes faster waits in its socket.
                await asyncio.sleep(_PAUSE_S)
        finally:
            showing.pages -= 1

    async def _tell(self, connection: MeteredConnection, showing: _Showing) -> None:
        news = asyncio.Event()
        if asyncio.get_running_loop().time() - showing.shown_at < _FRESH_S and showing.message:
            news.set()
        showing.overlays.add(news)
        sender = asyncio.create_task(self._send(connection, showing, news))
        try:
            async for _ in connection:
                await connection.close(CloseCode.POLICY_VIOLATION, "expected nothing, got a frame")
        finally:
            showing.overlays.discard(news)
            sender.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await sender

    async def _send(
        self, connection: MeteredConnection, showing: _Showing, news: asyncio.Event
    ) -> None:
        try:
            while True:
                await news.wait()
                news.clear()
                async with asyncio.timeout(_PATIENCE_S):
                    await connection.send(showing.message)
        except TimeoutError:
            connection.transport.abort()
        except ConnectionClosed:
            pass

    async def _leave_the_dead(self, connection: MeteredConnection) -> None:
        """Pings are sent by the library; whoever answers none is gone."""
        while connection.silent_s(asyncio.get_running_loop().time()) < _PATIENCE_S:
            await asyncio.sleep(_PATIENCE_S / 3)
        connection.transport.abort()
