"""What a bundle finds in examples, and when their characters were spoken. Without torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from cnerta.models.errors import DataError
from cnerta.models.runtime.alignment import Alignment
from cnerta.models.runtime.boundaries import character_times, sound_levels
from cnerta.models.runtime.decoding import ScoredSpan, whole_tokens
from cnerta.models.runtime.geometry import HOP_SAMPLES, FrameGeometry
from cnerta.models.runtime.inference import Model
from cnerta.models.runtime.labels import Span
from cnerta.models.text.normalisation import normalise
from cnerta.train.data.audio import AudioCache, read_audio
from cnerta.train.data.examples import Example

__all__ = ["Times", "bundle_answers", "bundle_predictions", "bundle_times", "times_of"]

Floats = npt.NDArray[np.float32]
Times = npt.NDArray[np.float64]


def bundle_predictions(
    model: Model, examples: Sequence[Example], *, use_audio: bool = True
) -> Iterator[list[Span]]:
    """Spans the bundle finds; see :func:`cnerta.train.evaluation.bundle_answers.bundle_answers`."""
    for answer in bundle_answers(model, examples, use_audio=use_audio):
        yield [s.span for s in answer]


def bundle_answers(
    model: Model, examples: Sequence[Example], *, use_audio: bool = True
) -> Iterator[list[ScoredSpan]]:
    """What the bundle finds, example by example, encoding chunk by chunk as a stream would.

    Offsets are those of the example's own text, before normalisation.

    Raises:
        DataError: A text is longer than the model takes.
    """
    cache = AudioCache()
    cache.expect(e.audio for e in examples if use_audio and e.audio is not None)
    nothing = np.zeros((0, model.bundle.geometry.width), np.float32)
    for example in examples:
        audio = example.audio if use_audio else None
        frames = nothing if audio is None else model.encode_recording(cache(audio))
        text = normalise(example.text)
        if len(text.text) > model.bundle.max_characters:
            raise DataError(
                f"expected sentences of at most {model.bundle.max_characters} characters, got "
                f"{len(text.text)}: {text.text[:20]}…"
            )
        (tagged,) = model.tag([text.text], [frames])
        yield [
            ScoredSpan(*text.original_range(s.start, s.end), s.label, s.confidence)
            for s in whole_tokens(tagged.spans, text)
        ]


def bundle_times(model: Model, example: Example) -> Times | None:
    """When each normalised character of an example was spoken, as a bundle aligns it.

    Returns:
        Start and end in ms; None if the recording is too short for the text, or of a model that no
        CTC task trained to align. shape: (length, 2)
    """
    assert example.audio is not None, "only what is spoken has times"
    samples = read_audio(example.audio)
    text = normalise(example.text).text
    (tagged,) = model.tag([text], [model.encode_recording(samples)])
    return times_of(tagged.alignment, samples, model.bundle.geometry)


def times_of(alignment: Alignment | None, samples: Floats, geometry: FrameGeometry) -> Times | None:
    """When the characters of an alignment were spoken, moved to where the sound begins and ends.

    Args:
        alignment: Of all characters; None: there is none.
        samples: Of the recording, at 16 kHz. shape: (samples,)
        geometry: Of the frames.

    Returns:
        Start and end in ms; None without an alignment. shape: (length, 2)
    """
    if alignment is None:
        return None
    whole = np.pad(samples, (0, -len(samples) % HOP_SAMPLES))
    return character_times(alignment, 0, sound_levels(whole), geometry)
