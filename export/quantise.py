"""8-bit weights: a smaller graph, faster where it is large, with slightly different answers.

Weights are integers with a scale, activations are quantised as they come. With a pretrained text
encoder both have a scale for each block of 128 numbers (MatMulNBits): a few of the numbers inside
such encoders are so large that, with a scale for all, the others round to nothing. Elsewhere a
scale for each output, and one for all activations, is enough and quicker. The filter bank stays as
it is: its numbers span many powers of ten, and what rounding takes from the quiet bands the
logarithm blows up.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnxruntime.quantization import QuantFormat, QuantType, quantize_dynamic
from onnxruntime.quantization.matmul_nbits_quantizer import (
    DefaultWeightOnlyQuantConfig,
    MatMulNBitsQuantizer,
)
from torch import Tensor

from cnerta.export.graphs import TaggerGraph
from cnerta.export.parity import run_both

__all__ = ["quantise_graph", "tag_agreement"]

_EMBEDDINGS = ["Gather"]
_PRODUCTS = ["MatMul", "LSTM"]
_BLOCK = 128
_ACTIVATIONS_IN_8_BITS = 4  # what the runtime calls this level of accuracy
_KEPT = "filter_bank"
_SCOPES = "pkg.torch.onnx.name_scopes"
_TEXT_ENCODER = "model.text.encoder"


def quantise_graph(path: Path, *, in_blocks: bool = False) -> None:
    """Give a graph 8-bit weights, in place.

    Args:
        path: The graph.
        in_blocks: Weights and activations have a scale for each block, as always with a pretrained
            text encoder.
    """
    model = onnx.load(path)
    reads = in_blocks or any(_TEXT_ENCODER in _scope(node) for node in model.graph.node)
    kept = [node.name for node in model.graph.node if _KEPT in _scope(node)]
    root = logging.getLogger()
    level = root.level
    # They advise preprocessing, which the exporter has done already, and tell of every product.
    root.setLevel(logging.ERROR)
    try:
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            source, written = path, Path(folder) / path.name
            if reads:
                source = Path(folder) / "in_blocks.onnx"
                onnx.save(_in_blocks(model, kept), source)
            quantize_dynamic(
                source,
                written,
                op_types_to_quantize=_EMBEDDINGS if reads else [*_EMBEDDINGS, *_PRODUCTS],
                per_channel=True,
                weight_type=QuantType.QInt8,
                nodes_to_exclude=kept,
                extra_options={"MatMulConstBOnly": True},
            )
            written.replace(path)
    finally:
        root.setLevel(level)


def _in_blocks(model: onnx.ModelProto, kept: Sequence[str]) -> onnx.ModelProto:
    """The products with constants, with 8-bit weights that have a scale for each block."""
    config = DefaultWeightOnlyQuantConfig(
        block_size=_BLOCK,
        is_symmetric=True,
        accuracy_level=_ACTIVATIONS_IN_8_BITS,
        quant_format=QuantFormat.QOperator,
        op_types_to_quantize=("MatMul",),
        bits=8,
    )
    quantizer = MatMulNBitsQuantizer(model, nodes_to_exclude=list(kept), algo_config=config)
    quantizer.process()
    quantised: onnx.ModelProto = quantizer.model.model
    return quantised


def _scope(node: onnx.NodeProto) -> str:
    """Where in the model a node comes from."""
    return next((p.value for p in node.metadata_props if p.key == _SCOPES), "")


def tag_agreement(graph: TaggerGraph, path: Path, examples: Sequence[tuple[Tensor, ...]]) -> float:
    """Share of characters for which a quantised tagger has the same best tag as torch, 0 to 1.

    On random inputs, where tags lie close together: a quick check that nothing is wrong. The effect
    on real answers is measured by ``cnerta-evaluate``.
    """
    same: list[bool] = []
    outputs = run_both(graph, path, examples)
    for (_, counts, *_), ((expected, _), (found, _)) in zip(examples, outputs, strict=True):
        best = expected.argmax(axis=2) == found.argmax(axis=2)
        for row, count in zip(best, counts.tolist(), strict=True):
            same += row[:count].tolist()
    return float(np.mean(same))
