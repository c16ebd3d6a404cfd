"""Which words of a batch begin and end at which step of a Lattice-LSTM."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

__all__ = ["LatticePlan", "plan_lattice"]

Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class LatticePlan:
    """The words of each step, packed: one row a word and direction, filled up to equal numbers.

    A *place* is a row of (2 * batch, ...), a sentence in one of the two directions.

    Attributes:
        words: Of all steps together, the words that begin there, as rows of
            (2 * batch * matches, ...). shape: (rows,)
        began: For each step, places of the words that begin there. shape of each: (2 * words,)
        first: For each step, the step where the longest of the words that end there began.
        ended: For each step, places of the words that end there. shape of each: (2 * words,)
        cells: For each of these its row among all words that began from ``first`` on.
            shape of each: (2 * words,)
        present: Which of these rows hold a word. shape of each: (2 * words, 1)
        any_ended: For each step, places where a word ends. shape of each: (2, batch, 1)
    """

    words: Tensor
    began: tuple[Tensor, ...]
    first: tuple[int, ...]
    ended: tuple[Tensor, ...]
    cells: tuple[Tensor, ...]
    present: tuple[Tensor, ...]
    any_ended: tuple[Tensor, ...]


def plan_lattice(starts: Tensor, ends: Tensor, usable: Tensor, length: int) -> LatticePlan:
    """Pack the words of a batch.

    Args:
        starts: First character of each match, seen from either end. shape: (2, batch, matches)
        ends: One after its last character.
        usable: Which of them are to be used.
        length: Characters of the longest sentence.
    """
    chosen = usable.cpu().numpy()
    _, batch, matches = chosen.shape
    way, sentence, match = np.nonzero(chosen)
    start = starts.cpu().numpy()[chosen]
    last = ends.cpu().numpy()[chosen] - 1
    place = way * batch + sentence

    # Both directions of a step take as many rows as the one with more words.
    begin_rank, begin_size = _ranks(start, way, length)
    end_rank, end_size = _ranks(last, way, length)
    before = np.cumsum(begin_size) - begin_size
    begin_row = 2 * before[start] + way * begin_size[start] + begin_rank
    end_row = 2 * (np.cumsum(end_size) - end_size)[last] + way * end_size[last] + end_rank

    words = np.zeros(2 * begin_size.sum(), np.int64)
    words[begin_row] = place * matches + match
    began = np.zeros(len(words), np.int64)
    began[begin_row] = place
    first = np.arange(length)
    np.minimum.at(first, last, start)
    ended = np.zeros(2 * end_size.sum(), np.int64)
    ended[end_row] = place
    since = before - before[first]  # rows of a direction from the first needed to the step
    cells = np.zeros(len(ended), np.int64)
    cells[end_row] = way * since[last] + (before[start] - before[first[last]]) + begin_rank
    present = np.zeros((len(ended), 1), bool)
    present[end_row] = True
    any_ended = np.zeros((length, 2, batch, 1), bool)
    any_ended[last, way, sentence] = True

    def steps(values: npt.NDArray[np.generic], sizes: Integers) -> tuple[Tensor, ...]:
        return torch.split(torch.from_numpy(values).to(starts.device), (2 * sizes).tolist())

    return LatticePlan(
        words=torch.from_numpy(words).to(starts.device),
        began=steps(began, begin_size),
        first=tuple(first.tolist()),
        ended=steps(ended, end_size),
        cells=steps(cells, end_size),
        present=steps(present, end_size),
        any_ended=torch.from_numpy(any_ended).to(starts.device).unbind(),
    )


def _ranks(step: Integers, way: Integers, length: int) -> tuple[Integers, Integers]:
    """Number of each word among those of its step and direction, and the most of each step."""
    group = 2 * step + way
    counts = np.bincount(group, minlength=2 * length)
    order = np.argsort(group, kind="stable")
    ranks = np.empty(len(group), np.int64)
    ranks[order] = np.arange(len(group)) - (np.cumsum(counts) - counts)[group[order]]
    return ranks, counts.reshape(length, 2).max(axis=1)
