"""Acoustic graphs that keep the streams' caches themselves, in a table that is theirs to change.

A bundle's graph takes each stream's keys and values and gives new ones. Around it, here, come two
small parts: one takes the caches of a batch out of a table, one puts what is new into it. So the
keys and values of a stream stay where the table is, on a GPU or on a server of models.

A stream has a *slot* of the table: a ring of places for its last frames, frame ``t`` in place ``t %
ring``. The ring has a chunk more than the graph looks at, so a call that failed half-way can be
made again: what it has written lies where the graph does not look. Places that the stream has not
written itself are read as zeros, whatever an earlier stream left there.

Needs the package ``onnx``, which comes with the extras ``gpu`` and ``train``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cnerta.models.errors import InferenceError
from cnerta.models.runtime.geometry import FrameGeometry, cache_inputs

__all__ = ["SlotShape", "reading_graph", "sequence_graph", "table_graph"]

_HEADER = '<ir_version: 9, opset_import: ["" : 18]>'


@dataclass(frozen=True, slots=True)
class SlotShape:
    """What a slot of the table holds: a ring of frames for each head of each input.

    Attributes:
        inputs: Keys and values of all layers.
        heads: Of each.
        ring: Frames that are kept.
        size: Numbers of each.
        left_frames: Frames that the graph looks at.
    """

    inputs: int
    heads: int
    ring: int
    size: int
    left_frames: int

    @classmethod
    def of(cls, geometry: FrameGeometry) -> SlotShape:
        """That of a model."""
        layers, kinds, heads, left, size = geometry.cache_shape
        return cls(layers * kinds, heads, left + geometry.chunk_frames, size, left)

    @property
    def rows(self) -> int:
        """Rows of the table, of ``size`` numbers each, that a slot takes."""
        return self.inputs * self.heads * self.ring

    @property
    def bytes(self) -> int:
        """Memory of a slot."""
        return 4 * self.rows * self.size

    @property
    def spare_frames(self) -> int:
        """Most frames of one call."""
        return self.ring - self.left_frames


def table_graph(acoustic: Path, geometry: FrameGeometry) -> bytes:
    """The acoustic graph with its caches in a table.

    Inputs: ``samples`` (batch, n * hop_samples), ``carry`` (batch, carry_samples), ``position``
    (batch,), ``slot`` (batch,), ``table`` (slots * rows, size). Outputs: ``frames``, ``next_carry``
    and ``next_table``, which with two layers or more may be the same memory as ``table``.

    Args:
        acoustic: ``acoustic.onnx`` of a bundle whose model streams.
        geometry: Of that model.

    Raises:
        InferenceError: The package onnx is missing.
    """
    content: bytes = _table_model(acoustic, geometry).SerializeToString()
    return content


def reading_graph(geometry: FrameGeometry) -> bytes:
    """A graph that takes caches out of the table, as the host keeps them.

    Inputs: ``table``, ``slot``, ``position``. Outputs: those that
    :func:`cnerta.models.runtime.geometry.cache_inputs` names, shape (batch, heads, left_frames,
    size).

    Raises:
        InferenceError: The package onnx is missing.
    """
    content: bytes = _parse(_reading(SlotShape.of(geometry), geometry.layers)).SerializeToString()
    return content


def sequence_graph(acoustic: Path, geometry: FrameGeometry) -> bytes:
    """The acoustic graph with a stream's cache as one tensor, which a server keeps between calls.

    Inputs: ``samples`` (batch, n * hop_samples), ``carry`` (batch, carry_samples), ``first_frame``
    (batch, 1), ``cache`` (batch, inputs, heads, ring, size). Outputs: ``frames`` and
    ``next_cache``.

    Args:
        acoustic: ``acoustic.onnx`` of a bundle whose model streams.
        geometry: Of that model.

    Raises:
        InferenceError: The package onnx is missing.
    """
    s = SlotShape.of(geometry)
    before = _parse(f"""{_HEADER}
        before (int64[batch, 1] first_frame, float[batch, {s.inputs}, {s.heads}, {s.ring}, {s.size}]
            cache) => (int64[batch] position, int64[batch] slot, float[rows, {s.size}] table)
        <int64[1] kept_b_one = {{1}}, int64 kept_b_zero = {{0}}, int64 kept_b_step = {{1}},
         int64[1] kept_b_axis = {{0}}, int64[2] kept_b_rows = {{-1, {s.size}}}>
        {{
            position = Squeeze(first_frame, kept_b_one)
            kept_b_shape = Shape<start = 0, end = 1>(cache)
            kept_b_batch = Squeeze(kept_b_shape, kept_b_axis)
            slot = Range(kept_b_zero, kept_b_batch, kept_b_step)
            table = Reshape(cache, kept_b_rows)
        }}""")
    after = _parse(f"""{_HEADER}
        after (float[rows, {s.size}] next_table,
            float[batch, {s.inputs}, {s.heads}, {s.ring}, {s.size}] cache)
        => (float[batch, {s.inputs}, {s.heads}, {s.ring}, {s.size}] next_cache)
        {{
            kept_a_shape = Shape(cache)
            next_cache = Reshape(next_table, kept_a_shape)
        }}""")
    inner = _table_model(acoustic, geometry)
    model = _joined([before, inner, after], ["frames", "next_cache"], like=inner)
    content: bytes = model.SerializeToString()
    return content


def _table_model(acoustic: Path, geometry: FrameGeometry) -> Any:
    assert geometry.streaming, "a full-context model keeps nothing between calls"
    onnx = _onnx()
    shape = SlotShape.of(geometry)
    inner = onnx.load(acoustic)
    reading = _parse(_reading(shape, geometry.layers))
    writing = _parse(_writing(shape, geometry))
    return _joined([reading, inner, writing], ["frames", "next_carry", "next_table"], like=inner)


def _reading(s: SlotShape, layers: int) -> str:
    """Takes the caches of a batch out of the table.

    A row of the table is ``((slot * inputs + input) * heads + head) * ring + place``. The graph
    wants frame ``t`` in place ``t % left_frames``.
    """
    names = cache_inputs(layers)
    outputs = ", ".join(f"float[batch, {s.heads}, {s.left_frames}, {s.size}] {n}" for n in names)
    parts = ", ".join(f"kept_part_{n}" for n in names)
    squeezed = "\n".join(f"{n} = Squeeze(kept_part_{n}, kept_first)" for n in names)
    return f"""{_HEADER}
        reading (float[rows, {s.size}] table, int64[batch] slot, int64[batch] position)
        => ({outputs})
        <int64[1] kept_first = {{0}}, int64[1] kept_one = {{1}}, int64[2] kept_axes = {{1, 3}},
         int64[1] kept_left = {{{s.left_frames}}}, int64[1] kept_ring = {{{s.ring}}},
         int64[1] kept_slot_rows = {{{s.rows}}}, float[1] kept_nothing = {{0}},
         int64[{s.left_frames}] kept_places = {{{_list(range(s.left_frames))}}},
         int64[{s.heads}, 1] kept_head_rows = {{{_list(s.ring * h for h in range(s.heads))}}},
         int64[{s.inputs}, 1, 1, 1] kept_input_rows = {{
            {_list(s.heads * s.ring * k for k in range(s.inputs))}}}>
        {{
            kept_column = Unsqueeze(position, kept_one)
            kept_last = Sub(kept_column, kept_one)
            kept_distance = Sub(kept_last, kept_places)
            kept_age = Mod(kept_distance, kept_left)
            kept_frame = Sub(kept_last, kept_age)
            kept_place = Mod(kept_frame, kept_ring)
            kept_slot_column = Unsqueeze(slot, kept_one)
            kept_slot_row = Mul(kept_slot_column, kept_slot_rows)
            kept_row = Add(kept_slot_row, kept_place)
            kept_row_of_stream = Unsqueeze(kept_row, kept_one)
            kept_row_of_head = Add(kept_row_of_stream, kept_head_rows)
            kept_rows = Add(kept_row_of_head, kept_input_rows)
            kept_found = Gather<axis = 0>(table, kept_rows)
            kept_written = GreaterOrEqual(kept_frame, kept_first)
            kept_is_own = Unsqueeze(kept_written, kept_axes)
            kept_own = Where(kept_is_own, kept_found, kept_nothing)
            {parts} = Split<axis = 0, num_outputs = {s.inputs}>(kept_own)
            {squeezed}
        }}"""


def _writing(s: SlotShape, geometry: FrameGeometry) -> str:
    """Puts the new keys and values into the table.

    The keys of a second layer come of the first layer's cache, which is taken out together with all
    others. So with two layers or more this comes after the table was read: what is read and what is
    written may be the same memory.
    """
    layers, heads = geometry.layers, s.heads
    return f"""{_HEADER}
        writing (float[rows, {s.size}] table, int64[batch] slot, int64[batch] position,
            float[batch, count, {geometry.width}] frames,
            float[{layers}, 2, batch, {heads}, count, {s.size}] new_cache)
        => (float[rows, {s.size}] next_table)
        <int64[1] kept_w_first = {{0}}, int64[1] kept_w_one = {{1}}, int64[1] kept_w_end = {{-1}},
         int64 kept_w_zero = {{0}}, int64 kept_w_step = {{1}},
         int64[1] kept_w_ring = {{{s.ring}}}, int64[1] kept_w_slot_rows = {{{s.rows}}},
         int64[{heads}, 1] kept_w_head_rows = {{{_list(s.ring * h for h in range(heads))}}},
         int64[{layers}, 2, 1, 1, 1] kept_w_input_rows = {{
            {_list(heads * s.ring * k for k in range(s.inputs))}}}>
        {{
            kept_w_shape = Shape<start = 1, end = 2>(frames)
            kept_w_count = Squeeze(kept_w_shape, kept_w_first)
            kept_w_numbers = Range(kept_w_zero, kept_w_count, kept_w_step)
            kept_w_column = Unsqueeze(position, kept_w_one)
            kept_w_frame = Add(kept_w_column, kept_w_numbers)
            kept_w_place = Mod(kept_w_frame, kept_w_ring)
            kept_w_slot_column = Unsqueeze(slot, kept_w_one)
            kept_w_slot_row = Mul(kept_w_slot_column, kept_w_slot_rows)
            kept_w_row = Add(kept_w_slot_row, kept_w_place)
            kept_w_row_of_stream = Unsqueeze(kept_w_row, kept_w_one)
            kept_w_row_of_head = Add(kept_w_row_of_stream, kept_w_head_rows)
            kept_w_rows = Add(kept_w_row_of_head, kept_w_input_rows)
            kept_w_index = Unsqueeze(kept_w_rows, kept_w_end)
            next_table = ScatterND(table, kept_w_index, new_cache)
        }}"""


def _list(numbers: Iterable[int]) -> str:
    return ", ".join(map(str, numbers))


def _joined(models: Sequence[Any], outputs: Sequence[str], *, like: Any) -> Any:
    """One model of several: values of the same name are the same.

    Args:
        models: In an order in which they can run.
        outputs: What is wanted of all of them.
        like: The one whose versions the result has.
    """
    onnx = _onnx()
    made: set[str] = set()
    inputs: dict[str, Any] = {}
    found: dict[str, Any] = {}
    graph = onnx.GraphProto(name="acoustic")
    for model in models:
        part = model.graph
        constants = {c.name for c in part.initializer}
        own = constants | {name for node in part.node for name in node.output if name}
        assert not own & made, f"expected names of its own in each part, got {own & made} twice"
        for value in part.input:
            if value.name not in made | constants:
                inputs.setdefault(value.name, value)
        found.update({value.name: value for value in part.output})
        made |= own
        graph.node.extend(part.node)
        graph.initializer.extend(part.initializer)
    graph.input.extend(inputs.values())
    graph.output.extend(found[name] for name in outputs)
    joined = onnx.ModelProto(ir_version=like.ir_version, producer_name="cnerta-stream", graph=graph)
    joined.opset_import.extend(like.opset_import)
    joined.functions.extend(like.functions)
    return joined


def _parse(text: str) -> Any:
    return _onnx().parser.parse_model(text)


def _onnx() -> Any:
    try:
        import onnx
        import onnx.parser
    except ImportError as error:
        raise InferenceError(
            "expected the package onnx, got no such package: install cnerta-stream[gpu] or "
            "cnerta-stream[train]"
        ) from error
    return onnx
