"""ZEN (Diao et al. 2020): a BERT over characters that also encodes the n-grams around them.

Beside the characters' transformer layers runs a second, shorter stack over the n-grams of a list
that occur in the text. After each layer a character's state gets the states of all n-grams that
cover it added to it (section 2.2 of the paper); where the second stack has ended, its last states
are added on. Weights are those its authors published, or any in their names.

As with other pretrained encoders every character is a piece, and only the rows of the piece
embedding that stand for single characters are kept.
"""

from __future__ import annotations

import pickle
import unicodedata
from collections.abc import Mapping
from pathlib import Path

import msgspec
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from cnerta.models.config import TextConfig
from cnerta.models.errors import ConfigError
from cnerta.models.networks.bilstm import BRACKETS, bracketed
from cnerta.models.networks.word_embedding import WordEmbedding
from cnerta.models.runtime.vocabulary import PADDING_ID, UNKNOWN_ID, Vocabulary
from cnerta.models.text.lexicon import NO_WORD, Lexicon
from cnerta.models.text.normalisation import normalise

__all__ = [
    "ZenEncoder",
    "load_zen",
    "zen_architecture",
    "zen_characters",
    "zen_lexicon",
]

_SHORTEST, _LONGEST = 2, 7  # n-grams as in the authors' pretraining
_MASKED = -10_000.0
_MOST = 2**31 - 1

_CONFIG = "config.json"
_PIECES = "vocab.txt"
_NGRAMS = "ngram.txt"
_WEIGHTS = ("model.safetensors", "pytorch_model.bin")

# The authors' names for our parameters.
_PUBLISHED = {
    "pieces.weight": "embeddings.word_embeddings.weight",
    "positions.weight": "embeddings.position_embeddings.weight",
    "segment": "embeddings.token_type_embeddings.weight",
    "pieces_norm.weight": "embeddings.LayerNorm.weight",
    "pieces_norm.bias": "embeddings.LayerNorm.bias",
    "ngram_segment": "word_embeddings.token_type_embeddings.weight",
    "ngrams_norm.weight": "word_embeddings.LayerNorm.weight",
    "ngrams_norm.bias": "word_embeddings.LayerNorm.bias",
}
_PUBLISHED_STACK = {"layers": "layer", "ngram_layers": "word_layers"}
_PUBLISHED_PART = {
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "merge": "attention.output.dense",
    "merge_norm": "attention.output.LayerNorm",
    "grow": "intermediate.dense",
    "shrink": "output.dense",
    "shrink_norm": "output.LayerNorm",
}


class _Architecture(msgspec.Struct, frozen=True):
    """What the published ``config.json`` says, with the authors' defaults for what it may not."""

    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    hidden_act: str = "gelu"
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    layer_norm_eps: float = 1e-12
    num_hidden_word_layers: int = 6


class _Layer(nn.Module):
    """A transformer layer as BERT has it, normalised after each of its two sums."""

    def __init__(self, size: _Architecture) -> None:
        super().__init__()
        self.heads = size.num_attention_heads
        width = size.hidden_size
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.merge = nn.Linear(width, width)
        self.merge_norm = nn.LayerNorm(width, size.layer_norm_eps)
        self.grow = nn.Linear(width, size.intermediate_size)
        self.shrink = nn.Linear(size.intermediate_size, width)
        self.shrink_norm = nn.LayerNorm(width, size.layer_norm_eps)
        self.attention_dropout = nn.Dropout(size.attention_probs_dropout_prob)
        self.dropout = nn.Dropout(size.hidden_dropout_prob)

    def forward(self, x: Tensor, masked: Tensor) -> Tensor:
        """One layer.

        Args:
            x: shape: (batch, length, width)
            masked: What is added to the scores. shape: (batch, 1, 1, length)
        """
        query, key, value = (
            part(x).unflatten(2, (self.heads, -1)).transpose(1, 2)
            for part in (self.query, self.key, self.value)
        )
        scores = query @ key.transpose(2, 3) / query.shape[3] ** 0.5 + masked
        attended = self.attention_dropout(scores.softmax(dim=3)) @ value
        merged = self.merge(attended.transpose(1, 2).flatten(2))
        x = self.merge_norm(x + self.dropout(merged))
        grown = nn.functional.gelu(self.grow(x))
        normed: Tensor = self.shrink_norm(x + self.dropout(self.shrink(grown)))
        return normed


class ZenEncoder(nn.Module):
    """ZEN over characters (the paper's ZEN rows).

    Attributes:
        width: Size of a character's representation.
        max_characters: Longest text, as far as positions go.
    """

    def __init__(
        self, config: TextConfig, architecture: str, vocabulary: Vocabulary, lexicon: Lexicon
    ) -> None:
        """Build with random weights.

        Args:
            config: Settings of the text encoder.
            architecture: See :func:`zen_architecture`.
            vocabulary: Its characters are the pieces.
            lexicon: The n-grams, see :func:`zen_lexicon`, those met in training first.

        Raises:
            ConfigError: ``architecture`` is not that of a ZEN.
        """
        super().__init__()
        size = _decoded(architecture.encode(), "the configuration")
        self.width = size.hidden_size
        self.max_characters = size.max_position_embeddings - BRACKETS
        self._before = len(vocabulary)
        self.pieces = nn.Embedding(len(vocabulary) + BRACKETS, self.width)
        self.positions = nn.Embedding(size.max_position_embeddings, self.width)
        # Texts are one segment: of the published two embeddings the first is used.
        self.segment = nn.Parameter(torch.zeros(self.width))
        self.pieces_norm = nn.LayerNorm(self.width, size.layer_norm_eps)
        self.ngrams = WordEmbedding(lexicon, self.width, vectors=True)
        self.ngram_segment = nn.Parameter(torch.zeros(self.width))
        self.ngrams_norm = nn.LayerNorm(self.width, size.layer_norm_eps)
        self.embedding_dropout = nn.Dropout(size.hidden_dropout_prob)
        self.layers = nn.ModuleList(_Layer(size) for _ in range(size.num_hidden_layers))
        self.ngram_layers = nn.ModuleList(_Layer(size) for _ in range(size.num_hidden_word_layers))
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, characters: Tensor, counts: Tensor, matches: Tensor) -> Tensor:
        """Encode.

        Args:
            characters: Ids. shape: (batch, length)
            counts: Valid characters of each text. shape: (batch,)
            matches: N-grams in each text, see :mod:`cnerta.models.text.lexicon`.
                shape: (batch, matches, 3)

        Returns:
            shape: (batch, length, width)
        """
        ids, is_text = bracketed(characters, counts, self._before)
        place = torch.arange(ids.shape[1], device=ids.device)
        x = self.pieces(ids) + self.positions(place) + self.segment
        x = self.embedding_dropout(self.pieces_norm(x))
        masked = torch.where(is_text, 0.0, _MASKED)[:, None, None, :]

        starts, ends, words = matches.unbind(dim=2)
        y = self.embedding_dropout(self.ngrams_norm(self.ngrams(words) + self.ngram_segment))
        y_masked = torch.where(words != NO_WORD, 0.0, _MASKED)[:, None, None, :]
        # The bracket before the text moves every character by one.
        inside = place[None, :, None] - 1
        covers = (inside >= starts[:, None]) & (inside < ends[:, None])
        covers = (covers & (words != NO_WORD)[:, None]).to(y.dtype)

        for i, layer in enumerate(self.layers):
            x = layer(x, masked)
            if i < len(self.ngram_layers):
                y = self.ngram_layers[i](y, y_masked)
            x = x + covers @ y
        encoded: Tensor = self.dropout(x[:, 1:-1])
        return encoded


def zen_architecture(checkpoint: str) -> str:
    """The configuration of a checkpoint as JSON; with it a model can be rebuilt without the rest.

    Args:
        checkpoint: A folder or a name on the Hugging Face hub.

    Raises:
        ConfigError: There is no such checkpoint, or it is of another architecture.
    """
    path = _file(checkpoint, _CONFIG)
    return msgspec.json.encode(_decoded(path.read_bytes(), str(path))).decode()


def zen_characters(checkpoint: str) -> str:
    """The single characters that a checkpoint has a piece for, as the model normalises text.

    Raises:
        ConfigError: There is no such checkpoint.
    """
    known = (c for c in _pieces(checkpoint) if len(c) == 1 and normalise(c).text == c)
    return "".join(sorted(known))


def zen_lexicon(checkpoint: str) -> Lexicon:
    """The n-grams of a checkpoint that are of two to seven Chinese characters.

    Those of other characters are left out: the authors look them up in pieces, of which a word or
    a number has one, and here it has as many as characters.

    Raises:
        ConfigError: There is no such checkpoint, or it has no n-gram list.
    """
    found = _ngrams(checkpoint)
    if not found:
        raise ConfigError(f"expected n-grams in {_NGRAMS} of {checkpoint}, got none")
    return Lexicon(tuple(found), tuple(count for _, count in found.values()))


@torch.no_grad()
def load_zen(
    encoder: ZenEncoder, checkpoint: str, vocabulary: Vocabulary, lexicon: Lexicon
) -> None:
    """Give an encoder the weights of a checkpoint, in its authors' names for them.

    Characters that the checkpoint does not know start as its unknown piece.

    Args:
        encoder: Of the checkpoint's architecture.
        checkpoint: A folder with ``config.json``, ``vocab.txt``, ``ngram.txt`` and
            ``model.safetensors`` or ``pytorch_model.bin``, or a name on the Hugging Face hub.
        vocabulary: Of the encoder.
        lexicon: Of the encoder; its words are n-grams of the checkpoint.

    Raises:
        ConfigError: There is no such checkpoint, or it is of another architecture.
    """
    published = _weights(checkpoint)
    pieces, rows = _piece_rows(checkpoint, vocabulary), _ngrams(checkpoint)
    try:
        own = {
            name: published[_published_name(name)]
            for name in encoder.state_dict()
            if not name.startswith("ngrams.")
        }
        own["pieces.weight"] = own["pieces.weight"][pieces]
        for segment in ("segment", "ngram_segment"):
            own[segment] = own[segment][0]
        encoder.load_state_dict(own, strict=False)
        ngrams = published["word_embeddings.word_embeddings.weight"]
        chosen = ngrams[[NO_WORD, *(rows[word][0] for word in lexicon.words)]]
        encoder.ngrams.start(torch.arange(len(chosen)), chosen.float())
    except (KeyError, IndexError, RuntimeError) as error:
        raise ConfigError(f"expected the weights of {checkpoint} to fit, got: {error}") from error


def _published_name(own: str) -> str:
    """What the authors call a parameter of ours."""
    if own in _PUBLISHED:
        return _PUBLISHED[own]
    stack, number, part, kind = own.split(".")
    return f"encoder.{_PUBLISHED_STACK[stack]}.{number}.{_PUBLISHED_PART[part]}.{kind}"


def _decoded(content: bytes, where: str) -> _Architecture:
    try:
        size = msgspec.json.decode(content, type=_Architecture)
    except msgspec.MsgspecError as error:
        raise ConfigError(f"expected a ZEN in {where}, got: {error}") from error
    if size.hidden_act != "gelu":
        raise ConfigError(f"expected the activation gelu in {where}, got {size.hidden_act!r}")
    return size


def _file(checkpoint: str, *names: str) -> Path:
    """The first of some files that a checkpoint has, fetched if it is on the hub."""
    # Only for checkpoints as they are published: a trained model needs neither them nor this.
    from transformers.utils import cached_file

    reason: Exception | None = None
    for name in names:
        try:
            if found := cached_file(checkpoint, name):
                return Path(found)
        except (OSError, ValueError) as error:
            reason = error
    raise ConfigError(
        f"expected a folder or a hub name with {' or '.join(names)}, got {checkpoint!r}: {reason}"
    ) from reason


def _weights(checkpoint: str) -> Mapping[str, Tensor]:
    """The parameters in today's names, without those of the pretraining tasks."""
    path = _file(checkpoint, *_WEIGHTS)
    try:
        if path.suffix == ".safetensors":
            weights = load_file(path)
        else:
            weights = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, SafetensorError, RuntimeError, pickle.UnpicklingError, EOFError) as error:
        raise ConfigError(f"expected readable weights in {path}, got: {error}") from error
    # Old checkpoints have TensorFlow's names for the parts of a normalisation.
    return {
        name.removeprefix("bert.").replace(".gamma", ".weight").replace(".beta", ".bias"): value
        for name, value in weights.items()
    }


def _pieces(checkpoint: str) -> dict[str, int]:
    lines = _file(checkpoint, _PIECES).read_text(encoding="utf-8").split("\n")
    return {piece: row for row, piece in enumerate(lines) if piece}


def _piece_rows(checkpoint: str, vocabulary: Vocabulary) -> Tensor:
    """For each character id the row of its piece, then those of the brackets."""
    pieces = _pieces(checkpoint)
    try:
        padding, unknown, *brackets = (pieces[p] for p in ("[PAD]", "[UNK]", "[CLS]", "[SEP]"))
    except KeyError as error:
        raise ConfigError(f"expected the piece {error} in {_PIECES} of {checkpoint}") from error
    assert (PADDING_ID, UNKNOWN_ID) == (0, 1), "in this order"
    known = [pieces.get(c, unknown) for c in vocabulary.characters]
    return torch.tensor([padding, unknown, *known, *brackets])


def _ngrams(checkpoint: str) -> dict[str, tuple[int, int]]:
    """The row and the count of each n-gram that can be looked up by characters.

    Rows are counted from 1, as the first stands for padding. Of an n-gram that is listed twice the
    last row counts, as with the authors.
    """
    found: dict[str, tuple[int, int]] = {}
    # Not by splitlines, which knows separators that an n-gram may hold.
    lines = _file(checkpoint, _NGRAMS).read_text(encoding="utf-8").split("\n")
    for row, line in enumerate(lines, 1):
        ngram, _, count = line.strip().rpartition(",")
        if _SHORTEST <= len(ngram) <= _LONGEST and all(map(_is_chinese, ngram)):
            found[ngram] = row, min(int(count), _MOST) if count.isdigit() else 1
    return found


def _is_chinese(character: str) -> bool:
    return unicodedata.name(character, "").startswith("CJK UNIFIED")
