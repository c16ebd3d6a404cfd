"""Acoustic frames of a batch, with what training does to its audio."""

from __future__ import annotations

import torch
from torch import Tensor

from cnerta.models.networks.acoustic_encoder import AcousticEncoder
from cnerta.models.networks.streaming_whisper import StreamingWhisperEncoder
from cnerta.models.networks.tagger import SpeechTagger
from cnerta.models.runtime.geometry import HOP_SAMPLES
from cnerta.train.batches.augment import other_voices, spec_augment
from cnerta.train.batches.batch import Batch
from cnerta.train.recipe import Augmentation

__all__ = ["encode_batch"]


def encode_batch(
    model: SpeechTagger,
    batch: Batch,
    chunk: int | None,
    augmentation: Augmentation | None = None,
) -> tuple[Tensor, Tensor]:
    """Acoustic frames of a batch, and how many of each are valid.

    A batch without any audio is not encoded; it gets one frame of padding.
    """
    counts = (batch.sample_counts + HOP_SAMPLES - 1) // HOP_SAMPLES
    if not bool(counts.any()):
        width = model.config.acoustic.width
        return batch.samples.new_zeros(len(counts), 1, width), counts
    # Energies span more than half precision can tell apart, and serving computes them in single.
    with torch.autocast(batch.samples.device.type, enabled=False):
        features = model.acoustic.features(batch.samples)
        encoder = model.acoustic
        if augmentation is not None and isinstance(
            encoder, AcousticEncoder | StreamingWhisperEncoder
        ):
            features = other_voices(features, augmentation, encoder.filter_bank)
        if augmentation is not None and model.acoustic.spectral:
            features = spec_augment(features, augmentation)
    return model.acoustic.encode(features, counts, chunk), counts
