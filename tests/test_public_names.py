"""What the packages themselves offer: light to import, and every name is there."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest

PACKAGES = ("cnerta.models", "cnerta.train", "cnerta.export")
ROOT = Path(__file__).resolve().parents[1]


def example(package: str) -> str:
    """The code in a package's docstring."""
    doc = importlib.import_module(package).__doc__
    assert doc is not None
    (code,) = re.findall(r"::\n\n((?:    .*\n|\n)+)", doc)
    return textwrap.dedent(code)


def imported_for_checkers(package: str) -> dict[str, str]:
    """Names under ``if TYPE_CHECKING`` and the modules that they come from."""
    source = (ROOT / package.removeprefix("cnerta.") / "__init__.py").read_text()
    (block,) = (
        node
        for node in ast.parse(source).body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    )
    return {
        alias.name: str(node.module)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_name_is_there(package: str) -> None:
    pytest.importorskip("torch")
    module = importlib.import_module(package)
    assert sorted(module.__all__) == sorted(module._MODULES)
    assert dir(module) == sorted(module.__all__)
    for name in module.__all__:
        assert getattr(module, name) is not None


@pytest.mark.parametrize("package", PACKAGES)
def test_type_checkers_see_the_same_names_from_the_same_modules(package: str) -> None:
    module = importlib.import_module(package)
    expected = {name: f"{package}.{where}" for name, where in module._MODULES.items()}
    assert imported_for_checkers(package) == expected


@pytest.mark.parametrize("package", PACKAGES)
def test_other_names_are_missing_as_in_any_module(package: str) -> None:
    module = importlib.import_module(package)
    with pytest.raises(AttributeError, match=f"module '{package}' has no attribute 'nothing'"):
        _ = module.nothing
    assert not hasattr(module, "Nothing")


def test_serving_names_need_no_torch() -> None:
    script = (
        "import sys; from cnerta.models import Model, find_bundle, load_bundle, normalise, Span; "
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, cwd="/"
    )
    assert done.returncode == 0, done.stderr


def test_the_example_of_models_runs(capsys: pytest.CaptureFixture[str]) -> None:
    values: dict[str, Any] = {"samples": np.zeros(0, np.float32)}
    exec(compile(example("cnerta.models"), "<docstring>", "exec"), values)
    found = {tuple(line.split()[:3]) for line in capsys.readouterr().out.splitlines()}
    assert {("0", "2", "PER"), ("3", "7", "ORG"), ("10", "12", "PER")} <= found


@pytest.mark.parametrize("package", ["cnerta.train", "cnerta.export"])
def test_the_other_examples_use_names_that_are_there(package: str) -> None:
    tree = ast.parse(example(package))
    modules = {p.split(".")[1]: importlib.import_module(p) for p in PACKAGES}
    used = {
        (node.value.id, node.attr)
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
    }
    named = [(m, name) for m, name in used if m in modules]
    named += [
        (str(node.module).split(".")[-1], alias.name)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module != "cnerta"
        for alias in node.names
    ]
    assert len(named) >= 3
    for module, name in named:
        assert name in modules[module].__all__
