"""Text encoders: character ids to one vector a character."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cnerta.models.config import TextConfig
from cnerta.models.runtime.vocabulary import PADDING_ID

__all__ = ["BRACKETS", "MAX_CHARACTERS", "BiLstm", "BiLstmEncoder", "bracketed"]


MAX_CHARACTERS = 512  # no bound of the network's: what one call should cost at most
BRACKETS = 2  # ids beyond the vocabulary's: before the text and after it


def bracketed(characters: Tensor, counts: Tensor, before: int) -> tuple[Tensor, Tensor]:
    """Texts between the two brackets that a BERT-like encoder reads them in.

    Args:
        characters: Ids. shape: (batch, length)
        counts: Valid characters of each text. shape: (batch,)
        before: Id of the bracket before a text; that of the one after it is the next.

    Returns:
        Ids, and which of them are no padding. shape of each: (batch, length + 2)
    """
    ids = nn.functional.pad(characters, (1, 1), value=PADDING_ID)
    place = torch.arange(ids.shape[1], device=ids.device)
    end = counts[:, None] + 1
    ids = torch.where(place == 0, before, ids)
    return torch.where(place == end, before + 1, ids), place <= end


class BiLstm(nn.Module):
    """A bidirectional LSTM over padded sequences.

    Two plain LSTMs, the second fed with each sequence turned round within its own length. That is
    what a packed bidirectional LSTM computes, and it exports to ONNX with free batch and length.
    """

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.forwards = nn.LSTM(inputs, hidden // 2, batch_first=True)
        self.backwards = nn.LSTM(inputs, hidden // 2, batch_first=True)

    def forward(self, x: Tensor, counts: Tensor) -> Tensor:
        """Read each sequence from both ends.

        Args:
            x: shape: (batch, length, inputs)
            counts: Valid entries of each. shape: (batch,)

        Returns:
            shape: (batch, length, hidden)
        """
        index = torch.arange(x.shape[1], device=x.device)
        turned = (counts[:, None] - 1 - index).clamp(min=0)[:, :, None]
        ahead, _ = self.forwards(x)
        behind, _ = self.backwards(x.gather(1, turned.expand(-1, -1, x.shape[2])))
        behind = behind.gather(1, turned.expand(-1, -1, behind.shape[2]))
        return torch.cat([ahead, behind], dim=2)


class BiLstmEncoder(nn.Module):
    """Character embeddings under a bidirectional LSTM (the paper's BiLSTM rows).

    Attributes:
        width: Size of a character's representation.
        max_characters: Longest text.
    """

    def __init__(self, config: TextConfig, characters: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(characters, config.embedding, padding_idx=PADDING_ID)
        self.dropout = nn.Dropout(config.dropout)
        self.lstm = BiLstm(config.embedding, config.hidden)
        self.width = config.hidden
        self.max_characters = MAX_CHARACTERS

    def forward(self, characters: Tensor, counts: Tensor) -> Tensor:
        """Encode.

        Args:
            characters: Ids. shape: (batch, length)
            counts: Valid characters of each text. shape: (batch,)

        Returns:
            shape: (batch, length, width)
        """
        embedded = self.dropout(self.embedding(characters))
        encoded: Tensor = self.dropout(self.lstm(embedded, counts))
        return encoded
