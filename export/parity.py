"""Does the exported graph compute what the torch model computes?"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from torch import Tensor

from cnerta.export.graphs import AcousticGraph, ReadingsGraph, TaggerGraph
from cnerta.models.errors import ParityError

__all__ = ["TOLERANCE", "check_parity"]

TOLERANCE = 1e-4
"""Largest difference allowed, relative to values above 1 and absolute below."""


def check_parity(
    graph: AcousticGraph | TaggerGraph | ReadingsGraph,
    path: Path,
    examples: Iterable[tuple[Tensor, ...]],
) -> float:
    """Compare a graph with its ONNX file on the given inputs.

    Returns:
        The largest difference.

    Raises:
        ParityError: It is above :data:`TOLERANCE`, or a shape differs.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    graph.eval()
    worst = 0.0
    for example in examples:
        with torch.no_grad():
            output = graph(*example)
        expected = output if isinstance(output, tuple) else (output,)
        feed = {n: v.numpy() for n, v in zip(graph.signature.inputs, example, strict=True)}
        found = session.run(list(graph.signature.outputs), feed)
        for name, want, got in zip(graph.signature.outputs, expected, found, strict=True):
            if want.shape != got.shape:
                raise ParityError(
                    f"{path.name}, {name}: expected shape {tuple(want.shape)}, got {got.shape}"
                )
            reference = want.numpy()
            scale = np.maximum(1.0, np.abs(reference))
            worst = max(worst, float(np.max(np.abs(got - reference) / scale, initial=0.0)))
    if not worst <= TOLERANCE:
        raise ParityError(
            f"expected {path.name} to agree with torch within {TOLERANCE}, got {worst:.2e}"
        )
    return worst
