"""Graphs that keep caches themselves give what the caller's own caches give."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from cnerta.models.runtime.bundle import ACOUSTIC_FILE, find_bundle
from cnerta.models.runtime.encoding.kept_graphs import (
    SlotShape,
    reading_graph,
    sequence_graph,
    table_graph,
)
from cnerta.models.runtime.geometry import cache_inputs
from cnerta.models.runtime.inference import AcousticState, Model

onnxruntime = pytest.importorskip("onnxruntime")

SLOTS = 4


def opened(graph: bytes) -> Any:
    onnx.checker.check_model(onnx.load_from_string(graph))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


@pytest.fixture(scope="module", params=["fast", "tiny"])
def model(request: pytest.FixtureRequest) -> Model:
    if request.param == "fast":
        return Model.load(find_bundle(None), device="cpu")
    bundle: Path = request.getfixturevalue("tiny_bundle")
    return Model.load(bundle, device="cpu")


class Alone:
    """Streams whose caches are values."""

    def __init__(self, model: Model, count: int) -> None:
        self.model = model
        self.states = [AcousticState.initial(model.bundle.geometry) for _ in range(count)]

    def go(self, stream: int, samples: np.ndarray) -> np.ndarray:
        ((frames, self.states[stream]),) = self.model.encode(samples[None], [self.states[stream]])
        return frames


def chunks(model: Model, seed: int, count: int = 40) -> list[tuple[int, np.ndarray]]:
    """Which stream goes on with what, in an order by chance."""
    generator = np.random.default_rng(seed)
    g = model.bundle.geometry
    return [
        (
            int(generator.integers(SLOTS)),
            generator.normal(
                size=int(generator.integers(1, g.chunk_frames + 1)) * g.hop_samples, scale=0.1
            ).astype(np.float32),
        )
        for _ in range(count)
    ]


def test_caches_in_a_table_whatever_lay_there_before(model: Model) -> None:
    g = model.bundle.geometry
    shape = SlotShape.of(g)
    session = opened(table_graph(model.bundle.path / ACOUSTIC_FILE, g))
    table = np.full((SLOTS * shape.rows, shape.size), np.nan, np.float32)
    alone = Alone(model, SLOTS)
    for stream, samples in chunks(model, 0):
        before = alone.states[stream]
        expected = alone.go(stream, samples)
        feed = {
            "samples": samples[None],
            "carry": before.carry[None],
            "position": np.array([before.position]),
            "slot": np.array([stream]),
            "table": table,
        }
        frames, carry, table = session.run(["frames", "next_carry", "next_table"], feed)
        np.testing.assert_allclose(frames[0], expected, atol=1e-6)
        np.testing.assert_array_equal(carry[0], alone.states[stream].carry)


def test_the_table_may_be_written_where_it_is_read(model: Model) -> None:
    g = model.bundle.geometry
    shape = SlotShape.of(g)
    session = opened(table_graph(model.bundle.path / ACOUSTIC_FILE, g))
    table = onnxruntime.OrtValue.ortvalue_from_numpy(
        np.full((SLOTS * shape.rows, shape.size), np.nan, np.float32)
    )
    reader = opened(reading_graph(g))
    alone = Alone(model, SLOTS)
    for stream, samples in chunks(model, 1):
        before = alone.states[stream]
        expected = alone.go(stream, samples)
        binding = session.io_binding()
        binding.bind_cpu_input("samples", samples[None])
        binding.bind_cpu_input("carry", before.carry[None])
        binding.bind_cpu_input("position", np.array([before.position]))
        binding.bind_cpu_input("slot", np.array([stream]))
        binding.bind_ortvalue_input("table", table)
        binding.bind_output("frames")
        binding.bind_ortvalue_output("next_table", table)
        address = table.data_ptr()
        session.run_with_iobinding(binding)
        frames, after = binding.get_outputs()
        assert after.data_ptr() == table.data_ptr() == address, "nothing is copied"
        np.testing.assert_allclose(frames.numpy()[0], expected, atol=1e-6)
        # What the host would hold can be read out of it.
        state = alone.states[stream]
        feed = {"table": table, "slot": np.array([stream]), "position": np.array([state.position])}
        found = reader.run_with_ort_values(
            cache_inputs(g.layers),
            {
                name: value if name == "table" else onnxruntime.OrtValue.ortvalue_from_numpy(value)
                for name, value in feed.items()
            },
        )
        assert isinstance(state.cache, tuple)
        for value, own in zip(found, state.cache, strict=True):
            np.testing.assert_allclose(
                value.numpy().ravel(), np.frombuffer(own, np.float32), atol=1e-6
            )


def test_a_call_may_be_made_again(model: Model) -> None:
    g = model.bundle.geometry
    shape = SlotShape.of(g)
    session = opened(table_graph(model.bundle.path / ACOUSTIC_FILE, g))
    table = np.zeros((shape.rows, shape.size), np.float32)
    alone = Alone(model, 1)
    generator = np.random.default_rng(2)
    for _ in range(25):
        samples = generator.normal(size=g.chunk_samples, scale=0.1).astype(np.float32)
        before = alone.states[0]
        expected = alone.go(0, samples)
        feed = {
            "carry": before.carry[None],
            "position": np.array([before.position]),
            "slot": np.array([0]),
        }
        # A call with other samples that nobody has heard the end of.
        _, table = session.run(
            ["frames", "next_table"], {**feed, "samples": -samples[None], "table": table}
        )
        frames, table = session.run(
            ["frames", "next_table"], {**feed, "samples": samples[None], "table": table}
        )
        np.testing.assert_allclose(frames[0], expected, atol=1e-6)


def test_a_cache_as_the_state_of_a_sequence(model: Model) -> None:
    g = model.bundle.geometry
    s = SlotShape.of(g)
    session = opened(sequence_graph(model.bundle.path / ACOUSTIC_FILE, g))
    caches = [np.zeros((1, s.inputs, s.heads, s.ring, s.size), np.float32) for _ in range(SLOTS)]
    alone = Alone(model, SLOTS)
    for stream, samples in chunks(model, 3):
        before = alone.states[stream]
        expected = alone.go(stream, samples)
        feed = {
            "samples": samples[None],
            "carry": before.carry[None],
            "first_frame": np.array([[before.position]]),
            "cache": caches[stream],
        }
        frames, caches[stream] = session.run(["frames", "next_cache"], feed)
        np.testing.assert_allclose(frames[0], expected, atol=1e-6)


def test_streams_of_a_batch_do_not_touch_each_other(tiny_bundle: Path) -> None:
    # Without 8-bit weights, whose scale is that of a batch.
    model = Model.load(tiny_bundle, device="cpu")
    g = model.bundle.geometry
    s = SlotShape.of(g)
    session = opened(sequence_graph(tiny_bundle / ACOUSTIC_FILE, g))
    generator = np.random.default_rng(4)
    alone = Alone(model, SLOTS)
    caches = np.full((SLOTS, s.inputs, s.heads, s.ring, s.size), np.nan, np.float32)
    for stream in range(SLOTS):
        for _ in range(stream):
            alone.go(stream, np.zeros(g.hop_samples, np.float32))
        caches[stream, :, :, :stream] = _ring(alone.states[stream], s)[:, :, :stream]
    for _ in range(12):
        samples = generator.normal(size=(SLOTS, g.chunk_samples), scale=0.1).astype(np.float32)
        before = alone.states.copy()
        expected = [alone.go(i, row) for i, row in enumerate(samples)]
        feed = {
            "samples": samples,
            "carry": np.stack([b.carry for b in before]),
            "first_frame": np.array([[b.position] for b in before]),
            "cache": caches,
        }
        frames, caches = session.run(["frames", "next_cache"], feed)
        np.testing.assert_allclose(frames, np.stack(expected), atol=1e-5)


def _ring(state: AcousticState, s: SlotShape) -> np.ndarray:
    """The host's cache as it lies in a ring, of a stream with few frames."""
    assert isinstance(state.cache, tuple)
    values = [np.frombuffer(own, np.float32) for own in state.cache]
    return np.stack(values).reshape(s.inputs, s.heads, s.left_frames, s.size)
