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
import itertools
import logging
import secrets
import ssl
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from types import TracebackType
from typing import Final, Self, cast
from urllib.parse import urlsplit

import websockets.asyncio.server as ws
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from cnerta.models.errors import CnertaError
from cnerta.models.runtime.memory import give_back
from cnerta.streamer.access.admission import AccessOptions, Admission, Place, Refusal, Unfit
from cnerta.streamer.access.callers import ANYBODY, Caller
from cnerta.streamer.access.doorstep import Doorstep
from cnerta.streamer.access.hosts import Hosts
from cnerta.streamer.access.tokens import SUBPROTOCOL, Tokens
from cnerta.streamer.serving.account import Account
from cnerta.streamer.serving.batcher import Batcher
from cnerta.streamer.serving.client import Client
from cnerta.streamer.serving.engine import Engine, Inference, describe_failure
from cnerta.streamer.serving.engine_watch import EngineWatch
from cnerta.streamer.serving.hosted_session import HostedSession
from cnerta.streamer.serving.http_answers import HttpAnswers
from cnerta.streamer.serving.http_headers import SECURITY_HEADERS
from cnerta.streamer.serving.memory_budget import MemoryBudget
from cnerta.streamer.serving.metered_connection import MeteredConnection
from cnerta.streamer.serving.metrics import ServerMetrics
from cnerta.streamer.serving.overlays import OVERLAY_PATH, Overlays
from cnerta.streamer.serving.pages import Pages
from cnerta.streamer.serving.parking import ParkingLot, ParkingOptions
from cnerta.streamer.serving.recognition import Recogniser
from cnerta.streamer.serving.resuming import answer_resume_request
from cnerta.streamer.session.connection import Close, ServedModel, ServerProtocol
from cnerta.streamer.session.limits import ConnectionLimits
from cnerta.streamer.session.work import Lane
from cnerta.streamer.wire.addresses import is_loopback
from cnerta.streamer.wire.asyncapi import STREAM_PATH
from cnerta.streamer.wire.codec import encode
from cnerta.streamer.wire.errors import ErrorName, ProtocolError

__all__ = ["AddressError", "NewConnection", "Server", "ServerOptions"]

logger = logging.getLogger(__name__)

NewConnection = Callable[[ServedModel, ConnectionLimits, str], Awaitable[ServerProtocol]]
"""Makes the protocol of a connection from the model, its limits and its name."""

_TICK_S: Final = 0.1
_SMALL_BYTES: Final = 8_192
"""A frame of audio as live clients send it is smaller."""
_DRAIN_TICK_S: Final = 0.02
_HARD_FRAME_FACTOR: Final = 4
"""How much longer than allowed a frame may be before the transport itself refuses it (1009)."""
_STALLED_S: Final = 5.0
"""An event loop that had no turn for so long is of no use."""
_TURNS_A_BALANCE: Final = 10
_GIVE_BACK_S: Final = 5.0
_STOP_SLACK_S: Final = 2.0


class AddressError(CnertaError):
    """The server cannot listen where it was told to."""


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """How the server runs.

    Attributes:
        limits: What it takes from one connection.
        max_sessions: Most connections at once.
        origins: Values of the Origin header that are accepted beside that of a page of this server
            itself, see :func:`cnerta.streamer.access.origins.is_allowed`; ``*``: any.
        tokens: Those that open a session; none: everybody may.
        access: Who else may connect, and how many.
        tls: What encrypts; None: nothing does.
        metrics_address: Host and port for the metrics, which are then not among the public paths.
        max_batch: Most sessions served by one batch. 16 costs 3 % more a chunk than 32, and a final
            transcript waits half as long for the batch before it (docs/history.md).
        write_buffer_bytes: What the transport holds for a slow reader.
        ping_interval_s: Silence after which a client is pinged.
        ping_timeout_s: How long it may take to answer.
        close_timeout_s: How long a client may take to close.
        drain_timeout_s: How long a shutdown waits for answers that are owed.
        batch_timeout_s: How long a batch may take before its sessions are ended.
        self_test_s: Time between two self-tests of the engine.
        memory_mb: What all sessions together may hold, in megabytes.
        grace_s: How much of that utterances in progress have to become final.
        parking: How sessions wait for a client whose connection broke.
    """

    limits: ConnectionLimits = field(default_factory=ConnectionLimits)
    max_sessions: int = 512
    origins: tuple[str, ...] = ()
    tokens: Tokens = field(default_factory=Tokens)
    access: AccessOptions = field(default_factory=AccessOptions)
    tls: ssl.SSLContext | None = None
    metrics_address: tuple[str, int] | None = None
    max_batch: int = 16
    write_buffer_bytes: int = 2**16
    ping_interval_s: float = 20.0
    ping_timeout_s: float = 20.0
    close_timeout_s: float = 5.0
    drain_timeout_s: float = 10.0
    batch_timeout_s: float = 30.0
    self_test_s: float = 300.0
    memory_mb: int = 1024
    grace_s: float = 2.0
    parking: ParkingOptions = field(default_factory=ParkingOptions)


class Server:
    """A server for one model.

    Use as an asynchronous context manager, or call :meth:`start` and :meth:`stop`.

    Attributes:
        metrics: What Prometheus is told.
        admission: Who is let in.
        port: What is listened on, once started.
        metrics_port: Where the metrics are, once started, if they have an address of their own.
        lost_finals: Answers to finals that a shutdown had to leave behind.
    """

    def __init__(
        self,
        model: Inference,
        options: ServerOptions = ServerOptions(),
        new_connection: NewConnection | None = None,
        recogniser: Recogniser | None = None,
    ) -> None:
        """Prepare to serve.

        Args:
            model: What answers.
            options: How the server runs.
            new_connection: Makes the protocol of each connection that is taken, a recorded one for
                example; None: a plain one.
            recogniser: Writes the transcript for clients that want that; the caller closes it.
        """
        self.port = self.metrics_port = 0
        self._new_connection = new_connection or _plain_connection
        self._options = options
        self._recogniser = recogniser
        self._served = ServedModel(model.bundle, model.device)
        self._memory = MemoryBudget(options.memory_mb * 10**6)
        self._has_shrunk = False
        self._clients: set[Client] = set()
        self.metrics = ServerMetrics(
            name=model.bundle.name,
            device=model.device,
            count_sessions=lambda: len(self._clients),
            count_waiting=self._count_waiting,
            count_device_faults=lambda: model.device_faults,
            count_held_bytes=lambda: self._memory.held_bytes,
            count_parked=lambda: len(self._lot),
        )
        self._lot = ParkingLot(options.parking, self.metrics)
        self.lost_finals = 0
        self.admission = Admission(
            options.access,
            max_sessions=options.max_sessions,
            origins=options.origins,
            tokens=options.tokens,
            count_expected=lambda: len(self._lot),
            is_overloaded=lambda: self._batcher is None or self._batcher.is_overloaded,
            why_unfit=self._why_unfit,
        )
        self._pages = Pages(
            self.admission,
            self.metrics,
            self._why_not_healthy,
            is_encrypted=options.tls is not None,
            now=_now,
        )
        self._overlays = Overlays(self.admission)
        self._turned_at: float | None = None
        self._engine = Engine(model)
        self._is_stopping = False
        self._batcher: Batcher | None = None
        self._watch: EngineWatch | None = None
        self._listener: ws.Server | None = None
        self._metrics_listener: ws.Server | None = None
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> None:
        """Listen.

        Args:
            host: Address or name of the interface.
            port: 0 takes a free one.

        Raises:
            AddressError: The port is taken or the address is not this machine's.
        """
        options = self._options
        self.admission.hosts = Hosts(options.access.allowed_hosts, is_loopback(host))
        doorstep = Doorstep(options.access.max_waiting_per_address, self.admission.stands_for_many)
        answers = HttpAnswers(
            self._pages.public(with_metrics=options.metrics_address is None),
            self.admission.hosts.is_own,
            self.admission.may_come_from_there,
            passed_on=(STREAM_PATH, OVERLAY_PATH),
        )
        self._batcher = Batcher(
            self._engine,
            max_batch=options.max_batch,
            observer=self.metrics,
            timeout_s=options.batch_timeout_s,
        )
        self._watch = EngineWatch(
            self._batcher.check, self._end_all, self.metrics, every_s=options.self_test_s
        )
        try:
            self._listener = await self._listen(host, port, answers, doorstep, options.tls)
            if options.metrics_address is not None:
                host, port = options.metrics_address
                self._metrics_listener = await self._listen_for_operators(host, port, doorstep)
        except OSError as error:
            if self._listener is not None:
                self._listener.close()
                await self._listener.wait_closed()
                self._listener = None
            await self._batcher.close()
            raise AddressError(_explain_address(host, port, error)) from error
        self.port = _port(self._listener)
        self._tasks = [
            asyncio.create_task(self._tick()),
            asyncio.create_task(self._watch.run()),
            asyncio.create_task(self._give_back()),
        ]
        logger.info(
            "listening on %s port %d%s, bundle %s on %s",
            host,
            self.port,
            " (TLS)" if options.tls else "",
            self._served.bundle.name,
            self._served.device,
            extra={
                "fields": {
                    "event": "server.listening",
                    "host": host,
                    "port": self.port,
                    "tls": options.tls is not None,
                    "bundle": self._served.bundle.name,
                    "device": self._served.device,
                }
            },
        )

    async def _listen(
        self,
        host: str,
        port: int,
        answers: HttpAnswers,
        doorstep: Doorstep,
        tls: ssl.SSLContext | None,
    ) -> ws.Server:
        options = self._options
        # Its own logger, because at level DEBUG websockets would log what frames hold.
        transport_logger = logging.getLogger("cnerta.streamer.transport")
        transport_logger.setLevel(logging.ERROR)
        return await ws.serve(
            self._handle,
            host,
            port,
            process_request=lambda connection, request: answers.answer(request),
            process_response=_secure,
            # The library calls it and asks nothing else of it.
            create_connection=cast(type[ws.ServerConnection], partial(MeteredConnection, doorstep)),
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
            ssl=tls,
        )

    async def _listen_for_operators(self, host: str, port: int, doorstep: Doorstep) -> ws.Server:
        """Listen where the metrics are; there is no stream and no TLS."""
        hosts = Hosts(self._options.access.allowed_hosts, is_loopback(host))
        answers = HttpAnswers(self._pages.operators(), hosts.is_own, lambda request: False)
        listener = await self._listen(host, port, answers, doorstep, None)
        self.metrics_port = _port(listener)
        logger.info("metrics on %s port %d", host, self.metrics_port)
        return listener

    async def stop(self, reason: str = "shutdown") -> None:
        """Stop taking connections, give the answers still owed, close."""
        if self._listener is None or self._batcher is None or self._is_stopping:
            return
        self._is_stopping = self.admission.is_stopping = True
        logger.info(
            "stopping with %d open connections: %s",
            len(self._clients),
            reason,
            extra={"fields": {"event": "server.stopping", "connections": len(self._clients)}},
        )
        self._listener.close(close_connections=False)
        try:
            async with asyncio.timeout(self._options.drain_timeout_s):
                await self._overlays.close()
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
        for task in self._tasks:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        if self._metrics_listener is not None:
            self._metrics_listener.close()
            await self._metrics_listener.wait_closed()
        await self._batcher.close(self._options.close_timeout_s)
        logger.info("stopped", extra={"fields": {"event": "server.stopped"}})

    @property
    def stop_timeout_s(self) -> float:
        """How long :meth:`stop` may take at most."""
        options = self._options
        return options.drain_timeout_s + 4 * options.close_timeout_s + _STOP_SLACK_S

    @property
    def has_hung(self) -> bool:
        """Whether threads hang that the process cannot end in order with."""
        return self._batcher is not None and self._batcher.hanging > 0

    def _end_all(self) -> None:
        """Nothing that the engine says is to be believed."""
        for session in [*(c.session for c in self._clients), *(e.session for e in self._lot)]:
            session.fail_internally()

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
        if (
            connection.request is not None
            and urlsplit(connection.request.path).path == OVERLAY_PATH
        ):
            await self._overlays.serve(connection)
            return
        self.metrics.opened.inc()
        entered = self.admission.enter(connection.request, connection.remote_host, _now())
        try:
            await self._serve(connection, entered)
        finally:
            if isinstance(entered, Place):
                self.admission.leave(entered)

    async def _serve(self, connection: MeteredConnection, entered: Place | Refusal) -> None:
        assert self._batcher is not None
        name, limits = secrets.token_hex(8), self._options.limits
        identity = owner = ""
        if isinstance(entered, Place):
            limits = _limits_of(entered.caller, limits)
            protocol = await self._new_connection(self._served, limits, name)
            identity = entered.caller.identity
            owner = entered.address if entered.caller is ANYBODY else identity
        else:
            # A connection that is refused is not recorded.
            protocol = await _plain_connection(self._served, limits, name)
        entry = self._lot.enter(
            HostedSession(protocol, self._batcher, self._recogniser), identity, owner
        )
        account = Account(self.admission, self.metrics, entered, _now())
        client = Client(connection, entry, account)
        self._clients.add(client)
        if isinstance(entered, Refusal):
            client.session.fail(entered.error)
        elif self._is_stopping:
            client.session.go_away("shutdown")
        sender = asyncio.create_task(self._send(client))
        try:
            async for frame in connection:
                weight = connection.weight(
                    is_small=isinstance(frame, bytes) and len(frame) <= _SMALL_BYTES
                )
                if not weight:
                    self._receive(client, frame)
                    continue
                began = time.thread_time()
                self._receive(client, frame)
                spent_s = weight * (time.thread_time() - began)
                pause_s = connection.spend(spent_s + client.session.protocol.take_owed_s())
                if pause_s is not None:
                    # Frames that are here already do not make the loop turn by themselves.
                    await asyncio.sleep(pause_s)
        except ConnectionClosed:
            pass
        finally:
            account.count(client.entry, _now())
            self._part(client)
            await sender
            self._clients.discard(client)
            account.end(client, _now())
            self._has_shrunk = True

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

    def _receive(self, client: Client, frame: str | bytes) -> None:
        if client.farewell is not None:
            return
        try:
            client.session.receive(frame)
            before = client.entry
            answer_resume_request(client, self._clients, self._lot, self.metrics.on_resume)
            is_resumed = client.entry is not before
            client.account.take_frame(client.entry, len(frame), _now(), is_resumed=is_resumed)
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
        self._turned_at = _now()
        for turn in itertools.count():
            await asyncio.sleep(_TICK_S)
            lag_s = max(0.0, _now() - self._turned_at - _TICK_S)
            self._turned_at = _now()
            if self._memory.is_filling or turn % _TURNS_A_BALANCE == 0:
                sessions = {client.session for client in self._clients}
                self._memory.balance([*sessions.union(entry.session for entry in self._lot)])
            self._lot.tick(_now())
            for client in list(self._clients):
                try:
                    self._tick_client(client)
                except Exception as error:
                    self._blame(client, error)
            waited_s = 0.0 if self._batcher is None else self._batcher.wait_s
            self.admission.load.end_turn(max(lag_s, waited_s))

    async def _give_back(self) -> None:
        """Give memory back to the system that large batches and sessions have freed."""
        while True:
            await asyncio.sleep(_GIVE_BACK_S)
            if self._engine.has_swollen or self._has_shrunk:
                self._engine.has_swollen = self._has_shrunk = False
                await asyncio.to_thread(give_back)

    def _tick_client(self, client: Client) -> None:
        options = self._options
        if not client.is_superseded:
            client.session.tick()
            excess = client.account.tick(client.entry, _now())
            if excess is not None:
                client.session.fail(excess)
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

    def _count_waiting(self, lane: Lane) -> int:
        return 0 if self._batcher is None else self._batcher.count_waiting(lane)

    def _why_unfit(self) -> Unfit | None:
        """What keeps new sessions from being taken, beside load."""
        if self._watch is not None and not self._watch.is_fit:
            return "unfit"
        return "memory" if self._memory.is_short else None

    def _why_not_healthy(self) -> str | None:
        """Why the process had better be started anew, if so."""
        if self._turned_at is None or _now() - self._turned_at > _STALLED_S:
            return "event loop stalled"
        if self._batcher is None or self._batcher.is_stalled:
            return "engine stalled"
        return None


def _select_subprotocol(
    connection: ws.ServerConnection, offered: Sequence[Subprotocol]
) -> Subprotocol | None:
    """Ours if it is offered; a token among the others must not be sent back."""
    return Subprotocol(SUBPROTOCOL) if SUBPROTOCOL in offered else None


async def _plain_connection(
    model: ServedModel, limits: ConnectionLimits, session_id: str
) -> ServerProtocol:
    return ServerProtocol(model, limits, session_id, _now())


def _limits_of(caller: Caller, limits: ConnectionLimits) -> ConnectionLimits:
    rate = caller.quota.audio_rate
    return limits if rate is None else replace(limits, audio_rate=rate)


def _secure(connection: ws.ServerConnection, request: Request, response: Response) -> None:
    """Give answers of the library's own, such as those to bad handshakes, our headers too."""
    if response.status_code == http.HTTPStatus.SWITCHING_PROTOCOLS:
        return
    for name, value in SECURITY_HEADERS.items():
        if name not in response.headers:
            response.headers[name] = value


def _port(listener: ws.Server) -> int:
    port: int = listener.sockets[0].getsockname()[1]
    return port


def _explain_address(host: str, port: int, error: OSError) -> str:
    where = f"{host} port {port}"
    if error.errno == errno.EADDRINUSE:
        return f"expected {where} to be free, got a program that listens there already"
    if error.errno == errno.EACCES:
        return f"expected a port this user may listen on, got {where}"
    return f"expected an address of this machine, got {where}: {error.strerror or error}"


def _now() -> float:
    return asyncio.get_running_loop().time()
