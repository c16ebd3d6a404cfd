"""The WebSocket server: connections to sessions, sessions to the engine, and HTTP beside it.

Every connection has a task that reads, which never waits for anything but the socket, so that
pongs and closes are never held up; and a task that sends, which waits for slow readers while the
session's outbox merges what comes after. Inference runs in the batcher's thread.

Nothing that clients send is logged, and nothing is kept unless the operator has it recorded.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import math
import secrets
import socket
import ssl
import time
import uuid
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Final, Self
from urllib.parse import parse_qs, urlsplit

import websockets.asyncio.server as ws
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from cnerta.models.runtime.memory import give_back
from cnerta.streamer.access.admission import AccessOptions, Admission, Place, Refusal, Unfit
from cnerta.streamer.access.callers import ANYBODY, Caller
from cnerta.streamer.access.doorstep import Doorstep
from cnerta.streamer.access.hosts import Hosts
from cnerta.streamer.access.token_signer import TokenSigner
from cnerta.streamer.access.tokens import Tokens
from cnerta.streamer.apis.deepgram_query import LISTEN_PATH
from cnerta.streamer.apis.entities_request import ENTITIES_PATH
from cnerta.streamer.apis.tongue import Aside, Flush, Heard, Reply
from cnerta.streamer.serving.account import Account
from cnerta.streamer.serving.batcher import Batcher
from cnerta.streamer.serving.client import Client
from cnerta.streamer.serving.engine import Engine, Inference, describe_failure
from cnerta.streamer.serving.engine_watch import EngineWatch
from cnerta.streamer.serving.hosted_session import HostedSession
from cnerta.streamer.serving.http.deepgram_door import DeepgramDoor, is_listen, make_tongue
from cnerta.streamer.serving.http.deepgram_file import FILE_LIMITS, DeepgramFiles
from cnerta.streamer.serving.http.entities import ENTITIES_LIMITS, Entities
from cnerta.streamer.serving.http.request_door import Asked, RequestDoor
from cnerta.streamer.serving.http_answers import HttpAnswers
from cnerta.streamer.serving.listener import Listener, Transport
from cnerta.streamer.serving.listening import AddressError, explain_address, log_listening
from cnerta.streamer.serving.memory_budget import MemoryBudget
from cnerta.streamer.serving.metrics import ServerMetrics, SharedMetrics
from cnerta.streamer.serving.overlays import OVERLAY_PATH, Overlays
from cnerta.streamer.serving.pages import METRICS_PATH, Pages
from cnerta.streamer.serving.parking import ParkingLot, ParkingOptions
from cnerta.streamer.serving.reading.metered_connection import MeteredConnection
from cnerta.streamer.serving.recognition import Recogniser
from cnerta.streamer.serving.resuming import answer_resume_request
from cnerta.streamer.serving.sharing.group import Group
from cnerta.streamer.serving.sharing.handed import Handed
from cnerta.streamer.serving.sharing.relay import Relay
from cnerta.streamer.session.connection import Close, ServedModel, ServerProtocol
from cnerta.streamer.session.limits import ConnectionLimits
from cnerta.streamer.session.work import Lane
from cnerta.streamer.wire.addresses import is_loopback
from cnerta.streamer.wire.asyncapi import STREAM_PATH
from cnerta.streamer.wire.errors import ErrorName, ProtocolError
from cnerta.streamer.wire.messages import Keepalive

__all__ = ["NewConnection", "Server", "ServerOptions"]

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


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """How the server runs.

    Attributes:
        limits: What it takes from one connection.
        max_sessions: Most connections at once.
        origins: Values of the Origin header that are accepted beside that of a page of this server
            itself, see :func:`cnerta.streamer.access.origins.is_allowed`; ``*``: any.
        tokens: Those that open a session; none: everybody may.
        token_signer: Signs tokens for one session; None: they are good for this server only.
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
    token_signer: TokenSigner | None = None
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

    @property
    def stop_timeout_s(self) -> float:
        """How long a stop may take at most."""
        return self.drain_timeout_s + 4 * self.close_timeout_s + _STOP_SLACK_S


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
        group: Group | None = None,
    ) -> None:
        """Prepare to serve.

        Args:
            model: What answers.
            options: How the server runs.
            new_connection: Makes the protocol of each connection that is taken, a recorded one for
                example; None: a plain one.
            recogniser: Writes the transcript for clients that want that; the caller closes it.
            group: The servers that share its port; None: it has one of its own.
        """
        shared = None
        if group is not None:
            options = _share_of(options, group.size)
            shared = SharedMetrics(group.metrics_folder, group.process_ids)
        self._group = group
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
            shared=shared,
        )
        self.lost_finals = 0
        self.admission = Admission(
            options.access,
            max_sessions=options.max_sessions,
            origins=options.origins,
            tokens=options.tokens,
            count_expected=lambda: len(self._lot),
            is_overloaded=lambda: self._batcher is None or self._batcher.is_overloaded,
            why_unfit=self._why_unfit,
            ledger=None if group is None else group.ledger,
            token_signer=options.token_signer,
        )
        self._lot = ParkingLot(
            options.parking,
            self.metrics,
            None if group is None else group.new_token,
            self.admission.session_tokens.end,
        )
        self._pages = Pages(
            self.admission,
            self.metrics,
            self._why_none_is_healthy,
            self._why_none_is_ready,
            is_encrypted=options.tls is not None,
            now=_now,
        )
        self._overlays = Overlays(self.admission)
        self._entities = Entities(
            RequestDoor(self.admission, self.metrics, ENTITIES_LIMITS),
            self._served,
            options.limits,
            self._new_connection,
        )
        self._deepgram_files = DeepgramFiles(
            RequestDoor(self.admission, self.metrics, FILE_LIMITS),
            self._served,
            options.limits,
            self._new_connection,
            recogniser,
        )
        self._deepgram = DeepgramDoor(self.admission, self.metrics, recogniser is not None)
        self._turned_at: float | None = None
        self._engine = Engine(model, max_batch=options.max_batch)
        self._is_stopping = False
        self._batcher: Batcher | None = None
        self._watch: EngineWatch | None = None
        self._listener: Listener | None = None
        self._metrics_listener: Listener | None = None
        self._relays: set[asyncio.Task[None]] = set()
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> None:
        """Listen.

        Args:
            host: Address or name of the interface.
            port: 0 takes a free one.

        Raises:
            AddressError: The port is taken or the address is not this machine's.
        """
        self._start_engine()
        assert self._batcher is not None
        self._listener, self._metrics_listener = self._listeners(host)
        options = self._options
        try:
            await self._listener.listen(host, port)
            if self._metrics_listener is not None and options.metrics_address is not None:
                host_of_metrics, port_of_metrics = options.metrics_address
                try:
                    await self._metrics_listener.listen(host_of_metrics, port_of_metrics)
                except OSError:
                    host, port = host_of_metrics, port_of_metrics
                    raise
                self.metrics_port = self._metrics_listener.port
                logger.info("metrics on %s port %d", host_of_metrics, self.metrics_port)
        except OSError as error:
            self._listener.close()
            with contextlib.suppress(AttributeError):
                await self._listener.wait_closed()
            self._listener = None
            await self._batcher.close()
            raise AddressError(explain_address(host, port, error)) from error
        self.port = self._listener.port
        self._start_tasks()
        log_listening(
            logger,
            host,
            self.port,
            tls=options.tls is not None,
            bundle=self._served.bundle.name,
            device=self._served.device,
        )

    def _listener_of(
        self, answers: HttpAnswers, doorstep: Doorstep, tls: ssl.SSLContext | None
    ) -> Listener:
        options = self._options
        transport = Transport(
            _HARD_FRAME_FACTOR * options.limits.max_frame_bytes,
            options.write_buffer_bytes,
            options.ping_interval_s,
            options.close_timeout_s,
            tls,
        )

        def answer(
            connection: MeteredConnection, request: Request
        ) -> Response | Awaitable[Response | None] | None:
            if self._group is not None and request.path.partition("?")[0] == METRICS_PATH:
                # The files of all servers are read for it.
                return asyncio.to_thread(answers.answer, request)
            return (
                answers.answer(request)
                or self._answer_content(connection, request, answers)
                or self._refuse_to_listen(connection, request)
            )

        content_paths = tuple(answers.with_content)
        return Listener(
            self._handle,
            answer,
            doorstep,
            transport,
            content_paths,
            may_give_away=self._group is not None,
        )

    def _answer_content(
        self, connection: MeteredConnection, request: Request, answers: HttpAnswers
    ) -> Awaitable[Response] | None:
        """Answer a request that may have content."""
        content, batcher = connection.content, self._batcher
        if content is None or batcher is None:
            return None

        async def answer() -> Response:
            asked = Asked(request, connection.remote_host, content, connection.permit_content)
            service = self._deepgram_files if is_listen(request) else self._entities
            answer = await service.answer(asked, batcher)
            return answers.allowed_to_read(request, answer).response()

        return answer()

    def _refuse_to_listen(self, connection: MeteredConnection, request: Request) -> Response | None:
        """Answer a client of Deepgram that is not taken."""
        if not is_listen(request):
            return None
        connection.request_id = str(uuid.uuid4())
        answer = self._deepgram.refusal(
            request, connection.remote_host, connection.request_id, _now()
        )
        return None if answer is None else answer.response()

    def _listeners(self, host: str) -> tuple[Listener, Listener | None]:
        """For clients, and for operators if they have an address of their own.

        Args:
            host: Where clients come.
        """
        options = self._options
        self.admission.hosts = Hosts(options.access.allowed_hosts, is_loopback(host))
        doorstep = Doorstep(
            options.access.max_waiting_per_address,
            self.admission.stands_for_many,
            share=1 if self._group is None else self._group.size,
        )
        answers = HttpAnswers(
            self._pages.public(with_metrics=options.metrics_address is None),
            self.admission.hosts.is_own,
            self.admission.may_come_from_there,
            passed_on=(STREAM_PATH, LISTEN_PATH, OVERLAY_PATH),
            with_content=(ENTITIES_PATH, LISTEN_PATH),
        )
        public = self._listener_of(answers, doorstep, options.tls)
        if options.metrics_address is None:
            return public, None
        hosts = Hosts(options.access.allowed_hosts, is_loopback(options.metrics_address[0]))
        # There is no stream and no TLS.
        own = HttpAnswers(self._pages.operators(), hosts.is_own, lambda request: False)
        return public, self._listener_of(own, doorstep, None)

    def _start_engine(self) -> None:
        options = self._options
        self._batcher = Batcher(
            self._engine,
            max_batch=options.max_batch,
            observer=self.metrics,
            timeout_s=options.batch_timeout_s,
        )
        self._watch = EngineWatch(
            self._batcher.check, self._end_all, self.metrics, every_s=options.self_test_s
        )

    def _start_tasks(self) -> None:
        assert self._watch is not None
        self._tasks = [
            asyncio.create_task(self._tick()),
            asyncio.create_task(self._watch.run()),
            asyncio.create_task(self._give_back()),
        ]

    async def start_behind(self, host: str, folder: Path) -> None:
        """Take connections that :meth:`adopt` is given.

        Args:
            host: Where somebody else listens for this server.
            folder: Of this server's own, for sockets.
        """
        self._start_engine()
        self._listener, self._metrics_listener = self._listeners(host)
        await self._listener.wait_for_handed(folder / "public")
        if self._metrics_listener is not None:
            await self._metrics_listener.wait_for_handed(folder / "operators")
        self._start_tasks()

    async def adopt(
        self,
        client: socket.socket,
        handed: Handed | None = None,
        *,
        remote: str = "",
        for_operators: bool = False,
    ) -> None:
        """Take a connection that was accepted elsewhere.

        Args:
            client: Its socket.
            handed: What else was done with it.
            remote: Address of its other end, where the socket does not know that.
            for_operators: Whether it came to their address.
        """
        listener = self._metrics_listener if for_operators else self._listener
        if listener is None or self._is_stopping:
            client.close()
            return
        # A client may hang up, or speak no TLS; nobody else has to know.
        with contextlib.suppress(OSError, TimeoutError):
            await listener.adopt(client, handed, remote=remote)

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
        self._listener.close()
        try:
            async with asyncio.timeout(self._options.drain_timeout_s):
                await self._overlays.close()
                await self._send_away(reason)
                await self._listener.wait_closed()
                if self._relays:
                    await asyncio.wait(self._relays)
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
        return self._options.stop_timeout_s

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
            await self._serve_overlay(connection, connection.request)
            return
        entered: Place | Refusal
        if connection.handed is not None:
            entered = self.admission.move_in(connection.handed.place, _now())
        else:
            self.metrics.opened.inc()
            entered = self.admission.enter(
                connection.request,
                connection.remote_host,
                _now(),
                may_come_back=connection.request is None or not is_listen(connection.request),
            )
        try:
            await self._serve(connection, entered)
        finally:
            if isinstance(entered, Place):
                self.admission.leave(entered)

    async def _serve_overlay(self, connection: MeteredConnection, request: Request) -> None:
        """A page and its overlays meet at one server, whichever each of them came to."""
        group = self._group
        if group is None:
            await self._overlays.serve(connection)
            return
        key = parse_qs(urlsplit(request.path).query).get("key", [""])[0]
        is_here = connection.handed is not None
        other = group.meet(key, is_here=is_here)
        if other is not None:
            self._give_away(connection, group, other, Place(ANYBODY, self._address(connection)))
            return
        connection.forget_opening()
        try:
            await self._overlays.serve(connection)
        finally:
            group.part(key)

    def _address(self, connection: MeteredConnection) -> str:
        return self.admission.peer(connection.remote_host, connection.request)

    async def _serve(self, connection: MeteredConnection, entered: Place | Refusal) -> None:
        assert self._batcher is not None
        name, limits = connection.request_id or secrets.token_hex(8), self._options.limits
        tongue = make_tongue(connection.request, connection.request_id)
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
            HostedSession(protocol, self._batcher, self._recogniser),
            identity,
            owner,
            may_resume=tongue is None,
        )
        if isinstance(entered, Place) and entered.token is not None:
            if entered.comes_back:
                protocol.expect_return()
            else:
                entry.opened_by = entered.token.key
        account = Account(
            self.admission, self.metrics, entered, _now(), is_new=connection.handed is None
        )
        client = Client(connection, entry, account, tongue)
        self._clients.add(client)
        if isinstance(entered, Refusal):
            client.session.fail(entered.error)
        elif self._is_stopping:
            client.session.go_away("shutdown")
        sender = asyncio.create_task(self._send(client))
        if tongue is not None:
            connection.forget_opening()
            self._take(client, tongue.opening)
        try:
            async for frame in connection:
                weight = connection.weight(
                    is_small=isinstance(frame, bytes) and len(frame) <= _SMALL_BYTES
                )
                if not weight:
                    self._receive(client, frame)
                    if client.is_handed_over:
                        break
                    continue
                began = time.thread_time()
                self._receive(client, frame)
                if client.is_handed_over:
                    break
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
        if client.is_handed_over:
            self._lot.leave(client.entry)
        elif self._is_stopping and not client.closed_cleanly:
            self.lost_finals += self._lot.give_up(client.entry, "shutdown")
        elif client.closed_cleanly:
            self._lot.leave(client.entry)
        else:
            self._lot.park(client.entry, _now())

    def _receive(self, client: Client, frame: str | bytes) -> None:
        if client.farewell is not None:
            return
        tongue = client.tongue
        if tongue is not None:
            self._take(client, lambda: tongue.hear(frame), len(frame))
            return
        try:
            client.session.receive(frame)
            if self._group is not None and self._hand_over(client, self._group):
                return
            before = client.entry
            answer_resume_request(client, self._clients, self._lot, self.metrics.on_resume)
            is_resumed = client.entry is not before
            client.account.take_frame(client.entry, len(frame), _now(), is_resumed=is_resumed)
        except Exception as error:
            self._blame(client, error)

    def _hand_over(self, client: Client, group: Group) -> bool:
        """Give a connection to the server that has its session. Returns whether it is given."""
        protocol, place = client.session.protocol, client.account.place
        request = protocol.resume_request
        if request is None or place is None:
            if protocol.session is not None or protocol.is_closed:
                client.connection.forget_opening()
            return False
        to = group.has_session_of(request.token)
        if to is not None and self._give_away(client.connection, group, to, place):
            self.admission.move_out(place)
            client.leave()
            return True
        client.connection.forget_opening()
        return False

    def _give_away(
        self, connection: MeteredConnection, group: Group, to: str, place: Place
    ) -> bool:
        """Give a connection to another server. Returns whether it is gone from here."""
        detached = connection.detach()
        if detached is None:
            return False
        opening, end, relay = detached
        with end:
            handed = Handed(opening, connection.remote_host, replace(place))
            if group.hand_over(to, end, handed):
                self.metrics.handed_over.inc()
                if relay is not None:
                    self._carry(relay)
        return True

    def _carry(self, relay: Relay) -> None:
        """Carry bytes for another server, as long as there are any."""
        task = asyncio.create_task(relay.run())
        self._relays.add(task)
        task.add_done_callback(self._relays.discard)

    def _take(self, client: Client, hear: Callable[[], Iterable[Heard]], size: int = 0) -> None:
        """Take what a client says in a tongue of its own."""
        session = client.session
        try:
            for heard in hear():
                if isinstance(heard, Flush):
                    session.flush()
                elif isinstance(heard, Reply):
                    session.put_aside(heard)
                elif isinstance(heard, bytes):
                    session.receive(heard)
                else:
                    session.receive_message(heard)
            client.account.take_frame(client.entry, size, _now(), is_resumed=False)
        except ProtocolError as error:
            session.fail(error)
        except Exception as error:
            self._blame(client, error)

    async def _send(self, client: Client) -> None:
        """Send a session's messages until it ends, then close the connection."""
        connection = client.connection
        try:
            while (message := await client.next_message()) is not None:
                for frame in client.written(message):
                    await connection.send(frame, text=True)
                if not isinstance(message, Aside):
                    self.metrics.on_sent(message, client.entry.flicker)
            protocol, parting = client.session.protocol, client.parting
            close = protocol.close
            if parting is not None:
                close = Close(parting.name.code, parting.name.wire_name)
                for frame in client.written(parting.message()):
                    await connection.send(frame, text=True)
            if close is not None:
                self.metrics.closed.labels(str(close.code)).inc()
                close = client.closing(close)
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
            if turn % _TURNS_A_BALANCE == 0:
                self.metrics.refresh()
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
            if client.connection.take_pinged():
                # Who pings is there. Answers to our own pings say less: every library gives them.
                client.session.receive_message(Keepalive())
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

    @property
    def count_sessions(self) -> int:
        """How many sessions there are, with or without a connection, and connections of others."""
        return len(self._clients) + len(self._lot) + len(self._relays)

    @property
    def count_open(self) -> int:
        """How many connections are open, whatever they are for."""
        return (0 if self._listener is None else self._listener.count_open) + len(self._relays)

    def why_not_ready(self) -> str | None:
        """Why this server takes no session, if so."""
        return self.why_not_healthy() or self.admission.why_not_ready(_now())

    def _why_none_is_ready(self) -> str | None:
        own = self.why_not_ready()
        return own if self._group is None else self._group.why_not_ready(own)

    def _why_none_is_healthy(self) -> str | None:
        own = self.why_not_healthy()
        return own if self._group is None else self._group.why_not_healthy(own)

    def why_not_healthy(self) -> str | None:
        """Why the process had better be started anew, if so."""
        if self._turned_at is None or _now() - self._turned_at > _STALLED_S:
            return "event loop stalled"
        if self._batcher is None or self._batcher.is_stalled:
            return "engine stalled"
        return None


async def _plain_connection(
    model: ServedModel, limits: ConnectionLimits, session_id: str
) -> ServerProtocol:
    return ServerProtocol(model, limits, session_id, _now())


def _share_of(options: ServerOptions, size: int) -> ServerOptions:
    """What one of several servers may take of what is divided among them."""
    parking = options.parking
    return replace(
        options,
        memory_mb=math.ceil(options.memory_mb / size),
        parking=replace(
            parking,
            most=math.ceil(parking.most / size),
            most_bytes=math.ceil(parking.most_bytes / size),
        ),
    )


def _limits_of(caller: Caller, limits: ConnectionLimits) -> ConnectionLimits:
    rate = caller.quota.audio_rate
    return limits if rate is None else replace(limits, audio_rate=rate)


def _now() -> float:
    return asyncio.get_running_loop().time()
