"""Half precision: weights and products of 16 bits, half the size, and what GPUs are quickest at.

What numbers of 16 bits cannot hold stays as it is: all up to the logarithm of the filter bank,
whose squares span more than their range, the samples that are kept for the next chunk, and the
angles of positions, which grow with the stream. Inputs and outputs keep their types, so that
whoever runs the graph need not know.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Final

import onnx
from onnxruntime.transformers.float16 import convert_float_to_float16
from onnxruntime.transformers.onnx_model import OnnxModel

__all__ = ["HALF_TOLERANCE", "halve_graph"]

HALF_TOLERANCE: Final = 3e-2
"""Largest difference from torch that is allowed, relative to values above 1 and absolute below. A
number of 16 bits has 11 digits of two; the models that ship differ by less than 0.007."""
_ANGLES: Final = {"Cos", "Sin"}
_CARRY: Final = "next_carry"


def halve_graph(path: Path, *, hears: bool) -> None:
    """Give a graph weights and products of 16 bits, in place.

    Args:
        path: The graph.
        hears: It takes samples.
    """
    model = onnx.load(path)
    kept = _before(model, {*_ANGLES, "Log"} if hears else _ANGLES)
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)  # it tells of every number that is rounded to zero
    try:
        halved = OnnxModel(
            convert_float_to_float16(model, keep_io_types=True, node_block_list=sorted(kept))
        )
        # Each node that stays was put between two casts of its own: what is handed from one to the
        # next must not be rounded.
        halved.remove_cascaded_cast_nodes()
    finally:
        root.setLevel(level)
    onnx.save(halved.model, path)


def _before(model: onnx.ModelProto, kinds: set[str]) -> set[str]:
    """Names of nodes of some kinds, of those that make the carry, and of all before them."""
    maker = {name: node for node in model.graph.node for name in node.output}
    todo = [node for node in model.graph.node if node.op_type in kinds or _CARRY in node.output]
    found: set[str] = set()
    while todo:
        node = todo.pop()
        if node.name not in found:
            found.add(node.name)
            todo += [maker[name] for name in node.input if name in maker]
    return found
