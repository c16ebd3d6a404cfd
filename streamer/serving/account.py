"""What becomes of one connection, for the metrics, the quotas, the door and the log."""

from __future__ import annotations

from cnerta.streamer.access.admission import Admission, Place, Refusal
from cnerta.streamer.serving.metrics import ServerMetrics
from cnerta.streamer.serving.parking import ParkedSession
from cnerta.streamer.serving.session_log import (
    EndingConnection,
    how_it_ended,
    log_ended,
    log_opened,
)
from cnerta.streamer.wire.errors import ProtocolError

__all__ = ["Account"]


class Account:
    """Follows a connection from the door to its end. Times in seconds."""

    def __init__(
        self,
        admission: Admission,
        metrics: ServerMetrics,
        entered: Place | Refusal,
        now: float,
        *,
        is_new: bool = True,
    ) -> None:
        """A connection has come.

        Args:
            admission: Has decided on it.
            metrics: Are told of it.
            entered: What was decided.
            now: When.
            is_new: Whether no other process had it before.
        """
        self._admission = admission
        self._metrics = metrics
        self._place = entered if isinstance(entered, Place) else None
        self._opened_at = now
        if isinstance(entered, Refusal):
            metrics.refused.labels(entered.reason).inc()
        elif is_new:
            metrics.admitted.inc()

    @property
    def place(self) -> Place | None:
        """What the connection holds, if it was taken."""
        return self._place

    def take_frame(self, entry: ParkedSession, size: int, now: float, *, is_resumed: bool) -> None:
        """A frame of so many bytes, or characters, was taken.

        Args:
            entry: The connection's session, after it.
            size: Of the frame.
            now: When.
            is_resumed: Whether it asked for that session, which had another connection before.
        """
        place, protocol = self._place, entry.session.protocol
        if place is None:
            return
        self._admission.quotas.take(place.caller, now, size=size)
        if not place.has_started and protocol.session is not None:
            self._admission.start(place)
            log_opened(protocol, place, is_resumed=is_resumed)

    def tick(self, entry: ParkedSession, now: float) -> ProtocolError | None:
        """Time passes. Returns why the session has to end, if so."""
        self.count(entry, now)
        protocol = entry.session.protocol
        waits = protocol.take_final_waits(now)
        for wait_s in waits.answered:
            self._admission.load.answered(wait_s, now)
            self._metrics.final_wait.observe(wait_s)
        if waits.waiting is not None:
            self._admission.load.waiting(waits.waiting)
        if self._place is None or protocol.is_closed:
            return None
        return self._admission.quotas.excess(self._place.caller, now)

    def count(self, entry: ParkedSession, now: float) -> None:
        """Bring the figures up to what the session has seen."""
        stream = entry.session.protocol.session
        if stream is None:
            return
        audio_ms, drops = stream.received_ms, stream.dropped_interims
        audio_s = (audio_ms - entry.counted_audio_ms) / 1000
        self._metrics.audio.inc(audio_s)
        self._metrics.dropped_interims.inc(drops - entry.counted_drops)
        entry.counted_audio_ms, entry.counted_drops = audio_ms, drops
        if self._place is not None:
            self._admission.quotas.take(self._place.caller, now, audio_s=audio_s)

    def end(self, client: EndingConnection, now: float) -> None:
        """The connection is gone."""
        if client.is_handed_over:
            return
        ending = how_it_ended(client)
        self._metrics.unnamed_closes.inc(ending.is_unnamed)
        self._metrics.lost.inc(ending.is_lost)
        log_ended(client.session.protocol, self._place, ending, now - self._opened_at)
