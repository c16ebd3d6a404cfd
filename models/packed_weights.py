"""Weights in 8 bits with a scale for each block of 64, for checkpoints that are kept.

A quarter of the size of single precision. Each number is off by at most half a step, 1/254 of the
largest of its block; vectors and small matrices stay 16-bit floats.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

__all__ = ["pack", "unpack"]

_BLOCK = 64
_STEPS = 127
_LEAST_NUMBERS = 4096
_INTEGERS, _SCALES, _WIDTH = ".int8", ".scales", ".width"


def pack(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights by name in fewer bits; :func:`unpack` reads them.

    A matrix ``name`` of shape (rows, columns) becomes ``name.int8``, shape (rows, blocks, 64),
    ``name.scales``, shape (rows, blocks), and ``name.width``, its columns.
    """
    packed: dict[str, Tensor] = {}
    for name, weight in weights.items():
        if weight.dim() == 2 and weight.is_floating_point() and weight.numel() >= _LEAST_NUMBERS:
            width = weight.shape[1]
            padded = torch.nn.functional.pad(weight.float(), (0, -width % _BLOCK))
            blocks = padded.view(len(padded), -1, _BLOCK)
            # What is divided by is what is stored.
            scales = (blocks.abs().amax(dim=2) / _STEPS).half()
            divisor = scales.float().clamp(min=torch.finfo(torch.float16).smallest_normal)
            steps = (blocks / divisor[:, :, None]).round().clamp(-_STEPS, _STEPS)
            packed[name + _INTEGERS] = steps.to(torch.int8)
            packed[name + _SCALES] = scales
            packed[name + _WIDTH] = torch.tensor(width)
        else:
            packed[name] = weight.half() if weight.is_floating_point() else weight
    return packed


def unpack(stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights by name, as they were or nearly; what was not packed is as it is."""
    weights: dict[str, Tensor] = {}
    for name, tensor in stored.items():
        if name.endswith(_INTEGERS):
            own = name.removesuffix(_INTEGERS)
            blocks = tensor.float() * stored[own + _SCALES].float()[:, :, None]
            weights[own] = blocks.flatten(1)[:, : int(stored[own + _WIDTH])].contiguous()
        elif not name.endswith((_SCALES, _WIDTH)):
            weights[name] = tensor
    return weights
