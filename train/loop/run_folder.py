"""A run on disk: what resuming needs, and the best model of each stage.

Nothing here is ever half written. A checkpoint is three files that belong together (weights, state
of the optimiser, where the run stands), so it is made in a folder of its own that takes the old
one's place when it is complete: a run may be killed at any moment, and goes on from the one or from
the other.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import msgspec
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from cnerta.models.errors import CheckpointError
from cnerta.models.files import replacing
from cnerta.models.networks.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from cnerta.models.networks.tagger import SpeechTagger

__all__ = ["Progress", "RunFolder", "SavedRun", "read_progress"]

_LAST = "last"
_BEST = "best"
_STATE = "state.json"
_OPTIMIZER = "optimizer.safetensors"


class Progress(msgspec.Struct, forbid_unknown_fields=True):
    """Where a run stands.

    Attributes:
        recipe_sha256: Of the recipe as far as it has been followed: later stages may still be
            changed, what was done may not.
        stage: Index of the running stage.
        epoch: Epochs of it that are done.
        step: Steps of the running epoch that are done.
        steps: Optimiser steps of the stage.
        loss_sum: Sum of the losses of the running epoch's steps.
        skipped: Steps of the stage that were left out because of a loss that is not finite.
        best_score: Best development score of the stage so far.
        best_epoch: Epochs that were done then: 0 for the model that the stage started from; -1
            where there is none yet.
        since_best: Epochs since.
        best_scores: Figures of the best model.
        scaler: State of the gradient scaler (fp16 only).
        seconds: Time spent in training.
    """

    recipe_sha256: str
    stage: int = 0
    epoch: int = 0
    step: int = 0
    steps: int = 0
    loss_sum: float = 0.0
    skipped: int = 0
    best_score: float | None = None
    best_epoch: int = -1
    since_best: int = 0
    best_scores: dict[str, float] = {}
    scaler: dict[str, float] = {}
    seconds: float = 0.0

    def begin(self, stage: int, recipe_sha256: str) -> None:
        """Stand at the start of a stage."""
        self.stage, self.recipe_sha256 = stage, recipe_sha256
        self.epoch = self.step = self.steps = self.skipped = self.since_best = 0
        self.loss_sum, self.best_score, self.best_scores = 0.0, None, {}
        self.best_epoch = -1


class SavedRun(msgspec.Struct, frozen=True):
    """What a run resumes from.

    Attributes:
        progress: Where it stands.
        model: The model then.
        optimizer: State of the optimiser by ``parameter/key``; empty at the start of a stage.
    """

    progress: Progress
    model: SpeechTagger
    optimizer: dict[str, Tensor]


class RunFolder:
    """The ``--out`` of a run.

    Args:
        path: The folder; made when something is written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.last = path / _LAST
        self._next = path / f"{_LAST}.next"
        self._previous = path / f"{_LAST}.previous"

    def best(self, stage: int, name: str) -> Path:
        """Where the best model of a stage is."""
        return self.path / f"{_BEST}-{stage}-{name}"

    def load(self) -> SavedRun | None:
        """The last checkpoint; None where there is none.

        Raises:
            CheckpointError: It is damaged, or of another version.
        """
        if not (self.last / _STATE).is_file():
            # Cut off while one checkpoint took the place of the other: both are complete.
            for whole in (self._next, self._previous):
                if (whole / _STATE).is_file():
                    whole.replace(self.last)
                    break
            else:
                return None
        progress = read_progress(self.path)
        try:
            optimizer = load_file(self.last / _OPTIMIZER)
        except (OSError, SafetensorError) as error:
            raise _unusable(self.last, error) from error
        return SavedRun(progress, load_checkpoint(self.last).model, optimizer)

    def save(
        self, progress: Progress, checkpoint: Checkpoint, optimizer: dict[str, Tensor]
    ) -> None:
        """Replace the last checkpoint as a whole."""
        shutil.rmtree(self._next, ignore_errors=True)
        save_checkpoint(self._next, checkpoint)
        save_file(optimizer, self._next / _OPTIMIZER)
        # The state comes last: where it is, the rest is too.
        with replacing(self._next / _STATE) as partial:
            partial.write_bytes(msgspec.json.encode(progress))
            for file in self._next.iterdir():
                _to_disk(file)
        shutil.rmtree(self._previous, ignore_errors=True)
        if self.last.exists():
            self.last.replace(self._previous)
        self._next.replace(self.last)
        shutil.rmtree(self._previous, ignore_errors=True)


def read_progress(path: Path) -> Progress:
    """Where the run in a folder stands, by its last checkpoint.

    Raises:
        CheckpointError: There is none, or it is damaged or of another version.
    """
    last = path / _LAST
    try:
        return msgspec.json.decode((last / _STATE).read_bytes(), type=Progress)
    except (OSError, msgspec.MsgspecError) as error:
        raise _unusable(last, error) from error


def _unusable(last: Path, error: Exception) -> CheckpointError:
    return CheckpointError(f"expected a run to go on with in {last}, got: {error}")


def _to_disk(file: Path) -> None:
    """Have a file's content on the disk, so that it also outlives the machine's end."""
    with file.open("rb") as opened:
        os.fsync(opened.fileno())
