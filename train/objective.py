"""What is minimised, for each task of a stage, as one module (so that it can be distributed)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cnerta.models.ctc import BLANK, ctc_loss
from cnerta.models.geometry import HOP_SAMPLES
from cnerta.models.tagger import SpeechTagger
from cnerta.train.augment import spec_augment
from cnerta.train.batch import UNKNOWN_FRAME, Batch
from cnerta.train.recipe import Augmentation, Stage

__all__ = ["Objective", "encode_batch"]


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
    features = model.acoustic.features(batch.samples)
    if augmentation is not None:
        features = spec_augment(features, augmentation)
    return model.acoustic.encode(features, counts, chunk), counts


class Objective(nn.Module):
    """The loss of a stage. Wraps the model, so its parameters are the model's."""

    def __init__(self, model: SpeechTagger, stage: Stage, augmentation: Augmentation) -> None:
        super().__init__()
        self.model = model
        self.stage = stage
        self.augmentation = augmentation

    def forward(self, batch: Batch, chunk: int | None) -> Tensor:
        """The loss of a batch, a scalar."""
        augmentation = self.augmentation if self.training else None
        frozen = self.stage.task == "entities" and self.stage.freeze_acoustic
        with torch.set_grad_enabled(torch.is_grad_enabled() and not frozen):
            frames, frame_counts = encode_batch(self.model, batch, chunk, augmentation)
        if self.stage.task == "acoustic":
            return self._acoustic_loss(frames, frame_counts, batch)
        output = self.model(batch.characters, batch.counts, frames, frame_counts, batch.matches)
        loss = self.model.entity_loss(output, batch.tags, batch.counts)
        weight = self.model.config.ctc.weight
        heard = bool(frame_counts.any())
        if weight and heard and not frozen:
            ctc = self.model.masked_ctc_loss(output, batch.characters, batch.counts, frame_counts)
            loss = loss + weight * ctc
        if self.stage.acoustic_weight and heard:
            own = self._acoustic_loss(frames, frame_counts, batch)
            loss = loss + self.stage.acoustic_weight * own
        return loss

    def _acoustic_loss(self, frames: Tensor, frame_counts: Tensor, batch: Batch) -> Tensor:
        """Unmasked CTC a unit, plus cross-entropy a frame where times are known."""
        log_probabilities = self.model.ctc.all_units(frames)
        losses = ctc_loss(log_probabilities, batch.units, frame_counts, batch.unit_counts)
        loss = losses.sum() / batch.unit_counts.sum().clamp(min=1)
        timed = batch.frame_units != UNKNOWN_FRAME
        if bool(timed.any()):
            chosen = log_probabilities[timed]
            own = nn.functional.nll_loss(chosen, batch.frame_units[timed], reduction="none")
            # Pauses are most frames of slow speech; they must not drown the rest.
            weight = torch.where(batch.frame_units[timed] == BLANK, 0.5, 1.0)
            loss = loss + (own * weight).sum() / weight.sum()
        return loss
