"""The acoustic encoder: filter bank, two strided convolutions, transformer (section 4.3).

It runs full-context, as in the paper, or in chunks with a bounded left context, on the same
weights. :meth:`AcousticEncoder.forward` computes a whole utterance, with a mask where chunks are
wanted; :meth:`AcousticEncoder.forward_chunk` computes one chunk from explicit state, and gives the
same frames (U2, Zhang et al. 2020). Positions are rotary (Su et al. 2021): attention then depends
on distances only, so the millionth frame of a stream is computed like the hundredth, which the
sinusoids of section 4.3 would not allow. Those are there for models that need not stream, and so
are layers that normalise after each part (``positions`` and ``norm`` of the settings).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from cnerta.models.config import AcousticConfig
from cnerta.models.networks.filterbank import FilterBank
from cnerta.models.runtime.geometry import CARRY_SAMPLES, HOP_SAMPLES, FrameGeometry

__all__ = ["AcousticEncoder", "chunk_mask", "sinusoids"]


def chunk_mask(frames: int, chunk: int, left: int, device: torch.device) -> Tensor:
    """Which frame (row) may attend to which (column): its chunk and ``left`` frames before it.

    Returns:
        shape: (frames, frames), True where attention is allowed.
    """
    index = torch.arange(frames, device=device)
    start = index // chunk * chunk
    row_start, column = start[:, None], index[None, :]
    return (column < row_start + chunk) & (column >= row_start - left)


def _rotate(x: Tensor, rotation: Tensor) -> Tensor:
    """Rotate pairs of channels by their position's angle.

    Args:
        x: shape: (batch, time, heads, size)
        rotation: As :class:`_Rotation` gives it. shape: (batch or 1, time, 2, 1, size)
    """
    half = x.shape[-1] // 2
    turned = torch.cat([x[..., half:], x[..., :half]], dim=-1)
    return x * rotation[:, :, 0] + turned * rotation[:, :, 1]


class _Rotation(nn.Module):
    """The angles of rotary positions."""

    turns: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        powers = torch.arange(0, size, 2, dtype=torch.float64) / size
        # Turns, not radians, a frame: whole turns are dropped in double precision below, so that
        # an angle is as exact after a month as at the start.
        self.register_buffer("turns", 10_000.0**-powers / (2 * math.pi), persistent=False)

    def forward(self, position: Tensor) -> Tensor:
        """Cosines and signed sines.

        Args:
            position: Numbers of the frames. shape: (batch, time)

        Returns:
            shape: (batch, time, 2, 1, size)
        """
        turns = position.double()[:, :, None] * self.turns
        angle = (2 * math.pi * (turns - turns.floor())).float()
        cosine, sine = angle.cos(), angle.sin()
        both = torch.stack(
            [torch.cat([cosine, cosine], dim=-1), torch.cat([-sine, sine], dim=-1)], dim=2
        )
        return both.unsqueeze(3)


def sinusoids(position: Tensor, width: int) -> Tensor:
    """Sines (even channels) and cosines of positions (Vaswani et al. 2017).

    Args:
        position: shape: (time,)
        width: Channels; even.

    Returns:
        shape: (time, width)
    """
    channel = torch.arange(0, width, 2, device=position.device)
    rates = torch.exp(-math.log(10_000.0) / width * channel)
    angles = position[:, None] * rates
    return torch.stack([angles.sin(), angles.cos()], dim=2).flatten(1)


class _SelfAttention(nn.Module):
    """Self-attention over earlier and new frames, with rotary positions or none of its own."""

    def __init__(self, config: AcousticConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.size = config.width // config.heads
        self.dropout = config.dropout_inside
        self.is_rotary = config.positions == "rotary"
        self.query: nn.Linear | None = nn.Linear(config.width, config.width)
        self.key_value: nn.Linear | None = nn.Linear(config.width, 2 * config.width)
        self.output = nn.Linear(config.width, config.width)
        self.projection: nn.Linear | None = None

    @torch.no_grad()
    def merge_parameters(self) -> None:
        """Make one projection of the three, for an encoder that is trained no more."""
        weight, bias = self._projection()
        self.projection = nn.Linear(weight.shape[1], weight.shape[0])
        self.projection.weight.copy_(weight)
        self.projection.bias.copy_(bias)
        self.query = self.key_value = None

    def _projection(self) -> tuple[Tensor, Tensor]:
        """Weights and biases of queries, keys and values, the scale of the scores in the former.

        shapes: (3 * width, width), (3 * width,)
        """
        if self.query is None or self.key_value is None:
            assert self.projection is not None, "merged"
            return self.projection.weight, self.projection.bias
        scale = self.size**-0.5
        return (
            torch.cat([scale * self.query.weight, self.key_value.weight]),
            torch.cat([scale * self.query.bias, self.key_value.bias]),
        )

    def forward(
        self, x: Tensor, past: tuple[Tensor, Tensor] | None, mask: Tensor, rotation: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Attend from the new frames to the past and new ones.

        Args:
            x: New frames, those of all streams in one list. shape: (batch * time, width)
            past: Keys and values of earlier frames, as this method returned them, in any order.
                shape of each: (batch, heads, past, size)
            mask: True, or 0 if it is to be added, where attention is allowed.
                shape: (batch, 1, 1 or time, past + time)
            rotation: Of the new frames. shape: (batch or 1, time, 2, 1, size)

        Returns:
            The attended frames, shape (batch * time, width), and the keys and values of the new
            frames, shape (batch, heads, time, size). Keys are rotated already.
        """
        batch, time = mask.shape[0], rotation.shape[1]
        projected = nn.functional.linear(x, *self._projection())
        projected = projected.view(batch, time, 3 * self.heads, self.size)
        query_key, value = torch.split(projected, [2 * self.heads, self.heads], dim=2)
        if self.is_rotary:
            query_key = _rotate(query_key, rotation)
        query, key = torch.chunk(query_key.transpose(1, 2), 2, dim=1)
        value = value.transpose(1, 2)
        keys, values = key, value
        if past is not None:
            keys = torch.cat([past[0], key], dim=2)
            values = torch.cat([past[1], value], dim=2)
        attended = nn.functional.scaled_dot_product_attention(
            query,
            keys,
            values,
            attn_mask=mask,
            dropout_p=self.dropout if self.training else 0.0,
            scale=1.0,
        )
        merged = attended.transpose(1, 2).reshape(batch * time, self.heads * self.size)
        return self.output(merged), key, value


class _Layer(nn.Module):
    """One transformer layer, normalising before each part or after it."""

    def __init__(self, config: AcousticConfig) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(config.width)
        self.attention = _SelfAttention(config)
        self.feed_forward_norm = nn.LayerNorm(config.width)
        self.feed_forward = nn.Sequential(
            nn.Linear(config.width, config.feed_forward),
            nn.ReLU(),
            nn.Dropout(config.dropout_inside),
            nn.Linear(config.feed_forward, config.width),
        )
        self.dropout = nn.Dropout(config.dropout)
        self.norm_first = config.norm == "pre"

    def forward(
        self, x: Tensor, past: tuple[Tensor, Tensor] | None, mask: Tensor, rotation: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """See :meth:`_SelfAttention.forward`."""
        if not self.norm_first:
            attended, key, value = self.attention(x, past, mask, rotation)
            x = self.attention_norm(x + self.dropout(attended))
            return self.feed_forward_norm(x + self.dropout(self.feed_forward(x))), key, value
        attended, key, value = self.attention(self.attention_norm(x), past, mask, rotation)
        x = x + self.dropout(attended)
        return x + self.dropout(self.feed_forward(self.feed_forward_norm(x))), key, value


class AcousticEncoder(nn.Module):
    """From samples to frames, 25 a second.

    Attributes:
        spectral: Features are energies over time and frequency, which SpecAugment masks.
    """

    spectral = True

    def __init__(self, config: AcousticConfig) -> None:
        super().__init__()
        self.config = config
        self.filter_bank = FilterBank(config.mel_bins)
        self.convolutions = nn.Sequential(
            nn.Conv2d(1, config.conv_channels, kernel_size=3, stride=2),
            nn.ReLU(),
            nn.Conv2d(config.conv_channels, config.conv_channels, kernel_size=3, stride=2),
            nn.ReLU(),
        )
        bands = ((config.mel_bins - 1) // 2 - 1) // 2
        self.projection = nn.Linear(config.conv_channels * bands, config.width)
        self.dropout = nn.Dropout(config.dropout_inside)
        self.rotation = _Rotation(config.width // config.heads)
        self.layers = nn.ModuleList(_Layer(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.width) if config.norm == "pre" else nn.Identity()

    @property
    def geometry(self) -> FrameGeometry:
        """Sizes a streaming caller needs."""
        c = self.config
        return FrameGeometry(
            c.layers, c.heads, c.width, c.left_frames, c.chunk_frames, streaming=c.streaming
        )

    def features(self, samples: Tensor) -> Tensor:
        """Filter bank of whole utterances, from the zero history of a stream's start.

        Args:
            samples: shape: (batch, samples); filled up with zeros to whole frames.

        Returns:
            shape: (batch, 4 * frames + 3, mel_bins)
        """
        missing = -samples.shape[1] % HOP_SAMPLES
        padded: Tensor = self.filter_bank(nn.functional.pad(samples, (CARRY_SAMPLES, missing)))
        return padded

    def _embed(self, features: Tensor) -> Tensor:
        """Convolve. shape: (batch, 4 * frames + 3, mel_bins) -> (batch, frames, width)."""
        maps = self.convolutions(features.unsqueeze(1))
        embedded: Tensor = self.projection(maps.transpose(1, 2).flatten(2))
        if self.config.positions == "sinusoids":
            width = self.config.width
            index = torch.arange(embedded.shape[1], device=embedded.device)
            embedded = embedded * width**0.5 + sinusoids(index, width)
        dropped: Tensor = self.dropout(embedded)
        return dropped

    def encode(self, features: Tensor, counts: Tensor, chunk: int | None) -> Tensor:
        """Encode the features of whole utterances.

        Args:
            features: shape: (batch, 4 * frames + 3, mel_bins)
            counts: Valid frames of each utterance. shape: (batch,)
            chunk: Frames a chunk; None for full context.

        Returns:
            shape: (batch, frames, width)
        """
        x = self._embed(features)
        frames = x.shape[1]
        # An utterance without frames sees its padding: seeing nothing at all is NaN.
        valid = torch.arange(frames, device=x.device) < counts.clamp(min=1)[:, None]
        mask = valid[:, None, None, :]
        if chunk is not None:
            mask = mask & chunk_mask(frames, chunk, self.config.left_frames, x.device)
            # Rows of padding whose whole window is padding too must see something, or they are NaN.
            mask = mask | torch.eye(frames, dtype=torch.bool, device=x.device)
        rotation = self.rotation(torch.arange(frames, device=x.device)[None])
        rows = x.flatten(0, 1)
        for layer in self.layers:
            rows, _, _ = layer(rows, None, mask, rotation)
        encoded: Tensor = self.norm(rows).view_as(x)
        return encoded

    def merge_parameters(self) -> None:
        """Put together what only training keeps apart, for an encoder that is trained no more."""
        for layer in self.layers:
            assert isinstance(layer, _Layer), "for the type checker"
            layer.attention.merge_parameters()

    def forward(
        self, samples: Tensor, sample_counts: Tensor, chunk: int | None
    ) -> tuple[Tensor, Tensor]:
        """Encode whole utterances.

        Args:
            samples: 16 kHz, -1 to 1, filled up with zeros. shape: (batch, samples)
            sample_counts: Valid samples of each. shape: (batch,)
            chunk: Frames a chunk; None for full context.

        Returns:
            Frames, shape (batch, frames, width), and the valid ones of each, shape (batch,).
        """
        counts = (sample_counts + HOP_SAMPLES - 1) // HOP_SAMPLES
        return self.encode(self.features(samples), counts, chunk), counts

    def forward_chunk(
        self, samples: Tensor, carry: Tensor, position: Tensor, *cache: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Encode the next chunk of each stream.

        Only what is new comes out; the caller puts it into the cache (frame ``t``
        belongs in place ``t % left_frames``), so that the cache is read and never rewritten.

        Args:
            samples: New samples. shape: (batch, HOP_SAMPLES * n)
            carry: The samples before them. shape: (batch, CARRY_SAMPLES)
            position: Number of the first new frame. shape: (batch,)
            cache: Keys of the first layer, its values, keys of the second, and so on: the last
                ``left_frames`` frames, in any order if there are as many, else the first places
                are filled. shape of each: (batch, heads, left_frames, size)

        Returns:
            New frames, shape (batch, n, width); the carry for next time; keys and values of the
            new frames, shape (layers, 2, batch, heads, n, size).
        """
        left = self.config.left_frames
        joined = torch.cat([carry, samples], dim=1)
        x = self._embed(self.filter_bank(joined))
        new = x.shape[1]
        rotation = self.rotation(position[:, None] + torch.arange(new, device=x.device))
        place = torch.arange(left + new, device=x.device)
        is_empty = (place >= position[:, None]) & (place < left)
        mask = torch.zeros_like(is_empty, dtype=x.dtype).masked_fill(is_empty, -1e9)
        mask = mask[:, None, None, :]
        rows = x.flatten(0, 1)
        kept = []
        for layer, keys, values in zip(self.layers, cache[::2], cache[1::2], strict=True):
            rows, key, value = layer(rows, (keys, values), mask, rotation)
            kept.append(torch.stack([key, value]))
        return self.norm(rows).view_as(x), joined[:, -CARRY_SAMPLES:], torch.stack(kept)
