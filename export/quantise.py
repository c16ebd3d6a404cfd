"""Weights of 8 bits: a smaller graph, quicker where it is large, and not quite the same answers.

Dynamic quantisation: weights are integers with a scale for each output, activations are quantised
as they come. The filter bank stays as it is: its numbers span many powers of ten, and what rounding
takes from the quiet bands the logarithm blows up. The layers that bring a pretrained text encoder's
feed-forward blocks back to its width get 8-bit weights only: a few of their inputs are so large
that beside them the others round to nothing.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path

import numpy as np
import onnx
from onnxruntime.quantization import QuantType, quantize_dynamic
from torch import Tensor

from cnerta.export.graphs import TaggerGraph
from cnerta.export.parity import run_both

__all__ = ["Int8", "quantise_graph", "tag_agreement"]

_OPERATORS = ["MatMul", "Gather", "LSTM"]
_KEPT = "filter_bank"
_SCOPES = "pkg.torch.onnx.name_scopes"
_TEXT_ENCODER = "model.text.encoder"


class Int8(StrEnum):
    """Which graphs of a bundle get 8-bit weights."""

    NONE = "none"
    ACOUSTIC = "acoustic"
    TAGGER = "tagger"
    BOTH = "both"


def quantise_graph(path: Path) -> None:
    """Give a graph 8-bit weights, in place."""
    graph = onnx.load(path, load_external_data=False).graph
    kept = [node.name for node in graph.node if _KEPT in _scope(node)]
    narrowing = _narrowing(graph)
    root = logging.getLogger()
    level = root.level
    # It advises preprocessing, which the exporter has done already.
    root.setLevel(logging.ERROR)
    try:
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            written = Path(folder) / path.name
            quantize_dynamic(
                path,
                written,
                op_types_to_quantize=_OPERATORS,
                per_channel=True,
                weight_type=QuantType.QInt8,
                nodes_to_exclude=[*kept, *narrowing],
                extra_options={"MatMulConstBOnly": True},
            )
            if narrowing:
                _store_weights_in_8_bits(written, narrowing)
            written.replace(path)
    finally:
        root.setLevel(level)


def _scope(node: onnx.NodeProto) -> str:
    """Where in the model a node comes from."""
    return next((p.value for p in node.metadata_props if p.key == _SCOPES), "")


def _narrowing(graph: onnx.GraphProto) -> list[str]:
    """Names of a pretrained text encoder's products with fewer outputs than inputs."""
    shapes = {weight.name: weight.dims for weight in graph.initializer}
    found = []
    for node in graph.node:
        if node.op_type == "MatMul" and _TEXT_ENCODER in _scope(node):
            shape = shapes.get(node.input[1], ())
            if len(shape) == 2 and shape[0] > shape[1]:
                found.append(node.name)
    return found


def _store_weights_in_8_bits(path: Path, names: Sequence[str]) -> None:
    """Have products compute in float, with weights kept as integers and a scale a column."""
    model = onnx.load(path)
    graph = model.graph
    weights = {weight.name: weight for weight in graph.initializer}
    nodes = []
    for node in graph.node:
        if node.name in names:
            own = weights[node.input[1]]
            values = onnx.numpy_helper.to_array(own)
            scale = np.maximum(np.abs(values).max(axis=0), 1e-12) / np.float32(127)
            integers = np.round(values / scale).astype(np.int8)
            stored = [f"{own.name}_int8", f"{own.name}_scale"]
            for name, array in zip(stored, (integers, scale), strict=True):
                graph.initializer.append(onnx.numpy_helper.from_array(array, name))
            graph.initializer.remove(own)
            node.input[1] = f"{own.name}_float"
            nodes.append(onnx.helper.make_node("DequantizeLinear", stored, [node.input[1]], axis=1))
        nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
    onnx.save(model, path)


def tag_agreement(graph: TaggerGraph, path: Path, examples: Sequence[tuple[Tensor, ...]]) -> float:
    """Share of characters for which a quantised tagger has the same best tag as torch, 0 to 1.

    On random inputs, where tags lie close together: a quick check that nothing broke. What it does
    to real answers, ``cnerta-evaluate`` tells.
    """
    same: list[bool] = []
    outputs = run_both(graph, path, examples)
    for (_, counts, *_), ((expected, _), (found, _)) in zip(examples, outputs, strict=True):
        best = expected.argmax(axis=2) == found.argmax(axis=2)
        for row, count in zip(best, counts.tolist(), strict=True):
            same += row[:count].tolist()
    return float(np.mean(same))
