"""What the server tells Prometheus. Counts and times only: never a word of anybody's text."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import Metric

from cnerta.streamer.serving.flicker import FlickerWatch
from cnerta.streamer.serving.parking import DropReason, ResumeResult
from cnerta.streamer.serving.sharing.shared_metrics import SharedMetrics
from cnerta.streamer.session.work import Lane
from cnerta.streamer.wire.messages import (
    EntityRetract,
    EntityUpsert,
    ErrorMessage,
    ServerMessage,
    UtteranceFinal,
    WarningMessage,
)

__all__ = ["CONTENT_TYPE", "ServerMetrics", "SharedMetrics"]

CONTENT_TYPE: Final = CONTENT_TYPE_LATEST

_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0)
_GRAPHS: Final[dict[Lane, str]] = {
    "audio": "acoustic",
    "preparation": "preparation",
    "text": "tagger",
}
_SIZES: Final = (0, 1, 2, 4, 8, 16, 32, 64)


class ServerMetrics:
    """One server's metrics, in a registry of their own."""

    def __init__(
        self,
        *,
        name: str,
        device: str,
        count_sessions: Callable[[], int],
        count_waiting: Callable[[Lane], int] = lambda lane: 0,
        count_device_faults: Callable[[], int] = lambda: 0,
        count_held_bytes: Callable[[], int] = lambda: 0,
        count_parked: Callable[[], int] = lambda: 0,
        shared: SharedMetrics | None = None,
    ) -> None:
        """Begin at zero.

        Args:
            name: The bundle's name.
            device: The execution provider.
            count_sessions: Tells how many connections are open.
            count_waiting: Tells how many sessions wait for a lane of the engine.
            count_device_faults: Tells how many calls failed on the GPU.
            count_held_bytes: Tells how much memory all sessions hold.
            count_parked: Tells how many sessions wait for a client to come back.
            shared: Where all processes of the server keep their metrics; None: there is one.
        """
        registry = CollectorRegistry()
        self._shared = shared
        self._registry = registry
        self._measured: list[tuple[Gauge, Callable[[], float]]] = []
        if shared is None:
            ProcessCollector(registry=registry)
            Info("cnerta_model", "The model in use.", registry=registry).info(
                {"name": name, "device": device}
            )
        else:
            Gauge(
                "cnerta_model_info",
                "The model in use.",
                ["name", "device"],
                registry=registry,
                multiprocess_mode="livemax",
            ).labels(name, device).set(1)
        self._measure(_gauge("cnerta_sessions", "Open connections.", registry), count_sessions)
        self._measure(
            _gauge(
                "cnerta_device_faults",
                "Calls that failed on the GPU and were made on the CPU.",
                registry,
            ),
            count_device_faults,
        )
        self._measure(
            _gauge("cnerta_sessions_held_bytes", "Memory that all sessions hold, about.", registry),
            count_held_bytes,
        )
        self._measure(
            _gauge(
                "cnerta_parked_sessions",
                "Sessions without a connection that may be resumed.",
                registry,
            ),
            count_parked,
        )
        self._resumes = Counter(
            "cnerta_resumes", "Clients that asked to resume.", ["result"], registry=registry
        )
        self.handed_over = Counter(
            "cnerta_handed_over",
            "Connections that were given to the worker that has what they came for.",
            registry=registry,
        )
        self._unparked = Counter(
            "cnerta_given_up_sessions",
            "Sessions without a connection that were given up.",
            ["reason"],
            registry=registry,
        )
        self.lost_finals = Counter(
            "cnerta_lost_finals",
            "Answers to final transcripts that never left, of sessions that were given up.",
            registry=registry,
        )
        self.opened = Counter("cnerta_opened", "Connections opened.", registry=registry)
        self.closed = Counter(
            "cnerta_closed", "Connections closed by the server.", ["code"], registry=registry
        )
        self.audio = Counter("cnerta_audio_seconds", "Audio received.", registry=registry)
        self.dropped_interims = Counter(
            "cnerta_dropped_interims", "Interim revisions that never ran.", registry=registry
        )
        self._sent = Counter("cnerta_sent", "Messages sent.", ["type"], registry=registry)
        self._warned = Counter("cnerta_warnings", "Warnings sent.", ["name"], registry=registry)
        self._changes = Counter(
            "cnerta_entity_changes",
            "Entities taken back or given another label after they were shown; with "
            "cnerta_final_entities this is the flicker.",
            ["change", "status"],
            registry=registry,
        )
        self._final_entities = Counter(
            "cnerta_final_entities", "Entities of final transcripts.", registry=registry
        )
        self._behind = Histogram(
            "cnerta_behind_live_seconds",
            "How far behind live events were when they were made.",
            ["type"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._batch = Histogram(
            "cnerta_batch_items",
            "Items in a batch.",
            ["graph"],
            buckets=_SIZES,
            registry=registry,
        )
        self._failures = Counter(
            "cnerta_engine_failures",
            "Chunks and texts that could not be done.",
            ["graph"],
            registry=registry,
        )
        self._self_tests = Counter(
            "cnerta_self_tests",
            "Golden answers asked for again.",
            ["outcome"],
            registry=registry,
        )
        self._waited = Histogram(
            "cnerta_batch_wait_seconds",
            "How long the oldest item of a batch had waited.",
            buckets=_SECONDS,
            registry=registry,
        )
        self.final_wait = Histogram(
            "cnerta_final_wait_seconds",
            "How long final transcripts waited for the engine, each from when it was first in its "
            "session's line; new sessions are taken by it.",
            buckets=_SECONDS,
            registry=registry,
        )
        self.admitted = Counter(
            "cnerta_admitted", "Connections that were taken.", registry=registry
        )
        self.refused = Counter(
            "cnerta_refused", "Connections that were not taken.", ["reason"], registry=registry
        )
        self._errors = Counter(
            "cnerta_errors",
            "Errors sent, one before each such close.",
            ["code", "name"],
            registry=registry,
        )
        self.unnamed_closes = Counter(
            "cnerta_unnamed_closes",
            "Connections that the server ended without saying why: stays zero.",
            registry=registry,
        )
        self.lost = Counter(
            "cnerta_lost", "Connections that ended without a close.", registry=registry
        )
        depths = _gauge(
            "cnerta_lane_waiting",
            "Sessions that may have work for a lane of the engine.",
            registry,
            ["graph"],
        )
        for lane, graph in _GRAPHS.items():
            self._measure(depths.labels(graph), partial(count_waiting, lane))

    def _measure(self, gauge: Gauge, value: Callable[[], float]) -> None:
        """Have a gauge tell a value as it is: where files are shared, as it was lately."""
        if self._shared is None:
            gauge.set_function(value)
        else:
            self._measured.append((gauge, value))

    def refresh(self) -> None:
        """Write down what is told to other processes; a second old at most if called so often."""
        for gauge, value in self._measured:
            gauge.set(value())

    def on_batch(self, lane: Lane, items: int, waited_s: float) -> None:
        """Count a batch; see :class:`cnerta.streamer.serving.batcher.BatchObserver`."""
        self._batch.labels(_GRAPHS[lane]).observe(items)
        self._waited.observe(waited_s)

    def on_failures(self, lane: Lane, items: int) -> None:
        """Count what could not be done."""
        self._failures.labels(_GRAPHS[lane]).inc(items)

    def on_self_test(self, *, passed: bool) -> None:
        """See :class:`cnerta.streamer.serving.engine_watch.WatchObserver`."""
        self._self_tests.labels("passed" if passed else "failed").inc()

    def on_resume(self, result: ResumeResult) -> None:
        """Count a client that asked to resume."""
        self._resumes.labels(result).inc()

    def on_unparked(self, reason: DropReason, lost_finals: int) -> None:
        """Count a session; see :class:`cnerta.streamer.serving.parking.ParkingObserver`."""
        self._unparked.labels(reason).inc()
        self.lost_finals.inc(lost_finals)

    def on_sent(self, message: ServerMessage, watch: FlickerWatch) -> None:
        """Count a message, and what it changes of what ``watch`` has seen in this session."""
        kind = str(message.__struct_config__.tag)
        self._sent.labels(kind).inc()
        if isinstance(message, EntityUpsert | EntityRetract | UtteranceFinal):
            self._behind.labels(kind).observe(message.behind_live_ms / 1000)
        elif isinstance(message, WarningMessage):
            self._warned.labels(message.name).inc()
        elif isinstance(message, ErrorMessage):
            self._errors.labels(str(message.code), message.name).inc()
        if isinstance(message, UtteranceFinal):
            self._final_entities.inc(len(message.entities))
        change = watch.see(message)
        if change is not None:
            self._changes.labels(change.kind, change.status).inc()

    def families(self) -> Iterable[Metric]:
        """All of this process, as they are now."""
        return self._registry.collect()

    def exposition(self) -> bytes:
        """The text that Prometheus reads; of all processes of the server."""
        registry = self._registry
        if self._shared is not None:
            registry = self._shared.registry()
        return generate_latest(registry)


def _gauge(
    name: str, meaning: str, registry: CollectorRegistry, labels: Sequence[str] = ()
) -> Gauge:
    """One that is added up where there are several processes."""
    return Gauge(name, meaning, labels, registry=registry, multiprocess_mode="livesum")
