"""What the front tells Prometheus, beside what its workers tell."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge

__all__ = ["FrontMetrics"]


class FrontMetrics:
    """See the module.

    Attributes:
        registry: Of them.
        workers: How many there are.
        replaced: Those that died.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.workers = Gauge(
            "cnerta_workers",
            "Processes that serve.",
            registry=self.registry,
            multiprocess_mode="livesum",
        )
        self.replaced = Counter(
            "cnerta_replaced_workers",
            "Workers that died and were replaced.",
            registry=self.registry,
        )
