"""The WebSocket server: connections to sessions, sessions to the engine, and HTTP beside it.

Every connection has a task that reads, which never waits for anything but the socket, so that
pongs and closes are never held up; and a task that sends, which waits for slow readers while the
session's outbox merges what comes after. Inference runs in the batcher's thread.

Nothing that clients send is logged, and nothing is kept unless the operator has it recorded.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import http
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, Self

import msgspec
import websockets.asyncio.server as ws
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from cnerta.models.errors import CnertaError
from cnerta.streamer.serving.batcher import Batcher
from cnerta.streamer.serving.client import Client
from cnerta.streamer.serving.engine import Engine, Inference, describe_failure
from cnerta.streamer.serving.hosted_session import HostedSession
from cnerta.streamer.serving.metered_connection import MeteredConnection
from cnerta.streamer.serving.metrics import CONTENT_TYPE, ServerMetrics
from cnerta.streamer.serving.origins import is_allowed
from cnerta.streamer.serving.parking import ParkingLot, ParkingOptions
from cnerta.streamer.serving.resuming import answer_resume_request
from cnerta.streamer.serving.tokens import SUBPROTOCOL, Tokens, identity_of
from cnerta.streamer.session.connection import Close, ServedModel, ServerProtocol
from cnerta.streamer.session.limits import ConnectionLimits
from cnerta.streamer.wire.asyncapi import STREAM_PATH, asyncapi_document
from cnerta.streamer.wire.codec import encode
from cnerta.streamer.wire.errors import ErrorName, ProtocolError

__all__ = ["AddressError", "NewConnection", "Server", "ServerOptions"]

logger = logging.getLogger(__name__)

NewConnection = Callable[[ServedModel, ConnectionLimits, str], Awaitable[ServerProtocol]]
"""Makes the protocol of a connection from the model, its limits and its name."""

_TICK_S: Final = 0.1
_DRAIN_TICK_S: Final = 0.02
_HARD_FRAME_FACTOR: Final = 4
"""How much longer than allowed a frame may be before the transport itself refuses it (1009)."""
_JSON: Final = "application/json"


class AddressError(CnertaError):
    """The server cannot listen where it was told to."""


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """How the server runs.

    Attributes:
        limits: What it takes from one connection.
        max_sessions: Most connections at once.
        origins: Values of the Origin header that are accepted beside that of a page of this server
            itself, see :func:`cnerta.streamer.serving.origins.is_allowed`; ``*``: any.
        tokens: Those that open a session; none: everybody may.
        max_batch: Most sessions served by one batch. 16 costs 3 % more a chunk than 32, and a final
            transcript waits half as long for the batch before it (docs/history.md).
        write_buffer_bytes: What the transport holds for a slow reader.
        ping_interval_s: Silence after which a client is pinged.
        ping_timeout_s: How long it may take to answer.
        close_timeout_s: How long a client may take to close.
        drain_timeout_s: How long a shutdown waits for answers that are owed.
        grace_s: How much of that utterances in progress have to become final.
        parking: How sessions wait for a client whose connection broke.
    """

    limits: ConnectionLimits = field(default_factory=ConnectionLimits)
    max_sessions: int = 512
    origins: tuple[str, ...] = ()
    tokens: Tokens = field(default_factory=Tokens)
    max_batch: int = 16
    write_buffer_bytes: int = 2**16
    ping_interval_s: float = 20.0
    ping_timeout_s: float = 20.0
    close_timeout_s: float = 5.0
    drain_timeout_s: float = 10.0
    grace_s: float = 2.0
    parking: ParkingOptions = field(default_factory=ParkingOptions)


class Server:
    """A server for one model.

    Use as an asynchronous context manager, or call :meth:`start` and :meth:`stop`.

    Attributes:
        metrics: What Prometheus is told.
        port: What is listened on, once started.
        lost_finals: Answers to finals that a shutdown had to leave behind.
    """

    def __init__(
        self,
        model: Inference,
        options: ServerOptions = ServerOptions(),
        new_connection: NewConnection | None = None,
    ) -> None:
        """Prepare to serve.

        Args:
            model: What answers.
            options: How the server runs.
            new_connection: Makes the protocol of each connection that is taken, a recorded one for
                example; None: a plain one.
        """
        self.port = 0
        self._new_connection = new_connection or _plain_connection
        self._options = options
        self._served = ServedModel(model.bundle, model.device)
        self._clients: set[Client] = set()
        self.metrics = ServerMetrics(
            name=model.bundle.name,
            device=model.device,
            count_sessions=lambda: len(self._clients),
            count_parked=lambda: len(self._lot),
        )
        self._lot = ParkingLot(options.parking, self.metrics)
        self.lost_finals = 0
        self._engine = Engine(model)
        self._asyncapi = msgspec.json.encode(asyncapi_document())
        self._is_stopping = False
        self._batcher: Batcher | None = None
        self._listener: ws.Server | None = None
        self._ticking: asyncio.Task[None] | None = None

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> None:
        """Listen.

        Args:
            host: Address or name of the interface.
            port: 0 takes a free one.

        Raises:
            AddressError: The port is taken or the address is not this machine's.
        """
        options = self._options
        # Its own logger, because at level DEBUG websockets would log what frames hold.
        transport_logger = logging.getLogger("cnerta.streamer.transport")
        transport_logger.setLevel(logging.ERROR)
        self._batcher = Batcher(self._engine, max_batch=options.max_batch, observer=self.metrics)
        try:
            self._listener = await ws.serve(
                self._handle,
                host,
                port,
                process_request=self._answer_http,
                create_connection=MeteredConnection,
                select_subprotocol=_select_subprotocol,
                # Deflating costs memory for every connection and gains little on audio.
                compression=None,
                max_size=_HARD_FRAME_FACTOR * options.limits.max_frame_bytes,
                write_limit=options.write_buffer_bytes,
                ping_interval=options.ping_interval_s,
                # It would close without a word; see _tick_client.
                ping_timeout=None,
                close_timeout=options.close_timeout_s,
                server_header=None,
                logger=transport_logger,
            )
        except OSError as error:
            await self._batcher.close()
            raise AddressError(_explain_address(host, port, error)) from error
        self.port = self._listener.sockets[0].getsockname()[1]
        self._ticking = asyncio.create_task(self._tick())
        logger.info(
            "listening on %s port %d, bundle %s on %s",
            host,
            self.port,
            self._served.bundle.name,
            self._served.device,
        )

    async def stop(self, reason: str = "shutdown") -> None:
        """Stop taking connections, give the answers still owed, close."""
        if self._listener is None or self._batcher is None or self._is_stopping:
            return
        self._is_stopping = True
        logger.info("stopping with %d open connections: %s", len(self._clients), reason)
        self._listener.close(close_connections=False)
        try:
            async with asyncio.timeout(self._options.drain_timeout_s):
                await self._send_away(reason)
                await self._listener.wait_closed()
        except TimeoutError:
            logger.warning("%d connections did not end in time", len(self._clients))
            for client in list(self._clients):
                client.connection.transport.abort()
            await self._listener.wait_closed()
        for entry in self._lot:
            self.lost_finals += self._lot.give_up(entry, "shutdown")
        if self.lost_finals:
            logger.error("%d final answers were left behind", self.lost_finals)
        if self._ticking is not None:
            self._ticking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._ticking
        await self._batcher.close()
        logger.info("stopped")

    async def _send_away(self, reason: str) -> None:
        """Tell all to go on elsewhere, those in the middle of an utterance a little later."""
        grace_ends = _now() + min(self._options.grace_s, self._options.drain_timeout_s / 2)
        waiting = set(self._clients)
        while waiting:
            for client in list(waiting):
                if not client.session.protocol.has_unfinished or _now() >= grace_ends:
                    client.session.go_away(reason)
                    waiting.discard(client)
            waiting &= self._clients
            await asyncio.sleep(_DRAIN_TICK_S if waiting else 0)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.stop()

    # --- WebSocket --------------------------------------------------------------------------------

    async def _handle(self, connection: ws.ServerConnection) -> None:
        """Serve one connection from its opening to its close."""
        assert self._batcher is not None
        assert isinstance(connection, MeteredConnection), "they are made so"
        self.metrics.opened.inc()
        name, limits = secrets.token_hex(8), self._options.limits
        refusal = self._refusal(connection)
        # A connection that is refused is not recorded.
        new = self._new_connection if refusal is None else _plain_connection
        protocol = await new(self._served, limits, name)
        identity, owner = self._identify(connection)
        entry = self._lot.enter(HostedSession(protocol, self._batcher), identity, owner)
        client = Client(connection, entry)
        self._clients.add(client)
        if refusal is not None:
            client.session.fail(refusal)
        elif self._is_stopping:
            client.session.go_away("shutdown")
        sender = asyncio.create_task(self._send(client))
        try:
            async for frame in connection:
                began = time.thread_time()
                self._receive(client, frame)
                pause_s = connection.spend(time.thread_time() - began)
                if pause_s is not None:
                    # Frames that are here already do not make the loop turn by themselves.
                    await asyncio.sleep(pause_s)
        except ConnectionClosed:
            pass
        finally:
            self._count(client)
            self._part(client)
            await sender
            self._clients.discard(client)

    def _identify(self, connection: MeteredConnection) -> tuple[str, str]:
        """The user that a session belongs to, and whose share it takes while it is parked."""
        identity = identity_of(connection.request) if self._options.tokens else ""
        address = connection.remote_address
        return identity, identity or (str(address[0]) if address else "")

    def _part(self, client: Client) -> None:
        """A connection is gone: its session waits for another one, unless all is said."""
        if client.is_superseded:
            return
        if self._is_stopping and not client.closed_cleanly:
            self.lost_finals += self._lot.give_up(client.entry, "shutdown")
        elif client.closed_cleanly:
            self._lot.leave(client.entry)
        else:
            self._lot.park(client.entry, _now())

    def _refusal(self, connection: ws.ServerConnection) -> ProtocolError | None:
        """Why a new connection is not taken, if so."""
        if not is_allowed(connection.request, self._options.origins):
            return ProtocolError(
                ErrorName.ORIGIN_REFUSED, "expected an origin that is allowed here, got another"
            )
        if not self._options.tokens.admit(connection.request):
            return ProtocolError(ErrorName.NOT_AUTHORISED, "expected a valid token, got none")
        if self._is_stopping:
            return ProtocolError(ErrorName.GOING_AWAY, "expected to go on, got a shutdown")
        if len(self._clients) >= self._options.max_sessions:
            return ProtocolError(
                ErrorName.TRY_AGAIN_LATER,
                f"expected at most {self._options.max_sessions} sessions, got one more",
            )
        if self._batcher is not None and self._batcher.is_overloaded:
            return ProtocolError(
                ErrorName.TRY_AGAIN_LATER, "expected an engine that keeps up, got an overload"
            )
        return None

    def _receive(self, client: Client, frame: str | bytes) -> None:
        if client.farewell is not None:
            return
        try:
            client.session.receive(frame)
            answer_resume_request(client, self._clients, self._lot, self.metrics.on_resume)
        except Exception as error:
            self._blame(client, error)

    async def _send(self, client: Client) -> None:
        """Send a session's messages until it ends, then close the connection."""
        connection = client.connection
        try:
            while (message := await client.next_message()) is not None:
                await connection.send(encode(message), text=True)
                self.metrics.on_sent(message, client.entry.flicker)
            protocol, parting = client.session.protocol, client.parting
            close = protocol.close
            if parting is not None:
                close = Close(parting.name.code, parting.name.wire_name)
                await connection.send(encode(parting.message()), text=True)
            if close is not None:
                self.metrics.closed.labels(str(close.code)).inc()
                logger.info(
                    "session %s closes: %d %s", protocol.session_id, close.code, close.reason
                )
                await connection.close(close.code, close.reason)
        except ConnectionClosed:
            pass
        except Exception as error:
            self._blame(client, error)
            connection.transport.abort()

    def _blame(self, client: Client, error: Exception) -> None:
        """A bug that one session met ends this session and no other."""
        name = client.session.protocol.session_id
        logger.error("session %s failed: %s", name, describe_failure(error))
        client.session.fail_internally()

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(_TICK_S)
            self._lot.tick(_now())
            for client in list(self._clients):
                try:
                    self._tick_client(client)
                except Exception as error:
                    self._blame(client, error)

    def _tick_client(self, client: Client) -> None:
        options = self._options
        if not client.is_superseded:
            client.session.tick()
            self._count(client)
        if not client.is_closing:
            patience_s = options.ping_interval_s + options.ping_timeout_s
            if client.connection.silent_s(_now()) > patience_s:
                client.dismiss(
                    ProtocolError(
                        ErrorName.PING_TIMEOUT,
                        f"expected a ping's answer within {options.ping_timeout_s:g} s, got none",
                    )
                )
            return
        if client.closed_at is None:
            client.closed_at = _now()
        elif _now() - client.closed_at > options.close_timeout_s:
            # It reads neither the last messages nor the close.
            client.connection.transport.abort()

    def _count(self, client: Client) -> None:
        """Bring the metrics up to what the session has seen."""
        entry = client.entry
        stream = client.session.protocol.session
        if stream is None:
            return
        audio_ms, drops = stream.received_ms, stream.dropped_interims
        self.metrics.audio.inc((audio_ms - entry.counted_audio_ms) / 1000)
        self.metrics.dropped_interims.inc(drops - entry.counted_drops)
        entry.counted_audio_ms, entry.counted_drops = audio_ms, drops

    def _why_not_ready(self) -> str | None:
        """Why no new session would be taken, if so."""
        if self._is_stopping:
            return "stopping"
        if len(self._clients) >= self._options.max_sessions:
            return "full"
        if self._batcher is None or self._batcher.is_overloaded:
            return "overloaded"
        return None

    # --- HTTP -------------------------------------------------------------------------------------

    def _answer_http(self, connection: ws.ServerConnection, request: Request) -> Response | None:
        """Answer plain HTTP; None lets the WebSocket handshake go on."""
        path = request.path.partition("?")[0]
        if path == STREAM_PATH:
            return None
        if path == "/healthz":
            return _respond(connection, http.HTTPStatus.OK, b"ok\n")
        if path == "/readyz":
            why_not = self._why_not_ready()
            if why_not is not None:
                return _respond(
                    connection, http.HTTPStatus.SERVICE_UNAVAILABLE, f"{why_not}\n".encode()
                )
            return _respond(connection, http.HTTPStatus.OK, b"ready\n")
        if path == "/metrics":
            return _respond(connection, http.HTTPStatus.OK, self.metrics.exposition(), CONTENT_TYPE)
        if path == "/asyncapi.json":
            return _respond(connection, http.HTTPStatus.OK, self._asyncapi, _JSON)
        return _respond(connection, http.HTTPStatus.NOT_FOUND, b"not found\n")


def _select_subprotocol(
    connection: ws.ServerConnection, offered: Sequence[Subprotocol]
) -> Subprotocol | None:
    """Ours if it is offered; a token among the others must not be sent back."""
    return Subprotocol(SUBPROTOCOL) if SUBPROTOCOL in offered else None


async def _plain_connection(
    model: ServedModel, limits: ConnectionLimits, session_id: str
) -> ServerProtocol:
    return ServerProtocol(model, limits, session_id, _now())


def _respond(
    connection: ws.ServerConnection,
    status: http.HTTPStatus,
    body: bytes,
    content_type: str = "text/plain; charset=utf-8",
) -> Response:
    response = connection.respond(status, "")
    response.body = body
    del response.headers["Content-Length"], response.headers["Content-Type"]
    response.headers["Content-Length"] = str(len(body))
    response.headers["Content-Type"] = content_type
    return response


def _explain_address(host: str, port: int, error: OSError) -> str:
    where = f"{host} port {port}"
    if error.errno == errno.EADDRINUSE:
        return f"expected {where} to be free, got a program that listens there already"
    if error.errno == errno.EACCES:
        return f"expected a port this user may listen on, got {where}"
    return f"expected an address of this machine, got {where}: {error.strerror or error}"


def _now() -> float:
    return asyncio.get_running_loop().time()
