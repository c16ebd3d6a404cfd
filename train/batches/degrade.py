"""Recordings as they would sound elsewhere: in a room, in noise, over a telephone.

What is heard when does not change: the sound that comes straight keeps its place.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import soxr
import torch
import torchaudio

from cnerta.models.runtime.companding import MULAW, encode_mulaw
from cnerta.models.runtime.geometry import SAMPLE_RATE
from cnerta.train.recipe import Augmentation

__all__ = ["add_noise", "degrade", "reverberate", "telephone"]

Samples = npt.NDArray[np.float32]

_TILT = (0.0, 2.0)  # of the noise's power over frequency: from white to brown
_DIRECT_DB = (0.0, 12.0)  # straight sound over the room's
_FIRST_REFLECTION_S = 0.003
_DECAY_DB = 60.0  # over the reverberation time, by its definition
_TELEPHONE_RATE = 8_000
_TELEPHONE_FROM_HZ = 300.0


def degrade(
    samples: Samples, augmentation: Augmentation, generator: np.random.Generator
) -> Samples:
    """Send a recording through a room, noise and a telephone, each as often as is set.

    Args:
        samples: 16 kHz. shape: (samples,)
        augmentation: How often, and how much.
        generator: Decides. Nothing is drawn for what never happens.

    Returns:
        shape: (samples,)
    """
    if not len(samples):
        return samples
    a = augmentation
    if a.room and generator.random() < a.room:
        samples = reverberate(
            samples, generator.uniform(*a.room_seconds), generator.uniform(*_DIRECT_DB), generator
        )
    if a.noise and generator.random() < a.noise:
        samples = add_noise(
            samples, generator.uniform(*a.noise_db), generator.uniform(*_TILT), generator
        )
    if a.telephone and generator.random() < a.telephone:
        samples = telephone(samples)
    return samples


def reverberate(
    samples: Samples, seconds: float, direct_db: float, generator: np.random.Generator
) -> Samples:
    """Put a recording into a room whose reflections are noise that dies away (Moorer 1979).

    Args:
        samples: 16 kHz. shape: (samples,)
        seconds: Reverberation time: the reflections' level falls by 60 dB in it.
        direct_db: Energy of the straight sound over that of all reflections.
        generator: Draws the reflections.

    Returns:
        As loud as before. shape: (samples,)
    """
    times = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    response = generator.standard_normal(len(times)) * 10 ** (-_DECAY_DB / 20 * times / seconds)
    response[times < _FIRST_REFLECTION_S] = 0.0
    response *= 10 ** (-direct_db / 20) / max(_level(response) * len(times) ** 0.5, 1e-9)
    response[0] = 1.0
    heard = torchaudio.functional.fftconvolve(
        torch.from_numpy(samples), torch.from_numpy(response.astype(np.float32))
    ).numpy()[: len(samples)]
    return np.asarray(heard * (_level(samples) / max(_level(heard), 1e-9)), np.float32)


def add_noise(
    samples: Samples, snr_db: float, tilt: float, generator: np.random.Generator
) -> Samples:
    """Add steady noise.

    Args:
        samples: 16 kHz. shape: (samples,)
        snr_db: Level of the whole recording over that of the noise.
        tilt: The noise's power falls with frequency to this power: 0 white, 1 pink, 2 brown.
        generator: Draws it.

    Returns:
        shape: (samples,)
    """
    spectrum = np.fft.rfft(generator.standard_normal(len(samples)))
    spectrum *= np.maximum(1.0, np.arange(len(spectrum))) ** (-tilt / 2)
    noise = np.fft.irfft(spectrum, len(samples))
    gain = _level(samples) / max(_level(noise), 1e-9) * 10 ** (-snr_db / 20)
    return (samples + gain * noise).astype(np.float32)


def telephone(samples: Samples) -> Samples:
    """Send a recording over a telephone: 300 to 4,000 Hz, 8-bit mu-law (ITU-T G.711).

    Args:
        samples: 16 kHz. shape: (samples,)

    Returns:
        16 kHz. shape: (samples,)
    """
    narrow = soxr.resample(samples, SAMPLE_RATE, _TELEPHONE_RATE)
    narrow = torchaudio.functional.highpass_biquad(
        torch.from_numpy(narrow), _TELEPHONE_RATE, _TELEPHONE_FROM_HZ
    ).numpy()
    wide = soxr.resample(MULAW[encode_mulaw(narrow)], _TELEPHONE_RATE, SAMPLE_RATE)
    return np.asarray(np.pad(wide, (0, len(samples)))[: len(samples)], np.float32)


def _level(samples: npt.NDArray[np.floating]) -> float:
    """Root mean square."""
    return float(np.sqrt(np.mean(np.square(samples, dtype=np.float64)))) if len(samples) else 0.0
