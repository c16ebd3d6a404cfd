"""Metrics of several processes as one: Prometheus' own files, and the processes themselves.

Each process writes its counters into files of its own, all of them are added up when somebody asks.
The files are named by a number that another process gets when this one is gone: it goes on with its
counters, so none of them ever falls.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from prometheus_client import CollectorRegistry, ProcessCollector, values
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector

__all__ = ["SharedMetrics", "forget_process", "keep_in_files"]

_FOLDER_VARIABLE: Final = "PROMETHEUS_MULTIPROC_DIR"


def keep_in_files(folder: Path, place: int | str) -> None:
    """Have every metric that this process makes from now on kept in files.

    Args:
        folder: Of all processes.
        place: Number, or name, that no other process has at the moment.
    """
    os.environ[_FOLDER_VARIABLE] = str(folder)
    values.ValueClass = values.MultiProcessValue(lambda: place)  # type: ignore[no-untyped-call]


def forget_process(folder: Path, place: int) -> None:
    """A process is gone: what it measured is not any more, what it counted stays."""
    mark_process_dead(place, str(folder))  # type: ignore[no-untyped-call]


class SharedMetrics:
    """What all processes have written."""

    def __init__(self, folder: Path, process_ids: Callable[[], Sequence[int]]) -> None:
        """Nothing is read yet.

        Args:
            folder: See :func:`keep_in_files`.
            process_ids: Tells which processes there are.
        """
        self._folder = folder
        self._process_ids = process_ids

    def registry(self) -> CollectorRegistry:
        """What there is to tell."""
        registry = CollectorRegistry()
        MultiProcessCollector(registry, path=str(self._folder))  # type: ignore[no-untyped-call]
        registry.register(_Processes(self._process_ids))
        return registry


class _Processes(Collector):
    """What Prometheus' own client tells of one process, of several: sums, and the oldest start."""

    _SUMS: Final = ("cpu_seconds", "open_fds", "resident_memory_bytes", "virtual_memory_bytes")

    def __init__(self, process_ids: Callable[[], Sequence[int]]) -> None:
        self._process_ids = process_ids

    def collect(self) -> Iterable[Metric]:
        """See :class:`prometheus_client.registry.Collector`."""
        found: dict[str, tuple[Metric, list[float]]] = {}
        for process_id in self._process_ids():
            collector = ProcessCollector(pid=partial(int, process_id), registry=None)
            for metric in collector.collect():
                seen = found.setdefault(metric.name, (metric, []))
                seen[1].extend(sample.value for sample in metric.samples)
        for name, (metric, numbers) in found.items():
            add = name.removeprefix("process_") in self._SUMS
            value = sum(numbers) if add else min(numbers)
            kind = CounterMetricFamily if metric.type == "counter" else GaugeMetricFamily
            yield kind(name, metric.documentation, value=value)
