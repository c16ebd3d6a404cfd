"""The paper's Table 3 as one grid: its rows, trained flat and nested, and the two put together.

The paper's flat columns are of models trained on flat labels, its nested ones of models trained on
nested labels. So a row is two runs, ``NAME`` and ``NAME-flat``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from cnerta.train.table.results import Row, Section
from cnerta.train.table.runs import Run, plan_runs

__all__ = ["PAPER_ROWS", "PAPER_TEST", "merge_flat", "plan_paper_runs"]

PAPER_ROWS: Final = (
    "bilstm-crf", "lattice-crf", "bert-crf", "macbert-crf", "zen-crf",
    "bilstm-cma", "bert-cma", "macbert-cma", "zen-cma",
    "bilstm-mmi", "bert-mmi", "macbert-mmi", "zen-mmi",
    "bilstm-m3t", "bert-m3t", "macbert-m3t", "zen-m3t",
)  # fmt: skip
"""Recipes of the neural rows, in the order of Table 3."""
PAPER_TEST: Final = ("test=test.json", "data_aishell/wav")
"""What they are scored on, and its recordings, below the data root."""
_FLAT = "-flat"


def plan_paper_runs(
    names: Sequence[str], seeds: Sequence[int], out: Path, overrides: Sequence[str] = ()
) -> list[Run]:
    """Two runs of every recipe and seed, nested and flat.

    Raises:
        ConfigError: See :func:`cnerta.train.table.runs.plan_runs`.
    """
    nested = plan_runs(names, seeds, out, [*overrides, "model.labels=nested"])
    flat = [
        replace(run, name=run.name + _FLAT, folder=out / (run.name + _FLAT) / run.folder.name)
        for run in plan_runs(names, seeds, out, [*overrides, "model.labels=flat"])
    ]
    by_row = {run.name: [r for r in (*nested, *flat) if r.name.removesuffix(_FLAT) == run.name]
              for run in nested}  # fmt: skip
    return [run for own in by_row.values() for run in own]


def merge_flat(section: Section) -> Section:
    """Rows that are there flat and nested as one: the flat figures are those of the flat one.

    A row that is there only once stays as it is.
    """
    by_name = {row.name: row for row in section.rows}

    def merged(row: Row) -> Row:
        flat = by_name.get(row.name + _FLAT)
        if flat is None:
            return row
        missing = tuple((seed, f"flat: {why}") for seed, why in flat.unscored)
        return replace(row, flat=flat.flat, unscored=(*row.unscored, *missing))

    rows = [
        merged(row)
        for row in section.rows
        if not (row.name.endswith(_FLAT) and row.name.removesuffix(_FLAT) in by_name)
    ]
    return replace(section, rows=tuple(rows))
