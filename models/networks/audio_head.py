"""A tagger that need not listen: the answer from text alone, moved by what is heard where it fits.

Fusion as the paper has it gives one answer, and audio that adds nothing, or is of another sentence,
can only disturb it. Here there are two: one head answers from the text alone, as if there were no
audio, and a second one, with a fusion of its own, from text and audio. The emissions are those of
the first, moved towards the second by a share that each character has of its own: none where there
is no audio, little where the audio does not fit the text or the text is sure of itself.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cnerta.models.config import ModelConfig
from cnerta.models.networks.bilstm import BiLstm
from cnerta.models.networks.cross_modal_attention import build_fusion
from cnerta.models.networks.reading_embedding import ChosenReadings
from cnerta.models.runtime.vocabulary import Vocabulary

__all__ = ["AudioHead", "FitGate"]

_FLOOR = -10.0  # of log-probabilities
# What the gate believes before it is trained: of how well the whole audio fits, how well what is at
# a character and beside it fits, how sure the text is, how sure the listening head is, and always.
_BELIEF = (8.0, 2.0, -4.0, 2.0)
_ALWAYS = 3.0
# Its few weights have far to go, at the rate of those around it.
_HASTE = 20.0


class FitGate(nn.Module):
    """How much of what is heard is believed at each character: a logistic regression."""

    def __init__(self) -> None:
        super().__init__()
        self.belief = nn.Linear(len(_BELIEF), 1)
        with torch.no_grad():
            self.belief.weight.copy_(torch.tensor([_BELIEF]) / _HASTE)
            self.belief.bias.fill_(_ALWAYS / _HASTE)

    def forward(
        self,
        log_probabilities: Tensor,
        counts: Tensor,
        frame_counts: Tensor,
        text: Tensor,
        heard: Tensor,
    ) -> Tensor:
        """Shares.

        Args:
            log_probabilities: Masked CTC. shape: (batch, time, 1 + length)
            counts: Valid characters. shape: (batch,)
            frame_counts: Valid frames, 0 where there is no audio. shape: (batch,)
            text: Emissions from text alone. shape: (batch, length, tags)
            heard: Emissions of the listening head. shape: (batch, length, tags)

        Returns:
            0 to 1; 0 without audio. shape: (batch, length, 1)
        """
        time = torch.arange(log_probabilities.shape[1], device=counts.device)
        beyond = (time >= frame_counts[:, None])[:, :, None]
        said = log_probabilities[:, :, 1:].clamp(min=_FLOOR).masked_fill(beyond, _FLOOR)
        fit = said.amax(dim=1) / -_FLOOR  # of each character at its best frame, -1 to 0
        place = torch.arange(fit.shape[1], device=counts.device)
        fit = fit * (place < counts[:, None])
        whole = (fit.sum(dim=1) / counts.clamp(min=1))[:, None].expand_as(fit)
        padded = nn.functional.pad(fit, (1, 1))
        around = (padded[:, :-2] + padded[:, 1:-1] + padded[:, 2:]) / 3
        sure = [emissions.softmax(dim=2).amax(dim=2) for emissions in (text, heard)]
        share = torch.sigmoid(_HASTE * self.belief(torch.stack([whole, around, *sure], dim=2)))
        believed: Tensor = share * (frame_counts > 0)[:, None, None]
        return believed


class AudioHead(nn.Module):
    """The parts of the second head; what they are is documented in :class:`SpeechTagger`."""

    def __init__(
        self, config: ModelConfig, vocabulary: Vocabulary, text_width: int, kinds: int, tags: int
    ) -> None:
        """Build with random weights.

        Args:
            config: The model's settings.
            vocabulary: Characters and acoustic units.
            text_width: Of the text representation.
            kinds: Of what a gazetteer tells; 0 for none.
            tags: How many there are.
        """
        super().__init__()
        fusion = config.fusion
        built = build_fusion(fusion, text_width, config.acoustic.width)
        assert built is not None, "a model that listens has a fusion"
        self.fusion = built
        width = text_width + built.width + kinds + fusion.posterior_features
        self.chosen_readings: ChosenReadings | None = None
        if fusion.readings:
            self.chosen_readings = ChosenReadings(vocabulary, fusion.readings)
            width += fusion.readings
        self.context: BiLstm | None = None
        if fusion.context:
            self.context = BiLstm(width, fusion.context)
            width = fusion.context + fusion.readings
        dropout = config.tagger_dropout
        self.dropout = nn.Dropout(config.text.dropout if dropout is None else dropout)
        self.emissions = nn.Linear(width, tags)
        self.gate = FitGate()
