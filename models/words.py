"""Embeddings of a lexicon's words."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cnerta.models.lexicon import Lexicon

__all__ = ["WordEmbedding"]


class WordEmbedding(nn.Module):
    """Embeddings of a lexicon's words, of which only those met in training are trained.

    A lexicon has hundreds of thousands of words, training texts a few thousand of them. The others
    keep the values they start with, whatever the optimiser: they are no parameters, so a step does
    not touch them and costs nothing for them. The lexicon must be in the order of
    :meth:`cnerta.models.lexicon.Lexicon.counted`, words met in training first.

    Row 0 of the trained ones stands for no word at all (``NO_WORD``, also padding).
    """

    fixed: Tensor

    def __init__(self, lexicon: Lexicon, size: int) -> None:
        super().__init__()
        trained = 1 + sum(count > 0 for count in lexicon.counts)
        self.trained = nn.Embedding(trained, size)
        fixed = torch.randn(max(1, len(lexicon) + 1 - trained), size)
        self.register_buffer("fixed", fixed)

    def forward(self, words: Tensor) -> Tensor:
        """Look up.

        Args:
            words: Word ids. shape: (...)

        Returns:
            shape: (..., size)
        """
        known = self.trained.num_embeddings
        own = self.trained(words.clamp(max=known - 1))
        others = nn.functional.embedding((words - known).clamp(min=0), self.fixed)
        return torch.where((words < known)[..., None], own, others)

    @torch.no_grad()
    def start(self, words: Tensor, vectors: Tensor) -> None:
        """Give words the vectors they start with; those that are not trained keep them.

        Args:
            words: Word ids. shape: (n,)
            vectors: shape: (n, size)
        """
        known = self.trained.num_embeddings
        trained = words < known
        self.trained.weight[words[trained]] = vectors[trained]
        self.fixed[words[~trained] - known] = vectors[~trained]
