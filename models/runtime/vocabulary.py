"""Characters and the acoustic units (pronunciations) that each may be read as.

Two tables in one value, because the model that was trained on one cannot be run with another:
the character ids of the text encoder, and for every character the rows of the CTC head that can
pronounce it. With ``units = characters`` every character has one row of its own, as in the paper.
With ``units = pronunciations`` (ours) a row is a tonal syllable shared by all characters read so.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from cnerta.models.errors import ConfigError

__all__ = ["PADDING_ID", "UNKNOWN_ID", "Vocabulary"]

PADDING_ID = 0
UNKNOWN_ID = 1
_RESERVED = 2


@dataclass(frozen=True)
class Vocabulary:
    """Character ids and their acoustic units.

    Attributes:
        characters: The known characters; the id of ``characters[i]`` is ``i + 2``, after padding
            (0) and unknown (1).
        units: Names of the acoustic units; the CTC head has one row for each. The first, ``<unk>``,
            stands for everything without a known pronunciation.
        readings: For each of ``characters`` the units it may be read as, most usual first.
    """

    characters: tuple[str, ...]
    units: tuple[str, ...]
    readings: tuple[tuple[int, ...], ...]

    def __post_init__(self) -> None:
        """Check that the tables fit each other.

        Raises:
            ConfigError: A character repeats or is not one code point, or a reading is no unit.
        """
        if len(set(self.characters)) != len(self.characters):
            raise ConfigError("expected every character once, got a repeated character")
        if any(len(c) != 1 for c in self.characters):
            raise ConfigError("expected single code points, got a longer string")
        if len(self.readings) != len(self.characters):
            raise ConfigError(
                f"expected readings of {len(self.characters)} characters, got {len(self.readings)}"
            )
        if any(not r or min(r) < 0 or max(r) >= len(self.units) for r in self.readings):
            raise ConfigError(f"expected readings of units 0..{len(self.units) - 1}, got others")

    @classmethod
    def build(
        cls, characters: Iterable[str], readings: Mapping[str, Sequence[str]] | None = None
    ) -> Vocabulary:
        """Build from a character set.

        Args:
            characters: The characters to know. Their order does not matter.
            readings: The unit names each character may be read as. None: every character is a
                unit of its own (the paper's setting).
        """
        known = tuple(sorted(set(characters)))
        if readings is None:
            own = tuple((i + 1,) for i in range(len(known)))
            return cls(known, ("<unk>", *known), own)
        names = ("<unk>", *sorted({unit for c in known for unit in readings.get(c, ())}))
        ids = {name: i for i, name in enumerate(names)}
        rows = tuple(tuple(ids[u] for u in readings.get(c, ())) or (0,) for c in known)
        return cls(known, names, rows)

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {c: i + _RESERVED for i, c in enumerate(self.characters)}

    def __len__(self) -> int:
        """Number of character ids, padding and unknown included."""
        return len(self.characters) + _RESERVED

    def encode(self, text: str) -> npt.NDArray[np.int64]:
        """Character ids, one a code point. shape: (length,)."""
        return np.array([self._ids.get(c, UNKNOWN_ID) for c in text], dtype=np.int64)

    def units_of(self, character: int) -> tuple[int, ...]:
        """Units that the character of an id may be read as, most usual first."""
        if character < _RESERVED:
            return ()
        return self.readings[character - _RESERVED]

    def reading_table(self) -> npt.NDArray[np.int64]:
        """Units of each character id, filled up with -1. shape: (characters, most readings).

        Padding has no unit at all; unknown has the unit ``<unk>``.
        """
        table = np.full((len(self), max((len(r) for r in self.readings), default=1)), -1, np.int64)
        table[UNKNOWN_ID, 0] = 0
        for i, units in enumerate(self.readings):
            table[i + _RESERVED, : len(units)] = units
        return table

    @cached_property
    def sha256(self) -> str:
        """Hash of all that a trained model depends on."""
        content = json.dumps([self.characters, self.units, self.readings], ensure_ascii=True)
        return hashlib.sha256(content.encode()).hexdigest()
