"""Weights of 8 bits: a smaller graph, quicker where it is large, and not quite the same answers.

Dynamic quantisation: weights are integers with a scale for each output, activations are quantised
as they come. The filter bank stays as it is: its numbers span many powers of ten, and what rounding
takes from the quiet bands the logarithm blows up.
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


class Int8(StrEnum):
    """Which graphs of a bundle get 8-bit weights."""

    NONE = "none"
    ACOUSTIC = "acoustic"
    TAGGER = "tagger"
    BOTH = "both"


def quantise_graph(path: Path) -> None:
    """Give a graph 8-bit weights, in place."""
    kept = [
        node.name
        for node in onnx.load(path, load_external_data=False).graph.node
        if any(p.key == _SCOPES and _KEPT in p.value for p in node.metadata_props)
    ]
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
                nodes_to_exclude=kept,
                extra_options={"MatMulConstBOnly": True},
            )
            written.replace(path)
    finally:
        root.setLevel(level)


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
