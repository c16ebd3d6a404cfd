"""SpecAugment (Park et al. 2019): stretches of time and bands of frequency set to the mean."""

from __future__ import annotations

import torch
from torch import Tensor

from cnerta.train.recipe import Augmentation

__all__ = ["spec_augment"]


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
    time = _masks(batch, windows, a.time_masks, min(a.time_mask_windows, windows // 4))
    band = _masks(batch, bins, a.frequency_masks, a.frequency_mask_bins)
    mask = time[:, :, None] | band[:, None, :]
    return features.masked_fill(mask.to(features.device), 0.0)


def _masks(batch: int, size: int, count: int, longest: int) -> Tensor:
    """Random stretches. shape: (batch, size)."""
    length = (torch.rand(batch, count, 1) * (longest + 1)).floor()
    start = (torch.rand(batch, count, 1) * (size - length).clamp(min=0)).floor()
    index = torch.arange(size)
    return ((index >= start) & (index < start + length)).any(dim=1)
