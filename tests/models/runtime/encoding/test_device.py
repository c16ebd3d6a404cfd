"""Caches that stay on a device: the same code, with the CPU as the device."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cnerta.models.errors import InferenceError
from cnerta.models.runtime.bundle import ACOUSTIC_FILE
from cnerta.models.runtime.encoding.device import DeviceEncoder, DevicePlan
from cnerta.models.runtime.encoding.host import HostEncoder
from cnerta.models.runtime.encoding.kept_graphs import table_graph
from cnerta.models.runtime.encoding.slots import NOBODYS, Slot, Slots
from cnerta.models.runtime.inference import AcousticState, Model

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")


class Device:
    """The CPU's memory as a device's, which can be told to fail."""

    def __init__(self) -> None:
        self.fails = False
        self.is_gone = False
        self.opened = 0
        self.batches: list[int] = []

    def open(self, graph: bytes) -> Any:
        device = self
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        self.opened += 1
        reads = "samples" not in [i.name for i in session.get_inputs()]

        class Session:
            def io_binding(self) -> Any:
                if device.is_gone:
                    raise RuntimeError("CUDA failure 700: an illegal memory access")
                return Binding(session.io_binding())

            def run_with_iobinding(self, binding: Any) -> None:
                session.run_with_iobinding(binding.own)
                if device.fails and not reads:
                    # It has written, and nobody hears of it.
                    raise RuntimeError("CUDA failure 2: out of memory")

        class Binding:
            def __init__(self, own: Any) -> None:
                self.own = own

            def bind_cpu_input(self, name: str, value: np.ndarray) -> None:
                if name == "samples":
                    device.batches.append(len(value))
                self.own.bind_cpu_input(name, value)

            def __getattr__(self, name: str) -> Any:
                return getattr(self.own, name)

        return Session()


@pytest.fixture
def model(tiny_bundle: Path) -> Model:
    return Model.load(tiny_bundle, device="cpu")


@pytest.fixture
def device() -> Device:
    return Device()


@pytest.fixture
def make(model: Model, device: Device) -> Callable[..., DeviceEncoder]:
    geometry = model.bundle.geometry
    graph = table_graph(model.bundle.path / ACOUSTIC_FILE, geometry)

    def encoder(capacity: int = 8, buckets: tuple[int, ...] = ()) -> DeviceEncoder:
        plan = DevicePlan(device.open, "cpu", capacity, buckets)
        return DeviceEncoder(graph, geometry, HostEncoder(geometry, model._acoustic), plan)

    return encoder


class Streams:
    """Some streams, encoded by one encoder and, as they should be, each alone."""

    def __init__(self, model: Model, encoder: Any, count: int, seed: int = 0) -> None:
        self.model = model
        self.geometry = model.bundle.geometry
        self.encoder = encoder
        self.generator = np.random.default_rng(seed)
        self.states = [AcousticState.initial(self.geometry) for _ in range(count)]
        self.alone = list(self.states)

    def go(self, which: list[int], frames: int | None = None) -> None:
        """Encode the next chunk of some streams together, and compare."""
        frames = frames or self.geometry.chunk_frames
        size = (len(which), frames * self.geometry.hop_samples)
        samples = self.generator.normal(size=size, scale=0.1).astype(np.float32)
        found = self.encoder.encode(samples, [self.states[i] for i in which])
        for row, i, (got, state) in zip(samples, which, found, strict=True):
            ((expected, self.alone[i]),) = self.model.encode(row[None], [self.alone[i]])
            np.testing.assert_allclose(got, expected, atol=1e-5)
            np.testing.assert_array_equal(state.carry, self.alone[i].carry)
            assert state.position == self.alone[i].position
            self.states[i] = state

    def end(self, which: int) -> None:
        self.states[which] = self.alone[which] = AcousticState.initial(self.geometry)

    def lose(self, which: int) -> None:
        """From now on the stream is as one that begins."""
        self.alone[which] = self.alone[which].without_cache(self.geometry)


def in_use(encoder: DeviceEncoder) -> int:
    assert encoder.slots is not None
    return encoder.slots.in_use


def test_streams_come_and_go_and_are_encoded_as_alone(
    model: Model, make: Callable[..., DeviceEncoder]
) -> None:
    encoder = make()
    streams = Streams(model, encoder, 6)
    generator = np.random.default_rng(1)
    for _ in range(60):
        if generator.random() < 0.2:
            streams.end(int(generator.integers(6)))
        which = generator.permutation(6)[: int(generator.integers(1, 7))].tolist()
        streams.go(which, int(generator.integers(1, model.bundle.geometry.chunk_frames + 1)))
        kept = sum(isinstance(s.cache, Slot) for s in streams.states)
        assert in_use(encoder) == kept
    assert encoder.faults == 0


def test_a_slot_is_free_when_its_session_ends_and_keeps_nothing_for_the_next(
    model: Model, make: Callable[..., DeviceEncoder]
) -> None:
    encoder = make(capacity=1)
    streams = Streams(model, encoder, 1)
    for session in range(5):
        for _ in range(1 + 4 * session):
            streams.go([0])
        (state,) = streams.states
        assert isinstance(state.cache, Slot)
        assert state.cache.number == 1
        del state
        streams.end(0)
        assert in_use(encoder) == 0


def test_what_an_earlier_session_left_is_never_read(
    model: Model, make: Callable[..., DeviceEncoder]
) -> None:
    encoder = make(capacity=2)
    table = encoder._table
    assert table is not None
    garbage = np.full(table.values.shape(), np.nan, np.float32)
    table.values.update_inplace(garbage)
    streams = Streams(model, encoder, 2)
    for _ in range(6):
        streams.go([0, 1])


def test_without_room_streams_are_encoded_with_caches_of_their_own(
    model: Model, make: Callable[..., DeviceEncoder]
) -> None:
    encoder = make(capacity=2)
    streams = Streams(model, encoder, 5)
    for _ in range(5):
        streams.go([4, 0, 3, 1, 2])
    assert [isinstance(s.cache, Slot) for s in streams.states] == [True, False, False, False, True]
    # Room for one that begins, not for those that have begun elsewhere.
    streams.end(4)
    streams.go([1, 2])
    assert in_use(encoder) == 1
    streams.go([4, 3])
    assert in_use(encoder) == 2


def test_batches_are_filled_up_to_sizes_that_were_there_before(
    model: Model, make: Callable[..., DeviceEncoder], device: Device
) -> None:
    encoder = make(capacity=8, buckets=(2, 4))
    encoder.warm()
    assert device.batches == [2, 4]
    device.batches.clear()
    streams = Streams(model, encoder, 6)
    for count in (1, 2, 3, 4, 6):
        streams.go(list(range(count)))
    assert device.batches == [2, 2, 4, 4, 6]
    assert in_use(encoder) == 6
    assert NOBODYS not in {s.cache.number for s in streams.states if isinstance(s.cache, Slot)}


def test_a_call_that_fails_half_way_is_made_without_the_table_and_nothing_is_lost(
    model: Model,
    make: Callable[..., DeviceEncoder],
    device: Device,
    caplog: pytest.LogCaptureFixture,
) -> None:
    encoder = make()
    streams = Streams(model, encoder, 4)
    for _ in range(5):
        streams.go([0, 1, 2])
    device.fails = True
    with caplog.at_level(logging.ERROR):
        streams.go([0, 1])
    assert "a batch failed on the device and was encoded without it: CUDA failure 2" in caplog.text
    device.fails = False
    for _ in range(4):
        streams.go([2, 0, 3, 1])
    assert encoder.faults == 1
    assert [isinstance(s.cache, Slot) for s in streams.states] == [False, False, True, True]
    assert in_use(encoder) == 2


def test_a_device_that_is_lost_is_asked_no_more(
    model: Model,
    make: Callable[..., DeviceEncoder],
    device: Device,
    caplog: pytest.LogCaptureFixture,
) -> None:
    encoder = make()
    streams = Streams(model, encoder, 5)
    for _ in range(4):
        streams.go([0, 1, 2, 3])
    device.is_gone = True
    with caplog.at_level(logging.ERROR):
        for stream in (0, 1, 2):
            streams.lose(stream)
            streams.go([stream])
    assert "caches are no longer kept on the device: it is lost" in caplog.text
    assert encoder.slots is None
    assert encoder.faults == 3
    caplog.clear()
    # One whose cache was there and that has had no call since.
    streams.lose(3)
    for _ in range(3):
        streams.go([3, 0, 4])
    assert not any(isinstance(s.cache, Slot) for s in streams.states)
    assert encoder.faults == 3
    assert not caplog.records, "it is said once"


def test_faults_that_do_not_follow_each_other_leave_the_table(
    model: Model, make: Callable[..., DeviceEncoder], device: Device
) -> None:
    encoder = make(capacity=20)
    streams = Streams(model, encoder, 12)
    for number in range(12):
        device.fails = number % 3 < 2
        streams.go([number])
    assert encoder.faults == 8
    assert encoder.slots is not None


def test_what_fails_without_the_device_too_is_the_calls_fault(
    model: Model, make: Callable[..., DeviceEncoder], device: Device
) -> None:
    encoder = make()
    device.fails = True
    state = AcousticState.initial(model.bundle.geometry)
    samples = np.full((1, model.bundle.geometry.hop_samples), np.nan, np.float32)
    for _ in range(5):
        with pytest.raises(InferenceError, match="expected frames between"):
            encoder.encode(samples, [state])
    assert encoder.faults == 0
    assert encoder.slots is not None


def test_frames_that_are_no_numbers_are_refused(
    model: Model, make: Callable[..., DeviceEncoder]
) -> None:
    encoder = make()
    state = AcousticState.initial(model.bundle.geometry)
    samples = np.full((1, model.bundle.geometry.hop_samples), np.nan, np.float32)
    with pytest.raises(InferenceError, match="expected frames between"):
        encoder.encode(samples, [state])


def test_where_a_call_hangs_a_new_table_takes_over(
    model: Model, make: Callable[..., DeviceEncoder], device: Device
) -> None:
    encoder = make()
    streams = Streams(model, encoder, 2)
    streams.go([0, 1])
    encoder.reopen()
    assert device.opened == 2
    streams.lose(0)
    streams.lose(1)
    for _ in range(3):
        streams.go([0, 1])
    assert in_use(encoder) == 2


def test_the_state_of_before_may_be_used_once_more_and_an_old_one_not(
    model: Model, make: Callable[..., DeviceEncoder]
) -> None:
    encoder = make()
    geometry = model.bundle.geometry
    samples = np.random.default_rng(0).normal(size=(6, geometry.chunk_samples), scale=0.1)
    rows = samples.astype(np.float32)
    states = [AcousticState.initial(geometry)]
    for row in rows:
        ((frames, state),) = encoder.encode(row[None], states[-1:])
        states.append(state)
    ((again, _),) = encoder.encode(rows[-1:], [states[-2]])
    np.testing.assert_allclose(again, frames, atol=1e-6)
    with pytest.raises(InferenceError, match="expected the state of one of the last"):
        encoder.encode(rows[:1], [states[2]])


def test_more_frames_than_there_is_room_for_are_refused(
    model: Model, make: Callable[..., DeviceEncoder]
) -> None:
    geometry = model.bundle.geometry
    samples = np.zeros((1, (geometry.chunk_frames + 1) * geometry.hop_samples), np.float32)
    with pytest.raises(InferenceError, match="expected at most 4 frames of a stream at once"):
        make().encode(samples, [AcousticState.initial(geometry)])


def test_slots_are_given_out_once_and_the_longest_free_first() -> None:
    slots = Slots(3)
    first, second, third = slots.take(), slots.take(), slots.take()
    assert [s.number for s in (first, second, third) if s] == [1, 2, 3]
    assert slots.take() is None
    del second, first
    found = [slots.take(), slots.take()]
    assert [s.number for s in found if s] == [2, 1]
    assert slots.in_use == 3
