"""A WebSocket connection that takes no more than its share of the event loop.

An event loop reads up to 256 kB at once, and the library takes all the frames in it before anybody
else has a turn: 40,000 pings, or audio frames of one sample, are half a second. Here little is read
at once, so that little is left to do for one who has hung up. What was read is handed on in slices,
the time of each is counted, and a connection that has had its share is not read from for a while.
That holds for everything a client can send, control frames too, and for what is still unread when
it hangs up: the end waits until all of that is read. The parts:

    unread              what waits to be taken, and what holds it
    reading_budget      what the connection's share is
    request_start       the content of a request, which the library does not take
    sharing.opening     what another process has to know that goes on with the connection
"""

from __future__ import annotations

import asyncio
import contextlib
import http
import random
import socket
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, Final, cast

import websockets.asyncio.server as ws
from websockets.exceptions import InvalidMessage
from websockets.frames import Frame, Opcode
from websockets.protocol import State

from cnerta.streamer.access.doorstep import Doorstep
from cnerta.streamer.serving.http.content import BrokenContentError, RequestContent
from cnerta.streamer.serving.http_answers import refused
from cnerta.streamer.serving.reading.reading_budget import ReadingBudget
from cnerta.streamer.serving.reading.request_start import RequestStart
from cnerta.streamer.serving.reading.unread import SLICE_BYTES, HoldReason, Unread
from cnerta.streamer.serving.sharing.handed import Handed
from cnerta.streamer.serving.sharing.opening import Opening, other_end
from cnerta.streamer.serving.sharing.relay import NoTransport, Relay

__all__ = ["MeteredConnection"]

_READ_BYTES: Final = 8_192
_SAMPLE_BITS: Final = 3
_BAD_REQUEST: Final = (
    refused(http.HTTPStatus.BAD_REQUEST, "expected an HTTP request without content, got another")
    .response()
    .serialize()
)
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_OPENING_S: Final = 10.0
"""How long a request may take to come."""
_END_OF_HEAD: Final = b"\r\n\r\n"


class MeteredConnection(ws.ServerConnection, asyncio.BufferedProtocol):
    """See the module. What a connection costs elsewhere is told to :meth:`spend`.

    Attributes:
        remote_host: Address of the other end, a proxy's perhaps.
        handed: What another process said of it that has handed it over; None: it came here first.
        request_id: What its client is told that it is called, if it is.
    """

    def __init__(
        self,
        doorstep: Doorstep,
        *arguments: Any,
        content_paths: tuple[str, ...] = (),
        handed: Handed | None = None,
        remote: str = "",
        keeps_opening: bool = False,
        **options: Any,
    ) -> None:
        """Begin.

        Args:
            doorstep: Counts those whose handshake has not come.
            arguments: Of the library.
            content_paths: What requests with content may be for.
            handed: See above.
            remote: Address of the other end, where the socket does not know that.
            keeps_opening: Keep what comes until :meth:`forget_opening`, so that the connection can
                be given to another process.
            options: Of the library.
        """
        super().__init__(*arguments, **options)
        self.handed = handed
        self.remote_host, self.request_id = remote, ""
        self._doorstep = doorstep
        self._is_on_doorstep = self._is_turned_away = self._was_pinged = False
        self._is_greeted = handed is None
        self._is_detached = self._was_explained = False
        self._is_half_closed = False  # the other end sends nothing more, and waits
        self._opening = Opening(is_kept=keeps_opening)
        self._request = RequestStart(content_paths)
        self._request_timer: asyncio.TimerHandle | None = None
        self._budget = ReadingBudget()
        # What fills it cuts it up: of a bytearray it would fill copies.
        self._buffer = memoryview(bytearray(_READ_BYTES))
        self._unread = Unread()
        self._put_off: deque[Callable[[], None]] = deque()
        self._heard_at = self.loop.time()

    @property
    def content(self) -> RequestContent | None:
        """Of a request that may have some."""
        return self._request.content

    # --- what others ask --------------------------------------------------------------------------

    def spend(self, seconds: float) -> float | None:
        """A frame took so long beyond reading it; see :meth:`ReadingBudget.spend`."""
        return self._budget.spend(seconds, self.loop.time())

    def weight(self, *, is_small: bool) -> int:
        """How much the time of what comes now counts; 0: it need not be measured.

        To ask for the processor's time costs as much as to take a small frame of audio. So of small
        ones every eighth is measured, by chance, so that no client knows which.
        """
        if not is_small:
            return 1
        return 0 if random.getrandbits(_SAMPLE_BITS) else 2**_SAMPLE_BITS

    def silent_s(self, now: float) -> float:
        """For how long nothing has come, pongs included, while it was listened for."""
        return 0.0 if self._unread.is_held else now - self._heard_at

    def take_pinged(self) -> bool:
        """Whether the other end has pinged since this was asked last."""
        was_pinged, self._was_pinged = self._was_pinged, False
        return was_pinged

    def permit_content(self) -> None:
        """Tell a client that waits for it to send the content."""
        if self.content is not None and self.content.wants_permission:
            self.transport.write(_CONTINUE)

    # --- from the transport -----------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See :class:`asyncio.Protocol`."""
        if self.handed is not None:
            self._go_on(self.handed, transport)
            return
        address = transport.get_extra_info("peername")
        if address:
            self.remote_host = str(address[0])
        self._is_on_doorstep = self._doorstep.enter(self.remote_host, self.loop.time())
        if not self._is_on_doorstep:
            # The library, to which each connection is a task, never hears of it.
            self._is_turned_away = True
            self._turn_away(cast(asyncio.Transport, transport))
            return
        self._begin(transport)

    def _turn_away(self, transport: asyncio.Transport) -> None:
        def refuse() -> None:
            self._doorstep.release(refuse)
            telling.cancel()
            transport.abort()

        transport.pause_reading()
        telling = self.loop.call_later(self._doorstep.hold(refuse), refuse)

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

    def data_received(self, data: bytes) -> None:
        """See :class:`asyncio.Protocol`."""
        self._opening.add(data)
        self._heard_at = self.loop.time()
        if self._unread or self._unread.is_held or len(data) > SLICE_BYTES:
            self._unread.put(data)
            self._read_on()
        else:
            self._read(data)

    def eof_received(self) -> bool | None:  # type: ignore[override]
        """See :class:`asyncio.Protocol`: who waits for an answer may have closed its half."""
        self._once_read(self._end_input)
        self._is_half_closed = self._waits_for_answer
        return True if self._is_half_closed else None

    @property
    def _waits_for_answer(self) -> bool:
        """Whether a request with content is still to be answered."""
        return self.content is not None and not self.protocol.eof_sent

    def connection_lost(self, exc: Exception | None) -> None:
        """See :class:`asyncio.Protocol`: what came before the end is not lost."""
        if self._is_turned_away:
            return
        if self.state is not State.OPEN or self._is_detached:
            self._unread.clear()  # nobody waits for it, here
        self._has_come()
        if self.content is not None:
            self.content.end()
        self._once_read(partial(super().connection_lost, exc))
        self._once_read(self._let_go)

    def _let_go(self) -> None:
        """Break the circles in which the library and this class hold each other and themselves.

        Else all that a connection holds, buffers of 8 kB among it, is there until the garbage
        collector comes to it.
        """
        self.recv_messages.pause = self.recv_messages.resume = _nothing
        self.protocol.parser.close()
        vars(self.protocol).pop("select_subprotocol", None)
        for error in (self.protocol.parser_exc, self.protocol.handshake_exc):
            if error is not None:
                error.__traceback__ = None

    # --- to and from the library ------------------------------------------------------------------

    def process_event(self, event: Any) -> None:
        """Take the request, or a frame."""
        self._has_come()
        self._was_pinged |= isinstance(event, Frame) and event.opcode is Opcode.PING
        super().process_event(event)

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
        if isinstance(self.protocol.handshake_exc, InvalidMessage) and not self._was_explained:
            self._was_explained = True
            if not self.transport.is_closing():
                self.transport.write(_BAD_REQUEST)
        super().send_data()
        if self._is_half_closed and not self._waits_for_answer:
            self.transport.close()  # what was written goes out first

    def _has_come(self) -> None:
        """The request is here, or the connection is gone: nobody waits for it any more."""
        if self._is_on_doorstep:
            self._is_on_doorstep = False
            self._doorstep.leave(self.remote_host)
        if self._request_timer is not None:
            self._request_timer.cancel()
            self._request_timer = None

    def _end_input(self) -> None:
        if self.content is not None:
            # Who has sent all of it may wait for the answer with its half of the line closed.
            self.content.end()
        else:
            super().eof_received()

    # --- from and to another process --------------------------------------------------------------

    def _go_on(self, handed: Handed, transport: asyncio.BaseTransport) -> None:
        """Take what came elsewhere as if it came now; only the request, until that is accepted."""
        self.remote_host = handed.remote
        self._begin(transport)
        head, end, rest = handed.opening.partition(_END_OF_HEAD)
        self._request.skip()
        self._hold("opening")
        self._unread.put(rest)
        super().data_received(head + end)

    def forget_opening(self) -> None:
        """The connection stays here."""
        self._opening.forget()

    def detach(self) -> tuple[bytes, socket.socket, Relay | None] | None:
        """Give the connection away: for this process it has ended, and nobody is told.

        Returns:
            What has come, and see :func:`other_end`; None: it cannot be given away.
        """
        transport = self.transport
        is_closing = transport.is_closing() or transport.get_write_buffer_size()
        if is_closing or not self._opening.is_kept:
            return None
        self._hold("detached")
        end, relay = other_end(transport)
        self._is_detached = True
        if relay is None:
            transport.abort()  # of this process' copy
        else:
            self.transport = NoTransport()
            self.loop.call_soon(self.connection_lost, None)
        return self._opening.take(), end, relay

    # --- reading, in slices -----------------------------------------------------------------------

    def _read_on(self) -> None:
        while not self._is_detached and (piece := self._unread.take()) is not None:
            self._read(piece)
        while self._put_off and not self._unread:
            self._put_off.popleft()()

    def _once_read(self, then: Callable[[], None]) -> None:
        """Do something when all that has come is read."""
        self._put_off.append(then)
        self._read_on()

    def _read(self, piece: bytes) -> None:
        weight = self.weight(is_small=len(piece) < SLICE_BYTES and not self._unread)
        if not weight:
            self._pass_on(piece)
            return
        began = time.thread_time()
        self._pass_on(piece)
        pause_s = self.spend(weight * (time.thread_time() - began))
        if pause_s is not None and (pause_s or self._unread):
            self._hold("budget")
            self.loop.call_later(pause_s, self._release, "budget")

    def _pass_on(self, piece: bytes) -> None:
        """Give what was read to the library, but for the content of a request."""
        try:
            piece = self._request.feed(piece, self._new_content)
        except BrokenContentError:
            self.transport.write(_BAD_REQUEST)
            self.transport.close()
            return
        if piece:
            super().data_received(piece)

    def _new_content(self) -> RequestContent:
        self.forget_opening()  # it stays here
        return RequestContent(partial(self._hold, "content"), partial(self._release, "content"))

    def _hold(self, reason: HoldReason) -> None:
        if self._unread.hold(reason):
            with contextlib.suppress(RuntimeError):  # it is closing
                self.transport.pause_reading()

    def _release(self, reason: HoldReason) -> None:
        if self._is_detached:
            return
        self._unread.release(reason)
        self._heard_at = self.loop.time()
        self._read_on()
        if not self._unread.is_held:
            with contextlib.suppress(RuntimeError):
                self.transport.resume_reading()


def _nothing() -> None:
    """There is nothing left to be paused."""
