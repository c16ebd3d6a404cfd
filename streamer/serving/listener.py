"""Where connections come from: a port of this process, or another process that hands them over."""

from __future__ import annotations

import asyncio
import http
import logging
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, cast

import websockets.asyncio.server as ws
from websockets.http11 import Request, Response
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

from cnerta.streamer.access.doorstep import Doorstep
from cnerta.streamer.access.tokens import SCHEMES, SUBPROTOCOL
from cnerta.streamer.serving.http_headers import SECURITY_HEADERS
from cnerta.streamer.serving.reading.metered_connection import MeteredConnection
from cnerta.streamer.serving.sharing.handed import Handed

__all__ = ["Answering", "Listener", "Transport"]

_PAIR: Final = 2
_OPEN_TIMEOUT_S: Final = 10.0
_CONTENT_S: Final = 400.0
"""How long a request with content may take, its answer included; its parts have bounds of their
own."""

Answering = Callable[[MeteredConnection, Request], Response | Awaitable[Response | None] | None]
"""Answers a request; None: it is a stream's."""


@dataclass(frozen=True, slots=True)
class Transport:
    """How connections are handled, whatever they carry.

    Attributes:
        max_frame_bytes: Longest frame that is read.
        write_buffer_bytes: What is held for a slow reader.
        ping_interval_s: Silence after which the other end is pinged.
        close_timeout_s: How long it may take to close.
        tls: What encrypts; None: nothing does.
    """

    max_frame_bytes: int
    write_buffer_bytes: int
    ping_interval_s: float
    close_timeout_s: float
    tls: ssl.SSLContext | None


class Listener:
    """Takes connections, and has each of them served."""

    def __init__(
        self,
        serve: Callable[[ws.ServerConnection], Awaitable[None]],
        answer: Answering,
        doorstep: Doorstep,
        transport: Transport,
        content_paths: tuple[str, ...] = (),
        *,
        may_give_away: bool = False,
    ) -> None:
        """Begin; nothing is listened to yet.

        Args:
            serve: Serves a stream's connection to its end.
            answer: Answers what is none.
            doorstep: Counts those whose handshake has not come.
            transport: How they are handled.
            content_paths: What requests with content may be for.
            may_give_away: Whether another process may be given a connection that was adopted.
        """
        self._content_paths = content_paths
        self._may_give_away = may_give_away
        self._serve = serve
        self._answer = answer
        self._doorstep = doorstep
        self._transport = transport
        # Its own logger, because at level DEBUG websockets would log what frames hold.
        self._logger = logging.getLogger("cnerta.streamer.transport")
        self._logger.setLevel(logging.ERROR)
        self._server: ws.Server | None = None

    async def listen(self, host: str, port: int) -> None:
        """Take those that come to a port.

        Raises:
            OSError: It cannot be listened on.
        """
        self._server = await self._serving(ws.serve, host, port, ssl=self._transport.tls)

    async def wait_for_handed(self, path: Path) -> None:
        """Take those that :meth:`adopt` is given.

        Args:
            path: Of a socket at which nobody has to come: the library wants one.
        """
        self._server = await self._serving(ws.unix_serve, path)

    async def adopt(
        self, client: socket.socket, handed: Handed | None = None, *, remote: str = ""
    ) -> None:
        """Take a connection that was accepted elsewhere.

        Args:
            client: Its socket.
            handed: What else another process did with it.
            remote: Address of its other end, where the socket does not know that.
        """
        tls = self._transport.tls if handed is None else None
        client.setblocking(False)
        more: dict[str, Any] = {}
        if tls is not None:
            more["ssl_handshake_timeout"] = _OPEN_TIMEOUT_S
            more["ssl_shutdown_timeout"] = self._transport.close_timeout_s
        await asyncio.get_running_loop().connect_accepted_socket(
            partial(self._new_connection, handed, remote), client, ssl=tls, **more
        )

    @property
    def port(self) -> int:
        """What is listened on."""
        assert self._server is not None, "expected to listen"
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    @property
    def count_open(self) -> int:
        """How many connections there are, those without a handshake too."""
        return 0 if self._server is None else len(self._server.handler_tasks)

    def close(self) -> None:
        """Take no more; those that are open go on."""
        self._doorstep.close()
        if self._server is not None:
            self._server.close(close_connections=False)

    async def wait_closed(self) -> None:
        """Wait for the end of those that are open."""
        if self._server is not None:
            await self._server.wait_closed()

    async def _serving(
        self, listen: Callable[..., ws.Server], *where: Any, **more: Any
    ) -> ws.Server:
        transport = self._transport
        return await listen(
            self._serve,
            *where,
            process_request=lambda connection, request: self._answer(
                cast(MeteredConnection, connection), request
            ),
            process_response=_secure,
            # The library calls it and asks nothing else of it.
            create_connection=cast(
                type[ws.ServerConnection],
                partial(MeteredConnection, self._doorstep, content_paths=self._content_paths),
            ),
            select_subprotocol=lambda connection, offered: _select_subprotocol(offered),
            # Deflating costs memory for every connection and gains little on audio.
            compression=None,
            # A connection waits less for its request.
            open_timeout=_CONTENT_S,
            max_size=transport.max_frame_bytes,
            write_limit=transport.write_buffer_bytes,
            ping_interval=transport.ping_interval_s,
            # It would close without a word; the server says why.
            ping_timeout=None,
            close_timeout=transport.close_timeout_s,
            server_header=None,
            logger=self._logger,
            **more,
        )

    def _new_connection(self, handed: Handed | None, remote: str) -> MeteredConnection:
        """What the library makes of a connection that it has accepted itself."""
        assert self._server is not None, "expected to listen"
        transport = self._transport
        return MeteredConnection(
            self._doorstep,
            ServerProtocol(
                select_subprotocol=lambda protocol, offered: _select_subprotocol(offered),
                max_size=transport.max_frame_bytes,
                logger=self._logger,
            ),
            self._server,
            ping_interval=transport.ping_interval_s,
            ping_timeout=None,
            close_timeout=transport.close_timeout_s,
            write_limit=transport.write_buffer_bytes,
            content_paths=self._content_paths,
            handed=handed,
            remote=remote,
            # Whoever was handed over once stays.
            keeps_opening=self._may_give_away and handed is None,
        )


def _select_subprotocol(offered: Sequence[Subprotocol]) -> Subprotocol | None:
    """Ours if it is offered; a token among the others must not be sent back."""
    if SUBPROTOCOL in offered:
        return Subprotocol(SUBPROTOCOL)
    # A browser that offers any wants one back: Deepgram's clients offer "token" and their key.
    if len(offered) == _PAIR and offered[0].lower() in SCHEMES:
        return offered[0]
    return None


def _secure(connection: ws.ServerConnection, request: Request, response: Response) -> None:
    """Give answers of the library's own, such as those to bad handshakes, our headers too."""
    if response.status_code == http.HTTPStatus.SWITCHING_PROTOCOLS:
        if isinstance(connection, MeteredConnection) and connection.request_id:
            response.headers["dg-request-id"] = connection.request_id
        return
    for name, value in SECURITY_HEADERS.items():
        if name not in response.headers:
            response.headers[name] = value
