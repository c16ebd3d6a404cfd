"""The cells of a Lattice-LSTM: what one step computes of characters and of words.

Equations are those of Zhang and Yang (2018).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

__all__ = [
    "DIRECTIONS",
    "FoundWords",
    "by_direction",
    "character_gates",
    "mix",
    "project",
    "word_cell",
]

DIRECTIONS = 2


class FoundWords(NamedTuple):
    """Matches seen from either end of their sentences. shape of each: (2, batch, matches).

    Attributes:
        starts: First character.
        ends: One after the last.
        usable: Those that are used.
        slot: Number among the words that end at the same character.
    """

    starts: Tensor
    ends: Tensor
    usable: Tensor
    slot: Tensor


def by_direction(rows: Tensor) -> Tensor:
    """Rows of both directions, parted. shape: (2 * n, size) -> (2, n, size)."""
    return rows.view(DIRECTIONS, len(rows) // DIRECTIONS, rows.shape[1])


def character_gates(gates: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Input, output and forget gate of characters, and candidate (equation 11)."""
    size = gates.shape[-1] // 4
    sigmoid, tanh = torch.split(gates, [3 * size, size], dim=-1)
    i, o, f = sigmoid.sigmoid().chunk(3, dim=-1)
    return i, o, f, tanh.tanh()


def word_cell(gates: Tensor, cell: Tensor) -> Tensor:
    """Cells of words from their gates and the cells of their first characters (13, 14)."""
    size = cell.shape[-1]
    sigmoid, tanh = torch.split(gates, [2 * size, size], dim=-1)
    i, f = sigmoid.sigmoid().chunk(2, dim=-1)
    cells: Tensor = f * cell + i * tanh.tanh()
    return cells


def mix(i: Tensor, candidate: Tensor, words: Tensor, weights: Tensor) -> Tensor:
    """Cells of characters where words end (equations 12 and 16).

    Input gates, of the character and one a word and dimension, are brought to sum to one.

    Args:
        i: Input gate of the character.
        candidate: Its candidate.
        words: Sum of the words' cells by their weights.
        weights: Sum of these weights, the exponentials of the words' gates.
    """
    weight = i.exp()
    return (weight * candidate + words) / (weight + weights)


def project(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Each direction by its own weight.

    Args:
        x: shape: (2, batch, length, inputs)
        weight: shape: (2, inputs, outputs)
        bias: shape: (2, 1, outputs)

    Returns:
        shape: (2, batch, length, outputs)
    """
    flat = x.flatten(1, 2)
    projected = flat @ weight if bias is None else torch.baddbmm(bias, flat, weight)
    return projected.view(*x.shape[:3], weight.shape[2])
