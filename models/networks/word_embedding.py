"""Embeddings of a lexicon's words."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cnerta.models.config import TextConfig
from cnerta.models.text.lexicon import NO_WORD, Lexicon

__all__ = ["WordEmbedding"]


class WordEmbedding(nn.Module):
    """Embeddings of a lexicon's words, of which only those met in training are trained.

    A lexicon has hundreds of thousands of words, training texts a few thousand of them. The others
    keep the vectors they start with, whatever the optimiser: they are no parameters, so a step does
    not touch them and costs nothing for them. Without vectors to start with they are all the same,
    zeros. The lexicon must be in the order of :meth:`cnerta.models.text.lexicon.Lexicon.counted`,
    words met in training first.

    Ours: beside its own vector a word has that of its tags (the mean, if there are several), which
    words that training never shows share with those it does. Own vectors can be hidden at random,
    so that training also covers words of which only the tags are known.

    Row 0 of the trained ones stands for no word at all (``NO_WORD``, also padding).

    Attributes:
        width: Size of an embedding, tags included.
    """

    fixed: Tensor
    kinds: Tensor
    shares: Tensor

    def __init__(
        self, lexicon: Lexicon, size: int, *, vectors: bool, tags: int = 0, hidden: float = 0.0
    ) -> None:
        """Build with random weights.

        Args:
            lexicon: The words.
            size: Of a word's own vector.
            vectors: Whether words are given vectors to start with (:meth:`start`).
            tags: Size of the vector of a word's tags; 0 for none.
            hidden: Probability that a word's own vector is hidden in training.
        """
        super().__init__()
        trained = 1 + sum(count > 0 for count in lexicon.counts)
        self.trained = nn.Embedding(trained, size)
        others = max(1, len(lexicon) + 1 - trained) if vectors else 1
        self.register_buffer("fixed", torch.zeros(others, size))
        self.hidden = hidden
        self.width = size + tags
        self.tags: nn.Embedding | None = None
        if tags:
            # Words have few combinations of tags, so a combination is looked up, not each tag.
            combinations = {name: i for i, name in enumerate(dict.fromkeys(["", *lexicon.tags]))}
            names = sorted({tag for combination in combinations for tag in combination.split()})
            shares = torch.zeros(len(combinations), len(names))
            for combination, row in combinations.items():
                for tag in combination.split():
                    shares[row, names.index(tag)] = 1 / len(combination.split())
            own = [combinations[t] for t in lexicon.tags] or [0] * len(lexicon)
            self.register_buffer("kinds", torch.tensor([NO_WORD, *own]))
            self.register_buffer("shares", shares)
            self.tags = nn.Embedding(len(names), tags)

    @classmethod
    def configured(cls, config: TextConfig, lexicon: Lexicon) -> WordEmbedding:
        """As the settings of a text encoder say."""
        return cls(
            lexicon,
            config.word_embedding,
            vectors=bool(config.word_embeddings),
            tags=config.tag_embedding,
            hidden=config.hide_words,
        )

    def forward(self, words: Tensor) -> Tensor:
        """Look up.

        Args:
            words: Word ids. shape: (...)

        Returns:
            shape: (..., width)
        """
        known = self.trained.num_embeddings
        own = self.trained(words.clamp(max=known - 1))
        row = (words - known).clamp(min=0, max=len(self.fixed) - 1)
        others = nn.functional.embedding(row, self.fixed)
        found = torch.where((words < known)[..., None], own, others)
        if self.training and self.hidden:
            hidden = torch.rand(words.shape, device=words.device) < self.hidden
            found = found.masked_fill((hidden & (words != NO_WORD))[..., None], 0.0)
        if self.tags is not None:
            of_kinds = self.shares @ self.tags.weight
            found = torch.cat([found, nn.functional.embedding(self.kinds[words], of_kinds)], dim=-1)
        return found

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
