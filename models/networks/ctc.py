"""The CTC task: masked to the characters of the given text, or over all acoustic units.

Masked CTC (equation 2) keeps only the characters of the given text. Here the whole output is never
computed: the rows of those characters and the blank are gathered first and normalised alone, which
is the same number.

With pronunciation-tied units (ours) a row is a tonal syllable, the sum of embeddings of initial,
final and tone, so syllables never heard in training still get a row; a character with several
readings has the sum of their probabilities.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from cnerta.models.runtime.pronunciation import syllable_parts
from cnerta.models.runtime.vocabulary import Vocabulary

__all__ = ["BLANK", "CtcHead", "ctc_loss", "part_table", "score_units"]

BLANK = 0
_NEVER = -1e4
# Frames' worth of probability below which a character counts as not heard.
_HARDLY_HEARD = 0.1


class CtcHead(nn.Module):
    """Scores acoustic units at every frame."""

    readings: Tensor
    parts: Tensor

    def __init__(self, vocabulary: Vocabulary, width: int, *, tied: bool) -> None:
        super().__init__()
        self.register_buffer(
            "readings", torch.from_numpy(vocabulary.reading_table()), persistent=False
        )
        self.blank = nn.Linear(width, 1)
        units = len(vocabulary.units)
        self.own = nn.Embedding(units, width + 1)
        if tied:
            nn.init.zeros_(self.own.weight)
            parts, count = part_table(vocabulary.units)
            self.register_buffer("parts", parts, persistent=False)
            self.part_rows: nn.Embedding | None = nn.Embedding(count, width + 1)
            nn.init.normal_(self.part_rows.weight, std=width**-0.5)
        else:
            nn.init.normal_(self.own.weight, std=width**-0.5)
            self.part_rows = None

    @torch.no_grad()
    def take(self, other: CtcHead, own: Sequence[str], theirs: Sequence[str]) -> None:
        """Copy the rows of the units, and of the parts of units, that another head has too.

        Args:
            other: The head to copy from, of the same width and kind.
            own: Names of this head's units.
            theirs: Names of the other's.
        """
        self.blank.load_state_dict(other.blank.state_dict())
        _take_rows(self.own, own, other.own, theirs)
        if self.part_rows is not None and other.part_rows is not None:
            _take_rows(self.part_rows, _part_names(own), other.part_rows, _part_names(theirs))

    def unit_rows(self) -> Tensor:
        """The output row of every unit, bias last. shape: (units, width + 1)."""
        rows: Tensor = self.own.weight
        if self.part_rows is not None:
            rows = rows + self.part_rows(self.parts).sum(dim=1)
        return rows

    @torch.no_grad()
    def merge_parameters(self) -> None:
        """Give each unit its whole row, for a head that is trained no more."""
        self.own.weight.copy_(self.unit_rows())
        self.part_rows = None

    def all_units(self, frames: Tensor) -> Tensor:
        """Log-probabilities over the blank and all units (no mask).

        Args:
            frames: shape: (batch, time, width)

        Returns:
            shape: (batch, time, 1 + units)
        """
        return score_units(frames, self.unit_rows(), self.blank).log_softmax(dim=2)

    def forward(self, frames: Tensor, characters: Tensor) -> Tensor:
        """Masked CTC: log-probabilities over the blank and the given characters (equation 2).

        Args:
            frames: shape: (batch, time, width)
            characters: Ids, padded with 0. shape: (batch, length)

        Returns:
            Column 0 is the blank, column 1 + u the character at u; equal characters have equal
            columns. shape: (batch, time, 1 + length)
        """
        units, scores = self._reading_scores(frames, characters)
        known = units >= 0
        blank = self.blank(frames)
        # The mask of equation 2 is a set: a unit that several characters share counts once.
        same = units[:, :, None] == units[:, None, :]
        count = units.shape[1]
        earlier = torch.ones(count, count, dtype=torch.bool, device=frames.device).tril(-1)
        first = known & ~(same & earlier).any(dim=2)
        counted = scores.masked_fill(~first.unsqueeze(1), _NEVER)
        total = _log_sum_exp(torch.cat([blank, counted], dim=2)).unsqueeze(2)
        readable = scores.masked_fill(~known.unsqueeze(1), _NEVER)
        heard = _log_sum_exp(readable.view(*frames.shape[:2], characters.shape[1], -1))
        return torch.cat([blank, heard], dim=2) - total

    def chosen(
        self,
        frames: Tensor,
        characters: Tensor,
        frame_counts: Tensor,
        log_probabilities: Tensor,
    ) -> Tensor:
        """How much each of a character's pronunciations was heard.

        Args:
            frames: shape: (batch, time, width)
            characters: Ids, padded with 0. shape: (batch, length)
            frame_counts: Valid frames, 0 where there is no audio. shape: (batch,)
            log_probabilities: Masked CTC output. shape: (batch, time, 1 + length)

        Returns:
            The share of each in the probability that its character has over all frames. It adds up
            to nearly 1 for a character that was heard, to nearly 0 for one that was not.
            shape: (batch, length, readings)
        """
        units, scores = self._reading_scores(frames, characters)
        # What masked CTC was normalised by, without working it out again.
        total = self.blank(frames) - log_probabilities[:, :, :1]
        said = (scores.masked_fill(~(units >= 0).unsqueeze(1), _NEVER) - total).exp()
        is_audio = torch.arange(frames.shape[1], device=frames.device) < frame_counts[:, None]
        spoken: Tensor = is_audio.unsqueeze(1).to(said.dtype) @ said
        spoken = spoken.view(*characters.shape, -1)
        return spoken / (spoken.sum(dim=2, keepdim=True) + _HARDLY_HEARD)

    def _reading_scores(self, frames: Tensor, characters: Tensor) -> tuple[Tensor, Tensor]:
        """Units of the characters' readings, -1 for none, and their scores, not normalised.

        Returns:
            shapes: (batch, length * readings), (batch, time, length * readings)
        """
        units = self.readings[characters].flatten(1)
        rows = self.unit_rows()[units.clamp(min=0)]
        return units, frames @ rows[..., :-1].transpose(1, 2) + rows[..., -1].unsqueeze(1)


def score_units(frames: Tensor, rows: Tensor, blank: nn.Linear) -> Tensor:
    """Scores of the blank (column 0) and of units at every frame, not normalised.

    Args:
        frames: shape: (..., time, width)
        rows: Output rows of the units, bias last. shape: (count, width + 1)
        blank: Scores the blank.

    Returns:
        shape: (..., time, 1 + count)
    """
    return torch.cat([blank(frames), frames @ rows[:, :-1].T + rows[:, -1]], dim=-1)


def _log_sum_exp(x: Tensor) -> Tensor:
    """Over the last axis. Spelt out, because the runtime's own operator takes ten times as long."""
    highest = x.amax(dim=-1, keepdim=True)
    return (x - highest).exp().sum(dim=-1).log() + highest.squeeze(-1)


def part_table(units: Sequence[str]) -> tuple[Tensor, int]:
    """Ids of initial, final and tone of every unit, shape: (units, 3), and how many ids there are.

    The same names give the same ids in any order.
    """
    ids = {name: i for i, name in enumerate(_part_names(units))}
    return torch.tensor([[ids[n] for n in _parts(unit)] for unit in units]), len(ids)


def _parts(unit: str) -> tuple[str, str, str]:
    initial, final, tone = syllable_parts(unit)
    return (f"initial {initial}", f"final {final}", f"tone {tone}")


def _part_names(units: Sequence[str]) -> list[str]:
    return sorted({name for unit in units for name in _parts(unit)})


def _take_rows(
    table: nn.Embedding, names: Sequence[str], other: nn.Embedding, other_names: Sequence[str]
) -> None:
    rows = {name: i for i, name in enumerate(other_names)}
    for i, name in enumerate(names):
        if name in rows:
            table.weight[i] = other.weight[rows[name]]


class _CtcLoss(torch.autograd.Function):
    """CTC with the gradient with respect to the log-probabilities as given.

    PyTorch's own gradient presumes that they come straight out of a log-softmax and that every
    column stands for another symbol: it adds exp(log_probabilities). Masked columns that repeat a
    character or share a reading break that, so the term is taken out again.
    """

    @staticmethod
    def forward(
        ctx: Any, log_probabilities: Tensor, targets: Tensor, frame_counts: Tensor, lengths: Tensor
    ) -> Tensor:
        with torch.enable_grad():
            leaf = log_probabilities.detach().transpose(0, 1).requires_grad_()
            losses = nn.functional.ctc_loss(
                leaf, targets, frame_counts, lengths, BLANK, reduction="none", zero_infinity=True
            )
            (gradient,) = torch.autograd.grad(losses.sum(), leaf)
        counted = torch.arange(leaf.shape[0], device=leaf.device)[:, None] < frame_counts
        counted = counted & (losses != 0)  # zero_infinity: exactly 0 where no path exists
        presumed = leaf.detach().exp() * counted[:, :, None]
        ctx.save_for_backward((gradient - presumed).transpose(0, 1))
        return losses.detach()

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * upstream[0][:, None, None], None, None, None


def ctc_loss(
    log_probabilities: Tensor, targets: Tensor, frame_counts: Tensor, lengths: Tensor
) -> Tensor:
    """Negative log-likelihood of each utterance's symbols; 0 where no path exists.

    Args:
        log_probabilities: Column 0 is the blank. shape: (batch, time, symbols)
        targets: Columns of the symbols, in order. shape: (batch, length)
        frame_counts: Valid frames. shape: (batch,)
        lengths: Valid targets. shape: (batch,)

    Returns:
        shape: (batch,)
    """
    loss: Tensor = _CtcLoss.apply(log_probabilities, targets, frame_counts, lengths)
    return loss
