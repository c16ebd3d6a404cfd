"""A WebSocket connection that takes no more than its share of the event loop.

An event loop reads up to 256 kB at once, and the library takes all the frames in it before anybody
else has a turn: 40,000 pings, or audio frames of one sample, are half a second. Here little is read
at once, so that little is left to do for one who has hung up. What was read is handed on in slices,
the time of each is counted, and a connection that has had its share is not read from for a while.
That holds for everything a client can send, control frames too, and for what is still unread when
it hangs up: the end waits until all of that is read.
"""

from __future__ import annotations

import asyncio
import contextlib
import http
import os
import random
import socket
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Final, Literal, cast

import websockets.asyncio.server as ws
from websockets.exceptions import InvalidMessage
from websockets.frames import Frame, Opcode
from websockets.protocol import State

from cnerta.streamer.access.doorstep import Doorstep
from cnerta.streamer.serving.http.content import (
    BrokenContentError,
    RequestContent,
    may_have_content,
)
from cnerta.streamer.serving.http_answers import refused
from cnerta.streamer.serving.reading_budget import ReadingBudget
from cnerta.streamer.serving.sharing.handed import Handed
from cnerta.streamer.serving.sharing.relay import NoTransport, Relay

__all__ = ["MeteredConnection"]

_READ_BYTES: Final = 8_192
_SLICE_BYTES: Final = 2_048
_SAMPLE_BITS: Final = 3
_BAD_REQUEST: Final = (
    refused(http.HTTPStatus.BAD_REQUEST, "expected an HTTP request without content, got another")
    .response()
    .serialize()
)
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_OPENING_S: Final = 10.0
"""How long a request may take to come."""
_Reason = Literal["queue", "budget", "opening", "detached", "content"]
_MOST_OPENING_BYTES: Final = 2**20
_END_OF_HEAD: Final = b"\r\n\r\n"


class MeteredConnection(ws.ServerConnection, asyncio.BufferedProtocol):
    """See the module. What a connection costs elsewhere is told to :meth:`spend`.

    Attributes:
        remote_host: Address of the other end, a proxy's perhaps.
        handed: What another process said of it that has handed it over; None: it came here first.
        request_id: What its client is told that it is called, if it is.
        content: Of a request that may have some.
    """

    def __init__(
        self,
        doorstep: Doorstep,
        *arguments: Any,
        content_paths: tuple[str, ...] = (),
        handed: Handed | None = None,
        keeps_opening: bool = False,
        **options: Any,
    ) -> None:
        """Begin.

        Args:
            doorstep: Counts those whose handshake has not come.
            arguments: Of the library.
            content_paths: What requests with content may be for.
            handed: See above.
            keeps_opening: Keep what comes until :meth:`forget_opening`, so that the connection can
                be given to another process.
            options: Of the library.
        """
        super().__init__(*arguments, **options)
        self.handed = handed
        self._is_greeted = handed is None
        self._opening = bytearray() if keeps_opening else None
        self._is_detached = False
        self._doorstep = doorstep
        self._is_on_doorstep = self._is_turned_away = self._was_pinged = False
        self.remote_host = self.request_id = ""
        self._budget = ReadingBudget()
        # What fills it cuts it up: of a bytearray it would fill copies.
        self._buffer = memoryview(bytearray(_READ_BYTES))
        self._unread = bytearray()
        self._held: set[_Reason] = set()
        self._explained = False
        self._has_ended = False
        self._lost: Callable[[], None] | None = None
        self._heard_at = self.loop.time()
        self._content_paths = content_paths
        self._start = bytearray()
        self._has_started = False
        self.content: RequestContent | None = None
        self._request_timer: asyncio.TimerHandle | None = None

    def send_data(self) -> None:
        """Send what the library has to send.

        Where it could make nothing of a request, that is nothing, and whoever asked would guess.
        """
        if self._is_detached or not self._is_greeted:
            # The other process says what is to be said, or has answered the handshake.
            self.protocol.data_to_send()
            if not self._is_greeted and self.state is not State.CONNECTING:
                self._is_greeted = True
                self.loop.call_soon(self._release, "opening")
            return
        unread = self.protocol.handshake_exc
        if isinstance(unread, InvalidMessage) and not self._explained:
            self._explained = True
            if not self.transport.is_closing():
                self.transport.write(_BAD_REQUEST)
        super().send_data()

    def spend(self, seconds: float) -> float | None:
        """A frame took so long beyond reading it; see :meth:`ReadingBudget.spend`."""
        return self._budget.spend(seconds, self.loop.time())

    def silent_s(self, now: float) -> float:
        """For how long nothing has come, pongs included, while it was listened for."""
        return 0.0 if self._held else now - self._heard_at

    def take_pinged(self) -> bool:
        """Whether the other end has pinged since this was asked last."""
        was_pinged, self._was_pinged = self._was_pinged, False
        return was_pinged

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See :class:`asyncio.Protocol`."""
        if self.handed is not None:
            self._go_on(self.handed, transport)
            return
        address = transport.get_extra_info("peername")
        self.remote_host = str(address[0]) if address else ""
        self._is_on_doorstep = self._doorstep.enter(self.remote_host, self.loop.time())
        if not self._is_on_doorstep:
            # The library, to which each connection is a task, never hears of it.
            self._is_turned_away = True
            cast(asyncio.Transport, transport).abort()
            return
        self._begin(transport)

    def _begin(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._request_timer = self.loop.call_later(_OPENING_S, self.transport.abort)
        # The library pauses the transport itself while frames wait; two must not undo each other.
        self.recv_messages.pause = partial(self._hold, "queue")
        self.recv_messages.resume = partial(self._release, "queue")

    def get_buffer(self, sizehint: int) -> memoryview:
        """See :class:`asyncio.BufferedProtocol`."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """See :class:`asyncio.BufferedProtocol`."""
        self.data_received(bytes(self._buffer[:nbytes]))

    def _go_on(self, handed: Handed, transport: asyncio.BaseTransport) -> None:
        """Take what came elsewhere as if it came now; only the request, until that is accepted."""
        self.remote_host = handed.remote
        self._begin(transport)
        head, end, rest = handed.opening.partition(_END_OF_HEAD)
        self._has_started = True
        self._hold("opening")
        self._unread += rest
        super().data_received(head + end)

    def forget_opening(self) -> None:
        """The connection stays here."""
        self._opening = None

    def detach(self) -> tuple[bytes, socket.socket, Relay | None] | None:
        """Give the connection away: for this process it has ended, and nobody is told.

        Returns:
            What has come, a socket for the other process, which whoever gives it away closes here,
            and what has to run where the connection is encrypted; None: it cannot be given away.
        """
        transport = self.transport
        if self._opening is None or transport.is_closing() or transport.get_write_buffer_size():
            return None
        self._hold("detached")
        opening, relay = bytes(self._opening), None
        if transport.get_extra_info("ssl_object") is None:
            end = socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno()))
        else:
            relay = Relay(transport)
            end = relay.other_end
        self._is_detached = True
        self._opening = None
        if relay is None:
            transport.abort()  # of this process' copy
        else:
            self.transport = NoTransport()
            self.loop.call_soon(self.connection_lost, None)
        return opening, end, relay

    def data_received(self, data: bytes) -> None:
        """See :class:`asyncio.Protocol`."""
        if self._opening is not None:
            self._opening += data
            if len(self._opening) > _MOST_OPENING_BYTES:
                self._opening = None
        self._heard_at = self.loop.time()
        if self._held or self._unread or len(data) > _SLICE_BYTES:
            self._unread += data
            self._read_on()
        else:
            self._read(data)

    def eof_received(self) -> bool | None:  # type: ignore[override]
        """See :class:`asyncio.Protocol`: who waits for an answer may have closed its half."""
        if self._unread:
            self._has_ended = True
        else:
            self._end_input()
        return True if self.content is not None else None

    def connection_lost(self, exc: Exception | None) -> None:
        """See :class:`asyncio.Protocol`: what came before the end is not lost."""
        if self._is_turned_away:
            return
        if self.state is not State.OPEN or self._is_detached:
            self._unread.clear()  # nobody waits for it, here
        self._leave_doorstep()
        if self._request_timer is not None:
            self._request_timer.cancel()
        if self.content is not None:
            self.content.end()
        self._lost = partial(super().connection_lost, exc)
        self._read_on()

    def process_event(self, event: Any) -> None:
        """Take the request, or a frame."""
        self._leave_doorstep()
        if self._request_timer is not None:
            self._request_timer.cancel()
            self._request_timer = None
        self._was_pinged |= isinstance(event, Frame) and event.opcode is Opcode.PING
        super().process_event(event)

    def _leave_doorstep(self) -> None:
        if self._is_on_doorstep:
            self._is_on_doorstep = False
            self._doorstep.leave(self.remote_host)

    def _end_input(self) -> None:
        if self.content is not None:
            # Who has sent all of it may wait for the answer with its half of the line closed.
            self.content.end()
        else:
            super().eof_received()

    def permit_content(self) -> None:
        """Tell a client that waits for it to send the content."""
        if self.content is not None and self.content.wants_permission:
            self.transport.write(_CONTINUE)

    def _pass_on(self, piece: bytes) -> None:
        """Give what was read to the library, but for the content of a request."""
        if not self._has_started:
            self._start += piece
            has_content = may_have_content(bytes(self._start), self._content_paths)
            if has_content is None:
                return
            self._has_started = True
            piece, self._start = bytes(self._start), bytearray()
            if has_content:
                self._opening = None  # it stays here
                self.content = RequestContent(
                    partial(self._hold, "content"), partial(self._release, "content")
                )
        if self.content is not None:
            try:
                piece = self.content.feed(piece)
            except BrokenContentError:
                self.transport.write(_BAD_REQUEST)
                self.transport.close()
                return
        if piece:
            super().data_received(piece)

    def _end(self) -> None:
        """Everything was read: what was put off happens."""
        if self._has_ended:
            self._has_ended = False
            self._end_input()
        if self._lost is not None:
            lost, self._lost = self._lost, None
            lost()

    def _read_on(self) -> None:
        while self._unread and not self._held and not self._is_detached:
            piece = bytes(self._unread[:_SLICE_BYTES])
            del self._unread[:_SLICE_BYTES]
            self._read(piece)
        if not self._unread:
            self._end()

    def weight(self, *, is_small: bool) -> int:
        """How much the time of what comes now counts; 0: it need not be measured.

        To ask for the processor's time costs as much as to take a small frame of audio. So of small
        ones every eighth is measured, by chance, so that no client knows which.
        """
        if not is_small:
            return 1
        return 0 if random.getrandbits(_SAMPLE_BITS) else 2**_SAMPLE_BITS

    def _read(self, piece: bytes) -> None:
        weight = self.weight(is_small=len(piece) < _SLICE_BYTES and not self._unread)
        if not weight:
            self._pass_on(piece)
            return
        began = time.thread_time()
        self._pass_on(piece)
        pause_s = self.spend(weight * (time.thread_time() - began))
        if pause_s is not None and (pause_s or self._unread):
            self._hold("budget")
            self.loop.call_later(pause_s, self._release, "budget")

    def _hold(self, reason: _Reason) -> None:
        if not self._held:
            with contextlib.suppress(RuntimeError):  # it is closing
                self.transport.pause_reading()
        self._held.add(reason)

    def _release(self, reason: _Reason) -> None:
        if self._is_detached:
            return
        self._held.discard(reason)
        self._heard_at = self.loop.time()
        self._read_on()
        if not self._held:
            with contextlib.suppress(RuntimeError):
                self.transport.resume_reading()
