"""Trains the runs of a grid, each in a process of its own, and scores them."""

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
from typing import TYPE_CHECKING, BinaryIO, get_args

import msgspec
from tqdm import tqdm

from cnerta.models.errors import CnertaError, DataError
from cnerta.train.data.examples import Example
from cnerta.train.data.sources import read_sources
from cnerta.train.evaluation.external import load_external
from cnerta.train.evaluation.predictions import (
    pair_predictions,
    write_predictions,
)
from cnerta.train.recipe import Source

if TYPE_CHECKING:
    from cnerta.train.data.audio import AudioCache
from cnerta.train.table.runs import Mode, Run, RunRecord, load_predictions

__all__ = ["Grid"]

logger = logging.getLogger(__name__)
_LOG = "train.log"
_GRACE_SECONDS = 20
# Ended from outside, by Ctrl-C or on request: nothing has failed, and it can go on.
_CUT_OFF = (-signal.SIGINT, -signal.SIGTERM, 128 + signal.SIGINT, 128 + signal.SIGTERM)
_ERROR = re.compile(r"[\w.]*(Error|Exception|Interrupt|Exit)\b")


@dataclass
class Grid:
    """Trains and scores runs, several at a time if wanted.

    Attributes:
        arguments: What every training gets besides recipe, seed and folder, as command-line
            arguments of ``cnerta-train``.
        starts: Checkpoints for ``--init`` and ``--acoustic-from``; runs of models that do not
            use audio take the first only.
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
        from cnerta.train.data.audio import AudioCache

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
        starts = (self.starts[0], self.starts[1] if run.record.recipe.model.uses_audio else "")
        wanted = msgspec.structs.replace(run.record, starts=starts)
        try:
            before = run.read().record if run.is_recorded else wanted
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
            run = _measured(run)
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
        path = run.predictions(name, mode)
        path.parent.mkdir(exist_ok=True)
        if run.record.external:
            pipeline = load_external(run.record.external)
            answers = [pipeline(e.text) for e in tqdm(examples, desc=run.name, leave=False)]
            write_predictions(path, pair_predictions(examples, answers))
            return
        import torch

        from cnerta.models.networks.checkpoint import load_checkpoint
        from cnerta.train.evaluation.predict import torch_predictions

        usable = torch.cuda.is_available() and not self.cpu
        device = torch.device("cuda" if usable else "cpu")
        model = load_checkpoint(run.folder / run.record.checkpoint).model.to(device)
        found = torch_predictions(model, examples, cache, use_audio=mode == "speech", device=device)
        write_predictions(path, pair_predictions(examples, found))


def _measured(run: Run) -> Run:
    """A finished run, with its size and its epochs in its record."""
    record = run.record
    if record.external or record.parameters:
        return run
    from cnerta.models.networks.checkpoint import load_checkpoint
    from cnerta.train.loop.run_folder import read_progress

    model = load_checkpoint(run.folder / record.checkpoint).model
    progress = read_progress(run.folder)
    return run.write(
        msgspec.structs.replace(
            record,
            parameters=sum(p.numel() for p in model.parameters()),
            epochs=progress.epoch,
            best_epoch=progress.best_epoch,
        )
    )


def _missing(
    run: Run, examples: Mapping[str, Sequence[Example]]
) -> Iterator[tuple[str, Mode, Sequence[Example]]]:
    """The predictions that a run does not have, or has for other sentences."""
    for name, own in examples.items():
        modes: tuple[Mode, ...] = ("text",)
        if run.record.recipe.model.uses_audio and any(e.audio is not None for e in own):
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
    # A progress bar may come to its end after the error was printed.
    errors = [line for line in said if _ERROR.match(line)]
    return (errors or said or [f"exit status {code}"])[-1]
