"""Golden answers that travel in a bundle: does the model still say what it said when exported?

Hashes tell that files are those that were written, not that what was written makes sense, nor that
the machine still works it out. Weights that are all zero, or in the wrong order, give empty answers
without an error. So a bundle keeps what its model made of a made-up sound and a sentence, in
``self_test.json``, and every process that loads it compares.

The comparison is by direction and size of whole vectors, not by digits: processors round 8-bit
weights differently, and a GPU multiplies with fewer digits.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec
import numpy as np
import numpy.typing as npt

from cnerta.models.errors import BundleError, InferenceError
from cnerta.models.files import write_atomically
from cnerta.models.runtime.geometry import SAMPLE_RATE

if TYPE_CHECKING:
    from cnerta.models.runtime.inference import Model

__all__ = ["SELF_TEST_FILE", "SelfTest", "check_model", "read_self_test", "record_self_test"]

Floats = npt.NDArray[np.float32]

SELF_TEST_FILE: Final = "self_test.json"
_TEXT: Final = "我在北京大学见到了张三"
_SOUND_S: Final = 1.6
_NUMBERS: Final = 96
"""Of each vector so many are kept, spread evenly."""
_MOST_DISTANCE: Final = 0.3
"""How far a vector may be from the golden one, as a share of the golden one's length. Float weights
in place of 8-bit ones come to 0.01; a single matrix in another order to 0.5 and more."""
_SURE: Final = 0.9
"""Entities with this confidence must be found again."""


class GoldenAnswer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the tagger says of the text.

    Attributes:
        scores: Of tags, some of them.
        entities: Start, end and label of those that are sure.
    """

    scores: tuple[float, ...]
    entities: tuple[tuple[int, int, str], ...]


class SelfTest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a model made of a sound and a text.

    Attributes:
        text: The text.
        frames: Of the sound, some numbers of them.
        units: Scores of acoustic units in the sound, some of them; none without readings.
        from_text: The answer from text alone.
        from_audio: The answer from text and sound.
    """

    text: str
    frames: tuple[float, ...]
    units: tuple[float, ...]
    from_text: GoldenAnswer
    from_audio: GoldenAnswer


def record_self_test(model: Model) -> SelfTest:
    """What a model says now, kept in its bundle's folder.

    Raises:
        InferenceError: It says nothing that makes sense.
    """
    test = _answers(model, _TEXT, sure=_SURE)
    content = msgspec.json.format(msgspec.json.encode(test), indent=0)
    write_atomically(model.bundle.path / SELF_TEST_FILE, content + b"\n")
    return test


def read_self_test(bundle: Path) -> SelfTest | None:
    """The golden answers in a bundle's folder; None: it has none.

    Raises:
        BundleError: They cannot be read.
    """
    try:
        content = (bundle / SELF_TEST_FILE).read_bytes()
    except FileNotFoundError:
        return None
    try:
        return msgspec.json.decode(content, type=SelfTest)
    except msgspec.MsgspecError as error:
        raise BundleError(
            f"expected a readable {SELF_TEST_FILE} in {bundle}, got: {error}"
        ) from error


def check_model(model: Model, test: SelfTest) -> None:
    """Compare what a model says with its golden answers.

    Raises:
        BundleError: It says something else, or nothing that makes sense.
    """
    # What was sure then may be less so by now: another calibration.
    try:
        got = _answers(model, test.text, sure=0.0)
    except InferenceError as error:
        raise BundleError(
            f"expected the model of {model.bundle.path} to answer as it did when it was "
            f"exported, got: {error}"
        ) from error
    _compare(model, "frames of the sound", got.frames, test.frames)
    if test.units:
        _compare(model, "scores of units in the sound", got.units, test.units)
    for what, answer, golden in (
        ("scores from text", got.from_text, test.from_text),
        ("scores from text and sound", got.from_audio, test.from_audio),
    ):
        _compare(model, what, answer.scores, golden.scores)
        missing = set(golden.entities) - set(answer.entities)
        if missing:
            raise BundleError(
                f"expected the model of {model.bundle.path} to find what it found when it was "
                f"exported, got an answer without {len(missing)} of its entities"
            )


def _answers(model: Model, text: str, *, sure: float) -> SelfTest:
    frames = model.encode_recording(_sound())
    windows = [frames[:0], frames[:0] if model.bundle.audio_use == "none" else frames]
    tagged = model.tag([text, text], windows)
    from_text, from_audio = (
        GoldenAnswer(
            _some(model.scores(text, window)),
            tuple((s.start, s.end, s.label) for s in answer.spans if s.confidence >= sure),
        )
        for answer, window in zip(tagged, windows, strict=True)
    )
    units = _some(_units(model, frames)) if model.bundle.has_readings else ()
    return SelfTest(text, _some(frames), units, from_text, from_audio)


def _units(model: Model, frames: Floats) -> Floats:
    return model.score_units(frames, np.arange(1, len(model.bundle.vocabulary.units), 7))


def _compare(model: Model, what: str, got: Sequence[float], golden: Sequence[float]) -> None:
    wanted = np.array(golden)
    size = float(np.linalg.norm(wanted))
    if len(got) != len(golden) or not size:
        raise BundleError(f"expected {len(golden)} {what} that are not all zero, got {len(got)}")
    distance = float(np.linalg.norm(np.array(got) - wanted)) / size
    if not distance <= _MOST_DISTANCE:
        raise BundleError(
            f"expected the model of {model.bundle.path} to give the {what} that it gave when it "
            f"was exported, got others (a distance of {distance:.2g}, at most {_MOST_DISTANCE}): "
            "its weights are wrong, or this machine works them out wrongly"
        )


def _some(values: Floats) -> tuple[float, ...]:
    places = np.linspace(0, values.size - 1, min(_NUMBERS, values.size)).astype(int)
    return tuple(float(f"{value:.5g}") for value in values.reshape(-1)[places].tolist())


def _sound() -> Floats:
    """Something like vowels, three tones that glide and swell. shape: (samples,)."""
    t = np.arange(round(_SOUND_S * SAMPLE_RATE)) / SAMPLE_RATE
    swell = 0.5 - 0.5 * np.cos(2 * np.pi * 5 * t)
    tones = [
        np.sin(2 * np.pi * (f * t + g * t * t)) for f, g in ((140, 30), (620, 250), (1900, -310))
    ]
    sound: Floats = (0.1 * swell * np.sum(tones, axis=0)).astype(np.float32)
    return sound
