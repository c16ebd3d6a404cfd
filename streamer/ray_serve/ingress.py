"""The door of a replica: an ASGI application before a server of this process.

Ray's proxies take connections, and speak WebSocket and HTTP with clients. What they pass on comes
here, and goes to the server by a pair of sockets that nobody else has: there is no port. The server
does with it what it does with every connection: tokens, origins, limits, other APIs, resuming.
"""

from __future__ import annotations

import asyncio
import socket
import tempfile
from pathlib import Path

from cnerta.streamer.ray_serve.asgi import Receive, Scope, Send, peer_of
from cnerta.streamer.ray_serve.requests import carry_request
from cnerta.streamer.ray_serve.streams import carry_stream
from cnerta.streamer.serving.server import Server

__all__ = ["Ingress"]


class Ingress:
    """See the module. All methods are for the event loop's thread."""

    def __init__(self, server: Server, host: str) -> None:
        """Begin; nothing is served yet.

        Args:
            server: Not started.
            host: Where clients come, as far as names of the server and their origins go.
        """
        self._server = server
        self._host = host
        self._folder = tempfile.TemporaryDirectory(prefix="cnerta-")
        self._adopting: set[asyncio.Task[None]] = set()
        self._stopping: asyncio.Task[None] | None = None

    @property
    def is_stopping(self) -> bool:
        """Whether nobody is taken any more."""
        return self._stopping is not None

    async def start(self) -> None:
        """Serve."""
        await self._server.start_behind(self._host, Path(self._folder.name))

    async def stop(self) -> None:
        """Take nobody more, give what is owed, send everybody elsewhere; once."""
        if self._stopping is None:
            self._stopping = asyncio.create_task(self._stop())
        await asyncio.shield(self._stopping)

    async def _stop(self) -> None:
        await self._server.stop()
        self._folder.cleanup()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a connection, or a request, to its end; see ASGI."""

        def reach() -> socket.socket:
            return self._reach(peer_of(scope))

        if scope["type"] == "websocket":
            await carry_stream(scope, receive, send, reach)
        elif scope["type"] == "http":
            await carry_request(scope, receive, send, reach)
        else:
            raise ValueError(f"expected a WebSocket or a request, got {scope['type']}")

    def _reach(self, remote: str) -> socket.socket:
        """A connection to the server, in the name of an address."""
        own, other = socket.socketpair()
        own.setblocking(False)
        task = asyncio.create_task(self._server.adopt(other, remote=remote))
        self._adopting.add(task)
        task.add_done_callback(self._adopting.discard)
        return own
