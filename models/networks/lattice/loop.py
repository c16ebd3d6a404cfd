"""The steps of a Lattice-LSTM as one loop of free length, which an exported graph can hold.

Its state cannot grow: a step finds what the words ending there need in a window over the last
characters.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from cnerta.models.networks.lattice.cells import (
    DIRECTIONS,
    FoundWords,
    character_gates,
    mix,
    project,
    word_cell,
)

__all__ = ["LatticeLoop"]


class _State(NamedTuple):
    """What a character leaves to those after it in an exported loop, in both directions.

    Attributes:
        gates: What it adds to the next character's gates. shape: (2, batch, 4 * size)
        cell: Its cell. shape: (2, batch, size)
        window: For each of the last characters what it adds to the gates of the words that begin
            there, and its cell. shape: (2, batch, reach, 4 * size)
    """

    gates: Tensor
    cell: Tensor
    window: Tensor


class _Step(NamedTuple):
    """What a position brings to an exported loop, in both directions; or all, along a first axis.

    Attributes:
        gates: The character's share of its own gates and of the words' gates into its cell.
            shape: (2, batch, 5 * size)
        word_gates: Each word's share of its gates. shape: (2, batch, slots, 3 * size)
        places: Where each word's first character is in the window, flattened to rows.
            shape: (2, batch, slots)
        present: Which slots hold a word. shape: (2, batch, slots)
    """

    gates: Tensor
    word_gates: Tensor
    places: Tensor
    present: Tensor


@dataclass(frozen=True, slots=True)
class LatticeLoop:
    """The loop, with the weights of both directions.

    Attributes:
        state_weight: Of hidden states. shape: (2, size, 7 * size)
        cell_weight: Of the words' cells. shape: (2, size, size)
        most_words: Words that can end at one character.
        longest_word: Characters of the longest word.
    """

    state_weight: Tensor
    cell_weight: Tensor
    most_words: int
    longest_word: int

    @property
    def size(self) -> int:
        """Of a hidden state in one direction."""
        return self.cell_weight.shape[1]

    def run(self, gates: Tensor, word_gates: Tensor, found: FoundWords) -> Tensor:
        """All steps.

        Args:
            gates: The characters' share of their own gates and of the words' gates into their
                cells. shape: (2, batch, length, 5 * size)
            word_gates: The words' share of their gates. shape: (2, batch, matches, 3 * size)
            found: The matches.

        Returns:
            Hidden states. shape: (length, 2, batch, size)
        """
        # Only exporting needs it.
        from torch._higher_order_ops.scan import scan

        def body(
            carried: tuple[Tensor, ...], step: tuple[Tensor, ...]
        ) -> tuple[tuple[Tensor, ...], Tensor]:
            left, output = self._step(_State(*carried), _Step(*step))
            return tuple(left), output

        batch, size, reach = gates.shape[1], self.size, self.longest_word - 1
        state = (
            gates.new_zeros(DIRECTIONS, batch, 4 * size),
            gates.new_zeros(DIRECTIONS, batch, size),
            gates.new_zeros(DIRECTIONS, batch, reach, 4 * size),
        )
        steps = self._steps(gates, word_gates, found)
        hidden: Tensor
        _, hidden = scan(body, state, tuple(s.contiguous() for s in steps))
        return hidden

    def _steps(self, gates: Tensor, word_gates: Tensor, found: FoundWords) -> _Step:
        """Sort the matches to the positions where their words end. Along a first axis."""
        _, batch, length, _ = gates.shape
        slots, reach, matches = self.most_words, self.longest_word - 1, word_gates.shape[2]
        # Each slot's match, counted from 1; what belongs nowhere goes to a place past the end.
        cells = length * slots
        cell = torch.where(found.usable, (found.ends - 1) * slots + found.slot, cells)
        number = torch.arange(1, matches + 1, device=cell.device)
        table = cell.new_zeros(DIRECTIONS, batch, cells + 1)
        table = table.scatter(2, cell, number.expand_as(cell))[..., :cells]
        present = table > 0
        rows = torch.arange(DIRECTIONS * batch, device=cell.device).view(DIRECTIONS, batch, 1)
        chosen = nn.functional.pad(word_gates, (0, 0, 1, 0)).flatten(0, 2)
        chosen = chosen.index_select(0, (rows * (matches + 1) + table).flatten())
        back = found.ends - 1 - found.starts
        distance = nn.functional.pad(back, (1, 0)).gather(2, table)
        places = rows * reach + torch.where(present, reach - distance, 0)
        shape = (DIRECTIONS, batch, length, slots)
        return _Step(
            gates.permute(2, 0, 1, 3),
            chosen.view(*shape, 3 * self.size).permute(2, 0, 1, 3, 4),
            places.view(shape).permute(2, 0, 1, 3),
            present.view(shape).permute(2, 0, 1, 3),
        )

    def _step(self, state: _State, step: _Step) -> tuple[_State, Tensor]:
        """One character of each sequence. Returns state and hidden state."""
        size = self.size
        own, into = step.gates[..., : 4 * size], step.gates[..., 4 * size :]
        i, o, f, candidate = character_gates(own + state.gates)
        past = state.window.flatten(0, 2).index_select(0, step.places.flatten())
        past = past.view(*step.places.shape, 4 * size)
        cells = word_cell(step.word_gates + past[..., : 3 * size], past[..., 3 * size :])
        gate = project(cells, self.cell_weight) + into[:, :, None]
        weights = gate.sigmoid().exp() * step.present[..., None]
        mixed = mix(i, candidate, (weights * cells).sum(dim=2), weights.sum(dim=2))
        ended = step.present.any(dim=2, keepdim=True)
        cell = torch.where(ended, mixed, f * state.cell + i * candidate)
        hidden = o * cell.tanh()
        left = hidden @ self.state_weight
        newest = torch.cat([left[..., 4 * size :], cell], dim=2)
        window = torch.cat([state.window[:, :, 1:], newest[:, :, None]], dim=2)
        # A copy, because a loop in a graph may not give out views of one tensor.
        return _State(left[..., : 4 * size].clone(), cell, window), hidden
