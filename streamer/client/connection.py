"""A connection to a server; and what every connection can do, whatever answers."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Final, Protocol, Self

import websockets.exceptions
from websockets.asyncio.client import ClientConnection, connect

from cnerta.streamer.client.affinity import Affinity
from cnerta.streamer.client.connection_change import ConnectionChange, ConnectionWatcher
from cnerta.streamer.client.silence import ListenedConnection, pinged_every_s, watch_silence
from cnerta.streamer.errors import ServerUnreachableError
from cnerta.streamer.wire.addresses import exposes_secret, is_loopback, parse_address, redact
from cnerta.streamer.wire.codec import decode_server, encode
from cnerta.streamer.wire.errors import NewerMessageError, ProtocolError
from cnerta.streamer.wire.messages import ClientMessage, ServerMessage

__all__ = ["TOKEN_VARIABLE", "Connection", "WebSocketConnection"]

log = logging.getLogger(__name__)

TOKEN_VARIABLE: Final = "CNERTA_TOKEN"
"""Of the environment: the token that the commands send, and that the server asks for."""
DEFAULT_PATH: Final = "/v1/stream"
OPEN_TIMEOUT_S: Final = 10.0
CLOSE_TIMEOUT_S: Final = 10.0
_NO_CLOSE: Final = 1006
_RETRYABLE: Final = frozenset({1000, 1001, 1005, 1006, 1011, 1012, 1013, 1014, 4408, 4429})
"""Close codes after which another attempt can help; of the others the client is at fault."""
_SERVER_ERRORS: Final = 500
_RETRYABLE_STATUS: Final = frozenset({408, 425, 429})
MAX_MESSAGE_BYTES: Final = 8 * 2**20
"""Longest message accepted from a server: an `utterance.final` with every character's times
fits."""


class Connection(Protocol):
    """Carries messages to and from whatever answers. Closed by leaving it as a context manager."""

    async def send(self, message: ClientMessage) -> None:
        """Send one message.

        Raises:
            ServerUnreachableError: The connection is closed.
        """
        ...

    async def send_audio(self, block: bytes) -> None:
        """Send raw samples; waits while the other side does not keep up.

        Raises:
            ServerUnreachableError: The connection is closed.
        """
        ...

    async def receive(self) -> ServerMessage:
        """Wait for the next message.

        Raises:
            ServerUnreachableError: The connection is closed.
        """
        ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


class WebSocketConnection:
    """A `Connection` to a server.

    Use `open` to make one.
    """

    def __init__(
        self,
        shown: str,
        socket: ClientConnection,
        *,
        silence_s: float | None = None,
        watcher: ConnectionWatcher | None = None,
    ) -> None:
        """A connection that is open.

        Args:
            shown: What messages call the server: nothing that might be secret.
            socket: To it.
            silence_s: See :meth:`open`.
            watcher: See :meth:`open`.
        """
        self.shown = shown
        self._socket = socket
        self._greeted = self._noted = False
        self._silence_s = silence_s
        self._watcher = watcher
        self._listening = (
            asyncio.create_task(watch_silence(socket, silence_s, self._tell_silence))
            if isinstance(socket, ListenedConnection)
            else None
        )

    @classmethod
    async def open(
        cls,
        url: str,
        *,
        token: str | None = None,
        silence_s: float | None = None,
        watcher: ConnectionWatcher | None = None,
        affinity: Affinity | None = None,
    ) -> WebSocketConnection:
        """Connect to a server.

        Args:
            url: ``ws://host:port`` or ``wss://…``; without a path, the protocol's own is taken. One
                with a password or token in it has to be ``wss://``, or of this machine.
            token: Sent as ``Authorization: Bearer``, over ``wss://`` or to this machine only.
            silence_s: Silence after which the server counts as gone, in seconds: it is pinged more
                often than that. None: as the library does, which waits 20 s for a pong.
            watcher: Told when the server falls silent, and when it is heard again.
            affinity: What balancers said before, which is told to this one, and is told what it
                says; None: that is of no interest.

        Raises:
            ServerUnreachableError: The address is none, nothing answers there, or not with a
                WebSocket.
        """
        address = parse_address(url, ("ws", "wss"))
        shown = redact(url)
        if address is None:
            raise ServerUnreachableError(
                f"expected a server's address such as ws://127.0.0.1:8765, got {shown!r}",
                retryable=False,
            )
        if exposes_secret(address, sends_key=token is not None):
            raise ServerUnreachableError(
                f"expected wss:// for a password or token, got {shown}: it would "
                "cross the network in clear text",
                retryable=False,
            )
        if address.path in ("", "/"):
            address = address._replace(path=DEFAULT_PATH)
        shown = redact(address.geturl())
        url, watched = address.geturl(), dict[str, Any]()
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        if affinity is not None:
            headers |= affinity.headers(url)
        if silence_s is not None or watcher is not None:
            watched["create_connection"] = ListenedConnection
            watched["ping_interval"] = pinged_every_s(silence_s)
        if silence_s is not None:
            watched |= {"ping_timeout": None, "close_timeout": silence_s}
        try:
            socket = await connect(
                url,
                open_timeout=OPEN_TIMEOUT_S,
                additional_headers=headers,
                max_size=MAX_MESSAGE_BYTES,
                # Deflating raw audio costs time on both sides and saves next to nothing.
                compression=None,
                # A proxy set for the outside world cannot know this machine's own addresses.
                proxy=None if is_loopback(address.hostname or "") else True,
                **watched,
            )
        except TimeoutError as error:
            if affinity is not None:
                # A balancer may wait for a replica that says nothing.
                affinity.forget()
            raise ServerUnreachableError(
                f"expected a server at {shown}, got no answer in {OPEN_TIMEOUT_S:g} s"
            ) from error
        except (OSError, ValueError, websockets.exceptions.WebSocketException) as error:
            # Some say nothing of themselves, such as a TLS greeting that met a plain server.
            reason = redact(str(error)) or type(error).__name__
            failure = _not_open(f"expected a server at {shown}, got: {reason}", error)
            if affinity is not None and (failure.code or 0) >= _SERVER_ERRORS:
                affinity.forget()
            raise failure from error
        if affinity is not None and socket.response is not None:
            affinity.note(url, socket.response.headers)
        return cls(shown, socket, silence_s=silence_s, watcher=watcher)

    async def send(self, message: ClientMessage) -> None:
        """Send one message as a text frame."""
        with self._explained():
            await self._socket.send(encode(message), text=True)

    async def send_audio(self, block: bytes) -> None:
        """Send raw samples as a binary frame; waits while the server does not read."""
        with self._explained():
            await self._socket.send(block)

    async def receive(self) -> ServerMessage:
        """Wait for the next message, passing over those that only newer servers have."""
        with self._explained():
            while True:
                try:
                    message = decode_server(await self._socket.recv())
                except NewerMessageError as error:
                    # What greets in another way speaks another protocol, not a newer version.
                    if not self._greeted:
                        raise
                    level = logging.DEBUG if self._noted else logging.WARNING
                    log.log(level, "passing over a message of a newer server: %s", error.detail)
                    self._noted = True
                else:
                    self._greeted = True
                    return message

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except websockets.exceptions.ConnectionClosed as error:
            code = _NO_CLOSE if error.rcvd is None else error.rcvd.code
            why = str(error)
            if isinstance(self._socket, ListenedConnection) and self._socket.is_silent:
                why = f"nothing for {self._silence_s:g} s"
            raise ServerUnreachableError(
                f"expected {self.shown} to stay until the summary, got: {why}",
                code=code,
                retryable=code in _RETRYABLE,
            ) from error
        except ProtocolError as error:
            raise ServerUnreachableError(
                f"expected messages of protocol version 1 from {self.shown}, got one with {error}",
                retryable=False,
            ) from error

    def _tell_silence(self, is_silent: bool, after_s: float) -> None:
        if self._watcher is None:
            return
        if is_silent:
            change = ConnectionChange("silent", self.shown, f"for {after_s:g} s")
        else:
            change = ConnectionChange("heard", self.shown)
        try:
            self._watcher.on_connection(change)
        except OSError as error:
            # Nobody reads what it prints any more: the next message finds that out, and ends it.
            log.debug("not told that %s: %s", change, error)

    async def abort(self) -> None:
        """End the connection at once, without a word."""
        self._socket.transport.abort()
        await self._stop_listening()

    async def _stop_listening(self) -> None:
        if self._listening is not None:
            self._listening.cancel()
            await asyncio.gather(self._listening, return_exceptions=True)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._stop_listening()
        try:
            # The library waits without end until what was sent is out.
            async with asyncio.timeout(self._silence_s or CLOSE_TIMEOUT_S):
                await self._socket.close()
        except TimeoutError:
            self._socket.transport.abort()


def _not_open(message: str, error: Exception) -> ServerUnreachableError:
    """Why a handshake failed, and whether another one can succeed."""
    if not isinstance(error, websockets.exceptions.InvalidStatus):
        return ServerUnreachableError(message)
    status = error.response.status_code
    wanted = error.response.headers.get("Retry-After", "")
    return ServerUnreachableError(
        message,
        code=status,
        retryable=status >= _SERVER_ERRORS or status in _RETRYABLE_STATUS,
        retry_after_s=float(wanted) if wanted.isdecimal() else 0.0,
    )
