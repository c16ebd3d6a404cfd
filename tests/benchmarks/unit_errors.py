"""How many syllables a model mistakes on recordings, with their tones and without.

    python tests/benchmarks/unit_errors.py --manifest data/aishell_sample/manifest.jsonl
        --where speaker=S0252 --unlike data/text/cnerta_train80.json
        --unlike data/text/aishell_ner_clean.jsonl --bundle accurate
    python tests/benchmarks/unit_errors.py … --checkpoint runs/ears/last --chunks 8,16,24,0

Sentences that stand word for word in a file of ``--unlike`` are left out. A bundle hears in chunks,
as the server has it; a checkpoint in chunks of each of the sizes, 0 being the whole utterance.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.progress import track

from cnerta.models.errors import CnertaError
from cnerta.models.networks.checkpoint import load_checkpoint
from cnerta.models.networks.tagger import SpeechTagger
from cnerta.models.runtime.bundle import find_bundle
from cnerta.models.runtime.inference import Model
from cnerta.train.commands.failure import fail
from cnerta.train.data.audio import AudioCache
from cnerta.train.data.examples import Example, normalise_example, read_examples
from cnerta.train.evaluation.unit_errors import (
    UnitErrors,
    UnitScores,
    bundle_unit_scores,
    count_unit_errors,
)


def checkpoint_scores(
    model: SpeechTagger, examples: list[Example], cache: AudioCache, chunk: int
) -> Iterator[UnitScores]:
    """Scores of a torch model, one recording at a time."""
    model.eval()
    for example in map(normalise_example, examples):
        assert example.audio is not None, "only what is spoken has units"
        samples = torch.from_numpy(cache(example.audio).copy())[None]
        with torch.no_grad():
            frames, _ = model.acoustic(samples, torch.tensor([samples.shape[1]]), chunk or None)
            yield UnitScores(example, model.ctc.all_units(frames)[0].numpy())


def main(
    manifest: Annotated[Path, typer.Option(help="Recordings with their texts.")],
    where: Annotated[list[str] | None, typer.Option(help="FIELD=VALUE of rows to keep.")] = None,
    unlike: Annotated[
        list[Path] | None, typer.Option(help="Leave sentences out that stand in this file.")
    ] = None,
    bundle: Annotated[list[Path] | None, typer.Option(help="A folder, fast or accurate.")] = None,
    checkpoint: Annotated[list[Path] | None, typer.Option(help="A checkpoint's folder.")] = None,
    chunks: Annotated[str, typer.Option(help="Frames a chunk of checkpoints.")] = "16",
    limit: Annotated[int, typer.Option(help="At most so many recordings; 0: all.")] = 0,
) -> None:
    """Print a line for each model."""
    torch.set_num_threads(1)
    try:
        conditions: dict[str, list[str]] = {}
        for condition in where or ():
            field, _, value = condition.partition("=")
            conditions.setdefault(field, []).append(value)
        known = {normalise_example(e).text for path in unlike or () for e in read_examples(path)}
        rows = [e for e in read_examples(manifest, where=conditions) if e.audio is not None]
        examples = [e for e in rows if normalise_example(e).text not in known][: limit or None]
        print(f"{len(examples)} recordings, {len(rows) - len(examples)} left out")
        cache = AudioCache()
        console = Console(stderr=True)

        def shown(heard: Iterator[UnitScores], name: str) -> Iterator[UnitScores]:
            total = len(examples)
            yield from track(heard, name, total=total, console=console, transient=True)

        for path in bundle or ():
            model = Model.load(find_bundle(path), device="cpu")
            heard = iter(bundle_unit_scores(model, examples, cache))
            units = model.bundle.vocabulary.units
            report(str(path), count_unit_errors(shown(heard, str(path)), units))
        for path in checkpoint or ():
            loaded = load_checkpoint(path).model
            for chunk in map(int, chunks.split(",")):
                name = f"{path}, {f'chunks of {chunk}' if chunk else 'whole'}"
                heard = checkpoint_scores(loaded, examples, cache, chunk)
                errors = count_unit_errors(shown(heard, name), loaded.vocabulary.units)
                report(name, errors)
    except (CnertaError, OSError) as error:
        fail(error)


def report(name: str, errors: UnitErrors) -> None:
    """Print the rates, and what they are of."""
    print(
        f"{name}: {errors.tonal_rate:.1f} % of tonal, {errors.toneless_rate:.1f} % of toneless "
        f"syllables ({errors.spoken} in {errors.recordings} recordings)"
    )


if __name__ == "__main__":
    typer.run(main)
