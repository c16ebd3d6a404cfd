"""Does the exported graph compute what the torch model computes?"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
import torch
from torch import Tensor

from cnerta.export.graphs import Graph
from cnerta.models.errors import ParityError

__all__ = ["TOLERANCE", "check_parity", "run_both"]

Array = npt.NDArray[Any]

TOLERANCE = 1e-4
"""Largest difference allowed, relative to values above 1 and absolute below."""


def run_both(
    graph: Graph,
    path: Path,
    examples: Iterable[tuple[Tensor, ...]],
) -> Iterator[tuple[list[Array], list[Array]]]:
    """The outputs of a graph in torch and of its ONNX file, for each of the given inputs."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    graph.eval()
    for example in examples:
        with torch.no_grad():
            output = graph(*example)
        expected = output if isinstance(output, tuple) else (output,)
        feed = {n: v.numpy() for n, v in zip(graph.signature.inputs, example, strict=True)}
        yield [v.numpy() for v in expected], session.run(list(graph.signature.outputs), feed)


def check_parity(
    graph: Graph,
    path: Path,
    examples: Iterable[tuple[Tensor, ...]],
    *,
    tolerance: float = TOLERANCE,
) -> float:
    """Compare a graph with its ONNX file on the given inputs.

    Returns:
        The largest difference.

    Raises:
        ParityError: It is above the tolerance, or a shape differs.
    """
    worst = 0.0
    for expected, found in run_both(graph, path, examples):
        for name, want, got in zip(graph.signature.outputs, expected, found, strict=True):
            if want.shape != got.shape:
                raise ParityError(
                    f"{path.name}, {name}: expected shape {want.shape}, got {got.shape}"
                )
            scale = np.maximum(1.0, np.abs(want))
            worst = max(worst, float(np.max(np.abs(got - want) / scale, initial=0.0)))
    if not worst <= tolerance:
        raise ParityError(
            f"expected {path.name} to agree with torch within {tolerance}, got {worst:.2e}"
        )
    return worst
