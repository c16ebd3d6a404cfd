"""Pictures of an evaluation's report."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from cnerta.train.evaluation.breakdown import Breakdown
from cnerta.train.evaluation.figures import LABEL_COLOURS, pyplot

__all__ = ["draw_breakdowns"]

_ERRORS = {
    "boundary_errors": "boundary",
    "type_errors": "type",
    "spurious": "spurious",
    "missed": "missed",
}


def draw_breakdowns(path: Path, title: str, breakdowns: Mapping[str, Breakdown]) -> None:
    """Draw F1 of all entities, of each type, of seen and unseen ones; and the kinds of error."""
    figure, (scores, errors) = pyplot().subplots(
        ncols=2, figsize=(10, 3.6), layout="constrained", width_ratios=(3, 2)
    )
    names = list(dict.fromkeys(n for b in breakdowns.values() for n in _f1(b)))
    width = 0.8 / len(breakdowns)
    for k, (kind, breakdown) in enumerate(breakdowns.items()):
        f1 = _f1(breakdown)
        shift = (k + 0.5) * width - 0.4
        style = {"width": width, "color": LABEL_COLOURS[kind], "label": kind}
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
    pyplot().close(figure)


def _f1(breakdown: Breakdown) -> dict[str, float]:
    parts = {"all": breakdown.scores, **breakdown.types}
    if breakdown.seen is not None and breakdown.unseen is not None:
        parts |= {"seen": breakdown.seen, "unseen": breakdown.unseen}
    return {name: s.f1 for name, s in parts.items()}
