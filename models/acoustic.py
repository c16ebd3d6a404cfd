"""The acoustic encoder: filter bank, two strided convolutions, transformer (section 4.3).

It runs full-context, as in the paper, or in chunks with a bounded left context, on the same
weights. :meth:`AcousticEncoder.forward` computes a whole utterance, with a mask where chunks are
wanted; :meth:`AcousticEncoder.forward_chunk` computes one chunk from explicit state, and gives the
same frames (U2, Zhang et al. 2020). Positions are rotary (Su et al. 2021): attention then depends
on distances only, so the millionth frame of a stream is computed like the hundredth, which the
sinusoids of section 4.3 would not allow.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cnerta.models.config import AcousticConfig
from cnerta.models.filterbank import FilterBank
from cnerta.models.geometry import CARRY_SAMPLES, HOP_SAMPLES, FrameGeometry

__all__ = ["AcousticEncoder", "chunk_mask"]


def chunk_mask(frames: int, chunk: int, left: int, device: torch.device) -> Tensor:
    """Which frame (row) may attend to which (column): its chunk and ``left`` frames before it.

    Returns:
        shape: (frames, frames), True where attention is allowed.
    """
    index = torch.arange(frames, device=device)
    start = index // chunk * chunk
    row_start, column = start[:, None], index[None, :]
    return (column < row_start + chunk) & (column >= row_start - left)


def _rotate(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Rotate pairs of channels by their position's angle. shape: (batch, heads, time, size)."""
    half = x.shape[-1] // 2
    first, second = x[..., :half], x[..., half:]
    return torch.cat([first * cosine - second * sine, second * cosine + first * sine], dim=-1)


class _RotaryAttention(nn.Module):
    """Self-attention over cached and new frames, with rotary positions."""

    inverse_wavelength: Tensor

    def __init__(self, config: AcousticConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.size = config.width // config.heads
        self.dropout = config.dropout
        self.query = nn.Linear(config.width, config.width)
        self.key_value = nn.Linear(config.width, 2 * config.width)
        self.output = nn.Linear(config.width, config.width)
        powers = torch.arange(0, self.size, 2) / self.size
        self.register_buffer("inverse_wavelength", 10_000.0**-powers, persistent=False)

    def _split(self, x: Tensor) -> Tensor:
        batch, time, _ = x.shape
        return x.view(batch, time, self.heads, self.size).transpose(1, 2)

    def forward(self, x: Tensor, past: Tensor | None, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Attend from the new frames to the past and new ones.

        Args:
            x: New frames. shape: (batch, time, width)
            past: Keys and values of earlier frames, side by side. shape: (batch, past, 2 * width)
            mask: True where attention is allowed. broadcast to (batch, heads, time, past + time)

        Returns:
            The attended frames, shape (batch, time, width), and keys and values of past and new
            frames, shape (batch, past + time, 2 * width). Keys are kept unrotated, so positions
            can count from the start of the cache.
        """
        batch, time, width = x.shape
        key_value = self.key_value(x)
        if past is not None:
            key_value = torch.cat([past, key_value], dim=1)
        total = key_value.shape[1]
        position = torch.arange(total, device=x.device, dtype=x.dtype)
        angle = position[:, None] * self.inverse_wavelength
        cosine, sine = angle.cos(), angle.sin()
        query = _rotate(self._split(self.query(x)), cosine[total - time :], sine[total - time :])
        key = _rotate(self._split(key_value[..., :width]), cosine, sine)
        attended = nn.functional.scaled_dot_product_attention(
            query,
            key,
            self._split(key_value[..., width:]),
            attn_mask=mask,
            dropout_p=self.dropout if self.training else 0.0,
        )
        merged = attended.transpose(1, 2).reshape(batch, time, width)
        return self.output(merged), key_value


class _Layer(nn.Module):
    """One pre-norm transformer layer."""

    def __init__(self, config: AcousticConfig) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(config.width)
        self.attention = _RotaryAttention(config)
        self.feed_forward_norm = nn.LayerNorm(config.width)
        self.feed_forward = nn.Sequential(
            nn.Linear(config.width, config.feed_forward),
            nn.ReLU(),
            nn.Dropout(config.dropout),
            nn.Linear(config.feed_forward, config.width),
        )
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, past: Tensor | None, mask: Tensor) -> tuple[Tensor, Tensor]:
        attended, key_value = self.attention(self.attention_norm(x), past, mask)
        x = x + self.dropout(attended)
        return x + self.dropout(self.feed_forward(self.feed_forward_norm(x))), key_value


class AcousticEncoder(nn.Module):
    """From samples to frames, 25 a second."""

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
        self.dropout = nn.Dropout(config.dropout)
        self.layers = nn.ModuleList(_Layer(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.width)

    @property
    def geometry(self) -> FrameGeometry:
        """Sizes a streaming caller needs."""
        c = self.config
        return FrameGeometry(c.layers, c.width, c.left_frames, c.chunk_frames)

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
        embedded: Tensor = self.dropout(self.projection(maps.transpose(1, 2).flatten(2)))
        return embedded

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
        valid = torch.arange(frames, device=x.device) < counts[:, None]
        mask = valid[:, None, None, :]
        if chunk is not None:
            mask = mask & chunk_mask(frames, chunk, self.config.left_frames, x.device)
            # Rows of padding whose whole window is padding too must see something, or they are NaN.
            mask = mask | torch.eye(frames, dtype=torch.bool, device=x.device)
        for layer in self.layers:
            x, _ = layer(x, None, mask)
        encoded: Tensor = self.norm(x)
        return encoded

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
        self, samples: Tensor, carry: Tensor, cache: Tensor, cache_length: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Encode the next chunk of each stream.

        Args:
            samples: New samples. shape: (batch, 640 * n)
            carry: The samples before them. shape: (batch, 720)
            cache: Keys and values of earlier frames, newest last.
                shape: (batch, layers, 2, left_frames, width)
            cache_length: How many of the cached frames are real. shape: (batch,)

        Returns:
            New frames, shape (batch, n, width), and carry, cache and cache_length for next time.
        """
        left = self.config.left_frames
        joined = torch.cat([carry, samples], dim=1)
        x = self._embed(self.filter_bank(joined))
        new = x.shape[1]
        column = torch.arange(left + new, device=x.device)
        mask = (column >= left - cache_length[:, None])[:, None, None, :]
        # shape: (batch, layers, left_frames, 2 * width)
        past = cache.transpose(2, 3).flatten(3)
        kept = []
        for i, layer in enumerate(self.layers):
            x, key_value = layer(x, past[:, i], mask)
            kept.append(key_value[:, new:])
        batch, layers, _, _, width = cache.shape
        stacked = torch.stack(kept, dim=1).view(batch, layers, left, 2, width)
        next_cache = stacked.transpose(2, 3)
        next_length = (cache_length + new).clamp(max=left)
        return self.norm(x), joined[:, -CARRY_SAMPLES:], next_cache, next_length
