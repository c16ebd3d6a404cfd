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
    """F1 of every row with its deviation, and each Δ with its interval beside it."""
    rows = [row for row in section.rows if row.seeds]
    height = 1.4 + 0.42 * max(1, len(rows))
    spoken = any(f and f.audio_delta for row in rows for f in row.figures.values())
    columns = 3 if spoken else 2
    figure, panels = pyplot().subplots(
        ncols=columns, figsize=(5 * columns, height), layout="constrained", sharey=True
    )
    scores, *deltas = panels
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
        for panel, kept in zip(deltas, ("delta", "audio_delta"), strict=False):
            found = [(i + shift, getattr(f, kept)) for i, f in shown]
            above = [(place, d) for place, d in found if d is not None]
            panel.errorbar(
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
    below = ("the text-only row", "the same model without its audio")
    for panel, what in zip(deltas, below, strict=False):
        panel.axvline(0.0, color="grey", linewidth=0.8)
        panel.set(xlabel=f"Δ F1 above {what}, 95 % interval")
    for axes in panels:
        axes.grid(axis="x", linewidth=0.4)
    figure.legend(*scores.get_legend_handles_labels(), loc="outside right upper")
    figure.savefig(path, dpi=130)
    pyplot().close(figure)


def _label(row: Row) -> str:
    return f"{row.name} ({len(row.seeds)})"
