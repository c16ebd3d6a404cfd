"""Who answers in an evaluation: a bundle, checkpoints that vote, or another library's pipeline."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import track

from cnerta.models.errors import ConfigError
from cnerta.models.runtime.bundle import find_bundle
from cnerta.models.runtime.decoding import ScoredSpan, whole_tokens
from cnerta.models.runtime.inference import Device, Model
from cnerta.models.runtime.labels import Span
from cnerta.models.text.normalisation import normalise
from cnerta.train.data.audio import AudioCache
from cnerta.train.data.examples import Example, normalise_example
from cnerta.train.evaluation.bundle_answers import Times, bundle_predictions, bundle_times
from cnerta.train.evaluation.external import load_external

if TYPE_CHECKING:
    from cnerta.models.networks.tagger import SpeechTagger

__all__ = [
    "Answers",
    "answers_of_bundle",
    "answers_of_checkpoints",
    "answers_of_external",
    "majority",
]


@dataclass(frozen=True, slots=True)
class Answers:
    """What a system found.

    Attributes:
        name: Of the system.
        found: Entities of each sentence, in offsets of its own text.
        nested: Whether entities may lie in one another.
        uses_audio: Whether recordings were used.
        align: Gives the time of each normalised character of a spoken example, see
            :func:`cnerta.train.evaluation.bundle_answers.bundle_times`; None if the system cannot
            tell.
    """

    name: str
    found: list[list[Span]]
    nested: bool
    uses_audio: bool
    align: Callable[[Example], Times | None] | None = None


def answers_of_bundle(
    path: Path | None,
    examples: Sequence[Example],
    *,
    use_audio: bool,
    device: Device,
    threads: int,
    console: Console,
) -> Answers:
    """Stream every sentence through a bundle.

    Args:
        path: Folder or name of the bundle; the default one if None.
        examples: Sentences.
        use_audio: Use recordings.
        device: Where to run.
        threads: CPU threads.
        console: For the progress bar.

    Raises:
        BundleError: The bundle cannot be used.
        DataError: A text is longer than the model takes.
        InferenceError: The runtime cannot run it.
    """
    model = Model.load(find_bundle(path), device=device, threads=threads)
    answers = track(
        bundle_predictions(model, examples, use_audio=use_audio),
        description="tagging",
        total=len(examples),
        console=console,
        transient=True,
    )
    found = [list(spans) for spans in answers]
    hears = use_audio and model.bundle.audio_use != "none"
    align = partial(bundle_times, model) if hears else None
    return Answers(model.bundle.name, found, model.bundle.nested, hears, align)


def answers_of_external(name: str, examples: Sequence[Example], *, console: Console) -> Answers:
    """What spaCy or Stanza find in the texts as they are.

    Args:
        name: See :func:`cnerta.train.evaluation.external.load_external`.
        examples: Sentences.
        console: For the progress bar.

    Raises:
        ConfigError: There is no such name.
        ExternalError: What is needed is not installed, or it fails.
    """
    pipeline = load_external(name)
    texts = track(
        [e.text for e in examples], description="tagging", console=console, transient=True
    )
    return Answers(pipeline.name, [pipeline(t) for t in texts], nested=False, uses_audio=False)


def answers_of_checkpoints(
    paths: Sequence[Path], examples: Sequence[Example], *, use_audio: bool, device: Device
) -> Answers:
    """What most of some checkpoints find, in batches.

    Args:
        paths: Their folders.
        examples: Sentences.
        use_audio: Use recordings.
        device: Where to run.

    Raises:
        CheckpointError: A checkpoint cannot be read.
        ConfigError: There is no such device.
    """
    # Torch takes seconds to import, and a bundle needs none.
    import torch

    from cnerta.models.networks.checkpoint import load_checkpoint
    from cnerta.train.evaluation.predict import torch_predictions, torch_times

    found_cuda = torch.cuda.is_available()
    if device == "cuda" and not found_cuda:
        raise ConfigError("expected a GPU that torch can use, got none")
    place = torch.device("cuda" if found_cuda and device != "cpu" else "cpu")
    cache = AudioCache()
    normalised = [normalise(e.text) for e in examples]
    # Without a spoken character there is nothing to find.
    spoken = [i for i, text in enumerate(normalised) if text.text]
    seen = [normalise_example(examples[i]) for i in spoken]
    names, nested = [], False
    first: SpeechTagger | None = None
    votes: list[list[list[Span]]] = [[] for _ in examples]
    for path in paths:
        loaded = load_checkpoint(path)
        names.append(loaded.name)
        nested = nested or loaded.model.scheme.kind == "nested"
        first = first or loaded.model
        model = loaded.model.to(place)
        answers = torch_predictions(model, seen, cache, use_audio=use_audio, device=place)
        for i, spans in zip(spoken, answers, strict=True):
            text = normalised[i]
            whole = whole_tokens([ScoredSpan(s.start, s.end, s.label, 1.0) for s in spans], text)
            ranges = [(*text.original_range(s.start, s.end), s.label) for s in whole]
            votes[i].append([Span(*r) for r in ranges])
    found = [majority(v) for v in votes]
    assert first is not None, "at least one checkpoint"
    hears = use_audio and first.config.uses_audio
    align = partial(torch_times, first.cpu()) if hears else None
    return Answers(" + ".join(names), found, nested, hears, align)


def majority(votes: Sequence[Sequence[Span]]) -> list[Span]:
    """The spans of one sentence that more than half of the models found, in text order."""
    counts = Counter(span for found in votes for span in set(found))
    return sorted(span for span, count in counts.items() if 2 * count > len(votes))
