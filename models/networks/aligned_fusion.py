"""Fusion of text and speech by alignment (ours): a character's own frames and pauses beside it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cnerta.models.config import FusionConfig
from cnerta.models.networks.layers import NEVER, feed_forward, fused_width

__all__ = ["AlignedPooling", "SoftAlignment", "soft_alignment"]

_ROUNDS = 3  # more change the result by too little to matter
_EDGE = 0.02  # least probability in the order, however sure CTC is
_LEAST_MASS = 1e-3  # in frames
_FLOOR = -10.0  # of log-probabilities


@dataclass(frozen=True, slots=True)
class SoftAlignment:
    """Which character, or which gap between characters, each frame belongs to.

    Attributes:
        characters: Share of each frame that is of each character. shape: (batch, time, length)
        gaps: Share that is silence before character u (gap u) or after the last one. With the
            characters it sums to 1 a frame, to 0 in padding. shape: (batch, time, 1 + length)
    """

    characters: Tensor
    gaps: Tensor


def soft_alignment(
    log_probabilities: Tensor, counts: Tensor, frame_counts: Tensor
) -> SoftAlignment:
    """Align softly and in order, without a loop over frames or characters.

    Masked CTC says of each frame how much of it is blank and which characters it sounds like, but
    not which of two equal characters it is, and its frames need not be in order. The exact
    answer, forward-backward, is a recurrence over hundreds of frames in each direction, for every
    revision of a text. Here order is a mean field instead: with F(t, v) the share of character v
    that lies before frame t as far as is known, a frame is of character u the better, the more is
    true that everything before u has been spoken and nothing after it,

        order(t, u) = sum over v < u of log F(t, v) + sum over v > u of log(1 - F(t, v)),

    two cumulative sums. Frames are shared out among the characters by their CTC probability times
    that, and F is computed anew from the shares, a few rounds. Where CTC knows nothing, all F are
    straight lines and the order is a binomial distribution around even spacing; where it is sure,
    the order only rules out what is out of place. A character without any probability has no effect
    on the order.

    Args:
        log_probabilities: Masked CTC. shape: (batch, time, 1 + length)
        counts: Valid characters. shape: (batch,)
        frame_counts: Valid frames, 0 for none. shape: (batch,)
    """
    time = torch.arange(log_probabilities.shape[1], device=frame_counts.device)
    is_audio = (time < frame_counts[:, None]).to(torch.float32)[:, :, None]
    scores = log_probabilities.float()
    blank = scores[:, :, :1].exp() * is_audio
    sound = is_audio - blank
    heard = scores[:, :, 1:]
    order = torch.zeros_like(heard)
    for _ in range(_ROUNDS):
        characters = sound * (heard + order).softmax(dim=2)
        before, after = _order(characters)
        order = before[:, :, :-1] + after[:, :, 1:]
    characters = sound * (heard + order).softmax(dim=2)
    before, after = _order(characters)
    place = torch.arange(before.shape[2], device=counts.device)
    is_padding = (place > counts[:, None])[:, None]
    gaps = (before + after).masked_fill(is_padding, NEVER).softmax(dim=2)
    return SoftAlignment(characters, blank * gaps)


def _order(characters: Tensor) -> tuple[Tensor, Tensor]:
    """How well each frame lies in each gap.

    Args:
        characters: Shares. shape: (batch, time, length)

    Returns:
        Log-probabilities, of a kind, that the characters before the gap have been said, and that
        those after it have not. shape of each: (batch, time, 1 + length)
    """
    mass = characters.sum(dim=1, keepdim=True)
    said = (characters.cumsum(dim=1) - characters / 2) / mass.clamp(min=_LEAST_MASS)
    trust = mass.clamp(max=1.0)
    done = trust * said.clamp(min=_EDGE, max=1.0).log()
    ahead = trust * (1 - said).clamp(min=_EDGE, max=1.0).log()
    before = nn.functional.pad(done.cumsum(dim=2), (1, 0))
    not_after = nn.functional.pad(ahead.cumsum(dim=2), (1, 0))
    return before, not_after[:, :, -1:] - not_after


class AlignedPooling(nn.Module):
    """Fusion by alignment: each character's own frames, and the pauses beside it.

    A soft alignment from the CTC posteriors says which frames are of a character and which of the
    silence before and after it. The character gets the mean of each of the three, and in numbers:
    how many frames long it is, how long the silence before and after it, and how well it fits what
    is heard. Where it begins on the clock is left out: it says nothing about entities.

    Attention has to find a character's frames before it can learn what to do with them, and what it
    returns is a mean without a length: how long a pause is cannot be seen in it. Here both are
    given.

    Each mean counts a learned null value as one more frame. It is what a character without frames
    gets, and so every character of a sentence without audio.

    The alignment is taken as it is: the entity loss trains what is made of it, not where it looks.

    Attributes:
        width: Size of the fused representation.
    """

    def __init__(self, config: FusionConfig, text_width: int, frame_width: int) -> None:
        super().__init__()
        self.width = width = fused_width(config, text_width)
        self.query = nn.Linear(text_width, width)
        self.value = nn.Linear(frame_width, 2 * width)
        self.null_value = nn.Parameter(torch.randn(2 * width) / width**0.5)
        self.output = nn.Linear(3 * width + 4, width)
        self.heard_norm = nn.LayerNorm(width)
        self.feed_forward = feed_forward(config, width)
        self.feed_forward_norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self,
        text: Tensor,
        counts: Tensor,
        frames: Tensor,
        frame_counts: Tensor,
        log_probabilities: Tensor,
    ) -> Tensor:
        """Fuse.

        Args:
            text: shape: (batch, length, text_width)
            counts: Valid characters of each text. shape: (batch,)
            frames: shape: (batch, time, frame_width)
            frame_counts: Valid frames of each utterance, 0 for none. shape: (batch,)
            log_probabilities: Masked CTC output. shape: (batch, time, 1 + length)

        Returns:
            shape: (batch, length, width)
        """
        aligned = soft_alignment(log_probabilities, counts, frame_counts)
        own_value, gap_value = self.value(frames).chunk(2, dim=2)
        own_null, gap_null = self.null_value.chunk(2)
        own, length = _pool(aligned.characters, own_value, own_null)
        gaps, lengths = _pool(aligned.gaps, gap_value, gap_null)
        fit = (aligned.characters * log_probabilities[:, :, 1:].clamp(min=_FLOOR)).sum(dim=1)
        numbers = [
            length.log1p(),
            lengths[:, :-1].log1p(),
            lengths[:, 1:].log1p(),
            fit / (1 + length) / -_FLOOR,
        ]
        sound = torch.cat([own, gaps[:, :-1], gaps[:, 1:], torch.stack(numbers, dim=2)], dim=2)
        fused = self.heard_norm(self.query(text) + self.dropout(self.output(sound)))
        normed: Tensor = self.feed_forward_norm(fused + self.dropout(self.feed_forward(fused)))
        return normed


def _pool(shares: Tensor, values: Tensor, null: Tensor) -> tuple[Tensor, Tensor]:
    """Mean of the frames of each character and one null frame.

    Args:
        shares: shape: (batch, time, length)
        values: shape: (batch, time, width)
        null: Value of the null frame. shape: (width,)

    Returns:
        Means, shape (batch, length, width), and frames of each, shape (batch, length).
    """
    length = shares.sum(dim=1)
    total = shares.transpose(1, 2).to(values.dtype) @ values + null
    return total / (1 + length)[:, :, None], length
