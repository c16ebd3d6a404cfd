"""What all commands share, each command in a process of its own."""

from __future__ import annotations

import importlib.metadata
import json
import logging
import os
import re
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from cnerta.models.command_line import JsonLines, make_app, printable, with_options

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS: dict[str, str] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"][
    "scripts"
]
MODULES = (
    "cnerta.train",
    "cnerta.export.cli",
    "cnerta.streamer.commands.demo",
    "cnerta.streamer.commands.serve",
    "cnerta.streamer.commands.stream",
)
TRAINING_COMMANDS = ("cnerta-train", "cnerta-evaluate", "cnerta-export")
# As where only `pip install 'cnerta-stream[cpu]'` was run.
WITHOUT_TRAINING_PACKAGES = """
import importlib.abc, sys
MISSING = {
    "accelerate", "jieba", "matplotlib", "onnx", "onnxscript", "pypinyin", "safetensors",
    "tensorboard", "tomli_w", "torch", "torchaudio", "torchcrf", "tqdm", "transformers",
}
class NotInstalled(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] in MISSING:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return None
sys.meta_path.insert(0, NotInstalled())
"""


def run_script(command: str, *arguments: str, before: str = "") -> subprocess.CompletedProcess[str]:
    """Run a command as its console script does."""
    module, _, function = SCRIPTS[command].partition(":")
    script = f"{before}\nimport sys\nsys.argv[0] = {command!r}\n"
    script += f"from {module} import {function}\nsys.exit({function}())"
    return run([sys.executable, "-c", script, *arguments])


def run(command: list[str]) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "COLUMNS": "200", "NO_COLOR": "1"}
    return subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=120, env=environment
    )


@pytest.mark.parametrize("command", SCRIPTS)
def test_every_command_tells_its_version(command: str) -> None:
    done = run_script(command, "--version")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"cnerta-stream {importlib.metadata.version('cnerta-stream')}\n"


@pytest.mark.parametrize("module", MODULES)
def test_every_module_that_is_run_tells_its_version(module: str) -> None:
    done = run([sys.executable, "-m", module, "--version"])
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"cnerta-stream {importlib.metadata.version('cnerta-stream')}\n"


@pytest.mark.parametrize("command", SCRIPTS)
def test_help_shows_no_flag_as_if_it_took_a_value(command: str) -> None:
    done = run_script(command, "--help")
    assert done.returncode == 0, done.stderr
    assert "--version" in done.stdout
    assert not re.findall(r"<bool>|<list\[", done.stdout)


@pytest.mark.parametrize(
    "arguments",
    ["synthesise", "calibrate", "average", "statistics", "check", "table", "train"],
)
def test_help_of_what_training_needs_shows_flags_as_such(arguments: str) -> None:
    done = run_script("cnerta-train", arguments, "--help")
    assert done.returncode == 0, done.stderr
    assert not re.findall(r"<bool>|<list\[", done.stdout)


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        ("cnerta-train", ["bilstm-m3t"]),
        ("cnerta-evaluate", ["--data", "none.jsonl"]),
        ("cnerta-export", ["none", "out"]),
    ],
)
def test_a_command_without_its_extra_says_which_one_is_missing(
    command: str, arguments: list[str]
) -> None:
    done = run_script(command, *arguments, before=WITHOUT_TRAINING_PACKAGES)
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert re.fullmatch(
        rf"{command}: expected the Python package \w+, got none: "
        r"pip install 'cnerta-stream\[cpu,train\]' installs it",
        line,
    )


def test_a_bug_is_no_missing_package() -> None:
    """A module of our own that is not there keeps its traceback."""
    broken = "import sys\nsys.modules['cnerta.train.commands.train'] = None\n"
    done = run_script("cnerta-train", before=broken)
    assert done.returncode == 1
    assert "Traceback" in done.stderr


def test_options_reach_a_command_as_one_value() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Wishes:
        name: Annotated[str, typer.Option("--name", "-n")] = "nobody"
        loud: Annotated[bool, typer.Option("--loud")] = False

    got: list[object] = []
    app = make_app()

    @app.command()
    @with_options(Wishes)
    def wish(context: typer.Context, wishes: Wishes) -> None:
        got.append(wishes)

    runner = CliRunner()
    assert runner.invoke(app, ["-n", "x", "--loud"]).exit_code == 0
    assert runner.invoke(app, []).exit_code == 0
    assert got == [Wishes(name="x", loud=True), Wishes()]
    assert runner.invoke(app, ["--nam", "x"]).exit_code == 2


def test_a_terminal_obeys_no_text() -> None:
    assert printable("南京\x1b[31m\n x") == "南京\ufffd[31m\ufffd x"


def test_a_record_as_a_line_of_json() -> None:
    record = logging.LogRecord("cnerta.x", logging.WARNING, "x.py", 1, "a %s\nb", ("人",), None)
    record.created = 1_700_000_000.1234
    record.fields = {"event": "x.done", "path": Path("/a"), "count": 3}
    line = JsonLines().format(record)
    assert "\n" not in line
    assert json.loads(line) == {
        "time": "2023-11-14T22:13:20.123Z",
        "level": "warning",
        "logger": "cnerta.x",
        "event": "x.done",
        "path": "/a",
        "count": 3,
        "message": "a 人\nb",
    }
    try:
        raise ValueError("wrong")
    except ValueError:
        record.exc_info = sys.exc_info()
    assert json.loads(JsonLines().format(record))["exception"].endswith("ValueError: wrong")
