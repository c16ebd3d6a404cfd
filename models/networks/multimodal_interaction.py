"""Fusion of text and speech: the multimodal interaction module (the paper's -MMI-CRF rows)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cnerta.models.config import FusionConfig
from cnerta.models.networks.layers import attend, feed_forward, fused_width

__all__ = ["MultimodalInteraction"]


class MultimodalInteraction(nn.Module):
    """Multimodal interaction (MMI; Yu et al., ACL 2020), speech frames in place of image regions.

    Four steps, with CMT(X, Y) a cross-modal transformer layer with queries from X and keys and
    values from Y, R the characters and V the frames:

    - speech-aware characters by a coupled pair of layers: P = CMT(V, R) gives each frame what it
      attends to in the text, A = CMT(R, P) brings that back to the characters;
    - character-aware speech: Q = CMT(R, V);
    - the dynamic gate (Yu's visual gate) says how much of it each character lets in:
      g = σ(W_a A + W_q Q), B = g · Q;
    - A and B together are the fused representation.

    As in the release of Sui et al. (2021), R is the text encoder's output itself where ``residual``
    is ``text`` (Yu et al. put one more self-attention layer in between), frames are projected for
    either direction apart, and the tagger sees the text beside A and B. Yu's auxiliary task,
    detecting entity spans from text alone, is not part of it: Sui et al. use the interaction module
    only.

    Ours: R is brought to a width of its own; and a learned null frame, the only one of a sentence
    without audio. Where there is none, attention to frames adds nothing without audio.

    Attributes:
        width: Size of the fused representation, A and B together.
    """

    def __init__(self, config: FusionConfig, text_width: int, frame_width: int) -> None:
        super().__init__()
        width = fused_width(config, text_width)
        own = config.residual == "text"
        self.text = nn.Identity() if own else nn.Linear(text_width, width)
        self.asking_frames = nn.Linear(frame_width, width)
        self.answering_frames = nn.Linear(frame_width, width)
        self.null_frame: nn.Parameter | None = None
        if config.null_key:
            self.null_frame = nn.Parameter(torch.randn(frame_width) / frame_width**0.5)
        self.frames_ask_text = _CrossModalTransformer(config, width)
        self.text_asks_aware_frames = _CrossModalTransformer(config, width)
        self.text_asks_frames = _CrossModalTransformer(config, width)
        self.gate = nn.Linear(2 * width, width)
        self.width = 2 * width

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
            log_probabilities: Masked CTC output; this module does not look at it.

        Returns:
            shape: (batch, length, width)
        """
        characters = self.text(text)
        nulls = 0
        if self.null_frame is not None:
            nulls = 1
            frames = torch.cat([self.null_frame.expand(text.shape[0], 1, -1), frames], dim=1)
        place = torch.arange(frames.shape[1], device=text.device)
        is_frame = place < nulls + frame_counts[:, None]  # the null frame is always there
        is_text = torch.arange(text.shape[1], device=text.device) < counts[:, None]

        text_aware = self.frames_ask_text(self.asking_frames(frames), characters, is_text)
        speech_aware = self.text_asks_aware_frames(characters, text_aware, is_frame)
        speech = self.text_asks_frames(characters, self.answering_frames(frames), is_frame)
        gate = self.gate(torch.cat([speech_aware, speech], dim=2)).sigmoid()
        return torch.cat([speech_aware, gate * speech], dim=2)


class _CrossModalTransformer(nn.Module):
    """A transformer layer: queries of one modality, keys and values of the other."""

    def __init__(self, config: FusionConfig, width: int) -> None:
        super().__init__()
        self.heads = config.heads

        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.output = nn.Linear(width, width)
        self.attention_norm = nn.LayerNorm(width)
        self.feed_forward = feed_forward(config, width)
        self.feed_forward_norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, asking: Tensor, answering: Tensor, valid: Tensor) -> Tensor:
        """Attend.

        Args:
            asking: shape: (batch, rows, width)
            answering: shape: (batch, columns, width)
            valid: Which of them are not padding. shape: (batch, columns)

        Returns:
            shape: (batch, rows, width)
        """
        key, value = self.key_value(answering).chunk(2, dim=2)
        query = self.query(asking)
        merged = attend(query, key, value, valid, heads=self.heads, dropout=self.dropout)
        attended = self.dropout(self.output(merged))
        # Where all is padding there is nothing to add.
        attended = attended.masked_fill(~valid.any(dim=1)[:, None, None], 0.0)
        aware = self.attention_norm(asking + attended)
        normed: Tensor = self.feed_forward_norm(aware + self.dropout(self.feed_forward(aware)))
        return normed
