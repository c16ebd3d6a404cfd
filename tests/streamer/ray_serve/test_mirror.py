"""Metrics on their way to Ray, whose own part of it tests/streamer/ray_serve/test_ray.py sees."""

from __future__ import annotations

from collections import defaultdict
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from cnerta.streamer.ray_serve.mirror import Mirror


class Instrument:
    """What Ray's would have been told."""

    def __init__(self, name: str, description: str, tag_keys: tuple[str, ...]) -> None:
        self.values: dict[tuple[str, ...], float] = defaultdict(float)
        self._keys = tag_keys
        MADE[name] = self

    def inc(self, value: float, tags: dict[str, str]) -> None:
        assert value > 0, "Ray's own rule"
        self.values[self._at(tags)] += value

    def set(self, value: float, tags: dict[str, str]) -> None:
        self.values[self._at(tags)] = value

    def _at(self, tags: dict[str, str]) -> tuple[str, ...]:
        assert set(tags) == set(self._keys), "Ray's own rule"
        return tuple(tags[key] for key in self._keys)


MADE: dict[str, Instrument] = {}


@pytest.fixture(autouse=True)
def none_made() -> None:
    MADE.clear()


def mirror_of(registry: CollectorRegistry) -> Mirror:
    instruments: Any = SimpleNamespace(Counter=Instrument, Gauge=Instrument)
    return Mirror(registry.collect, instruments)


def test_what_was_counted_is_told_once() -> None:
    registry = CollectorRegistry()
    counter = Counter("cnerta_closed", "Closes.", ["code"], registry=registry)
    mirror = mirror_of(registry)
    counter.labels("1000").inc(3)
    mirror.tell()
    mirror.tell()
    counter.labels("1000").inc()
    counter.labels("1001").inc(2)
    mirror.tell()
    assert MADE["cnerta_closed"].values == {("1000",): 4, ("1001",): 2}


def test_gauges_are_told_as_they_are() -> None:
    registry = CollectorRegistry()
    gauge = Gauge("cnerta_sessions", "Open.", registry=registry)
    mirror = mirror_of(registry)
    for value in (3, 0):
        gauge.set(value)
        mirror.tell()
        assert MADE["cnerta_sessions"].values == {(): value}


def test_a_histogram_is_told_by_its_buckets() -> None:
    registry = CollectorRegistry()
    waits = Histogram("cnerta_wait_seconds", "Waits.", buckets=(0.1, 1.0), registry=registry)
    mirror = mirror_of(registry)
    for value in (0.05, 0.5, 5.0):
        waits.observe(value)
    mirror.tell()
    assert MADE["cnerta_wait_seconds_bucket"].values == {("0.1",): 1, ("1.0",): 2, ("+Inf",): 3}
    assert MADE["cnerta_wait_seconds_count"].values == {(): 3}
    assert MADE["cnerta_wait_seconds_sum"].values == {(): 5.55}


def test_what_is_not_ours_is_not_told() -> None:
    registry = CollectorRegistry()
    Gauge("process_open_fds", "Files.", registry=registry).set(3)
    mirror_of(registry).tell()
    assert not MADE
