"""The rooms of the house: each says what it is for, is installed, and does only what it may."""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("export", "models", "streamer", "train")
ROOMS = sorted(
    path.parent.relative_to(ROOT)
    for name in PACKAGES
    for path in (ROOT / name).rglob("__init__.py")
)


def names_called(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    calls = (node.func for node in ast.walk(tree) if isinstance(node, ast.Call))
    return {function.id for function in calls if isinstance(function, ast.Name)}


@pytest.mark.parametrize("room", ROOMS, ids=str)
def test_a_room_says_what_it_is_for(room: Path) -> None:
    document = ast.get_docstring(ast.parse((ROOT / room / "__init__.py").read_text("utf-8")))
    assert document
    assert document.endswith((".", "::")) or "\n" in document


def test_every_room_is_installed() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    listed = settings["tool"]["setuptools"]["packages"]
    assert sorted(listed) == sorted("cnerta." + ".".join(room.parts) for room in ROOMS)


@pytest.mark.parametrize("room", ROOMS, ids=str)
def test_no_room_is_too_full_to_be_taken_in(room: Path) -> None:
    modules = [p for p in (ROOT / room).glob("*.py") if p.stem != "__init__"]
    assert len(modules) <= 25


@pytest.mark.parametrize("room", ["session", "wire"])
def test_the_session_and_the_messages_touch_no_file_and_no_terminal(room: str) -> None:
    # What they may import is held by import-linter; these need no import.
    for path in (ROOT / "streamer" / room).glob("*.py"):
        assert names_called(path).isdisjoint({"open", "print", "input", "exec", "eval"}), path
