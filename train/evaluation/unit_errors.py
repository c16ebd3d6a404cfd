"""How many syllables an acoustic encoder mistakes, with their tones and without.

Nothing is masked: the output is decoded greedily over all pronunciations, so that the figure cannot
be satisfied by knowing the text. Whether the tone is right, and whether the syllable is, are told
apart: without tones, the probabilities of a syllable's tones are added up before decoding.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cnerta.models.errors import ConfigError
from cnerta.models.runtime.inference import Model
from cnerta.train.data.audio import AudioCache
from cnerta.train.data.examples import Example, normalise_example
from cnerta.train.data.pronunciations import sentence_readings
from cnerta.train.evaluation.edit_distance import edit_distance

__all__ = ["UnitErrors", "UnitScores", "bundle_unit_scores", "count_unit_errors", "toneless"]

Floats = npt.NDArray[np.float32]
_TONES = "12345"


@dataclass(frozen=True, slots=True)
class UnitScores:
    """What an encoder makes of one recording.

    Attributes:
        example: The recording, its text normalised.
        scores: Of the blank and every unit at each frame, normalised or not.
            shape: (frames, 1 + units)
    """

    example: Example
    scores: Floats


@dataclass(frozen=True, slots=True)
class UnitErrors:
    """Edit distances over some recordings.

    Attributes:
        recordings: How many.
        spoken: Units that were spoken.
        tonal: Errors in units as they are.
        toneless: Errors where tones do not count.
    """

    recordings: int
    spoken: int
    tonal: int
    toneless: int

    @property
    def tonal_rate(self) -> float:
        """Errors a spoken unit, in percent."""
        return 100.0 * self.tonal / max(1, self.spoken)

    @property
    def toneless_rate(self) -> float:
        """The same without tones."""
        return 100.0 * self.toneless / max(1, self.spoken)


def toneless(unit: str) -> str:
    """A pronunciation without its tone digit; anything else as it is."""
    return unit[:-1] if unit[-1:] in _TONES and unit[:-1].isalpha() else unit


def bundle_unit_scores(
    model: Model, examples: Iterable[Example], cache: AudioCache
) -> Iterable[UnitScores]:
    """Listen to recordings with a bundle, in chunks as the server does.

    Raises:
        ConfigError: The bundle does not score units: its own are characters.
    """
    if not model.bundle.has_readings:
        raise ConfigError(
            f"expected a bundle whose acoustic units are pronunciations, got {model.bundle.name}"
        )
    everything = np.arange(len(model.bundle.vocabulary.units))
    for example in map(normalise_example, examples):
        assert example.audio is not None, "only what is spoken has units"
        frames = model.encode_recording(cache(example.audio))
        yield UnitScores(example, model.score_units(frames, everything))


def count_unit_errors(heard: Iterable[UnitScores], units: Sequence[str]) -> UnitErrors:
    """Compare what was heard with what was read.

    Args:
        heard: Scores of recordings.
        units: Names of the units, in the scores' order.
    """
    names = [toneless(unit) for unit in units]
    plain = sorted(set(names))
    column = {name: 1 + i for i, name in enumerate(plain)}
    groups = np.array([0, *(column[name] for name in names)])
    recordings = spoken = tonal = without = 0
    for item in heard:
        readings = item.example.readings or sentence_readings(item.example.text)
        decoded = [units[k - 1] for k in _greedy(item.scores)]
        merged = [plain[k - 1] for k in _greedy(_added_up(item.scores, groups))]
        recordings += 1
        spoken += len(readings)
        tonal += edit_distance(decoded, readings)
        without += edit_distance(merged, [toneless(r) for r in readings])
    return UnitErrors(recordings, spoken, tonal, without)


def _greedy(scores: Floats) -> list[int]:
    """The best column of each frame, repetitions and blanks (column 0) left out."""
    best = scores.argmax(axis=1)
    kept = best[np.insert(best[1:] != best[:-1], 0, True)] if len(best) else best
    return [int(k) for k in kept if k]


def _added_up(scores: Floats, groups: npt.NDArray[np.int64]) -> Floats:
    """Probabilities, up to a factor a frame, of columns with one number added up."""
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    added = np.zeros((len(scores), int(groups.max()) + 1), np.float32)
    np.add.at(added.T, groups, powers.T)
    return added
