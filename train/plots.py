"""Pictures of reports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cnerta.train.breakdown import Breakdown
from cnerta.train.table import KINDS, Row, Section

__all__ = ["draw_breakdowns", "draw_sections"]

_COLOURS = {"flat": "#4477aa", "nested": "#cc6677"}


_ERRORS = {
    "boundary_errors": "boundary",
    "type_errors": "type",
    "spurious": "spurious",
    "missed": "missed",
}


def draw_breakdowns(path: Path, title: str, breakdowns: Mapping[str, Breakdown]) -> None:
    """Draw F1 of all entities, of each type, of seen and unseen ones; and the kinds of error."""
    figure, (scores, errors) = _pyplot().subplots(
        ncols=2, figsize=(10, 3.6), layout="constrained", width_ratios=(3, 2)
    )
    names = list(dict.fromkeys(n for b in breakdowns.values() for n in _f1(b)))
    width = 0.8 / len(breakdowns)
    for k, (kind, breakdown) in enumerate(breakdowns.items()):
        f1 = _f1(breakdown)
        shift = (k + 0.5) * width - 0.4
        style = {"width": width, "color": _COLOURS[kind], "label": kind}
        bars = scores.bar([i + shift for i in range(len(names))], [f1[n] for n in names], **style)
        scores.bar_label(bars, fmt="%.1f", fontsize=7, label_type="center", color="white")
        low, high = breakdown.interval
        whole = breakdown.scores.f1
        spread = [[max(0.0, whole - low)], [max(0.0, high - whole)]]
        scores.errorbar([shift], [whole], yerr=spread, color="black", linewidth=1, capsize=2)
        counts = [getattr(breakdown.scores, field) for field in _ERRORS]
        errors.bar_label(errors.bar([i + shift for i in range(len(counts))], counts, **style))
    scores.set_xticks(range(len(names)), names)
    scores.set(ylabel="F1", ylim=(0, 105), title=title)
    errors.set_xticks(range(len(_ERRORS)), list(_ERRORS.values()))
    errors.set(ylabel="entities", title="errors")
    errors.margins(y=0.15)
    figure.legend(*scores.get_legend_handles_labels(), loc="outside right upper")
    figure.savefig(path, dpi=130)
    _pyplot().close(figure)


def _f1(breakdown: Breakdown) -> dict[str, float]:
    parts = {"all": breakdown.scores, **breakdown.types}
    if breakdown.seen is not None and breakdown.unseen is not None:
        parts |= {"seen": breakdown.seen, "unseen": breakdown.unseen}
    return {name: s.f1 for name, s in parts.items()}


def _pyplot() -> Any:
    """Matplotlib without a display; it takes a second to import, so it is when it is needed."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    return plt


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
    figure, (scores, deltas) = _pyplot().subplots(
        ncols=2, figsize=(10, height), layout="constrained", sharey=True
    )
    for kind, shift in zip(KINDS, (-0.15, 0.15), strict=True):
        shown = [(i, f) for i, row in enumerate(rows) if (f := row.figures[kind])]
        places = [i + shift for i, _ in shown]
        style = {"color": _COLOURS[kind], "label": kind, "fmt": "o", "markersize": 5}
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
    _pyplot().close(figure)


def _label(row: Row) -> str:
    return f"{row.name} ({len(row.seeds)})"
