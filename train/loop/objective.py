"""The loss of each task of a stage, as one module (so that it can be distributed)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cnerta.models.networks.ctc import BLANK, CtcHead, ctc_loss
from cnerta.models.networks.tagger import SpeechTagger
from cnerta.train.batches.batch import UNKNOWN_BREAK, UNKNOWN_FRAME, Batch
from cnerta.train.batches.encoding import encode_batch
from cnerta.train.recipe import Augmentation, Stage

__all__ = ["LOSSES", "LossCounts", "LossWeights", "Objective"]

LOSSES = ("entities", "masked ctc", "breaks", "units", "frames")
"""What a loss may be made of: the CRF's, masked CTC, prosody, and the acoustic task's two."""

# Most frames of slow speech are pauses: at full weight they would dominate the loss.
_PAUSE_WEIGHT = 0.5


@dataclass(frozen=True, slots=True)
class LossWeights:
    """What part of an optimiser step a batch is: its mean losses are weighted with these.

    Attributes:
        sentences: Of the utterances.
        spoken: Of those with audio.
        units: Of the spoken units.
        timed: Of the frames whose unit is known, pauses counting half.
        marked: Of the characters whose boundary is known.
    """

    sentences: float = 1.0
    spoken: float = 1.0
    units: float = 1.0
    timed: float = 1.0
    marked: float = 1.0


@dataclass(frozen=True, slots=True)
class LossCounts:
    """How many of each a batch, or a whole step, has; see :class:`LossWeights`."""

    sentences: float
    spoken: float
    units: float
    timed: float
    marked: float

    @classmethod
    def of(cls, batch: Batch) -> LossCounts:
        """Those of a batch."""
        known = batch.frame_units != UNKNOWN_FRAME
        pauses = int((batch.frame_units == BLANK).sum())
        return cls(
            sentences=len(batch.counts),
            spoken=int((batch.sample_counts > 0).sum()),
            units=int(batch.unit_counts.sum()),
            timed=int(known.sum()) - (1 - _PAUSE_WEIGHT) * pauses,
            marked=int((batch.breaks != UNKNOWN_BREAK).sum()),
        )

    def values(self) -> tuple[float, ...]:
        """The numbers, in order."""
        return (self.sentences, self.spoken, self.units, self.timed, self.marked)

    def weights(self, total: LossCounts) -> LossWeights:
        """Weights of a batch with these counts in a step with ``total``."""
        pairs = zip(self.values(), total.values(), strict=True)
        return LossWeights(*(own / all_ if own else 0.0 for own, all_ in pairs))


_WHOLE = LossWeights()


class Objective(nn.Module):
    """The loss of a stage. Wraps the model, so its parameters are the model's.

    Attributes:
        parts: What the last loss was made of, each as part of the step but before its weight in the
            sum: in the order of :data:`LOSSES`, 0 for what the stage does not have.
    """

    def __init__(self, model: SpeechTagger, stage: Stage, augmentation: Augmentation) -> None:
        super().__init__()
        self.model = model
        self.stage = stage
        self.augmentation = augmentation
        self.parts = [0.0] * len(LOSSES)

    def _note(self, name: str, loss: Tensor) -> Tensor:
        self.parts[LOSSES.index(name)] = float(loss.detach())
        return loss

    def forward(self, batch: Batch, chunk: int | None, weights: LossWeights = _WHOLE) -> Tensor:
        """The loss of a batch, a scalar.

        Args:
            batch: The batch.
            chunk: Frames a chunk of the acoustic encoder; None for full context.
            weights: What part of a step it is. The losses of all its batches add up to the loss of
                the step as one batch.
        """
        self.parts = [0.0] * len(LOSSES)
        augmentation = self.augmentation if self.training else None
        frozen = self.stage.task == "entities" and self.stage.freeze_acoustic
        with torch.set_grad_enabled(torch.is_grad_enabled() and not frozen):
            frames, frame_counts = encode_batch(self.model, batch, chunk, augmentation)
        if self.stage.task == "acoustic":
            return self._acoustic_loss(frames, frame_counts, batch, weights)
        if self.training and self.stage.other_audio:
            assert frozen, "checked by the loop"
            frames, frame_counts = _exchanged(frames, frame_counts, self.stage.other_audio)
        output = self.model(batch.characters, batch.counts, frames, frame_counts, batch.matches)
        losses = self.model.entity_losses(output.emissions, batch.tags, batch.counts)
        if self.stage.forbid_worse and output.text_emissions is not None:
            alone = output.text_emissions.detach()
            least = self.model.entity_losses(alone, batch.tags, batch.counts)
            losses = losses + self.stage.forbid_worse * (losses - least.detach()).clamp(min=0)
        loss = self._note("entities", weights.sentences * losses.mean())
        weight = self.model.config.ctc.weight
        heard = bool(frame_counts.any())
        if weight and heard and not frozen:
            ctc = self.model.masked_ctc_loss(output, batch.characters, batch.counts, frame_counts)
            loss = loss + weight * self._note("masked ctc", weights.spoken * ctc)
        marked = batch.breaks != UNKNOWN_BREAK
        if output.breaks is not None and bool(marked.any()):
            own = nn.functional.cross_entropy(output.breaks[marked], batch.breaks[marked])
            own = self._note("breaks", weights.marked * own)
            loss = loss + self.model.config.fusion.prosody * own
        if self.stage.acoustic_weight and heard:
            own = self._acoustic_loss(frames, frame_counts, batch, weights)
            loss = loss + self.stage.acoustic_weight * own
        return loss

    def _acoustic_loss(
        self, frames: Tensor, frame_counts: Tensor, batch: Batch, weights: LossWeights
    ) -> Tensor:
        """Unmasked CTC a unit, plus cross-entropy a frame where times are known."""
        assert isinstance(self.model.ctc, CtcHead), "checked by the loop"
        log_probabilities = self.model.ctc.all_units(frames)
        losses = ctc_loss(log_probabilities, batch.units, frame_counts, batch.unit_counts)
        units = weights.units * losses.sum() / batch.unit_counts.sum().clamp(min=1)
        loss = self._note("units", units)
        timed = batch.frame_units != UNKNOWN_FRAME
        if bool(timed.any()):
            chosen = log_probabilities[timed]
            own = nn.functional.nll_loss(chosen, batch.frame_units[timed], reduction="none")
            weight = torch.where(batch.frame_units[timed] == BLANK, _PAUSE_WEIGHT, 1.0)
            frames_loss = weights.timed * (own * weight).sum() / weight.sum()
            loss = loss + self._note("frames", frames_loss)
        return loss


def _exchanged(frames: Tensor, counts: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """Give some utterances the audio of others of the batch.

    Args:
        frames: shape: (batch, time, width)
        counts: Valid frames of each. shape: (batch,)
        share: Of the utterances.
    """
    order = torch.arange(len(counts))
    chosen = torch.nonzero(torch.rand(len(counts)) < share).flatten()
    order[chosen] = chosen.roll(1)  # one alone keeps its own
    order = order.to(counts.device)
    return frames[order], counts[order]
