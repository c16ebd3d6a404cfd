"""The notebooks run from top to bottom."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")

ROOT = Path(__file__).resolve().parents[2]


def output(cell: object) -> str:
    """What a cell shows, its HTML without the tags."""
    (shown,) = cell["outputs"]  # type: ignore[index]
    if "text" in shown:
        return str(shown["text"])
    return re.sub("<sub[^>]*>", "/", shown["data"]["text/html"])


@pytest.mark.filterwarnings("ignore::DeprecationWarning:jupyter_client")
@pytest.mark.filterwarnings("ignore::DeprecationWarning:zmq")
def test_the_first_notebook_shows_two_readings_of_one_text() -> None:
    notebook = nbformat.read(ROOT / "docs/notebooks/first-entities.ipynb", as_version=4)
    nbclient.NotebookClient(
        notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": ROOT}}
    ).execute()
    shown = [output(c) for c in notebook.cells if c["cell_type"] == "code" and c["outputs"]]
    mayor, bridge, alone, table = (re.sub("<[^>]*>", "", text) for text in shown)
    assert "南京/LOC市长江大桥/PER" in mayor
    assert "南京市/LOC长江/LOC大桥/LOC" in bridge
    assert "/LOC" in alone
    assert table.splitlines()[0].startswith("LOC 南京市 13 16 ")
