"""The log mel filter bank as matrix products.

What a Kaldi ``fbank`` does to a 25 ms window: remove the mean, pre-emphasise, apply the Povey
window, fill up with zeros, take the power spectrum, sum it up in mel filters, take the logarithm.
The power spectrum does not change if time is counted from the middle of the window. There the
window is even, so the cosines need only the even part of the samples and the sines the odd part:
half the products of a plain Fourier matrix, and at this size less than a fast Fourier transform
costs in ONNX. Differentiable, and exported into the acoustic graph as it is, so that training and
serving cannot differ. The tests compare it with ``torchaudio.compliance.kaldi.fbank``.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from cnerta.models.runtime.geometry import SAMPLE_RATE, SHIFT_SAMPLES, WINDOW_SAMPLES

__all__ = [
    "FilterBank",
    "hertz",
    "mel",
    "mel_centres",
    "windows",
]


_FFT_SAMPLES = 512
_BINS = _FFT_SAMPLES // 2
_PRE_EMPHASIS = 0.97
_LOW_HZ = 20.0
# Kaldi works on 16-bit integers; its energy floor and published statistics are in that scale.
_SAMPLE_SCALE = 32768.0
_ENERGY_FLOOR = torch.finfo(torch.float32).eps


def _analysis_matrices() -> tuple[Tensor, Tensor]:
    """Cosines and sines under the window, time counted from its middle.

    Rows are the samples 1 to 199 of the window's first half. The Povey window is zero at sample 0
    and at its mirror image, so neither counts, nor does what Kaldi pre-emphasises sample 0 with.

    Returns:
        shape of each: (199, 256)
    """
    ramp = torch.arange(1, WINDOW_SAMPLES // 2, dtype=torch.float64)
    hann = 0.5 - 0.5 * torch.cos(2 * math.pi * ramp / (WINDOW_SAMPLES - 1))
    window = _SAMPLE_SCALE * hann[:, None] ** 0.85
    middle = (WINDOW_SAMPLES - 1) / 2
    angles = 2 * math.pi / _FFT_SAMPLES * torch.outer(ramp - middle, torch.arange(_BINS).double())
    return window * torch.cos(angles), window * torch.sin(angles)


def mel(hertz: Tensor) -> Tensor:
    """Frequencies on the mel scale."""
    return 1127.0 * torch.log1p(hertz / 700.0)


def hertz(mel: Tensor) -> Tensor:
    """Places on the mel scale as frequencies."""
    return 700.0 * torch.expm1(mel / 1127.0)


def mel_centres(mel_bins: int) -> Tensor:
    """Where the filters peak, with the edges below and above them, in mel.

    Returns:
        shape: (mel_bins + 2,)
    """
    edges = mel(torch.tensor([_LOW_HZ, SAMPLE_RATE / 2], dtype=torch.float64))
    return torch.linspace(float(edges[0]), float(edges[1]), mel_bins + 2, dtype=torch.float64)


def _mel_matrix(mel_bins: int) -> Tensor:
    """Triangular mel filters. shape: (256, mel_bins)."""
    centres = mel_centres(mel_bins)
    bins = mel(torch.arange(_BINS, dtype=torch.float64) * SAMPLE_RATE / _FFT_SAMPLES)
    rising = (bins[:, None] - centres[:-2]) / (centres[1:-1] - centres[:-2])
    falling = (centres[2:] - bins[:, None]) / (centres[2:] - centres[1:-1])
    return torch.minimum(rising, falling).clamp(min=0.0)


class FilterBank(nn.Module):
    """Log mel energies of 25 ms windows every 10 ms, normalised by training statistics.

    Attributes:
        mean: Mean of each filter over the training data. shape: (mel_bins,)
        deviation: Its standard deviation. shape: (mel_bins,)
    """

    cosines: Tensor
    sines: Tensor
    mel: Tensor
    mean: Tensor
    deviation: Tensor

    def __init__(self, mel_bins: int) -> None:
        super().__init__()
        # Constants: rebuilt, not stored in checkpoints.
        cosines, sines = _analysis_matrices()
        self.register_buffer("cosines", cosines.float(), persistent=False)
        self.register_buffer("sines", sines.float(), persistent=False)
        self.register_buffer("mel", _mel_matrix(mel_bins).float(), persistent=False)
        self.register_buffer("mean", torch.zeros(mel_bins))
        self.register_buffer("deviation", torch.ones(mel_bins))

    @property
    def centres_hz(self) -> Tensor:
        """Where the filters peak. shape: (mel_bins,)."""
        return hertz(mel_centres(self.mel.shape[1])[1:-1])

    def place(self, frequencies: Tensor) -> Tensor:
        """Which filter, with fractions, peaks at each frequency. shape: (n,) -> (n,)."""
        centres = mel_centres(self.mel.shape[1])
        return (mel(frequencies) - centres[1]) / (centres[1] - centres[0])

    def energies(self, samples: Tensor) -> Tensor:
        """Log mel energies as Kaldi defines them.

        Args:
            samples: 16 kHz, -1 to 1. shape: (batch, samples)

        Returns:
            shape: (batch, windows, mel_bins), windows = (samples - 400) // 160 + 1
        """
        cut = windows(samples)
        mean = cut.mean(dim=2, keepdim=True)
        emphasised = cut[:, :, 1:] - _PRE_EMPHASIS * cut[:, :, :-1]
        emphasised = emphasised - (1 - _PRE_EMPHASIS) * mean
        # Samples 1 to 199 and, from the end, their mirror images 398 to 200.
        half = WINDOW_SAMPLES // 2 - 1
        front, back = emphasised[:, :, :half], emphasised[:, :, half : 2 * half].flip(2)
        real = (front + back).flatten(0, 1) @ self.cosines
        imaginary = (front - back).flatten(0, 1) @ self.sines
        power = real * real + imaginary * imaginary  # shape: (batch * windows, 256)
        energies = (power @ self.mel).clamp(min=_ENERGY_FLOOR).log()
        return energies.view(cut.shape[0], -1, self.mel.shape[1])

    def forward(self, samples: Tensor) -> Tensor:
        """Normalised log mel energies. shapes as :meth:`energies`."""
        return (self.energies(samples) - self.mean) / self.deviation


def windows(samples: Tensor) -> Tensor:
    """Overlapping windows. shape: (batch, samples) -> (batch, windows, 400).

    Put together from blocks of one shift, two and a half a window: that copies long rows, where
    gathering single samples would take longer than the spectrum.
    """
    count = (samples.shape[1] - WINDOW_SAMPLES) // SHIFT_SAMPLES + 1
    rest = WINDOW_SAMPLES - 2 * SHIFT_SAMPLES
    used = samples[:, : count * SHIFT_SAMPLES + WINDOW_SAMPLES - SHIFT_SAMPLES]
    padded = nn.functional.pad(used, (0, SHIFT_SAMPLES - rest))
    blocks = padded.view(samples.shape[0], count + 2, SHIFT_SAMPLES)
    return torch.cat([blocks[:, :-2], blocks[:, 1:-1], blocks[:, 2:, :rest]], dim=2)
