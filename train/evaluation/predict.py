"""Predictions of a torch model or of a bundle on examples, and their scores."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch

from cnerta.models.errors import DataError
from cnerta.models.networks.ctc import CtcHead
from cnerta.models.networks.tagger import SpeechTagger
from cnerta.models.runtime.alignment import Alignment, align
from cnerta.models.runtime.boundaries import character_times, sound_levels
from cnerta.models.runtime.bundle import BLANK_PENALTY
from cnerta.models.runtime.decoding import CrfDecoder, ScoredSpan, whole_tokens
from cnerta.models.runtime.geometry import HOP_SAMPLES, FrameGeometry
from cnerta.models.runtime.inference import Model
from cnerta.models.runtime.labels import Span
from cnerta.models.text.normalisation import normalise
from cnerta.train.batches.batch import BatchBuilder
from cnerta.train.batches.encoding import encode_batch
from cnerta.train.data.audio import AudioCache, read_audio
from cnerta.train.data.examples import Example, normalise_example

__all__ = [
    "Times",
    "bundle_answers",
    "bundle_predictions",
    "bundle_times",
    "edit_distance",
    "majority",
    "torch_predictions",
    "torch_times",
    "unit_errors",
]

_BATCH = 32

Floats = npt.NDArray[np.float32]
Times = npt.NDArray[np.float64]


@torch.no_grad()
def torch_predictions(
    model: SpeechTagger,
    examples: Sequence[Example],
    cache: AudioCache,
    *,
    use_audio: bool = True,
    device: torch.device | None = None,
) -> list[list[Span]]:
    """Spans the torch model finds, in the order of the examples, encoding in chunks."""
    device = device or torch.device("cpu")
    cache.expect(e.audio for e in examples if use_audio and e.audio is not None)
    model.eval()
    builder = BatchBuilder(model.vocabulary, model.scheme, cache, None, model.lexicon)
    decoder = CrfDecoder(model.scheme, model.crf.parameters_as_values())
    found: list[list[Span]] = [[] for _ in examples]
    for indices in _batches(examples, cache, use_audio=use_audio):
        chosen = [examples[i] for i in indices]
        if not use_audio:
            chosen = [replace(e, audio=None, times_ms=None) for e in chosen]
        batch = builder.build([(e,) for e in chosen], np.random.default_rng(0)).to(device)
        frames, counts = encode_batch(model, batch, model.config.acoustic.usual_chunk)
        output = model(batch.characters, batch.counts, frames, counts, batch.matches)
        lengths = batch.counts.tolist()
        emissions = output.emissions.float().cpu().numpy()
        for row, example, n in zip(emissions, chosen, lengths, strict=True):
            row[:n] = decoder.with_full_names(row[:n], example.corpus + example.text)
        for i, spans in zip(indices, decoder.decode(emissions, lengths), strict=True):
            found[i] = [s.span for s in spans]
    return found


def bundle_predictions(
    model: Model, examples: Sequence[Example], *, use_audio: bool = True
) -> Iterator[list[Span]]:
    """Spans the bundle finds; see :func:`cnerta.train.evaluation.predict.bundle_answers`."""
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


def majority(votes: Sequence[Sequence[Span]]) -> list[Span]:
    """The spans of one sentence that more than half of the models found, in text order."""
    counts = Counter(span for found in votes for span in set(found))
    return sorted(span for span, count in counts.items() if 2 * count > len(votes))


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
    return _times(tagged.alignment, samples, model.bundle.geometry)


@torch.no_grad()
def torch_times(model: SpeechTagger, example: Example) -> Times | None:
    """The same of a torch model on the CPU."""
    assert example.audio is not None, "only what is spoken has times"
    if model.config.audio_use != "aligned":
        return None
    model.eval()
    builder = BatchBuilder(model.vocabulary, model.scheme, AudioCache(), None, model.lexicon)
    seen = normalise_example(example)
    batch = builder.build([(seen,)], np.random.default_rng(0))
    frames, counts = encode_batch(model, batch, model.config.acoustic.usual_chunk)
    output = model(batch.characters, batch.counts, frames, counts, batch.matches)
    (alignment,) = align(
        output.log_probabilities.float().cpu().numpy(),
        counts.tolist(),
        [model.vocabulary.encode(seen.text)],
        BLANK_PENALTY,
    )
    return _times(alignment, read_audio(example.audio), model.acoustic.geometry)


def _times(alignment: Alignment | None, samples: Floats, geometry: FrameGeometry) -> Times | None:
    if alignment is None:
        return None
    whole = np.pad(samples, (0, -len(samples) % HOP_SAMPLES))
    return character_times(alignment, 0, sound_levels(whole), geometry)


@torch.no_grad()
def unit_errors(
    model: SpeechTagger,
    examples: Sequence[Example],
    cache: AudioCache,
    *,
    device: torch.device | None = None,
) -> tuple[int, int]:
    """Edit distance of greedily decoded acoustic units to the spoken ones, and how many those are.

    The figure that shows what the encoder itself recognises: nothing is masked, so it cannot be
    satisfied by position.
    """
    assert isinstance(model.ctc, CtcHead), "a model of text alone recognises nothing"
    device = device or torch.device("cpu")
    model.eval()
    builder = BatchBuilder(model.vocabulary, model.scheme, cache, None)
    errors = total = 0
    for indices in _batches(examples, cache, use_audio=True):
        clips = [(examples[i],) for i in indices if examples[i].audio is not None]
        if not clips:
            continue
        batch = builder.build(clips, np.random.default_rng(0)).to(device)
        frames, counts = encode_batch(model, batch, model.config.acoustic.usual_chunk)
        best = model.ctc.all_units(frames).argmax(dim=2).cpu().numpy()
        for row, n, units, k in zip(
            best, counts.tolist(), batch.units.tolist(), batch.unit_counts.tolist(), strict=True
        ):
            path = row[:n]
            kept = path[np.insert(path[1:] != path[:-1], 0, True)] if n else path
            errors += edit_distance([u for u in kept.tolist() if u], units[:k])
            total += k
    return errors, total


def _batches(
    examples: Sequence[Example], cache: AudioCache, *, use_audio: bool
) -> Iterator[list[int]]:
    def size(i: int) -> tuple[bool, float, int]:
        audio = examples[i].audio if use_audio else None
        return (audio is None, cache.seconds(audio) if audio else 0.0, len(examples[i].text))

    order = sorted(range(len(examples)), key=size)
    for spoken in (True, False):
        chosen = [i for i in order if (use_audio and examples[i].audio is not None) == spoken]
        for start in range(0, len(chosen), _BATCH):
            yield chosen[start : start + _BATCH]


def edit_distance(first: Sequence[object], second: Sequence[object]) -> int:
    """Insertions, deletions and substitutions that make one sequence of the other (Levenshtein)."""
    row = list(range(len(second) + 1))
    for i, a in enumerate(first, 1):
        diagonal, row[0] = row[0], i
        for j, b in enumerate(second, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (a != b))
    return row[-1]
