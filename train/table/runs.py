"""The runs of a grid: every recipe with every seed, and what is kept of each in its folder.

What a run leaves in its folder ``OUT/RECIPE/seed-N``: all that
:class:`cnerta.train.loop.trainer.Trainer` writes, ``train.log``, ``run.json`` (what was run and how
it ended) and ``predictions/``, a JSON lines file for each evaluation source, with speech and
without. Reports are made from these files alone.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

import msgspec

from cnerta.models.config import FusionConfig, FusionKind, ModelConfig, TextKind
from cnerta.models.errors import ConfigError, DataError
from cnerta.models.files import write_atomically
from cnerta.train.evaluation.predictions import Prediction, read_predictions
from cnerta.train.recipe import Recipe, Source, load_recipe

__all__ = [
    "Mode",
    "Run",
    "RunRecord",
    "evaluation_sources",
    "find_runs",
    "load_predictions",
    "plan_external",
    "plan_runs",
]

Mode = Literal["speech", "text"]
_RECORD = "run.json"
_PREDICTIONS = "predictions"


class RunRecord(msgspec.Struct, frozen=True):
    """What ``run.json`` says of a run.

    Attributes:
        recipe: As it was run, seed included.
        starts: The checkpoints it started from, as ``--init`` and ``--acoustic-from`` named them.
        status: ``running`` also of a run that was cut off.
        checkpoint: Folder of the best model, below the run's.
        message: Why it failed.
        minutes: Wall-clock time of training, all attempts together.
        external: Another library's pipeline in place of a recipe, see
            :mod:`cnerta.train.evaluation.external`; the recipe is empty then.
        parameters: Of the model; 0 where they were not counted.
        epochs: That its last stage took; 0 where that is not known.
        best_epoch: Of them the one whose model is kept.
    """

    recipe: Recipe
    starts: tuple[str, str] = ("", "")
    status: Literal["running", "finished", "failed"] = "running"
    checkpoint: str = ""
    message: str = ""
    minutes: float = 0.0
    external: str = ""
    parameters: int = 0
    epochs: int = 0
    best_epoch: int = 0

    @property
    def ended_early(self) -> bool:
        """Whether the bound on epochs ended it while its development score might still rise."""
        if not self.recipe.stages:
            return False
        stage = self.recipe.stages[-1]
        waited = self.epochs - self.best_epoch
        return bool(stage.dev and self.epochs >= stage.epochs and waited < stage.patience)


@dataclass(frozen=True, slots=True)
class Run:
    """One recipe with one seed.

    Attributes:
        name: The recipe's, as a row of the report.
        seed: Of everything random.
        folder: Where it is kept.
        record: How it stands.
        arguments: Those that give ``cnerta-train`` its recipe; empty if it was only found.
    """

    name: str
    seed: int
    folder: Path
    record: RunRecord
    arguments: tuple[str, ...] = ()

    def read(self) -> Run:
        """The run as its folder says it stands.

        Raises:
            DataError: Its record cannot be read.
        """
        if not self.is_recorded:
            return self
        path = self.folder / _RECORD
        try:
            record = msgspec.json.decode(path.read_bytes(), type=RunRecord)
        except msgspec.MsgspecError as error:
            raise DataError(f"expected a record of a run in {path}, got: {error}") from error
        return replace(self, record=record)

    @property
    def is_recorded(self) -> bool:
        """Whether its folder says how it stands."""
        return (self.folder / _RECORD).is_file()

    def predictions(self, source: str, mode: Mode) -> Path:
        """Where what it finds on a source is kept."""
        return self.folder / _PREDICTIONS / f"{source}.{mode}.jsonl"

    def write(self, record: RunRecord) -> Run:
        """Keep how it stands."""
        self.folder.mkdir(parents=True, exist_ok=True)
        content = msgspec.json.format(msgspec.json.encode(record))
        write_atomically(self.folder / _RECORD, content)
        return replace(self, record=record)


def plan_runs(
    recipes: Sequence[str], seeds: Sequence[int], out: Path, overrides: Sequence[str] = ()
) -> list[Run]:
    """Every recipe with every seed, recipe by recipe.

    Args:
        recipes: Names or TOML files.
        seeds: Values of ``seed``.
        out: Folder of the grid.
        overrides: ``key=value`` pairs for every recipe.

    Raises:
        ConfigError: A recipe cannot be read, or two would share a folder.
    """
    names = [Path(r).stem if r.endswith(".toml") else r for r in recipes]
    if len(set(names)) < len(names) or len(set(seeds)) < len(seeds):
        raise ConfigError(f"expected every recipe and seed once, got {names} and {list(seeds)}")
    if not names or not seeds:
        raise ConfigError("expected at least one recipe and one seed, got none")
    runs = []
    for name, recipe in zip(names, recipes, strict=True):
        for seed in seeds:
            changes = [*overrides, f"seed={seed}"]
            arguments = (recipe, *(a for change in changes for a in ("--set", change)))
            record = RunRecord(load_recipe(recipe, changes))
            runs.append(Run(name, seed, out / name / f"seed-{seed}", record, arguments))
    return runs


def plan_external(names: Sequence[str], out: Path) -> list[Run]:
    """Rows that are not trained: pipelines of other libraries, as if with one seed."""
    model = ModelConfig(fusion=FusionConfig(kind="none"), labels="flat")
    runs = []
    for external in names:
        name = re.sub(r"[^\w.-]+", "-", external)
        record = RunRecord(
            Recipe(name=name, model=model, data={}, stages=[]),
            status="finished",
            external=external,
        )
        runs.append(Run(name, 0, out / name / "seed-0", record))
    return runs


def find_runs(out: Path) -> list[Run]:
    """The runs of a grid's folder, in the order of the paper's Table 3.

    Raises:
        DataError: There are none, or a record cannot be read.
    """
    found = []
    for path in sorted(out.glob(f"*/seed-*/{_RECORD}")):
        seed = path.parent.name.removeprefix("seed-")
        if seed.isdigit():
            unread = RunRecord(Recipe(name="", data={}, stages=[]))
            found.append(Run(path.parts[-3], int(seed), path.parent, unread).read())
    if not found:
        raise DataError(f"expected runs below {out}, got none")
    return sorted(
        found,
        key=lambda r: (
            not r.record.external,
            *_place(r.record.recipe.model),
            r.name,
            r.seed,
        ),
    )


def evaluation_sources(
    chosen: Sequence[str], recipes: Sequence[Recipe], audio_root: str = ""
) -> dict[str, Source]:
    """What to score runs on.

    Args:
        chosen: ``NAME=PATH`` for JSON lines, or the name of a source of the recipes; none: the
            development sources of their last stages.
        recipes: Of the grid.
        audio_root: Recordings of those given with a path.

    Raises:
        ConfigError: No recipe has such a source, or two have different ones of one name.
    """
    names = list(chosen) or list(dict.fromkeys(n for r in recipes for n in r.stages[-1].dev))
    found: dict[str, Source] = {}
    for name in names:
        name, separator, path = name.partition("=")
        if separator:
            found[name] = Source(format="manifest", path=path, audio_root=audio_root)
            continue
        known = [r.data[name] for r in recipes if name in r.data]
        if not known:
            everything = sorted({n for r in recipes for n in r.data})
            raise ConfigError(f"expected NAME=PATH or a source of {everything}, got {name!r}")
        if any(source != known[0] for source in known):
            raise ConfigError(f"expected one source {name!r} in all recipes, got different ones")
        found[name] = known[0]
    if any(not n or not all(c.isalnum() or c in "-_" for c in n) for n in found):
        raise ConfigError(f"expected names of letters, digits, - and _; got {list(found)}")
    return found


def load_predictions(run: Run, source: str, mode: Mode) -> list[Prediction] | None:
    """What a run found on a source; without audio, the same in either mode.

    Raises:
        DataError: The file cannot be read.
    """
    modes: tuple[Mode, ...] = (mode,) if run.record.recipe.model.uses_audio else ("text",)
    for own in modes:
        path = run.predictions(source, own)
        if path.is_file():
            return read_predictions(path)
    return None


def _place(model: ModelConfig) -> tuple[int, str, int, bool]:
    """Order of the rows: text encoder by text encoder, and of each text alone first."""
    return (
        get_args(TextKind).index(model.text.encoder),
        model.text.checkpoint,
        get_args(FusionKind).index(model.fusion.kind),
        model.ctc.weight > 0,
    )
