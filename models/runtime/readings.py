"""Which of their pronunciations characters with several readings were spoken with.

A character's score is the log-sum over its pronunciations, so the audio has chosen among them
already; here it is asked what it chose. In each frame that the alignment gave to a character, its
pronunciations and the blank share the probability; a reading's confidence is its part of what the
pronunciations got in all of these frames. Frames that only say blank so hardly count.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cnerta.models.runtime.alignment import Alignment
from cnerta.models.runtime.vocabulary import Vocabulary

__all__ = ["CharacterReading", "UnitScores", "heard_readings"]

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]
UnitScores = Callable[[Floats, Integers], Floats]
"""Scores of the blank (column 0) and of acoustic units at every frame, not normalised.

Takes frames, shape (time, width), and unit numbers, shape (count,); gives shape (time, 1 + count).
"""


@dataclass(frozen=True, slots=True)
class CharacterReading:
    """How a character that may be read in several ways was read.

    Attributes:
        index: Which character of the text.
        readings: Names of its acoustic units with their probabilities, the highest first.
    """

    index: int
    readings: tuple[tuple[str, float], ...]


def heard_readings(
    vocabulary: Vocabulary,
    characters: Integers,
    frames: Floats,
    alignment: Alignment,
    scores: UnitScores,
) -> tuple[CharacterReading, ...]:
    """How each character that has several readings was read.

    Args:
        vocabulary: Which units a character may be read as.
        characters: Ids of the text's characters. shape: (length,)
        frames: The utterance's frames. shape: (time, width)
        alignment: Of the characters with these frames.
        scores: The model's scores of units.
    """
    several = [i for i, c in enumerate(characters.tolist()) if len(vocabulary.units_of(c)) > 1]
    if not several:
        return ()
    units = sorted({u for i in several for u in vocabulary.units_of(int(characters[i]))})
    column = {unit: 1 + n for n, unit in enumerate(units)}
    spoken = np.concatenate(
        [np.arange(alignment.starts[i], alignment.ends[i]) for i in several]
    ).astype(np.int64)
    scored = scores(frames[spoken], np.array(units, np.int64))
    found: list[CharacterReading] = []
    at = 0
    for i in several:
        own = vocabulary.units_of(int(characters[i]))
        count = int(alignment.ends[i] - alignment.starts[i])
        rows = scored[at : at + count][:, [0, *(column[u] for u in own)]]
        at += count
        shares = np.exp(rows - rows.max(axis=1, keepdims=True))
        heard = (shares / shares.sum(axis=1, keepdims=True))[:, 1:].sum(axis=0)
        # The blank may leave so little that it vanishes; then nothing is known.
        total = float(heard.sum())
        parts = heard / total if total > 0 else np.full(len(own), 1 / len(own))
        order = np.argsort(-parts, kind="stable")
        named = tuple((vocabulary.units[own[n]], float(parts[n])) for n in order)
        found.append(CharacterReading(i, named))
    return tuple(found)
