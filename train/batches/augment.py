"""What happens to features in training: SpecAugment, and voices that the data does not have."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from cnerta.models.networks.filterbank import FilterBank
from cnerta.models.networks.streaming_whisper import WhisperFilterBank
from cnerta.models.runtime.geometry import SAMPLE_RATE
from cnerta.train.recipe import Augmentation

__all__ = ["other_voices", "spec_augment"]

_BEND_HZ = 4_800.0  # no formant that tells vowels apart lies above
_TIMBRE_PARTS = 4
_NEPERS_A_DB = math.log(10) / 10  # of energies


def other_voices(
    features: Tensor, augmentation: Augmentation, bank: FilterBank | WhisperFilterBank
) -> Tensor:
    """Vary speaker and microphone, each utterance differently.

    Vocal tract length perturbation (Jaitly and Hinton 2013): frequencies below 4,800 Hz are scaled
    by one factor, those above so that the highest stays where it is. Then a smooth curve over the
    mel scale, of a few cosines, is added to the energies.

    Args:
        features: Normalised log mel energies. shape: (batch, windows, mel_bins)
        augmentation: How far.
        bank: What they are normalised with.

    Returns:
        shape: (batch, windows, mel_bins)
    """
    a = augmentation
    if not (a.vocal_tract or a.timbre_db):
        return features
    batch, _, bins = features.shape
    energies = features * bank.deviation + bank.mean
    if a.vocal_tract:
        factors = 1 + a.vocal_tract * (2 * torch.rand(batch, dtype=torch.float64) - 1)
        energies = _scale_frequencies(energies, factors, bank)
    if a.timbre_db:
        cycles = torch.arange(1, _TIMBRE_PARTS + 1)[:, None]
        place = torch.arange(bins) / (bins - 1)
        parts = torch.randn(batch, _TIMBRE_PARTS) * a.timbre_db * _NEPERS_A_DB
        curve = parts @ torch.cos(math.pi * cycles * place)
        energies = energies + curve[:, None].to(energies)
    return (energies - bank.mean) / bank.deviation


def _scale_frequencies(
    energies: Tensor, factors: Tensor, bank: FilterBank | WhisperFilterBank
) -> Tensor:
    """Stretch the frequency axis: energy at a frequency moves to ``factor`` times it.

    Args:
        energies: Of mel filters. shape: (batch, windows, mel_bins)
        factors: Near 1. shape: (batch,)
        bank: Whose filters they are.

    Returns:
        shape: (batch, windows, mel_bins)
    """
    bins = energies.shape[2]
    wanted = bank.centres_hz
    highest = SAMPLE_RATE / 2
    factors = factors[:, None]
    bend = _BEND_HZ * factors.clamp(max=1.0)  # where the straight piece ends, as heard
    above = highest - (highest - wanted) * (highest - bend / factors) / (highest - bend)
    source = torch.where(wanted <= bend, wanted / factors, above)
    place = bank.place(source).clamp(0, bins - 1)
    low = place.floor().long().clamp(max=bins - 2)
    share = (place - low).to(energies)[:, None]
    low = low.to(energies.device)[:, None].expand(-1, energies.shape[1], -1)
    return energies.gather(2, low) * (1 - share) + energies.gather(2, low + 1) * share


def spec_augment(features: Tensor, augmentation: Augmentation) -> Tensor:
    """Mask normalised features, each utterance differently.

    Args:
        features: shape: (batch, windows, mel_bins)
        augmentation: Number and size of the masks.

    Returns:
        shape: (batch, windows, mel_bins)
    """
    batch, windows, bins = features.shape
    a = augmentation
    longest = min(a.time_mask_windows, int(windows * a.time_mask_share))
    time = _masks(batch, windows, a.time_masks, longest)
    band = _masks(batch, bins, a.frequency_masks, a.frequency_mask_bins)
    mask = time[:, :, None] | band[:, None, :]
    return features.masked_fill(mask.to(features.device), 0.0)


def _masks(batch: int, size: int, count: int, longest: int) -> Tensor:
    """Random stretches. shape: (batch, size)."""
    length = (torch.rand(batch, count, 1) * (longest + 1)).floor()
    start = (torch.rand(batch, count, 1) * (size - length).clamp(min=0)).floor()
    index = torch.arange(size)
    return ((index >= start) & (index < start + length)).any(dim=1)
