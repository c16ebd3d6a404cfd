"""Where the word lists of a recipe are."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from cnerta.models.errors import ConfigError

__all__ = ["lexicon_paths"]

_JIEBA = "jieba"


def lexicon_paths(names: str, data_root: Path) -> list[Path]:
    """The files of ``model.text.lexicon``.

    Args:
        names: Parted by commas: files below the data root, files as they are named, or ``jieba``
            for the dictionary of the package of that name.
        data_root: Folder that a recipe's paths are relative to.

    Raises:
        ConfigError: Nothing is named, or there is no such file.
    """
    paths = []
    for name in filter(None, map(str.strip, names.split(","))):
        path = _jieba_dictionary() if name == _JIEBA else data_root / name
        if not path.is_file():
            raise ConfigError(f"expected a word list in model.text.lexicon, got no file {path}")
        paths.append(path)
    if not paths:
        raise ConfigError("expected word lists in model.text.lexicon, got none")
    return paths


def _jieba_dictionary() -> Path:
    # Found without importing the package, which would read the dictionary for itself.
    spec = importlib.util.find_spec(_JIEBA)
    if spec is None or spec.origin is None:
        raise ConfigError(
            "expected the package jieba, whose dictionary the recipe names, got no such package"
        )
    return Path(spec.origin).parent / "dict.txt"
