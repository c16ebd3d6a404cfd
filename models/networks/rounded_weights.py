"""Weights as 8-bit integers with a scale for each block, to store: a quarter of the size.

As the bundles' text encoders have them (``cnerta.export.quantise``): of a matrix, each run of 128
numbers of a row is divided by its own scale, so that a few large numbers do not round the others to
nothing. What is small stays as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import torch
from torch import Tensor, nn

__all__ = ["BLOCK", "restored", "rounded"]

BLOCK: Final = 128
"""Numbers of a row that share a scale."""

_LEAST: Final = 4096  # numbers of a matrix that is worth it
_LARGEST: Final = 127
_SCALES: Final = "/scales"


def rounded(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Round large matrices to 8 bits, and everything else that is no integer to 16.

    Args:
        weights: By name.

    Returns:
        By name, and for each matrix of 8 bits ``NAME/scales``. shape: (rows, blocks)
    """
    stored: dict[str, Tensor] = {}
    for name, weight in weights.items():
        if weight.dim() != 2 or weight.numel() < _LEAST or not weight.is_floating_point():
            stored[name] = weight.half() if weight.is_floating_point() else weight
            continue
        blocks = _blocks(weight.float())
        scales = blocks.abs().amax(dim=2).clamp(min=1e-7) / _LARGEST
        # As it will be read, so that rounding is to what is nearest then.
        scales = scales.half().float().clamp(min=2**-24)
        whole = (blocks / scales[:, :, None]).round().clamp(-_LARGEST, _LARGEST)
        stored[name] = whole.flatten(1)[:, : weight.shape[1]].to(torch.int8).contiguous()
        stored[name + _SCALES] = scales.half()
    return stored


def restored(stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights as numbers again, whether they were rounded or not.

    Args:
        stored: What :func:`rounded` gave, or plain weights.
    """
    weights = {}
    for name, weight in stored.items():
        if name.endswith(_SCALES):
            continue
        scales = stored.get(name + _SCALES)
        if scales is not None:
            whole = _blocks(weight.float()) * scales.float()[:, :, None]
            weight = whole.flatten(1)[:, : weight.shape[1]].contiguous()
        weights[name] = weight
    return weights


def _blocks(matrix: Tensor) -> Tensor:
    """Rows in blocks, the last one filled up with zeros. shape: (rows, blocks, BLOCK)."""
    filled = nn.functional.pad(matrix, (0, -matrix.shape[1] % BLOCK))
    return filled.reshape(len(matrix), -1, BLOCK)
