"""SoftLexicon (Ma et al. 2020): a BiLSTM over characters that know the words they are part of."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cnerta.models.config import TextConfig
from cnerta.models.networks.bilstm import MAX_CHARACTERS, BiLstm
from cnerta.models.networks.word_embedding import WordEmbedding
from cnerta.models.runtime.vocabulary import PADDING_ID
from cnerta.models.text.lexicon import NO_WORD, Lexicon

__all__ = ["SETS", "SoftLexiconEncoder", "word_sets"]

SETS = 4


def word_sets(matches: Tensor, length: int) -> Tensor:
    """For each character the words that begin at it, go through it, end at it, or are it.

    Args:
        matches: (start, end, word id). shape: (batch, matches, 3)
        length: Characters of a text, padding included.

    Returns:
        1.0 where a match belongs to a character's set, in the order B, M, E, S.
        shape: (batch, 4, length, matches)
    """
    starts, ends, words = (part[:, None, :] for part in matches.unbind(dim=2))
    place = torch.arange(length, device=matches.device)[None, :, None]
    begins, stops = place == starts, place == ends - 1
    through = (place > starts) & (place < ends - 1)
    sets = torch.stack([begins & ~stops, through, stops & ~begins, begins & stops], dim=1)
    return (sets & (words != NO_WORD)[:, None]).float()


class SoftLexiconEncoder(nn.Module):
    """Characters with their word sets under a bidirectional LSTM.

    Attributes:
        width: Size of a character's representation.
        max_characters: Longest text.
    """

    weights: Tensor

    def __init__(self, config: TextConfig, characters: int, lexicon: Lexicon) -> None:
        super().__init__()
        self.embedding = nn.Embedding(characters, config.embedding, padding_idx=PADDING_ID)
        self.words = WordEmbedding.configured(config, lexicon)
        counts = torch.tensor([0, *lexicon.counts], dtype=torch.float32)
        self.register_buffer("weights", counts.clamp(min=1))
        self.dropout = nn.Dropout(config.dropout)
        self.lstm = BiLstm(config.embedding + SETS * self.words.width, config.hidden)
        self.width = config.hidden
        self.max_characters = MAX_CHARACTERS

    def pooled(self, matches: Tensor, length: int) -> Tensor:
        """The four word sets of each character, pooled (equations 8 to 10 of the paper).

        A set's vector is the mean of its words by their counts, with the counts of all four sets
        in the denominator, times four. A set without words has the word ``NO_WORD``, once.

        Args:
            matches: shape: (batch, matches, 3)
            length: Characters of a text, padding included.

        Returns:
            shape: (batch, length, 4 * words.width)
        """
        words = matches[:, :, 2]
        sets = word_sets(matches, length)
        empty = 1 - sets.amax(dim=3)
        counts = self.weights[words]
        nothing = self.words(torch.full_like(words[:1, :1], NO_WORD))[0, 0]
        total = sets @ (counts[:, None, :, None] * self.words(words)[:, None])
        total = total + empty[..., None] * nothing
        weight = (sets @ counts[:, None, :, None])[..., 0] + empty
        mean: Tensor = total * (SETS / weight.sum(dim=1))[:, None, :, None]
        return mean.transpose(1, 2).flatten(2)

    def forward(self, characters: Tensor, counts: Tensor, matches: Tensor) -> Tensor:
        """Encode.

        Args:
            characters: Ids. shape: (batch, length)
            counts: Valid characters of each text. shape: (batch,)
            matches: Words in each text, see :mod:`cnerta.models.text.lexicon`.
                shape: (batch, matches, 3)

        Returns:
            shape: (batch, length, width)
        """
        embedded = self.embedding(characters)
        known = self.pooled(matches, characters.shape[1])
        x = self.dropout(torch.cat([embedded, known], dim=2))
        encoded: Tensor = self.dropout(self.lstm(x, counts))
        return encoded
