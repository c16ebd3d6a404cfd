"""A pretrained text encoder: any BERT-like checkpoint, character by character.

The checkpoint's word pieces are not used: a caption's entities begin and end at characters, so
every character is a piece, as in the paper's BERT rows. Only the rows of the piece embedding that
stand for single characters are kept, in the order of the model's own vocabulary, which makes the
model smaller and its ids those of every other text encoder.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from cnerta.models.config import TextConfig
from cnerta.models.errors import ConfigError
from cnerta.models.networks.bilstm import BRACKETS, bracketed
from cnerta.models.runtime.vocabulary import PADDING_ID, UNKNOWN_ID, Vocabulary
from cnerta.models.text.normalisation import normalise

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

__all__ = [
    "PretrainedEncoder",
    "architecture_config",
    "attention_mask",
    "load_pretrained",
    "pretrained_architecture",
    "pretrained_characters",
    "principal_embeddings",
    "transformers",
]

_COUNT_FROM_PADDING = ("roberta", "xlm-roberta")


def transformers() -> ModuleType:
    """The library of pretrained encoders, imported where one is used: it takes seconds."""
    import transformers

    library: ModuleType = transformers
    return library


class PretrainedEncoder(nn.Module):
    """A BERT-like encoder over characters (the paper's BERT and MacBERT rows).

    Attributes:
        width: Size of a character's representation.
        max_characters: Longest text, as far as positions go.
    """

    def __init__(self, config: TextConfig, architecture: str, vocabulary: Vocabulary) -> None:
        """Build with random weights.

        Args:
            config: Settings of the text encoder.
            architecture: The checkpoint's own configuration, see :func:`pretrained_architecture`.
            vocabulary: Its characters are the pieces.

        Raises:
            ConfigError: ``architecture`` is of no model that the library knows.
        """
        super().__init__()
        self._before = len(vocabulary)
        self.encoder = _from_architecture(architecture, len(vocabulary) + BRACKETS)
        self.dropout = nn.Dropout(config.dropout)
        self.width: int = self.encoder.config.hidden_size
        # RoBERTa counts positions from the one after padding.
        first = PADDING_ID + 1 if self.encoder.config.model_type in _COUNT_FROM_PADDING else 0
        positions: int = self.encoder.config.max_position_embeddings
        self.max_characters = positions - first - BRACKETS

    def forward(self, characters: Tensor, counts: Tensor) -> Tensor:
        """Encode.

        Args:
            characters: Ids. shape: (batch, length)
            counts: Valid characters of each text. shape: (batch,)

        Returns:
            shape: (batch, length, width)
        """
        ids, is_text = bracketed(characters, counts, self._before)
        hidden = attention_mask(is_text[:, None, None, :], self.encoder.dtype)
        output = self.encoder(input_ids=ids, attention_mask=hidden)
        encoded: Tensor = self.dropout(output.last_hidden_state[:, 1:-1])
        return encoded


def pretrained_architecture(checkpoint: str) -> str:
    """The configuration of a checkpoint as JSON; with it a model can be rebuilt without the rest.

    Args:
        checkpoint: A folder or a name on the Hugging Face hub.

    Raises:
        ConfigError: There is no such checkpoint.
    """
    try:
        config: PreTrainedConfig = transformers().AutoConfig.from_pretrained(checkpoint)
    except (OSError, ValueError) as error:
        raise ConfigError(_missing(checkpoint, error)) from error
    return json.dumps(config.to_diff_dict(), sort_keys=True, default=str)


def pretrained_characters(checkpoint: str) -> str:
    """The single characters that a checkpoint has a piece for, as the model normalises text.

    Raises:
        ConfigError: There is no such checkpoint.
    """
    known = (c for c in _pieces(checkpoint) if len(c) == 1 and normalise(c).text == c)
    return "".join(sorted(known))


def load_pretrained(encoder: PretrainedEncoder, checkpoint: str, vocabulary: Vocabulary) -> None:
    """Give an encoder the weights of a checkpoint.

    Characters that the checkpoint does not know start as its unknown piece.

    Raises:
        ConfigError: There is no such checkpoint, or it is of another architecture.
    """
    source = _load(checkpoint)
    weights = source.state_dict()
    embedding = source.get_input_embeddings().weight
    name = next(n for n, p in source.named_parameters() if p is embedding)
    tokenizer = transformers().AutoTokenizer.from_pretrained(checkpoint)
    brackets = torch.tensor([tokenizer.cls_token_id, tokenizer.sep_token_id])
    rows = torch.cat([_piece_rows(tokenizer, vocabulary), brackets])
    weights[name] = embedding.detach()[rows]
    try:
        encoder.encoder.load_state_dict(weights)
    except RuntimeError as error:
        raise ConfigError(f"expected the weights of {checkpoint} to fit, got: {error}") from error


def principal_embeddings(checkpoint: str, vocabulary: Vocabulary, size: int) -> Tensor:
    """The piece embeddings of a checkpoint, brought down to their first principal components.

    A small text encoder that starts from them knows which characters are alike, also those that
    training never shows.

    Returns:
        One row a character id, deviation 1 over all; zeros for padding.
        shape: (characters, size)

    Raises:
        ConfigError: There is no such checkpoint, or it has fewer numbers a piece.
    """
    source = _load(checkpoint)
    rows = _piece_rows(transformers().AutoTokenizer.from_pretrained(checkpoint), vocabulary)
    pieces = source.get_input_embeddings().weight.detach()[rows]
    if size > pieces.shape[1]:
        raise ConfigError(
            f"expected character embeddings of at most {pieces.shape[1]} numbers, as in "
            f"{checkpoint}, got {size}"
        )
    centred = pieces - pieces[UNKNOWN_ID + 1 :].mean(dim=0)
    _, _, components = torch.linalg.svd(centred[UNKNOWN_ID + 1 :], full_matrices=False)
    reduced: Tensor = centred @ components[:size].T
    reduced = reduced / reduced.std()
    reduced[PADDING_ID] = 0.0
    return reduced


def attention_mask(seen: Tensor, dtype: torch.dtype) -> Tensor:
    """A mask as what is added to the scores.

    So every version of the library takes it as it is, and every exporter can trace it.

    Args:
        seen: True where attention is allowed.
        dtype: Of the scores.
    """
    return torch.where(seen, 0.0, torch.finfo(dtype).min).to(dtype)


def architecture_config(architecture: str, **changes: object) -> PreTrainedConfig:
    """The configuration of a model that is trained, exported and given masks as here.

    Args:
        architecture: A checkpoint's own configuration as JSON.
        changes: Settings that are to be others.

    Raises:
        ConfigError: It is of no model that the library knows.
    """
    try:
        table = json.loads(architecture)
        kind = table.pop("model_type")
        config: PreTrainedConfig = transformers().AutoConfig.for_model(kind, **{**table, **changes})
    except (ValueError, KeyError) as error:
        raise ConfigError(
            f"expected the configuration of a pretrained encoder, got: {error}"
        ) from error
    config._attn_implementation = "eager"  # the others are not exported or take other masks
    config.dtype = torch.float32  # the checkpoint's own may be half of that
    return config


def _from_architecture(architecture: str, pieces: int) -> PreTrainedModel:
    config = architecture_config(architecture, vocab_size=pieces)
    config.pad_token_id = PADDING_ID
    model: PreTrainedModel = transformers().AutoModel.from_config(
        config, **_pooler_off(config.model_type)
    )
    return model


def _pooler_off(kind: str) -> dict[str, bool]:
    """What keeps a model from bringing a pooler, which tagging has no use for."""
    return {"add_pooling_layer": False} if kind in ("bert", "roberta", "xlm-roberta") else {}


def _load(checkpoint: str) -> PreTrainedModel:
    try:
        kind = transformers().AutoConfig.from_pretrained(checkpoint).model_type
        model: PreTrainedModel = transformers().AutoModel.from_pretrained(
            checkpoint, dtype=torch.float32, **_pooler_off(kind)
        )
    except (OSError, ValueError) as error:
        raise ConfigError(_missing(checkpoint, error)) from error
    return model


def _piece_rows(tokenizer: PreTrainedTokenizerBase, vocabulary: Vocabulary) -> Tensor:
    """For each character id the row of its piece. shape: (characters,)."""
    pieces, unknown = tokenizer.get_vocab(), tokenizer.unk_token_id
    known = [pieces.get(c, unknown) for c in vocabulary.characters]
    return torch.tensor([tokenizer.pad_token_id, unknown, *known])


def _pieces(checkpoint: str) -> dict[str, int]:
    try:
        vocabulary: dict[str, int] = (
            transformers().AutoTokenizer.from_pretrained(checkpoint).get_vocab()
        )
    except (OSError, ValueError) as error:
        raise ConfigError(_missing(checkpoint, error)) from error
    return vocabulary


def _missing(checkpoint: str, error: Exception) -> str:
    what = "a folder" if Path(checkpoint).exists() else "a folder or a hub name"
    return f"expected {what} with a pretrained encoder, got {checkpoint!r}: {error}"
