"""Pictures of a grid's table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cnerta.train.evaluation.figures import LABEL_COLOURS, pyplot
from cnerta.train.table.results import KINDS, Row, Section

__all__ = ["draw_sections"]


def draw_sections(folder: Path, sections: Sequence[Section]) -> dict[str, str]:
    """Draw every section. Returns the file's name by the section's title."""
    names = {}
    for section in sections:
        if any(row.seeds for row in section.rows):
            name = f"{section.source}-{section.mode}.png"
            _draw_section(folder / name, section)
            names[section.title] = name
    return names


def _draw_section(path: Path, section: Section) -> None:
    """F1 of every row with its deviation, and Δ with its interval beside it."""
    rows = [row for row in section.rows if row.seeds]
    height = 1.4 + 0.42 * max(1, len(rows))
    figure, (scores, deltas) = pyplot().subplots(
        ncols=2, figsize=(10, height), layout="constrained", sharey=True
    )
    for kind, shift in zip(KINDS, (-0.15, 0.15), strict=True):
        shown = [(i, f) for i, row in enumerate(rows) if (f := row.figures[kind])]
        places = [i + shift for i, _ in shown]
        style = {"color": LABEL_COLOURS[kind], "label": kind, "fmt": "o", "markersize": 5}
        scores.errorbar(
            [f.f1.mean for _, f in shown],
            places,
            xerr=[f.f1.deviation or 0.0 for _, f in shown],
            **style,
        )
        above = [(i + shift, f.delta) for i, f in shown if f.delta]
        deltas.errorbar(
            [d.value for _, d in above],
            [place for place, _ in above],
            # Percentiles of draws need not lie around the value itself, but all but always do.
            xerr=[
                [max(0.0, d.value - d.low) for _, d in above],
                [max(0.0, d.high - d.value) for _, d in above],
            ],
            **style,
        )
    scores.set_yticks(range(len(rows)), [_label(row) for row in rows])
    scores.set_ylim(len(rows) - 0.5, -0.5)
    scores.set(xlabel="F1, mean ± deviation over seeds", title=section.title)
    deltas.axvline(0.0, color="grey", linewidth=0.8)
    deltas.set(xlabel="Δ F1 above the baseline, 95 % interval")
    for axes in (scores, deltas):
        axes.grid(axis="x", linewidth=0.4)
    figure.legend(*scores.get_legend_handles_labels(), loc="outside right upper")
    figure.savefig(path, dpi=130)
    pyplot().close(figure)


def _label(row: Row) -> str:
    return f"{row.name} ({len(row.seeds)})"
