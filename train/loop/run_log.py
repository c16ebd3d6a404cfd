"""What a run tells of itself while it trains: TensorBoard, and trackers that accelerate knows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import accelerate
import msgspec
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers
from accelerate.utils import LoggerType
from torch.utils.tensorboard import SummaryWriter

from cnerta.models.errors import ConfigError
from cnerta.train.recipe import Recipe

__all__ = ["RunLog", "check_trackers"]

_PROJECT = "cnerta"


def check_trackers(names: Sequence[str]) -> None:
    """Refuse what accelerate would leave out with no more than a line in its log.

    Raises:
        ConfigError: No such tracker, or its package is not installed.
    """
    known = sorted({str(name) for name in LOGGER_TYPE_TO_CLASS} - {"tensorboard"})
    built_in = {str(kind) for kind in LoggerType}
    available = {str(name) for name in get_available_trackers()}
    for name in names:
        if name not in known:
            raise ConfigError(f"expected a tracker of {', '.join(known)}, got {name!r}")
        if name in built_in and name not in available:
            raise ConfigError(f"expected the package of the tracker {name!r}, got none installed")


class RunLog:
    """Figures of a run, by their names; only the first process has one.

    Args:
        folder: The run's; TensorBoard's files are in ``tensorboard/`` below it.
        accelerator: Made with the trackers that are wanted; without any it is not asked.
        recipe: Trackers are told its settings.
    """

    def __init__(self, folder: Path, accelerator: accelerate.Accelerator, recipe: Recipe) -> None:
        self._writer = SummaryWriter(str(folder / "tensorboard"))
        self._accelerator = accelerator
        self._has_trackers = bool(accelerator.log_with)
        if self._has_trackers:
            accelerator.init_trackers(_PROJECT, config=_settings(recipe))

    def add(self, stage: str, values: Mapping[str, float], step: int) -> None:
        """Note figures of a stage.

        Args:
            stage: Its name.
            values: By name.
            step: Optimiser step or epoch of the stage that they are of.
        """
        named = {f"{stage}/{name}": value for name, value in values.items()}
        for name, value in named.items():
            self._writer.add_scalar(name, value, step)
        if self._has_trackers:
            # A step of trackers never falls, and those of stages and epochs begin anew: theirs is
            # a figure among others.
            self._accelerator.log({**named, f"{stage}/step": step})

    def flush(self) -> None:
        """Have on disk what was noted."""
        self._writer.flush()

    def close(self) -> None:
        """Nothing more will be noted."""
        self._writer.close()
        if self._has_trackers:
            self._accelerator.end_training()


def _settings(recipe: Recipe) -> dict[str, str | int | float | bool]:
    """A recipe as trackers take settings: one level, dotted names."""
    found: dict[str, str | int | float | bool] = {}

    def walk(value: object, name: str) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                walk(inner, f"{name}.{key}" if name else str(key))
        elif isinstance(value, list):
            for number, inner in enumerate(value):
                walk(inner, f"{name}.{number}")
        elif isinstance(value, str | int | float | bool):
            found[name] = value

    walk(msgspec.to_builtins(recipe), "")
    return found
