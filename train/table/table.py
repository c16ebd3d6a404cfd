"""The report of a grid as text, like the paper's Table 3: one row a recipe."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cnerta.models.config import ModelConfig
from cnerta.train.evaluation.significance import Difference
from cnerta.train.table.results import KINDS, Cost, Figures, Row, Section

__all__ = ["csv_table", "markdown_table"]

_NUMBERS = ("P", "R", "F1", "Δ text row", "Δ own text")


def markdown_table(
    sections: Sequence[Section],
    plots: Mapping[str, str] | None = None,
    links: Mapping[str, Mapping[str, str]] | None = None,
) -> str:
    """The report as Markdown.

    Args:
        sections: What to show.
        plots: Picture of each section, by title.
        links: Pages of sentences that two models answer differently, by the section's title and
            what is compared.
    """
    lines = [
        "# Table",
        "",
        "Precision, recall and F1 of whole entities (start, end and type) in percent, mean ± "
        "sample deviation over the seeds. *Flat* scores the outermost entities, *nested* all of "
        "them. Δ text row is F1 above the text-only row of the same text encoder (or the row "
        "named), Δ own text that above the same models without their audio: what speech is worth. "
        "Both have the 95 % interval of a paired bootstrap over sentences, which says what other "
        "sentences might have given, not what other seeds might. Epochs are the one whose model is "
        "kept, of those trained. Errors are told apart as in the paper's "
        "Table 5: of what is predicted wrongly, a type error has the boundaries of a gold entity, "
        "a boundary error is every other; spurious are those of them that overlap no gold entity "
        "of their type, missed gold entities that no error is about. Means over seeds.",
    ]
    for section in sections:
        lines += ["", f"## {section.title}", ""]
        lines += [f"{section.sentences} sentences, {section.spoken} with a recording.", ""]
        heading = ["model", "text encoder", "fusion", "CTC", "seeds"]
        heading += ["resources", "parameters", "epochs"]
        numbers = [f"{kind} {x}" for kind in KINDS for x in _NUMBERS]
        lines.append("| " + " | ".join(heading + numbers) + " |")
        lines.append("|" + "---|" * len(heading) + "---:|" * len(numbers))
        lines += ["| " + " | ".join(_cells(row)) + " |" for row in section.rows]
        missing = [(row.name, *m) for row in section.rows for m in row.unscored]
        if missing:
            lines += ["", "Not in the table:", ""]
            lines += [f"- {name}, seed {seed}: {why}" for name, seed, why in missing]
        if plots and section.title in plots:
            lines += ["", f"![{section.title}]({plots[section.title]})"]
        lines += ["", *_error_rows(section)]
        if links and section.title in links:
            said = ", ".join(f"[{name}]({file})" for name, file in links[section.title].items())
            lines += ["", f"Sentences answered differently: {said}."]
    return "\n".join(lines) + "\n"


def _error_rows(section: Section) -> list[str]:
    """The paper's Table 5."""
    names = ("boundary errors", "type errors", "spurious", "missed")
    heading = [f"{kind} {name}" for kind in KINDS for name in names]
    lines = ["| model | " + " | ".join(heading) + " |", "|---|" + "---:|" * len(heading)]
    for row in section.rows:
        cells = [row.name]
        for figures in row.figures.values():
            cells += [f"{n:.1f}" for n in figures.errors] if figures else ["–"] * len(names)
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def csv_table(sections: Sequence[Section]) -> str:
    """The report as comma-separated values: a line for each row and kind of score."""
    output = io.StringIO()
    columns = [
        "source", "mode", "model", "scores", "seeds", "unscored_seeds",
        "precision", "precision_deviation", "recall", "recall_deviation", "f1", "f1_deviation",
        "boundary_errors", "type_errors", "spurious", "missed",
        "baseline", "delta", "delta_low", "delta_high", "delta_p",
        "audio_delta", "audio_delta_low", "audio_delta_high", "audio_delta_p",
        "resources", "parameters", "minutes", "epochs", "best_epoch",
    ]  # fmt: skip
    writer = csv.writer(output, lineterminator="\n")
    writer.writerow(columns)
    for section in sections:
        for row in section.rows:
            for kind, figures in row.figures.items():
                start = [section.source, section.mode, row.name, kind, len(row.seeds)]
                values = [*_values(row, figures), row.resources, *_cost_values(row.cost)]
                writer.writerow([*start, len(row.unscored), *values])
    return output.getvalue()


def _values(row: Row, figures: Figures | None) -> list[Any]:
    if figures is None:
        return [""] * 19
    values: list[Any] = []
    for estimate in (figures.precision, figures.recall, figures.f1):
        deviation = "" if estimate.deviation is None else f"{estimate.deviation:.4f}"
        values += [f"{estimate.mean:.4f}", deviation]
    values += [f"{n:.2f}" for n in figures.errors]
    values.append(row.baseline if figures.delta else "")
    for delta in (figures.delta, figures.audio_delta):
        values += _delta_values(delta)
    return values


def _delta_values(delta: Difference | None) -> list[str]:
    if delta is None:
        return [""] * 4
    return [f"{v:.4f}" for v in (delta.value, delta.low, delta.high, delta.p_value)]


def _cost_values(cost: Cost) -> list[Any]:
    minutes = f"{cost.minutes:.2f}" if cost.minutes else ""
    epochs = [f"{cost.epochs:.1f}", f"{cost.best_epoch:.1f}"] if cost.epochs else ["", ""]
    return [cost.parameters or "", minutes, *epochs]


def _cells(row: Row) -> list[str]:
    runs = str(len(row.seeds))
    if row.unscored:
        runs += f" of {len(row.seeds) + len(row.unscored)}"
    cells = [row.name, *_composition(row.model), runs, row.resources, *_cost_cells(row.cost)]
    for figures in row.figures.values():
        if figures is None:
            # Flat labels have no nested score; a row without a run has none at all.
            cells += ["–" if row.seeds else row.unscored[0][1].partition(":")[0]] * len(_NUMBERS)
            continue
        cells += [str(figures.precision), str(figures.recall), str(figures.f1)]
        cells += [_delta(figures.delta), _delta(figures.audio_delta)]
    return cells


def _cost_cells(cost: Cost) -> tuple[str, str]:
    """Parameters and epochs."""
    size = f"{cost.parameters / 1e6:.2f} M" if cost.parameters else "–"
    return size, f"{cost.best_epoch:.0f} of {cost.epochs:.0f}" if cost.epochs else "–"


def _composition(model: ModelConfig | None) -> tuple[str, str, str]:
    """Text encoder, fusion and CTC of a row."""
    if model is None:
        return "–", "–", "–"
    text: str = model.text.encoder
    if model.text.checkpoint and text != "bilstm":
        text += f" ({Path(model.text.checkpoint).name})"
    if not model.uses_audio:
        return text, "–", "–"
    return text, model.fusion.kind, model.ctc.units if model.ctc.weight else "–"


def _delta(delta: Difference | None) -> str:
    if delta is None:
        return "–"
    return f"{delta.value:+.2f} [{delta.low:+.2f}, {delta.high:+.2f}]"
