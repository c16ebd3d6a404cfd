"""Entity F1 on recognised text: as the recogniser writes it, and in simplified characters.

    python tests/benchmarks/script.py --recordings data/aishell_more \
        --gold tests/benchmarks/aishell_more_entities.jsonl --source faster-whisper:FOLDER

An entity is right if the same clip has the same label with the same characters: as somebody sees it
who highlights it, or looks it up. The tagger reads both scripts alike, so all of the difference is
in what is shown.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from asr import recognise
from tqdm import tqdm

from cnerta.models.text.normalisation import simplified
from cnerta.streamer import load, make_transcript_source

Names = Counter[tuple[str, str]]


class Said(msgspec.Struct):
    """A recording of a manifest."""

    audio: str
    text: str


class Gold(msgspec.Struct):
    """What was annotated in a recording."""

    audio: str
    entities: list[tuple[int, int, str]]


def main(
    recordings: Annotated[Path, typer.Option(help="Folder with manifest.jsonl.")],
    gold: Annotated[Path, typer.Option(help="JSON lines: audio, entities as [start, end, type].")],
    source: Annotated[str, typer.Option(help="A recogniser, as cnerta-stream --source.")],
    clips: Annotated[int, typer.Option(help="Most recordings; those with names first.")] = 100,
) -> None:
    """Print the scores."""

    lines = (recordings / "manifest.jsonl").read_bytes().splitlines()
    said = {row.audio: row.text for row in (msgspec.json.decode(x, type=Said) for x in lines)}
    rows = [msgspec.json.decode(line, type=Gold) for line in gold.read_bytes().splitlines()]
    rows = sorted(rows, key=lambda row: not row.entities)[:clips]
    recogniser = make_transcript_source(f"{source},script=as_written")
    heard = [asyncio.run(recognise(recogniser, recordings / row.audio)) for row in tqdm(rows)]
    other = sum(simplified(text) != text for text in heard)
    typer.echo(f"{other} of {len(rows)} recordings have traditional characters\n")
    typer.echo("| bundle | as written | simplified |\n|---|---|---|")
    for name in ("fast", "accurate"):
        tagger = load(name)
        scores = []
        for texts in (heard, [simplified(text) for text in heard]):
            right = found = wanted = 0
            for row, text in zip(rows, texts, strict=True):
                names = Names((e.label, e.text) for e in tagger.tag(text, recordings / row.audio))
                true = Names((kind, said[row.audio][a:b]) for a, b, kind in row.entities)
                right += (names & true).total()
                found, wanted = found + names.total(), wanted + true.total()
            scores.append(f"{200 * right / (found + wanted):.1f}")
        typer.echo(f"| {name} | {' | '.join(scores)} |")


if __name__ == "__main__":
    typer.run(main)
