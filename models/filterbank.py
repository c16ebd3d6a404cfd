"""The log mel filter bank as one convolution and one matrix product.

Everything a Kaldi ``fbank`` does to a 25 ms window before the power spectrum (removing the mean,
pre-emphasis, the Povey window, zero padding, the Fourier transform) is linear. So it is one matrix,
applied to every window by a strided convolution: quick, differentiable, and exported into the
acoustic graph as it is, so that training and serving cannot differ. The tests compare it with
``torchaudio.compliance.kaldi.fbank``.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from cnerta.models.geometry import SAMPLE_RATE

__all__ = ["SHIFT_SAMPLES", "WINDOW_SAMPLES", "FilterBank"]

WINDOW_SAMPLES = 400
SHIFT_SAMPLES = 160
_FFT_SAMPLES = 512
_BINS = _FFT_SAMPLES // 2
_PRE_EMPHASIS = 0.97
_LOW_HZ = 20.0
# Kaldi works on 16-bit integers; so do the energy floor and everybody's trained statistics.
_SAMPLE_SCALE = 32768.0
_ENERGY_FLOOR = torch.finfo(torch.float32).eps


def _analysis_matrix() -> Tensor:
    """From 400 samples to 256 real and 256 imaginary parts. shape: (512, 400)."""
    identity = torch.eye(WINDOW_SAMPLES, dtype=torch.float64)
    centred = identity - 1.0 / WINDOW_SAMPLES
    # The first sample is pre-emphasised against itself, as Kaldi does.
    emphasis = identity - _PRE_EMPHASIS * torch.roll(identity, -1, dims=1)
    emphasis[0] = 0.0
    emphasis[0, 0] = 1.0 - _PRE_EMPHASIS
    ramp = torch.arange(WINDOW_SAMPLES, dtype=torch.float64)
    hann = 0.5 - 0.5 * torch.cos(2 * math.pi * ramp / (WINDOW_SAMPLES - 1))
    window = hann**0.85
    angles = 2 * math.pi / _FFT_SAMPLES * torch.outer(torch.arange(_BINS).double(), ramp)
    fourier = torch.cat([torch.cos(angles), -torch.sin(angles)])
    return _SAMPLE_SCALE * (fourier * window) @ emphasis @ centred


def _mel(hertz: Tensor) -> Tensor:
    return 1127.0 * torch.log1p(hertz / 700.0)


def _mel_matrix(mel_bins: int) -> Tensor:
    """Triangular mel filters. shape: (256, mel_bins)."""
    edges = _mel(torch.tensor([_LOW_HZ, SAMPLE_RATE / 2], dtype=torch.float64))
    centres = torch.linspace(float(edges[0]), float(edges[1]), mel_bins + 2, dtype=torch.float64)
    bins = _mel(torch.arange(_BINS, dtype=torch.float64) * SAMPLE_RATE / _FFT_SAMPLES)
    rising = (bins[:, None] - centres[:-2]) / (centres[1:-1] - centres[:-2])
    falling = (centres[2:] - bins[:, None]) / (centres[2:] - centres[1:-1])
    return torch.minimum(rising, falling).clamp(min=0.0)


class FilterBank(nn.Module):
    """Log mel energies of 25 ms windows every 10 ms, normalised by training statistics.

    Attributes:
        mean: Mean of each filter over the training data. shape: (mel_bins,)
        deviation: Its standard deviation. shape: (mel_bins,)
    """

    analysis: Tensor
    mel: Tensor
    mean: Tensor
    deviation: Tensor

    def __init__(self, mel_bins: int) -> None:
        super().__init__()
        # Constants: rebuilt, not stored in checkpoints.
        analysis = _analysis_matrix().float().unsqueeze(1)
        self.register_buffer("analysis", analysis, persistent=False)
        self.register_buffer("mel", _mel_matrix(mel_bins).float(), persistent=False)
        self.register_buffer("mean", torch.zeros(mel_bins))
        self.register_buffer("deviation", torch.ones(mel_bins))

    def energies(self, samples: Tensor) -> Tensor:
        """Log mel energies as Kaldi defines them.

        Args:
            samples: 16 kHz, -1 to 1. shape: (batch, samples)

        Returns:
            shape: (batch, windows, mel_bins), windows = (samples - 400) // 160 + 1
        """
        parts = nn.functional.conv1d(samples.unsqueeze(1), self.analysis, stride=SHIFT_SAMPLES)
        squares = parts * parts  # shape: (batch, 512, windows)
        power = squares[:, :_BINS] + squares[:, _BINS:]
        return (power.transpose(1, 2) @ self.mel).clamp(min=_ENERGY_FLOOR).log()

    def forward(self, samples: Tensor) -> Tensor:
        """Normalised log mel energies. shapes as :meth:`energies`."""
        return (self.energies(samples) - self.mean) / self.deviation
