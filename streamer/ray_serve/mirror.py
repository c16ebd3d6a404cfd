"""A server's metrics, told to Ray: it has them scraped on each node, for each replica.

Ray counts by additions, Prometheus' own client by totals. So what is told of a counter is what it
has grown by. Buckets of a histogram are counters, too: Ray's histograms take single values only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

from prometheus_client.metrics_core import Metric
from prometheus_client.samples import Sample

__all__ = ["Mirror"]

_COUNTED: Final = frozenset({"counter", "histogram"})
_PREFIX: Final = "cnerta_"
"""Of ours. Ray has its own of the process."""


class Mirror:
    """Follows the metrics of one server."""

    def __init__(self, families: Callable[[], Iterable[Metric]], instruments: Any) -> None:
        """Tell nothing yet.

        Args:
            families: All metrics as they are.
            instruments: ``ray.serve.metrics``: its Counter and Gauge.
        """
        self._families = families
        self._instruments = instruments
        self._made: dict[str, Any] = {}
        self._told: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}

    def tell(self) -> None:
        """Tell Ray what has changed since it was told last."""
        for family in self._families():
            if not family.name.startswith(_PREFIX):
                continue
            for sample in family.samples:
                if sample.name.endswith("_created"):
                    continue
                if family.type in _COUNTED:
                    self._count(family, sample)
                else:
                    self._instrument("Gauge", family, sample).set(sample.value, tags=sample.labels)

    def _count(self, family: Metric, sample: Sample) -> None:
        key = sample.name, tuple(sorted(sample.labels.items()))
        growth = sample.value - self._told.get(key, 0.0)
        if growth > 0:
            self._told[key] = sample.value
            self._instrument("Counter", family, sample).inc(growth, tags=sample.labels)

    def _instrument(self, kind: str, family: Metric, sample: Sample) -> Any:
        # Ray puts the end of a counter's name there itself.
        name = sample.name.removesuffix("_total")
        made = self._made.get(name)
        if made is None:
            make = getattr(self._instruments, kind)
            made = self._made[name] = make(
                name, description=family.documentation, tag_keys=tuple(sample.labels)
            )
        return made
