"""Encodes chunks with every stream's cache on a device: keys and values never leave it.

One table in the device's memory has a slot for each stream. A call is told the slots of its batch;
the graph takes their caches out of the table and puts what is new into it
(:mod:`cnerta.models.runtime.encoding.kept_graphs`). Samples and frames, a hundredth of that, go to
the device and back.

Streams for which there is no slot are encoded as without a device's table, with their cache as a
value. So are all where the device fails: those whose caches can still be read go on with them, the
others as at a stream's start.

The same code runs on the CPU, where the table is ordinary memory.
"""

from __future__ import annotations

import bisect
import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from cnerta.models.errors import InferenceError
from cnerta.models.runtime.buffers import joined
from cnerta.models.runtime.encoding.host import HostEncoder
from cnerta.models.runtime.encoding.kept_graphs import SlotShape, reading_graph
from cnerta.models.runtime.encoding.plausible import check_plausible
from cnerta.models.runtime.encoding.slots import NOBODYS, Slot, Slots
from cnerta.models.runtime.encoding.state import AcousticState
from cnerta.models.runtime.geometry import FrameGeometry, cache_inputs

__all__ = ["DeviceEncoder", "DevicePlan"]

logger = logging.getLogger(__name__)

Floats = npt.NDArray[np.float32]
Encoded = list[tuple[Floats, AcousticState]]

_MOST_FAULTS: Final = 3


@dataclass(frozen=True, slots=True)
class DevicePlan:
    """Where the table is, and how large.

    Attributes:
        open_graph: Opens a graph there, with a session of the runtime.
        memory: The runtime's name of the device's memory: ``cuda`` or ``cpu``.
        capacity: Streams that find room at the same time.
        buckets: Sizes that batches are filled up to, rising; empty: they stay as they are.
    """

    open_graph: Callable[[bytes], Any]
    memory: str
    capacity: int
    buckets: tuple[int, ...] = ()


@dataclass(eq=False, slots=True)
class _Table:
    """The caches of all streams, and what runs on them.

    Attributes:
        session: Of the graph.
        values: On the device. shape: (slots * rows, size)
        slots: Who has which.
    """

    session: Any
    values: Any
    slots: Slots


class DeviceEncoder:
    """A :class:`cnerta.models.runtime.encoding.state.ChunkEncoder`.

    Attributes:
        faults: Calls that failed on the device and were made without its table, so far.
    """

    def __init__(
        self, graph: bytes, geometry: FrameGeometry, host: HostEncoder, plan: DevicePlan
    ) -> None:
        """Make the table.

        Args:
            graph: See :func:`cnerta.models.runtime.encoding.kept_graphs.table_graph`.
            geometry: Of the model.
            host: Encodes what finds no room, and what the device fails to encode.
            plan: Where the table is.

        Raises:
            Exception: What the runtime raises where there is no memory, or it refuses the graph.
        """
        self.faults = 0
        self._graph = graph
        self._geometry = geometry
        self._shape = SlotShape.of(geometry)
        self._host = host
        self._plan = plan
        self._faults_in_a_row = 0
        self._lock = threading.Lock()
        self._reader: Any = None
        self._table: _Table | None = self._new_table()

    @property
    def slots(self) -> Slots | None:
        """Who has which slot; None where the device is lost."""
        return None if self._table is None else self._table.slots

    def warm(self) -> None:
        """Run a chunk of silence in batches of all sizes that there will be, into nobody's slot.

        Raises:
            Exception: What the runtime raises.
        """
        g, table = self._geometry, self._table
        assert table is not None, "expected a table"
        for size in self._plan.buckets or (1,):
            samples = np.zeros((size, g.chunk_samples), np.float32)
            carry = np.zeros((size, g.carry_samples), np.float32)
            nothing = np.zeros(size, np.int64)
            self._call(table, samples, carry, nothing + NOBODYS, nothing)

    def encode(self, samples: Floats, states: Sequence[AcousticState]) -> Encoded:
        """See :meth:`cnerta.models.runtime.encoding.state.ChunkEncoder.encode`."""
        table = self._table
        placed = [self._placed(state, table) for state in states]
        inside = [i for i, (_, slot) in enumerate(placed) if slot is not None]
        outside = [i for i, (_, slot) in enumerate(placed) if slot is None]
        results: dict[int, tuple[Floats, AcousticState]] = {}
        if inside and table is not None:
            rows = samples if not outside else samples[inside]
            streams = [(state, slot) for state, slot in placed if slot is not None]
            results.update(zip(inside, self._encode_inside(table, rows, streams), strict=True))
        if outside:
            rows = samples if not inside else samples[outside]
            values = [placed[i][0] for i in outside]
            results.update(zip(outside, self._host.encode(rows, values), strict=True))
        return [results[i] for i in range(len(states))]

    def reopen(self) -> None:
        """Begin with a new table, because a call hangs; streams go on as at their start.

        What hangs may still write to the old one.
        """
        if self._table is not None:
            self._table = None
            self._table = self._new_table()

    # --- inside -----------------------------------------------------------------------------------

    def _new_table(self) -> _Table:
        import onnxruntime

        slots = Slots(self._plan.capacity)
        shape = [self._shape.rows * (1 + slots.capacity), self._shape.size]
        values = onnxruntime.OrtValue.ortvalue_from_shape_and_type(
            shape, np.float32, self._plan.memory, 0
        )
        return _Table(self._plan.open_graph(self._graph), values, slots)

    def _placed(
        self, state: AcousticState, table: _Table | None
    ) -> tuple[AcousticState, Slot | None]:
        """A stream's state and its slot; None: its cache is a value."""
        slot = state.cache
        if isinstance(slot, Slot) and (table is None or slot.slots is not table.slots):
            # Of a table that is given up.
            state = state.without_cache(self._geometry)
            slot = state.cache
        if not isinstance(slot, Slot):
            # Whoever has begun elsewhere stays there.
            is_new = table is not None and state.position == 0
            return state, table.slots.take() if table is not None and is_new else None
        if not 0 <= slot.end - state.position <= self._shape.spare_frames:
            raise InferenceError(
                f"expected the state of one of the last {self._shape.spare_frames} frames, got one "
                f"before frame {state.position} where the slot is at {slot.end}"
            )
        return state, slot

    def _encode_inside(
        self, table: _Table, samples: Floats, streams: Sequence[tuple[AcousticState, Slot]]
    ) -> Encoded:
        count = samples.shape[1] // self._geometry.hop_samples
        if count > self._shape.spare_frames:
            raise InferenceError(
                f"expected at most {self._shape.spare_frames} frames of a stream at once, got "
                f"{count}"
            )
        batch = len(samples)
        states = [state for state, _ in streams]
        carry = joined([s.carry for s in states]).reshape(batch, -1)
        places = np.array([slot.number for _, slot in streams], np.int64)
        positions = np.array([s.position for s in states], np.int64)
        for state, slot in streams:
            slot.end = max(slot.end, state.position + count)
        filled = self._filled(samples, carry, places, positions)
        try:
            frames, next_carry = self._call(table, *filled)
        except Exception as error:
            return self._encode_without(table, samples, streams, error)
        self._faults_in_a_row = 0
        check_plausible("frames", frames[:batch])
        return [
            (
                joined([frames[i]]).reshape(frames.shape[1:]),
                AcousticState(joined([next_carry[i]]), slot, state.position + count),
            )
            for i, (state, slot) in enumerate(streams)
        ]

    def _filled(
        self,
        samples: Floats,
        carry: Floats,
        places: npt.NDArray[np.int64],
        positions: npt.NDArray[np.int64],
    ) -> tuple[Floats, Floats, npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """The batch with rows of silence up to the next size that there was before."""
        buckets, batch = self._plan.buckets, len(samples)
        at = bisect.bisect_left(buckets, batch)
        more = buckets[at] - batch if at < len(buckets) else 0
        if not more:
            return samples, carry, places, positions
        return (
            np.pad(samples, ((0, more), (0, 0))),
            np.pad(carry, ((0, more), (0, 0))),
            np.pad(places, (0, more), constant_values=NOBODYS),
            np.pad(positions, (0, more)),
        )

    def _call(
        self,
        table: _Table,
        samples: Floats,
        carry: Floats,
        places: npt.NDArray[np.int64],
        positions: npt.NDArray[np.int64],
    ) -> tuple[Floats, Floats]:
        binding = table.session.io_binding()
        binding.bind_cpu_input("samples", np.ascontiguousarray(samples))
        binding.bind_cpu_input("carry", carry)
        binding.bind_cpu_input("slot", places)
        binding.bind_cpu_input("position", positions)
        binding.bind_ortvalue_input("table", table.values)
        binding.bind_output("frames", "cpu")
        binding.bind_output("next_carry", "cpu")
        # The same memory: only what is new is written.
        binding.bind_ortvalue_output("next_table", table.values)
        table.session.run_with_iobinding(binding)
        frames, next_carry, _ = binding.get_outputs()
        return frames.numpy(), next_carry.numpy()

    # --- without the device -----------------------------------------------------------------------

    def _encode_without(
        self,
        table: _Table,
        samples: Floats,
        streams: Sequence[tuple[AcousticState, Slot]],
        error: Exception,
    ) -> Encoded:
        """Encode what the device has failed to; the streams stay without it."""
        states = [self._fetched(table, state, slot) for state, slot in streams]
        # Of an error that is kept somewhere only its words: it would keep the streams' slots.
        words = str(error)
        # If that fails too, it was the call's fault.
        encoded = self._host.encode(samples, states)
        with self._lock:
            self.faults += 1
            self._faults_in_a_row += 1
            logger.error("a batch failed on the device and was encoded without it: %s", words)
            if self._table is table and self._faults_in_a_row >= _MOST_FAULTS:
                logger.error("caches are no longer kept on the device: it is lost")
                self._table = None
        return encoded

    def _fetched(self, table: _Table, state: AcousticState, slot: Slot) -> AcousticState:
        """A stream's state with its cache as a value, or with none where it cannot be read."""
        if state.position == 0:
            return state.without_cache(self._geometry)
        try:
            if self._reader is None:
                self._reader = self._plan.open_graph(reading_graph(self._geometry))
            binding = self._reader.io_binding()
            binding.bind_ortvalue_input("table", table.values)
            binding.bind_cpu_input("slot", np.array([slot.number], np.int64))
            binding.bind_cpu_input("position", np.array([state.position], np.int64))
            for name in cache_inputs(self._geometry.layers):
                binding.bind_output(name, "cpu")
            self._reader.run_with_iobinding(binding)
            cache = tuple(value.numpy().tobytes() for value in binding.get_outputs())
        except Exception as error:
            logger.error("a stream goes on without what was said before: %s", str(error))
            return state.without_cache(self._geometry)
        return AcousticState(state.carry, cache, state.position)
