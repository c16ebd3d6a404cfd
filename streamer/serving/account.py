"""What becomes of one connection, for the metrics, the quotas, the door and the log."""

from __future__ import annotations

import websockets.asyncio.server as ws

from cnerta.streamer.access.admission import Admission, Place, Refusal
from cnerta.streamer.serving.metrics import ServerMetrics
from cnerta.streamer.serving.session_log import how_it_ended, log_closed, log_opened
from cnerta.streamer.session.connection import ServerProtocol
from cnerta.streamer.wire.errors import ProtocolError

__all__ = ["Account"]


class Account:
    """Follows a connection from the door to its end. Times in seconds."""

    def __init__(
        self,
        admission: Admission,
        metrics: ServerMetrics,
        protocol: ServerProtocol,
        entered: Place | Refusal,
        now: float,
    ) -> None:
        """A connection has come.

        Args:
            admission: Has decided on it.
            metrics: Are told of it.
            protocol: The connection itself.
            entered: What was decided.
            now: When.
        """
        self._admission = admission
        self._metrics = metrics
        self._place = entered if isinstance(entered, Place) else None
        self._opened_at = now
        self._counted_audio_ms = self._counted_drops = 0
        self.resume(protocol)
        if isinstance(entered, Refusal):
            metrics.refused.labels(entered.reason).inc()
        else:
            metrics.admitted.inc()

    def resume(self, protocol: ServerProtocol) -> None:
        """The connection goes on with another session, whose past is counted already."""
        self._protocol = protocol
        if protocol.session is not None:
            self._counted_audio_ms = protocol.session.received_ms
            self._counted_drops = protocol.session.dropped_interims

    def take_frame(self, size: int, now: float) -> None:
        """A frame of so many bytes, or characters, was taken."""
        place = self._place
        if place is None:
            return
        self._admission.quotas.take(place.caller, now, size=size)
        if not place.has_started and self._protocol.session is not None:
            self._admission.start(place)
            log_opened(self._protocol, place)

    def tick(self, now: float) -> ProtocolError | None:
        """Time passes. Returns why the connection has to end, if so."""
        self._count(now)
        waits = self._protocol.take_final_waits(now)
        for wait_s in waits.answered:
            self._admission.load.answered(wait_s, now)
            self._metrics.final_wait.observe(wait_s)
        if waits.waiting is not None:
            self._admission.load.waiting(waits.waiting)
        if self._place is None or self._protocol.is_closed:
            return None
        return self._admission.quotas.excess(self._place.caller, now)

    def end(self, connection: ws.ServerConnection, now: float) -> None:
        """The connection is gone."""
        self._count(now)
        ending = how_it_ended(connection, self._protocol)
        self._metrics.unnamed_closes.inc(ending.is_unnamed)
        self._metrics.lost.inc(ending.is_lost)
        log_closed(self._protocol, self._place, ending, now - self._opened_at)

    def _count(self, now: float) -> None:
        """Bring the figures up to what the session has seen."""
        stream = self._protocol.session
        if stream is None:
            return
        audio_ms, drops = stream.received_ms, stream.dropped_interims
        audio_s = (audio_ms - self._counted_audio_ms) / 1000
        self._metrics.audio.inc(audio_s)
        self._metrics.dropped_interims.inc(drops - self._counted_drops)
        self._counted_audio_ms, self._counted_drops = audio_ms, drops
        if self._place is not None:
            self._admission.quotas.take(self._place.caller, now, audio_s=audio_s)
