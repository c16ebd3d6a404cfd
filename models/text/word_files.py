"""The file that a model's words are kept in, beside a checkpoint's weights or a bundle's graphs."""

from __future__ import annotations

from pathlib import Path

from cnerta.models.files import replacing
from cnerta.models.text.gazetteer import Gazetteer
from cnerta.models.text.lexicon import Lexicon, load_lexicon, save_lexicon

__all__ = ["GAZETTEER_FILE", "LEXICON_FILE", "Words", "load_words", "save_words"]

LEXICON_FILE = "lexicon.txt"
GAZETTEER_FILE = "gazetteer.npz"

Words = Lexicon | Gazetteer


def save_words(folder: Path, words: Words) -> str:
    """Write the file; it takes an older one's place as a whole.

    Returns:
        Its name.
    """
    name = GAZETTEER_FILE if isinstance(words, Gazetteer) else LEXICON_FILE
    with replacing(folder / name) as partial:
        if isinstance(words, Gazetteer):
            words.save(partial)
        else:
            save_lexicon(partial, words)
    return name


def load_words(path: Path) -> Words:
    """Read the file.

    Raises:
        ConfigError: It is damaged.
    """
    return Gazetteer.load(path) if path.name == GAZETTEER_FILE else load_lexicon(path)
