"""Embeddings of the pronunciations that characters were spoken with.

曾建桥 read Zēng Jiànqiáo is a person, read céng jiànqiáo somebody who once built a bridge. Frames
hold that already, but for every such character a tagger would have to learn it from examples; the
CTC head already scores each pronunciation.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cnerta.models.networks.ctc import part_table
from cnerta.models.runtime.vocabulary import Vocabulary

__all__ = ["ChosenReadings"]


class ChosenReadings(nn.Module):
    """Embeddings of the pronunciations heard of characters that have several; ours.

    A pronunciation is the sum of an embedding of its own and those of its initial, final and tone,
    less those of the character's most usual one, and one of how usual it is. Zero for what has one
    pronunciation, or was not heard.

    Attributes:
        width: Size of a character's embedding.
    """

    unit_parts: Tensor

    def __init__(self, vocabulary: Vocabulary, width: int) -> None:
        super().__init__()
        parts, count = part_table(vocabulary.units)
        self.register_buffer("unit_parts", parts, persistent=False)
        self.own = nn.Embedding(len(vocabulary.units), width)
        self.parts: nn.Embedding | None = nn.Embedding(count, width)
        self.ranks = nn.Embedding(vocabulary.reading_table().shape[1], width)
        self.width = width

    def forward(self, readings: Tensor, chosen: Tensor) -> Tensor:
        """Embed.

        Args:
            readings: Units that each character may be read as, most usual first, filled up with -1.
                shape: (batch, length, readings)
            chosen: How much each of them was heard, see
                :meth:`cnerta.models.networks.ctc.CtcHead.chosen`.
                shape: (batch, length, readings)

        Returns:
            shape: (batch, length, width)
        """
        known = readings >= 0
        several = known.sum(dim=2, keepdim=True) > 1
        said = self._units()[readings.clamp(min=0)]
        said = said - said[:, :, :1] + self.ranks.weight
        heard: Tensor = ((chosen * (known & several)).unsqueeze(3) * said).sum(dim=2)
        return heard

    @torch.no_grad()
    def merge_parameters(self) -> None:
        """Give each pronunciation its whole embedding, for a model that is trained no more."""
        self.own.weight.copy_(self._units())
        self.parts = None

    def _units(self) -> Tensor:
        """The embedding of every pronunciation. shape: (units, width)."""
        own: Tensor = self.own.weight
        return own if self.parts is None else own + self.parts(self.unit_parts).sum(dim=1)
