"""Features of each character from the kinds of the words that a gazetteer finds there."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cnerta.models.config import GazetteerConfig
from cnerta.models.networks.softlexicon import SETS, word_sets
from cnerta.models.text.gazetteer import Gazetteer
from cnerta.models.text.lexicon import NO_WORD

__all__ = ["WordKinds"]


class WordKinds(nn.Module):
    """The kinds of the words that begin at, go through, end at or are a character, projected.

    Attributes:
        width: Size of a character's features.
    """

    members: Tensor

    def __init__(self, config: GazetteerConfig, gazetteer: Gazetteer) -> None:
        super().__init__()
        members = torch.from_numpy(gazetteer.members).float()
        # The gazetteer has them already; they are no part of the weights.
        self.register_buffer("members", members, persistent=False)
        self.hide = config.hide
        self.width = config.width
        self.projection = nn.Linear(SETS * members.shape[1], config.width, bias=False)

    def forward(self, matches: Tensor, length: int) -> Tensor:
        """Compute the features of each character.

        Args:
            matches: (start, end, combination of kinds). shape: (batch, matches, 3)
            length: Characters of a text, padding included.

        Returns:
            shape: (batch, length, width)
        """
        combinations = matches[:, :, 2]
        if self.training and self.hide:
            hidden = torch.rand(combinations.shape, device=matches.device) < self.hide
            combinations = combinations.masked_fill(hidden, NO_WORD)
        kinds = nn.functional.embedding(combinations, self.members)
        known = (word_sets(matches, length) @ kinds[:, None]).clamp(max=1.0)
        features: Tensor = self.projection(known.transpose(1, 2).flatten(2))
        return features
