"""Predictions of a torch model on examples, and what its acoustic encoder recognises."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch

from cnerta.models.networks.ctc import CtcHead
from cnerta.models.networks.tagger import SpeechTagger
from cnerta.models.runtime.alignment import align
from cnerta.models.runtime.bundle import BLANK_PENALTY
from cnerta.models.runtime.decoding import CrfDecoder
from cnerta.models.runtime.labels import Span
from cnerta.train.batches.batch import BatchBuilder
from cnerta.train.batches.encoding import encode_batch
from cnerta.train.data.audio import AudioCache, read_audio
from cnerta.train.data.examples import Example, normalise_example
from cnerta.train.evaluation.bundle_answers import Times, times_of
from cnerta.train.evaluation.edit_distance import edit_distance

__all__ = ["torch_predictions", "torch_times", "unit_errors"]

_BATCH = 32


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
    return times_of(alignment, read_audio(example.audio), model.acoustic.geometry)


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
