"""Vectors of words or characters in word2vec's text form."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cnerta.models.errors import ConfigError
from cnerta.models.text.normalisation import normalise

__all__ = ["read_vectors", "vector_characters"]

logger = logging.getLogger(__name__)


def read_vectors(
    path: Path, rows: Mapping[str, int], size: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Read the vectors that are wanted.

    One word a line and its numbers, parted by white space; the first line may be word2vec's
    header, how many words and how many numbers each. Words are normalised; of two that become one
    the first counts, which is the more frequent.

    Args:
        path: The file.
        rows: The row of each wanted word or character.
        size: Numbers of a vector.

    Returns:
        The rows that were found, shape (found,), and their vectors, shape (found, size).

    Raises:
        ConfigError: The file cannot be read, its vectors have another size, or none is wanted.
    """
    found: dict[int, npt.NDArray[np.float32]] = {}
    for word, numbers in _lines(path):
        row = rows.get(word)
        if row is None or row in found:
            continue
        try:
            vector = np.array(numbers, np.float32)
        except ValueError as error:
            raise ConfigError(f"expected numbers after {word!r} in {path}, got: {error}") from error
        if len(vector) != size:
            raise ConfigError(
                f"expected vectors of {size} numbers in {path}, as the model has them, got "
                f"{len(vector)} for {word!r}"
            )
        found[row] = vector
    if not found:
        raise ConfigError(f"expected vectors of some of {len(rows)} words in {path}, got none")
    logger.info("%s: vectors for %d of %d", path.name, len(found), len(rows))
    return np.array(list(found), np.int64), np.stack(list(found.values()))


def vector_characters(path: Path) -> str:
    """The single characters that a file has vectors for, as the model normalises text.

    Raises:
        ConfigError: The file cannot be read.
    """
    return "".join(sorted({word for word, _ in _lines(path) if len(word) == 1}))


def _lines(path: Path) -> Iterator[tuple[str, list[str]]]:
    """The words of a file with their numbers, header and unspoken words left out."""
    try:
        with path.open(encoding="utf-8-sig") as file:
            for number, line in enumerate(file):
                word, *numbers = line.split() or [""]
                header = number == 0 and len(numbers) == 1 and numbers[0].isdigit()
                known = normalise(word).text
                if known and len(known) == len(word) and not header:
                    yield known, numbers
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"expected readable vectors in {path}, got: {error}") from error
