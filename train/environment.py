"""What a run was made with: versions, devices, revision, command line."""

from __future__ import annotations

import logging
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import accelerate
import msgspec
import tomli_w
import torch

from cnerta.models.errors import CheckpointError
from cnerta.models.files import write_atomically
from cnerta.train.recipe import Recipe

__all__ = ["ENVIRONMENT", "RECIPE", "Start", "describe_start", "record_start"]

logger = logging.getLogger(__name__)

ENVIRONMENT = "environment.json"
RECIPE = "recipe.toml"


class Start(msgspec.Struct, frozen=True):
    """One start of a run; a run that was cut off has several.

    Attributes:
        time: When, UTC.
        command: The command line.
        seed: Of the recipe.
        resumed: It went on from a checkpoint.
        python: Version.
        system: Operating system and processor.
        torch: Version.
        cuda: Version torch was built with; empty for none.
        cudnn: Its version; 0 for none.
        devices: Names of the accelerators of this machine; ``cpu`` if none is used.
        processes: Of the run, on all machines.
        precision: Of the forward pass.
        git: Revision of the source tree, with ``+`` if files differ from it; empty if there is
            none.
        data: SHA-256 of the examples of each source, as they were read.
        packages: Version of every installed package.
    """

    time: str
    command: list[str]
    seed: int
    resumed: bool
    python: str
    system: str
    torch: str
    cuda: str
    cudnn: int
    devices: list[str]
    processes: int
    precision: str
    git: str
    data: dict[str, str]
    packages: dict[str, str]


def describe_start(
    recipe: Recipe, accelerator: accelerate.Accelerator, data: dict[str, str], *, resumed: bool
) -> Start:
    """Describe the environment of this process.

    Args:
        recipe: What is trained.
        accelerator: What on.
        data: SHA-256 of each source's examples.
        resumed: The run goes on from a checkpoint.
    """
    devices = [accelerator.device.type]
    if devices == ["cuda"]:
        count = torch.cuda.device_count()
        devices = [torch.cuda.get_device_name(i) for i in range(count)]
    installed = {d.name: d.version for d in metadata.distributions() if d.name}
    return Start(
        time=datetime.now(UTC).isoformat(timespec="seconds"),
        command=sys.argv,
        seed=recipe.seed,
        resumed=resumed,
        python=platform.python_version(),
        system=platform.platform(),
        torch=str(torch.__version__),
        cuda=torch.version.cuda or "",
        cudnn=torch.backends.cudnn.version() or 0,  # type: ignore[no-untyped-call]
        devices=devices,
        processes=accelerator.num_processes,
        precision=accelerator.mixed_precision,
        git=_git_revision(Path(__file__)),
        data=data,
        packages=dict(sorted(installed.items(), key=lambda item: item[0].lower())),
    )


def record_start(folder: Path, recipe: Recipe, start: Start) -> None:
    """Add a start to ``environment.json``, and write the recipe as it is followed.

    Raises:
        CheckpointError: The file that is there holds something else.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / ENVIRONMENT
    try:
        starts = msgspec.json.decode(path.read_bytes(), type=list[Start]) if path.exists() else []
    except msgspec.MsgspecError as error:
        raise CheckpointError(f"expected the starts of a run in {path}, got: {error}") from error
    if start.resumed and starts and starts[-1].data != start.data:
        changed = [n for n, digest in start.data.items() if starts[-1].data.get(n) != digest]
        logger.warning("data has changed since the run was started last: %s", ", ".join(changed))

    write_atomically(path, msgspec.json.format(msgspec.json.encode([*starts, start])))
    toml = tomli_w.dumps(_without_none(msgspec.to_builtins(recipe)))
    write_atomically(folder / RECIPE, toml.encode())


def _without_none(value: Any) -> Any:
    """The tables of a recipe without what is not set, which TOML has no word for."""
    if isinstance(value, dict):
        return {k: _without_none(v) for k, v in value.items() if v is not None}
    if isinstance(value, list):
        return [_without_none(v) for v in value]
    return value


def _git_revision(file: Path) -> str:
    """Revision of the repository that holds a file; empty if none does.

    A virtual environment inside somebody's repository is not part of it: only a file that git
    tracks counts.
    """

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(file.resolve().parent), *arguments]
        return subprocess.run(command, capture_output=True, check=True, text=True).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", file.name)
        revision = git("rev-parse", "HEAD")
        changed = git("status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.CalledProcessError):
        return ""
    return revision + ("+" if changed else "")
