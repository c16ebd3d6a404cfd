"""Fusion of text and speech: what there is, and cross-modal attention."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cnerta.models.config import FusionConfig
from cnerta.models.networks.aligned_fusion import AlignedPooling
from cnerta.models.networks.layers import attend, feed_forward, fused_width
from cnerta.models.networks.multimodal_interaction import MultimodalInteraction

__all__ = ["CrossModalAttention", "Fusion", "build_fusion", "posterior_features"]


class CrossModalAttention(nn.Module):
    """Cross-modal attention (CMA, equation 1): characters are the queries, frames keys and values.

    Multi-head attention with the text representation as queries and the frames as keys and values,
    then residual, normalisation and feed-forward layer: F̂ = LN(X + MH-CA(X, S)) and
    F = LN(F̂ + FFN(F̂)), where ``residual`` is ``text``.

    Ours: the residual is the text brought to the fused width, which need not be its own; and there
    is a learned null key and value. A sentence without audio attends to them alone, and so may a
    character that no frame belongs to. Where there is none, attention adds nothing without audio.
    """

    def __init__(self, config: FusionConfig, text_width: int, frame_width: int) -> None:
        super().__init__()
        self.heads = config.heads
        self.width = width = fused_width(config, text_width)
        self.residual = config.residual

        self.matching: nn.Linear | None = None
        if config.match_frames:
            self.matching = nn.Linear(frame_width, width)
            frame_width = width
        self.query = nn.Linear(text_width, width)
        self.pause_context = config.pause_context
        if config.pause_context:
            frame_width += 2 * config.pause_context + 1
        self.key_value = nn.Linear(frame_width, 2 * width)
        self.null_key_value: nn.Parameter | None = None
        if config.null_key:
            self.null_key_value = nn.Parameter(torch.randn(2 * width) / width**0.5)
        self.output = nn.Linear(width, width)
        self.attention_norm = nn.LayerNorm(width)
        self.feed_forward = feed_forward(config, width)
        self.feed_forward_norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(config.dropout)
        self.guidance = nn.Parameter(torch.full((config.heads,), 1.0)) if config.guided else None

    def _pauses(self, log_probabilities: Tensor, frame_counts: Tensor) -> Tensor:
        """The blank's probability around each frame; beyond the audio it is silent.

        Returns:
            shape: (batch, time, 2 * pause_context + 1)
        """
        reach, time = self.pause_context, log_probabilities.shape[1]
        beyond = torch.arange(time, device=frame_counts.device) >= frame_counts[:, None]
        blank = log_probabilities[:, :, 0].exp().masked_fill(beyond, 1.0)
        padded = nn.functional.pad(blank, (reach, reach), value=1.0)
        around = torch.arange(2 * reach + 1, device=blank.device)
        place = torch.arange(time, device=blank.device)[:, None] + around
        around_each = padded.index_select(1, place.flatten())
        return around_each.view(padded.shape[0], time, 2 * reach + 1)

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
            counts: Valid characters of each text; this module does not look at it.
            frames: shape: (batch, time, frame_width)
            frame_counts: Valid frames of each utterance, 0 for none. shape: (batch,)
            log_probabilities: Masked CTC output. shape: (batch, time, 1 + length)

        Returns:
            shape: (batch, length, width)
        """
        query = self.query(text)
        if self.matching is not None:
            frames = self.matching(frames).tanh()
        if self.pause_context:
            pauses = self._pauses(log_probabilities, frame_counts)
            frames = torch.cat([frames, pauses], dim=2)
        key_value = self.key_value(frames)
        nulls = 0
        if self.null_key_value is not None:
            nulls = 1
            null = self.null_key_value.expand(text.shape[0], 1, -1)
            key_value = torch.cat([null, key_value], dim=1)
        key, value = key_value.chunk(2, dim=2)
        guidance: Tensor | None = None
        if self.guidance is not None:
            # shape: (batch, length, 1 + time); the null key gets a constant.
            of_characters = log_probabilities[:, :, 1:].transpose(1, 2).clamp(min=-10.0)
            guide = nn.functional.pad(of_characters, (nulls, 0), value=-5.0)
            guidance = self.guidance[:, None, None] * guide[:, None]
        index = torch.arange(key.shape[1], device=text.device)
        valid = index < nulls + frame_counts[:, None]  # the null key, the first, is always valid
        merged = attend(
            query,
            key,
            value,
            valid,
            heads=self.heads,
            dropout=self.dropout,
            guidance=guidance,
        )
        attended = self.dropout(self.output(merged))
        if self.null_key_value is None:
            attended = attended.masked_fill((frame_counts == 0)[:, None, None], 0.0)
        fused = self.attention_norm((text if self.residual == "text" else query) + attended)
        normed: Tensor = self.feed_forward_norm(fused + self.dropout(self.feed_forward(fused)))
        return normed


Fusion = CrossModalAttention | MultimodalInteraction | AlignedPooling


def build_fusion(config: FusionConfig, text_width: int, frame_width: int) -> Fusion | None:
    """The fusion that a model's settings ask for; None for text alone."""
    match config.kind:
        case "none":
            return None
        case "cma":
            return CrossModalAttention(config, text_width, frame_width)
        case "mmi":
            return MultimodalInteraction(config, text_width, frame_width)
        case "aligned":
            return AlignedPooling(config, text_width, frame_width)


def posterior_features(log_probabilities: Tensor, frame_counts: Tensor, size: int) -> Tensor:
    """The masked CTC probability of each character over time, as the authors' release has it.

    The time axis is brought to one size as there: what is shorter is filled up with zeros, what
    is longer is cut off. The entity loss reaches the acoustic encoder through it, as it does there.

    Args:
        log_probabilities: Masked CTC output. shape: (batch, time, 1 + length)
        frame_counts: Valid frames of each utterance. shape: (batch,)
        size: Frames to show.

    Returns:
        shape: (batch, length, size)
    """
    time = torch.arange(log_probabilities.shape[1], device=frame_counts.device)
    is_audio = (time < frame_counts[:, None])[:, :, None]
    shown = log_probabilities[:, :, 1:].exp() * is_audio
    return nn.functional.pad(shown, (0, 0, 0, size))[:, :size].transpose(1, 2)
