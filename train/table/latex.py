"""The report of a grid as LaTeX, in the columns of the paper's Table 3."""

from __future__ import annotations

from collections.abc import Sequence

from cnerta.train.evaluation.significance import Difference
from cnerta.train.table.results import Figures, Row, Section

__all__ = ["latex_table"]

_SPECIAL = str.maketrans({c: f"\\{c}" for c in "&%$#_{}"})


def latex_table(sections: Sequence[Section]) -> str:
    """A ``table`` for each section, for the package ``booktabs``.

    Δ is above the text-only row, Δ of audio above the same model without its audio, each with its
    95 % interval as in ``table.md``; a figure over several seeds has its deviation.
    """
    return "\n".join(line for section in sections for line in _table(section)) + "\n"


def _table(section: Section) -> list[str]:
    return [
        r"\begin{table}",
        r"\centering\small",
        r"\begin{tabular}{llr" + "rrrll" * 2 + "}",
        r"\toprule",
        r" & & & \multicolumn{5}{c}{Flat} & \multicolumn{5}{c}{Nested} \\",
        r"Model & Resource & Params"
        + r" & P & R & F1 & $\Delta$ & $\Delta_\mathrm{audio}$" * 2
        + r" \\",
        r"\midrule",
        *(_row(row) for row in section.rows),
        r"\bottomrule",
        r"\end{tabular}",
        rf"\caption{{{section.title.translate(_SPECIAL)}: {section.sentences} sentences, "
        rf"{section.spoken} with a recording; $\Delta$ against the text-only row and, "
        r"$\Delta_\mathrm{audio}$, against the same model without its audio, with 95\,\% "
        r"intervals.}",
        r"\end{table}",
        "",
    ]


def _row(row: Row) -> str:
    size = f"{row.cost.parameters / 1e6:.2f}\\,M" if row.cost.parameters else "--"
    cells = [row.name.translate(_SPECIAL), row.resources, size]
    for figures in row.figures.values():
        cells += _figures(figures)
    return " & ".join(cells) + r" \\"


def _figures(figures: Figures | None) -> list[str]:
    if figures is None:
        return ["--"] * 5
    cells = []
    for estimate in (figures.precision, figures.recall, figures.f1):
        spread = "" if estimate.deviation is None else rf"\,$\pm$\,{estimate.deviation:.2f}"
        cells.append(f"{estimate.mean:.2f}{spread}")
    return [*cells, _delta(figures.delta), _delta(figures.audio_delta)]


def _delta(d: Difference | None) -> str:
    return "--" if d is None else f"${d.value:+.2f}$ $[{d.low:+.2f}, {d.high:+.2f}]$"
