"""The page on fidelity is current: its keys and its tests exist."""

from __future__ import annotations

import re

import msgspec
import pytest

from cnerta.models.config import AcousticConfig, CtcConfig, FusionConfig, ModelConfig, TextConfig
from cnerta.train.recipe import Augmentation, Stage

from .pages import ROOT

PAGE = (ROOT / "docs" / "fidelity.md").read_text(encoding="utf-8")
USUAL = "tests/models/networks/test_fidelity.py"
TABLES = {
    "model": ModelConfig, "acoustic": AcousticConfig, "text": TextConfig, "fusion": FusionConfig,
    "ctc": CtcConfig, "stages": Stage, "augmentation": Augmentation,
}  # fmt: skip
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in PAGE.split("## What has none")[0].splitlines()
    if line.startswith("| ") and not line.startswith(("| item", "|---"))
]


def keys_of(*tables: str) -> set[str]:
    return {f.name for t in tables for f in msgspec.structs.fields(TABLES[t])}


@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
def test_a_row_names_a_key_and_a_test_that_exist(row: list[str]) -> None:
    assert len(row) == 6
    files = re.findall(r"`(tests/[\w/]+\.py)`", row[5]) or [USUAL]
    tests = re.findall(r"`(test_\w+)`", row[5])
    assert tests or files != [USUAL], "a row without a test"
    assert all((ROOT / file).is_file() for file in files)
    code = "".join((ROOT / file).read_text(encoding="utf-8") for file in {*files, USUAL})
    assert not [name for name in tests if f"def {name}(" not in code]
    for key in re.findall(r"`([\w.*\[\]…-]+)`", row[4]):
        *path, name = key.split(".")
        if name == "*" or not name.isidentifier():
            assert key in ("model.acoustic.*", "model.text.*", "[augmentation]", "…-posterior")
            continue
        assert name in (keys_of(path[-1]) if path else keys_of(*TABLES)), key


def test_the_page_has_every_item_of_the_table() -> None:
    assert len(ROWS) == 28
