"""A grid of runs: every recipe with every seed, each trained in a process of its own, then scored.

What a run leaves in its folder ``OUT/RECIPE/seed-N``: all that :class:`cnerta.train.loop.Trainer`
writes, ``train.log``, ``run.json`` (what was run and how it ended) and ``predictions/``, a JSON
lines file for each evaluation source, with speech and without. Reports are made from these files
alone.
"""

from __future__ import annotations

import logging
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Literal, get_args

import msgspec
from tqdm import tqdm

from cnerta.models.config import FusionConfig, FusionKind, ModelConfig, TextKind
from cnerta.models.errors import CnertaError, ConfigError, DataError
from cnerta.train.data import Example
from cnerta.train.external import load_external
from cnerta.train.predictions import (
    Prediction,
    pair_predictions,
    read_predictions,
    write_predictions,
)
from cnerta.train.recipe import Recipe, Source, load_recipe
from cnerta.train.sources import read_sources

if TYPE_CHECKING:
    from cnerta.train.audio import AudioCache

__all__ = [
    "Grid",
    "Mode",
    "Run",
    "RunRecord",
    "evaluation_sources",
    "find_runs",
    "listens",
    "load_predictions",
    "plan_external",
    "plan_runs",
]

logger = logging.getLogger(__name__)

Mode = Literal["speech", "text"]
_RECORD = "run.json"
_LOG = "train.log"
_PREDICTIONS = "predictions"
_GRACE_SECONDS = 20
# Ended from outside, by Ctrl-C or on request: nothing has failed, and it can go on.
_CUT_OFF = (-signal.SIGINT, -signal.SIGTERM, 128 + signal.SIGINT, 128 + signal.SIGTERM)
_ERROR = re.compile(r"[\w.]*(Error|Exception|Interrupt|Exit)\b")


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
            :mod:`cnerta.train.external`; the recipe is empty then.
    """

    recipe: Recipe
    starts: tuple[str, str] = ("", "")
    status: Literal["running", "finished", "failed"] = "running"
    checkpoint: str = ""
    message: str = ""
    minutes: float = 0.0
    external: str = ""


@dataclass(frozen=True, slots=True)
class Run:
    """One recipe with one seed.

    Attributes:
        name: The recipe's, as a row of the report.
        seed: Of everything random.
        folder: Where it is kept.
        record: How it stands.
        arguments: What tells ``cnerta-train`` its recipe; empty if it was only found.
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
        path = self.folder / _RECORD
        if not path.is_file():
            return self
        try:
            record = msgspec.json.decode(path.read_bytes(), type=RunRecord)
        except msgspec.MsgspecError as error:
            raise DataError(f"expected a record of a run in {path}, got: {error}") from error
        return replace(self, record=record)

    def write(self, record: RunRecord) -> Run:
        """Keep how it stands."""
        self.folder.mkdir(parents=True, exist_ok=True)
        partial = self.folder / (_RECORD + ".partial")
        partial.write_bytes(msgspec.json.format(msgspec.json.encode(record)))
        partial.replace(self.folder / _RECORD)
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


def listens(model: ModelConfig) -> bool:
    """Whether a model's answer can depend on audio."""
    return model.fusion.kind != "none"


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
    """What a run found on a source; what a model that does not listen found is the same always.

    Raises:
        DataError: The file cannot be read.
    """
    modes: tuple[Mode, ...] = (mode,) if listens(run.record.recipe.model) else ("text",)
    for own in modes:
        path = run.folder / _PREDICTIONS / f"{source}.{own}.jsonl"
        if path.is_file():
            return read_predictions(path)
    return None


@dataclass
class Grid:
    """Trains and scores runs, several at a time if wanted.

    Attributes:
        arguments: What every training is told besides recipe, seed and folder, as command-line
            arguments of ``cnerta-train``.
        starts: Checkpoints for ``--init`` and ``--acoustic-from``; runs of models that do not
            listen take the first only.
        sources: What to score on.
        data_root: Folder that their paths are relative to.
        cpu: Do not use an accelerator.
        jobs: Trainings at a time.
    """

    arguments: Sequence[str]
    starts: tuple[str, str]
    sources: Mapping[str, Source]
    data_root: Path
    cpu: bool = False
    jobs: int = 1
    _children: set[subprocess.Popen[bytes]] = field(default_factory=set)
    _stopping: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def run(self, runs: Sequence[Run]) -> list[Run]:
        """Train what is not finished, score what is not scored, and never stop for a failure.

        Returns:
            The runs as they stand then.

        Raises:
            DataError: An evaluation source cannot be read; nothing has been trained then.
        """
        from cnerta.train.audio import AudioCache

        examples = read_sources(self.sources, self.sources, self.data_root)
        for name, own in examples.items():
            if any(e.spans is None for e in own):
                raise DataError(f"expected entities in every row of {name}, got rows without")
        cache = AudioCache()
        done: list[Run] = []
        with ThreadPoolExecutor(self.jobs) as pool, tqdm(total=len(runs), desc="runs") as bar:
            waiting: list[Future[Run]] = [pool.submit(self._train, r) for r in runs]
            try:
                # Scored here, one after another: training is what can go on beside it.
                for future in waiting:
                    done.append(self._score(future.result(), examples, cache))
                    bar.update()
            finally:
                for future in waiting:
                    future.cancel()
                self._stop()
        return done

    def _train(self, run: Run) -> Run:
        """Train one run in a process of its own, so that no failure takes others along."""
        if run.record.external:
            return run.write(run.record)
        starts = (self.starts[0], self.starts[1] if listens(run.record.recipe.model) else "")
        wanted = msgspec.structs.replace(run.record, starts=starts)
        try:
            before = run.read().record if (run.folder / _RECORD).is_file() else wanted
        except DataError as error:
            return replace(run, record=_failed(wanted, str(error)))
        if (before.recipe, before.starts) != (wanted.recipe, wanted.starts):
            # Not written down: the folder belongs to the other run.
            return replace(
                run,
                record=_failed(
                    wanted,
                    f"expected a run of this recipe in {run.folder}, got one of another recipe or "
                    "start: choose another --out",
                ),
            )
        if before.status == "finished":
            logger.info("%s seed %d: finished before", run.name, run.seed)
            return replace(run, record=before)
        started = msgspec.structs.replace(wanted, minutes=before.minutes)
        run.folder.mkdir(parents=True, exist_ok=True)
        with (run.folder / _LOG).open("ab") as log:
            if not _locked(log):
                return replace(
                    run, record=_failed(wanted, f"another process trains in {run.folder}")
                )
            return self._train_here(run.write(started), log)

    def _train_here(self, run: Run, log: BinaryIO) -> Run:
        """Train, into a log that is locked for as long as the training lives."""
        logger.info("%s seed %d: trains, see %s", run.name, run.seed, log.name)
        began, start = time.monotonic(), log.tell()
        code = self._call(self._command(run), log)
        minutes = run.record.minutes + (time.monotonic() - began) / 60
        record = msgspec.structs.replace(run.record, minutes=minutes)
        if self._stopping or code in _CUT_OFF:
            return run.write(record)
        if code:
            record = _failed(record, _complaint(Path(log.name), start, code))
            logger.error("%s seed %d failed: %s", run.name, run.seed, record.message)
        else:
            last = len(record.recipe.stages) - 1
            best = f"best-{last}-{record.recipe.stages[last].name}"
            record = msgspec.structs.replace(record, status="finished", checkpoint=best)
            logger.info("%s seed %d: trained in %.1f minutes", run.name, run.seed, minutes)
        return run.write(record)

    def _command(self, run: Run) -> list[str]:
        starts = run.record.starts
        command = [sys.executable, "-m", "cnerta.train", "train", *run.arguments, *self.arguments]
        command += ["--data-root", str(self.data_root), "--out", str(run.folder)]
        for option, value in zip(("--init", "--acoustic-from"), starts, strict=True):
            command += [option, value] if value else []
        return command

    def _call(self, command: Sequence[str], log: BinaryIO) -> int:
        """Run a command, its output added to a log. Returns its exit status."""
        with self._lock:
            if self._stopping:
                return -signal.SIGTERM
            child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONUNBUFFERED": "1", "COLUMNS": "200"},
            )
            self._children.add(child)
        try:
            return child.wait()
        finally:
            self._children.discard(child)

    def _stop(self) -> None:
        """End what still trains; it goes on from its last checkpoint another time."""
        with self._lock:
            self._stopping = True
            children = list(self._children)
        for child in children:
            child.terminate()
        for child in children:
            try:
                child.wait(_GRACE_SECONDS)
            except subprocess.TimeoutExpired:
                child.kill()

    def _score(self, run: Run, examples: Mapping[str, Sequence[Example]], cache: AudioCache) -> Run:
        """Keep what a finished run finds on every source."""
        if run.record.status != "finished":
            return run
        try:
            for name, mode, own in _missing(run, examples):
                self._predict(run, name, mode, own, cache)
        except (CnertaError, OSError, RuntimeError) as error:
            message = f"not scored: {type(error).__name__}: {error}"
            logger.error("%s seed %d %s", run.name, run.seed, message)
            # The training stands, so the record on disk does too; scoring is tried again.
            return replace(run, record=msgspec.structs.replace(run.record, message=message))
        return run

    def _predict(
        self, run: Run, name: str, mode: Mode, examples: Sequence[Example], cache: AudioCache
    ) -> None:
        path = run.folder / _PREDICTIONS / f"{name}.{mode}.jsonl"
        path.parent.mkdir(exist_ok=True)
        if run.record.external:
            pipeline = load_external(run.record.external)
            answers = [pipeline(e.text) for e in tqdm(examples, desc=run.name, leave=False)]
            write_predictions(path, pair_predictions(examples, answers))
            return
        import torch

        from cnerta.models.checkpoint import load_checkpoint
        from cnerta.train.evaluation import torch_predictions

        usable = torch.cuda.is_available() and not self.cpu
        device = torch.device("cuda" if usable else "cpu")
        model = load_checkpoint(run.folder / run.record.checkpoint).model.to(device)
        found = torch_predictions(model, examples, cache, use_audio=mode == "speech", device=device)
        write_predictions(path, pair_predictions(examples, found))


def _missing(
    run: Run, examples: Mapping[str, Sequence[Example]]
) -> Iterator[tuple[str, Mode, Sequence[Example]]]:
    """The predictions that a run does not have, or has for other sentences."""
    for name, own in examples.items():
        modes: tuple[Mode, ...] = ("text",)
        if listens(run.record.recipe.model) and any(e.audio is not None for e in own):
            modes = get_args(Mode)
        for mode in modes:
            try:
                there = load_predictions(run, name, mode) or []
            except DataError:
                there = []
            if [(p.text, p.gold) for p in there] != [(e.text, e.spans) for e in own]:
                yield name, mode, own


def _failed(record: RunRecord, message: str) -> RunRecord:
    return msgspec.structs.replace(record, status="failed", message=message)


def _locked(log: BinaryIO) -> bool:
    """Lock a run's log, unless another process has it.

    The training inherits the lock with the file, so it holds even if this process is killed and
    leaves the training behind.
    """
    try:
        import fcntl
    except ImportError:
        return True  # no such thing on this system
    try:
        fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _complaint(log: Path, start: int, code: int) -> str:
    """Why a training ended, in a line: from what its log says after ``start`` bytes."""
    if code < 0:
        name = signal.Signals(-code).name
        return f"ended by {name}" + (": out of memory?" if code == -signal.SIGKILL else "")
    lines = log.read_bytes()[start:].decode("utf-8", errors="replace").splitlines()
    said = [line.strip() for line in lines if line.strip()]
    # A progress bar may come to its end after the error was told.
    errors = [line for line in said if _ERROR.match(line)]
    return (errors or said or [f"exit status {code}"])[-1]


def _place(model: ModelConfig) -> tuple[int, str, int, bool]:
    """Order of the rows: text encoder by text encoder, and of each text alone first."""
    return (
        get_args(TextKind).index(model.text.encoder),
        model.text.checkpoint,
        get_args(FusionKind).index(model.fusion.kind),
        model.ctc.weight > 0,
    )
