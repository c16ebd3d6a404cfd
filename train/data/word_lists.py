"""Where the word lists of a recipe are, and its vectors."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import torch

from cnerta.models.errors import ConfigError
from cnerta.models.networks.bilstm import BiLstmEncoder
from cnerta.models.networks.lattice.encoder import LatticeEncoder
from cnerta.models.networks.softlexicon import SoftLexiconEncoder
from cnerta.models.networks.tagger import SpeechTagger
from cnerta.models.text.lexicon import Lexicon
from cnerta.models.text.vectors import read_vectors

__all__ = ["lexicon_paths", "start_from_vectors"]

_JIEBA = "jieba"


def lexicon_paths(names: str, data_root: Path) -> list[Path]:
    """The files that a setting names.

    Args:
        names: Files below the data root, files as they are, or ``jieba`` for the dictionary of the
            package of that name; parted by commas.
        data_root: Folder that a recipe's paths are relative to.

    Raises:
        ConfigError: Nothing is named, or there is no such file.
    """
    paths = []
    for name in filter(None, map(str.strip, names.split(","))):
        path = _jieba_dictionary() if name == _JIEBA else data_root / name
        if not path.is_file():
            raise ConfigError(f"expected a word list, got no file {path}")
        paths.append(path)
    if not paths:
        raise ConfigError("expected word lists (model.text.lexicon), got none")
    return paths


@torch.no_grad()
def start_from_vectors(model: SpeechTagger, data_root: Path) -> None:
    """Let the embeddings of a new model start as the vectors that its configuration names.

    Raises:
        ConfigError: A file cannot be read or has vectors of another size, or the text encoder has
            no such embeddings.
    """
    config, text = model.config.text, model.text
    if config.embeddings:
        if config.checkpoint or not isinstance(
            text, BiLstmEncoder | LatticeEncoder | SoftLexiconEncoder
        ):
            other = "model.text.checkpoint" if config.checkpoint else config.encoder
            raise ConfigError(f"expected no model.text.embeddings beside {other}, got some")
        known = model.vocabulary.characters
        rows = dict(zip(known, model.vocabulary.encode("".join(known)).tolist(), strict=True))
        found, vectors = read_vectors(data_root / config.embeddings, rows, config.embedding)
        text.embedding.weight[torch.from_numpy(found)] = torch.from_numpy(vectors)
    if config.word_embeddings:
        if not isinstance(text, LatticeEncoder | SoftLexiconEncoder):
            raise ConfigError(
                f"expected no model.text.word_embeddings for {config.encoder}, which takes none"
            )
        assert isinstance(model.lexicon, Lexicon), "such an encoder has one"
        rows = {word: i for i, word in enumerate(model.lexicon.words, 1)}
        found, vectors = read_vectors(
            data_root / config.word_embeddings, rows, config.word_embedding
        )
        text.words.start(torch.from_numpy(found), torch.from_numpy(vectors))


def _jieba_dictionary() -> Path:
    # Found without importing the package, which would read the dictionary for itself.
    spec = importlib.util.find_spec(_JIEBA)
    if spec is None or spec.origin is None:
        raise ConfigError(
            "expected the package jieba, whose dictionary the recipe names, got no such package"
        )
    return Path(spec.origin).parent / "dict.txt"
