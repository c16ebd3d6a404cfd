"""Which pronunciation of a character was heard, told to the tagger.

曾建桥 read Zēng Jiànqiáo is a person, read céng jiànqiáo somebody who once built a bridge. Frames
hold that already, but for every such character a tagger would have to learn it from examples; the
CTC head knows how each pronunciation sounds.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cnerta.models.ctc import part_table
from cnerta.models.vocabulary import Vocabulary

__all__ = ["ChosenReadings"]


class ChosenReadings(nn.Module):
    """Embeddings of the pronunciations heard of characters that have several; ours.

    A pronunciation is the sum of an embedding of its own and those of its initial, final and tone,
    less those of the character's most usual one, and one of how usual it is. Zero for what has one
    pronunciation, or was not heard.

    Attributes:
        width: Size of what is told of a character.
    """

    readings: Tensor
    unit_parts: Tensor

    def __init__(self, vocabulary: Vocabulary, width: int) -> None:
        super().__init__()
        readings = torch.from_numpy(vocabulary.reading_table())
        self.register_buffer("readings", readings, persistent=False)
        parts, count = part_table(vocabulary.units)
        self.register_buffer("unit_parts", parts, persistent=False)
        self.own = nn.Embedding(len(vocabulary.units), width)
        self.parts = nn.Embedding(count, width)
        self.ranks = nn.Embedding(readings.shape[1], width)
        self.width = width

    def forward(self, characters: Tensor, chosen: Tensor) -> Tensor:
        """Embed.

        Args:
            characters: Ids, padded with 0. shape: (batch, length)
            chosen: How much each pronunciation was heard, see
                :meth:`cnerta.models.ctc.CtcHead.chosen`. shape: (batch, length, readings)

        Returns:
            shape: (batch, length, width)
        """
        readings = self.readings[characters]
        known = readings >= 0
        several = known.sum(dim=2, keepdim=True) > 1
        units = readings.clamp(min=0)
        said = self.own(units) + self.parts(self.unit_parts[units]).sum(dim=3)
        said = said - said[:, :, :1] + self.ranks.weight
        heard: Tensor = ((chosen * (known & several)).unsqueeze(3) * said).sum(dim=2)
        return heard
