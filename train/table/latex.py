"""The report of a grid as LaTeX, in the columns of the paper's Table 3."""

from __future__ import annotations

from collections.abc import Sequence

from cnerta.models.config import LEXICON_ENCODERS, ModelConfig
from cnerta.train.table.results import Figures, Row, Section

__all__ = ["latex_table"]

_SPECIAL = str.maketrans({c: f"\\{c}" for c in "&%$#_{}"})


def latex_table(sections: Sequence[Section]) -> str:
    """A ``table`` for each section, for the package ``booktabs``.

    Δ has its 95 % interval below it as in ``table.md``; a figure over several seeds its deviation.
    """
    return "\n".join(line for section in sections for line in _table(section)) + "\n"


def _table(section: Section) -> list[str]:
    return [
        r"\begin{table}",
        r"\centering\small",
        r"\begin{tabular}{ll" + "rrrl" * 2 + "}",
        r"\toprule",
        r" & & \multicolumn{4}{c}{Flat} & \multicolumn{4}{c}{Nested} \\",
        r"Model & Resource" + r" & P & R & F1 & $\Delta$" * 2 + r" \\",
        r"\midrule",
        *(_row(row) for row in section.rows),
        r"\bottomrule",
        r"\end{tabular}",
        rf"\caption{{{section.title.translate(_SPECIAL)}: {section.sentences} sentences, "
        rf"{section.spoken} with a recording; $\Delta$ with its 95\,\% interval.}}",
        r"\end{table}",
        "",
    ]


def _row(row: Row) -> str:
    cells = [row.name.translate(_SPECIAL), _resource(row.model)]
    for figures in row.figures.values():
        cells += _figures(figures)
    return " & ".join(cells) + r" \\"


def _resource(model: ModelConfig | None) -> str:
    """What a row uses, in the paper's words."""
    parts = ["Text"]
    if model is not None and model.text.encoder in LEXICON_ENCODERS:
        parts.append("Lexicon")
    if model is not None and model.uses_audio:
        parts.append("Speech")
    return "+".join(parts)


def _figures(figures: Figures | None) -> list[str]:
    if figures is None:
        return ["--"] * 4
    cells = []
    for estimate in (figures.precision, figures.recall, figures.f1):
        spread = "" if estimate.deviation is None else rf"\,$\pm$\,{estimate.deviation:.2f}"
        cells.append(f"{estimate.mean:.2f}{spread}")
    d = figures.delta
    return [*cells, "--" if d is None else f"${d.value:+.2f}$ $[{d.low:+.2f}, {d.high:+.2f}]$"]
