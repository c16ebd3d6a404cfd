"""What noise, rooms and telephones cost: the same recordings, heard through each.

    python tests/benchmarks/robustness.py --manifest dev.jsonl --bundle fast [--limit 200]

For each condition: the share of recordings whose audio the bundle takes to be of its text (a final
would have ``audio_used: true``), how far character boundaries move from where they are in the
recording as it is, and, if the manifest has entities, F1 with speech beside F1 of text alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Final

import numpy as np
import numpy.typing as npt
import typer
from rich.console import Console
from rich.progress import track

from cnerta.models.runtime.bundle import find_bundle
from cnerta.models.runtime.inference import Model, Tagged
from cnerta.models.runtime.labels import Span
from cnerta.models.text.normalisation import normalise
from cnerta.train.batches.degrade import add_noise, reverberate, telephone
from cnerta.train.data.audio import AudioCache
from cnerta.train.data.examples import Example, read_examples
from cnerta.train.evaluation.metrics import score_entities

Samples = npt.NDArray[np.float32]
Condition = Callable[[Samples, np.random.Generator], Samples]

CONDITIONS: Final[dict[str, Condition]] = {
    "as it is": lambda samples, _: samples,
    "pink noise, 20 dB": lambda samples, own: add_noise(samples, 20.0, 1.0, own),
    "pink noise, 10 dB": lambda samples, own: add_noise(samples, 10.0, 1.0, own),
    "white noise, 10 dB": lambda samples, own: add_noise(samples, 10.0, 0.0, own),
    "room, 0.4 s": lambda samples, own: reverberate(samples, 0.4, 3.0, own),
    "telephone": lambda samples, _: telephone(samples),
}


def heard(model: Model, example: Example, samples: Samples) -> Tagged:
    """What the bundle says, from text alone where the audio does not fit, as a session would."""
    text = normalise(example.text).text
    (tagged,) = model.tag([text], [model.encode_recording(samples)])
    if tagged.alignment is not None and tagged.alignment.score >= model.bundle.audio_fit_bound:
        return tagged
    return alone(model, example)


def alone(model: Model, example: Example) -> Tagged:
    """What the bundle says of the text."""
    nothing = np.zeros((0, model.bundle.geometry.width), np.float32)
    (tagged,) = model.tag([normalise(example.text).text], [nothing])
    return tagged


def f1(answers: Sequence[Tagged], examples: Sequence[Example]) -> float:
    found: list[list[Span]] = [[s.span for s in answer.spans] for answer in answers]
    gold = [example.spans or () for example in examples]
    return score_entities(gold, found).nested.f1


def main(
    manifest: Annotated[Path, typer.Option(help="Recordings with their texts.")],
    bundle: Annotated[Path | None, typer.Option(help="A folder, fast or accurate.")] = None,
    limit: Annotated[int, typer.Option(help="At most so many recordings; 0: all.")] = 200,
) -> None:
    """Print a line for each condition."""
    model = Model.load(find_bundle(bundle), device="cpu")
    examples = [e for e in read_examples(manifest) if e.audio is not None][: limit or None]
    cache = AudioCache()
    scored = all(e.spans is not None for e in examples)
    print(f"{model.bundle.name}, {len(examples)} recordings")
    if scored:
        print(f"nested F1, text alone: {f1([alone(model, e) for e in examples], examples):.1f}")
    plain: list[Tagged] = []
    errors = Console(stderr=True)
    for name, change in CONDITIONS.items():
        answers = [
            heard(model, example, change(cache(example.audio), np.random.default_rng(i)))
            for i, example in enumerate(track(examples, name, console=errors, transient=True))
            if example.audio is not None
        ]
        plain = plain or answers
        used = [a for a in answers if a.alignment is not None]
        moved = [
            np.abs(a.alignment.starts - p.alignment.starts)
            for a, p in zip(answers, plain, strict=True)
            if a.alignment is not None and p.alignment is not None
        ]
        frames = np.concatenate(moved) * model.bundle.geometry.frame_ms if moved else np.zeros(1)
        told = f"audio used {100 * len(used) / len(answers):5.1f} %, boundaries moved by "
        told += f"{frames.mean():5.1f} ms (mean)"
        print(f"{name:20} {told}" + (f", nested F1 {f1(answers, examples):.1f}" if scored else ""))


if __name__ == "__main__":
    typer.run(main)
