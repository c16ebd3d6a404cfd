"""A connection to a server; and what every connection can do, whatever answers."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from types import TracebackType
from typing import Final, Protocol, Self

import websockets.exceptions
from websockets.asyncio.client import ClientConnection, connect

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

    def __init__(self, shown: str, socket: ClientConnection) -> None:
        """A connection that is open.

        Args:
            shown: What messages call the server: nothing that might be secret.
            socket: To it.
        """
        self._shown = shown
        self._socket = socket
        self._greeted = self._noted = False

    @classmethod
    async def open(cls, url: str, *, token: str | None = None) -> WebSocketConnection:
        """Connect to a server.

        Args:
            url: ``ws://host:port`` or ``wss://…``; without a path, the protocol's own is taken. One
                with a password or token in it has to be ``wss://``, or of this machine.
            token: Sent as ``Authorization: Bearer``, over ``wss://`` or to this machine only.

        Raises:
            ServerUnreachableError: The address is none, nothing answers there, or not with a
                WebSocket.
        """
        address = parse_address(url, ("ws", "wss"))
        shown = redact(url)
        if address is None:
            raise ServerUnreachableError(
                f"expected a server's address such as ws://127.0.0.1:8765, got {shown!r}"
            )
        if exposes_secret(address, sends_key=token is not None):
            raise ServerUnreachableError(
                f"expected wss:// for a password or token, got {shown}: it would "
                "cross the network in clear text"
            )
        if address.path in ("", "/"):
            address = address._replace(path=DEFAULT_PATH)
        shown = redact(address.geturl())
        try:
            socket = await connect(
                address.geturl(),
                open_timeout=OPEN_TIMEOUT_S,
                additional_headers={"Authorization": f"Bearer {token}"} if token else None,
                max_size=MAX_MESSAGE_BYTES,
                # Deflating raw audio costs time on both sides and saves next to nothing.
                compression=None,
                # A proxy set for the outside world cannot know this machine's own addresses.
                proxy=None if is_loopback(address.hostname or "") else True,
            )
        except TimeoutError as error:
            raise ServerUnreachableError(
                f"expected a server at {shown}, got no answer in {OPEN_TIMEOUT_S:g} s"
            ) from error
        except (OSError, ValueError, websockets.exceptions.WebSocketException) as error:
            # Some say nothing of themselves, such as a TLS greeting that met a plain server.
            reason = redact(str(error)) or type(error).__name__
            raise ServerUnreachableError(f"expected a server at {shown}, got: {reason}") from error
        return cls(shown, socket)

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
            raise ServerUnreachableError(
                f"expected {self._shown} to stay until the summary, got: {error}"
            ) from error
        except ProtocolError as error:
            raise ServerUnreachableError(
                f"expected messages of protocol version 1 from {self._shown}, got one with {error}"
            ) from error

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._socket.close()
