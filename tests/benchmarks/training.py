"""Training samples per second, against a plain loop, and how long a step waits for its data.

    cd train/recipes/small
    python …/tests/benchmarks/training.py --data-root data --recipe bilstm-crf.toml --steps 60
    python …/tests/benchmarks/training.py --data-root data --recipe bilstm-m3t.toml \\
        --set 'stages.0.train=["synthetic"]'

Both train the model of the recipe's first stage with the same loss, optimiser and precision:

* ``ours``: the parts of `cnerta.train.loop.trainer`: batches of similar length, at most so many
  seconds each, built ahead in a thread.
* ``plain``: the loop one would write first: the sentences shuffled, every so many of them a batch,
  built when its turn has come, the filter bank of one recording at a time, and everything padded
  to the longest of the batch.

Each round trains both on the same sentences, in turn, from recordings that are decoded already,
which is kinder to the plain loop: it has no cache of its own. A wait is the time from asking for a
batch to having it.
"""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import accelerate
import numpy as np
import torch
import typer
from torch import Tensor, nn

from cnerta.models.networks.tagger import SpeechTagger
from cnerta.models.runtime.geometry import HOP_SAMPLES
from cnerta.train.batches.augment import spec_augment
from cnerta.train.batches.batch import Batch, BatchBuilder, plan_epoch
from cnerta.train.data.audio import AudioCache
from cnerta.train.data.examples import Example, read_source
from cnerta.train.loop.new_model import new_model
from cnerta.train.loop.optimisation import Optimisation
from cnerta.train.loop.schedule import BatchSchedule
from cnerta.train.recipe import Recipe, Source, load_recipe


@dataclass(slots=True)
class Spent:
    """What a round took.

    Attributes:
        samples: Utterances.
        seconds: Time in all.
        waited: Of it, without a batch to work on.
    """

    samples: int = 0
    seconds: float = 0.0
    waited: float = 0.0


def ours(
    recipe: Recipe,
    examples: Sequence[Example],
    optimisation: Optimisation,
    builder: BatchBuilder,
    number: int,
) -> Spent:
    """One round of the loop as it is."""
    stage, a = recipe.stages[0], recipe.model.acoustic
    source = Source(format="manifest", path="")
    generator = np.random.default_rng(number)
    spent = Spent(samples=len(examples))
    began = time.perf_counter()
    plan = plan_epoch([(source, examples)], stage, builder.cache, generator)
    chunks = (a.min_chunk, a.max_chunk) if a.streaming else None
    schedule = BatchSchedule(plan, stage, builder, (number,), chunks)
    steps = schedule.steps(0)
    for _ in range(len(schedule)):
        asked = time.perf_counter()
        parts = next(steps)
        spent.waited += time.perf_counter() - asked
        optimisation.step(parts, stage.learning_rate)
    spent.seconds = time.perf_counter() - began
    return spent


class Plain:
    """The loop one would write first."""

    def __init__(self, recipe: Recipe, model: SpeechTagger, builder: BatchBuilder) -> None:
        self.recipe = recipe
        self.stage = recipe.stages[0]
        self.model = model
        self.builder = builder
        self.optimizer = torch.optim.Adam(
            model.parameters(), lr=self.stage.learning_rate, betas=(0.9, 0.98)
        )

    def round(self, examples: Sequence[Example], number: int) -> Spent:
        """One round."""
        self.model.train()
        generator = np.random.default_rng(number)
        torch.manual_seed(number)
        spent = Spent(samples=len(examples))
        began = time.perf_counter()
        order = generator.permutation(len(examples))
        for first in range(0, len(order), self.stage.batch_size):
            asked = time.perf_counter()
            chosen = [examples[i] for i in order[first : first + self.stage.batch_size]]
            rows = [self._build(e, generator) for e in chosen]
            features = [self._features(row) for row in rows]
            spent.waited += time.perf_counter() - asked
            a = self.recipe.model.acoustic
            drawn = int(generator.integers(a.min_chunk, a.max_chunk + 1))
            chunk = drawn if a.streaming else None
            self.loss(rows, features, chunk).backward()
            nn.utils.clip_grad_norm_(self.model.parameters(), self.stage.clip_norm)
            self.optimizer.step()
            self.optimizer.zero_grad()
            self.model.crf.constrain()
        spent.seconds = time.perf_counter() - began
        return spent

    def _build(self, example: Example, generator: np.random.Generator) -> Batch:
        return self.builder.build(
            [(example,)],
            generator,
            drop_audio=self.stage.drop_audio,
            drop_characters=self.stage.drop_characters,
        )

    def _features(self, row: Batch) -> Tensor:
        """Of one recording. shape: (4 * frames + 3, mel_bins)."""
        if not int(row.sample_counts):
            return torch.zeros(0, self.recipe.model.acoustic.mel_bins)
        features = self.model.acoustic.features(row.samples)
        if self.model.training and self.builder.augmentation:
            features = spec_augment(features, self.builder.augmentation)
        return features[0]

    def loss(self, rows: Sequence[Batch], features: Sequence[Tensor], chunk: int | None) -> Tensor:
        """Everything padded to the longest."""

        def padded(name: str) -> Tensor:
            return nn.utils.rnn.pad_sequence([getattr(r, name)[0] for r in rows], batch_first=True)

        characters, tags, matches = padded("characters"), padded("tags"), padded("matches")
        counts = torch.cat([r.counts for r in rows])
        frame_counts = (torch.cat([r.sample_counts for r in rows]) + HOP_SAMPLES - 1) // HOP_SAMPLES
        frames = torch.zeros(len(rows), 1, self.recipe.model.acoustic.width)
        if bool(frame_counts.any()):
            together = nn.utils.rnn.pad_sequence(list(features), batch_first=True)
            frames = self.model.acoustic.encode(together, frame_counts, chunk)
        output = self.model(characters, counts, frames, frame_counts, matches)
        loss = self.model.entity_loss(output, tags, counts)
        if self.recipe.model.ctc.weight and bool(frame_counts.any()):
            heard = self.model.masked_ctc_loss(output, characters, counts, frame_counts)
            loss = loss + self.recipe.model.ctc.weight * heard
        return loss


def check(
    recipe: Recipe, plain: Plain, optimisation: Optimisation, examples: list[Example]
) -> None:
    """Both must have the same loss, or there is nothing to compare."""
    quiet = BatchBuilder(
        plain.model.vocabulary, plain.model.scheme, plain.builder.cache, None, plain.model.lexicon
    )
    generator = np.random.default_rng(0)
    models = (plain.model.eval(), optimisation.model.eval())
    chunk = recipe.model.acoustic.usual_chunk
    with torch.no_grad():
        batch = quiet.build([(e,) for e in examples], generator)
        expected = optimisation.objective.eval()(batch, chunk)
        rows = [quiet.build([(e,)], generator) for e in examples]
        found = plain.loss(
            rows, [plain._features(r) for r in rows], recipe.model.acoustic.usual_chunk
        )
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)
    for model in models:
        model.train()


def main(
    data_root: Annotated[Path, typer.Option(help="As of cnerta-train.")],
    recipe: Annotated[str, typer.Option(help="A recipe; its first stage is measured.")],
    assignments: Annotated[
        list[str] | None, typer.Option("--set", help="As of cnerta-train.")
    ] = None,
    rounds: Annotated[int, typer.Option(help="Rounds of both.")] = 5,
    steps: Annotated[int, typer.Option(help="Batches of the plain loop in a round.")] = 12,
) -> None:
    """Measure training."""
    torch.set_num_threads(1)
    loaded = load_recipe(recipe, assignments or ())
    stage = loaded.stages[0]
    cache = AudioCache()
    examples = [e for n in stage.train for e in read_source(loaded.data[n], data_root)]
    examples = [e for e in examples if e.spans is not None]
    torch.manual_seed(loaded.seed)
    model = new_model(loaded, data_root, examples, cache)
    builder = BatchBuilder(
        model.vocabulary, model.scheme, cache, loaded.augmentation, model.lexicon
    )
    plain = Plain(loaded, copy.deepcopy(model), builder)
    accelerator = accelerate.Accelerator(cpu=True)
    optimisation = Optimisation(accelerator, model, stage, loaded.augmentation)
    check(loaded, plain, optimisation, examples[: stage.batch_size])
    generator = np.random.default_rng(0)
    size = min(len(examples), steps * stage.batch_size)
    rounds_of: dict[str, list[Spent]] = {"ours": [], "plain": []}
    for number in range(rounds + 1):
        chosen = [examples[i] for i in generator.choice(len(examples), size, replace=False)]
        for example in chosen:
            if example.audio is not None:
                cache(example.audio)
        optimisation.train()
        both = {
            "ours": ours(loaded, chosen, optimisation, builder, number),
            "plain": plain.round(chosen, number),
        }
        for name, spent in both.items():
            if number:  # the first round warms up
                rounds_of[name].append(spent)
    rates = {n: np.array([s.samples / s.seconds for s in own]) for n, own in rounds_of.items()}
    waits = {n: sum(s.waited for s in o) / sum(s.seconds for s in o) for n, o in rounds_of.items()}
    row = {
        "recipe": loaded.name,
        "sentences a round": size,
        "with audio": round(float(np.mean([e.audio is not None for e in examples])), 2),
        "batch": stage.batch_size,
        "samples/s, ours": round(float(np.median(rates["ours"])), 1),
        "samples/s, plain": round(float(np.median(rates["plain"])), 1),
        "times as fast": round(float(np.median(rates["ours"] / rates["plain"])), 2),
        "waiting, ours, %": round(100 * waits["ours"], 2),
        "waiting, plain, %": round(100 * waits["plain"], 2),
    }
    typer.echo(json.dumps(row))


if __name__ == "__main__":
    typer.run(main)
