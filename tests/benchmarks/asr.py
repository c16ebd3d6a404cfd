"""What recognised text costs: character error rate, and entity F1 on it beside F1 on the true text.

    python tests/benchmarks/asr.py --manifest FILE --source faster-whisper:FOLDER [--clips 120]

Each clip goes through the transcript source as a session of its own, as fast as it is taken. All
final texts of a clip are its transcript. Both sides are compared as the model sees them, without
punctuation and with numbers read out (`cnerta.models.text.normalisation`).

Offsets in two different texts cannot be compared, so an entity is right if the same clip has the
same label with the same characters; F1 is over all entities of all clips, the true text scored in
the same way. Gold is scarce: the clips of the manifest with ``entities``, all of which are taken.
For the others (evenly spread over the manifest) the reference is silver: what the same bundle finds
in the true text with the audio, so that column says how much of its answers survives recognition.
``as written`` is how many of the reference's entities are in the recognised text at all, letter by
letter: no tagger of text could find more.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np
import numpy.typing as npt
import soundfile
import typer
from tqdm import tqdm

from cnerta.models.runtime.bundle import find_bundle
from cnerta.models.runtime.inference import Model
from cnerta.models.text.normalisation import normalise
from cnerta.streamer.audio.source import AudioFile
from cnerta.streamer.sources import LiveAudio, TranscriptSource, make_transcript_source
from cnerta.train.data.examples import Example, read_examples

Mentions = Counter[tuple[str, str]]
"""Labels and characters of entities, with how often each is there."""


def edit_distance(one: str, other: str) -> int:
    """How many characters to insert, delete or replace at least (Levenshtein)."""
    before = np.arange(len(other) + 1)
    codes = np.array([ord(c) for c in other])
    steps = np.arange(len(other))
    for row, character in enumerate(one, 1):
        now = np.minimum(before[1:] + 1, before[:-1] + (codes != ord(character)))
        # An insertion follows whatever is best to its left: a running minimum.
        now = np.minimum.accumulate(np.concatenate([[row], now - steps - 1])) + np.arange(
            len(other) + 1
        )
        before = now
    return int(before[-1])


@dataclass(frozen=True, slots=True)
class Score:
    """Entities that are right, of those found and of those wanted."""

    right: int
    found: int
    wanted: int

    @classmethod
    def of(cls, found: Sequence[Mentions], wanted: Sequence[Mentions]) -> Score:
        """Count over all clips."""
        pairs = list(zip(found, wanted, strict=True))
        return cls(
            sum((f & w).total() for f, w in pairs),
            sum(f.total() for f, _ in pairs),
            sum(w.total() for _, w in pairs),
        )

    def __str__(self) -> str:
        precision = 100 * self.right / max(1, self.found)
        recall = 100 * self.right / max(1, self.wanted)
        f1 = 200 * self.right / max(1, self.found + self.wanted)
        return f"{f1:.1f} ({precision:.0f} / {recall:.0f})"


async def recognise(source: TranscriptSource, path: Path) -> str:
    """All final texts of a recording."""
    file = AudioFile(path, paced=False)
    audio = LiveAudio(file.format, paced=False)
    finals: list[str] = []

    async def listen() -> None:
        finals.extend([r.text async for r in source.revisions(audio) if r.final])

    listening = asyncio.create_task(listen())
    await asyncio.sleep(0)
    async for block in file.blocks():
        await audio.push(block)
    await audio.end()
    await listening
    return "".join(finals)


def mentions(model: Model, text: str, frames: npt.NDArray[np.float32]) -> Mentions:
    """What a bundle finds in a normalised text with its audio."""
    (tagged,) = model.tag([text], [frames])
    return Counter((span.label, text[span.start : span.end]) for span in tagged.spans)


def gold_mentions(example: Example) -> Mentions:
    """What is annotated, as the model sees the text."""
    spans = example.spans or ()
    return Counter((s.label, normalise(example.text[s.start : s.end]).text) for s in spans)


def as_written(reference: Sequence[Mentions], texts: Sequence[str]) -> str:
    """Share of the entities whose characters are in the text."""
    wanted = sum(counted.total() for counted in reference)
    there = sum(
        min(count, text.count(mention))
        for counted, text in zip(reference, texts, strict=True)
        for (_, mention), count in counted.items()
    )
    return f"{100 * there / max(1, wanted):.0f} % of {wanted}"


def chosen(examples: Sequence[Example], clips: int) -> list[Example]:
    """All with entities, and of the others so many, evenly spread."""
    gold = [example for example in examples if example.spans is not None]
    others = [example for example in examples if example.spans is None]
    count = min(len(others), max(0, clips - len(gold)))
    return gold + [others[round(place)] for place in np.linspace(0, len(others) - 1, count)]


def main(
    manifest: Annotated[Path, typer.Option(help="JSON lines with audio, text and entities.")],
    source: Annotated[str, typer.Option(help="As for cnerta-stream --source.")],
    clips: Annotated[int, typer.Option(help="How many clips, those with gold among them.")] = 120,
    bundle: Annotated[list[str] | None, typer.Option(help="Bundles to score.")] = None,
    transcripts: Annotated[
        Path | None, typer.Option(help="Keep what was recognised here, or take it from here.")
    ] = None,
) -> None:
    """Recognise the clips, and score bundles on the true and the recognised text."""
    examples = [e for e in chosen(read_examples(manifest), clips) if e.audio is not None]
    recognised: dict[str, str] = {}
    if transcripts is not None and transcripts.is_file():
        recognised = msgspec.json.decode(transcripts.read_bytes(), type=dict[str, str])
    missing = [e.audio for e in examples if e.audio is not None and e.audio.name not in recognised]
    if missing:
        recogniser = make_transcript_source(source)
        started, seconds = time.process_time(), 0.0
        for path in tqdm(missing, unit="clip"):
            recognised[path.name] = asyncio.run(recognise(recogniser, path))
            seconds += soundfile.info(str(path)).duration
            if transcripts is not None:
                transcripts.write_bytes(msgspec.json.encode(recognised))
        cpu = (time.process_time() - started) / seconds
        typer.echo(f"{seconds:.0f} s of audio, {cpu:.2f} CPU seconds for a second of it\n")
    report(examples, recognised, bundle or ["fast", "accurate"])


def report(examples: Sequence[Example], recognised: dict[str, str], bundles: list[str]) -> None:
    """Print the error rate and the scores."""
    true = [normalise(example.text).text for example in examples]
    heard = [normalise(recognised[e.audio.name if e.audio else ""]).text for e in examples]
    errors = [edit_distance(h, t) for h, t in zip(heard, true, strict=True)]
    characters = sum(map(len, true))
    wrong = sum(error > 0 for error in errors)
    typer.echo(f"character error rate {100 * sum(errors) / characters:.1f} % of {characters}")
    typer.echo(f"clips with an error {wrong} of {len(examples)}\n")
    typer.echo("F1 (precision / recall), same label and same characters in the same clip:\n")
    typer.echo("| bundle | reference | clips | true text | recognised text | as written |")
    typer.echo("|---|---|---|---|---|---|")
    for name in bundles:
        model = Model.load(find_bundle(Path(name)))
        frames = [model.encode_recording(soundfile.read(str(e.audio), dtype="float32")[0])
                  for e in examples]  # fmt: skip
        on_true = [mentions(model, t, f) for t, f in zip(true, frames, strict=True)]
        on_heard = [mentions(model, t, f) for t, f in zip(heard, frames, strict=True)]
        for kind in ("gold", "silver"):
            is_gold = kind == "gold"
            picked = [i for i, e in enumerate(examples) if (e.spans is not None) == is_gold]
            wanted = [gold_mentions(examples[i]) if is_gold else on_true[i] for i in picked]
            given = Score.of([on_true[i] for i in picked], wanted)
            got = Score.of([on_heard[i] for i in picked], wanted)
            written = as_written(wanted, [heard[i] for i in picked])
            typer.echo(f"| {name} | {kind} | {len(picked)} | {given} | {got} | {written} |")


if __name__ == "__main__":
    typer.run(main)
