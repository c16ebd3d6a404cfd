"""The report on one model and one set of sentences: Markdown, JSON and a picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgspec

from cnerta.train.evaluation.breakdown import Breakdown, KnownEntities, break_down, compare
from cnerta.train.evaluation.breakdown_plots import draw_breakdowns
from cnerta.train.evaluation.differences import differences_document, find_differences
from cnerta.train.evaluation.metrics import HomographScores, Scores, score_homographs
from cnerta.train.evaluation.predictions import Prediction
from cnerta.train.evaluation.significance import Difference

__all__ = ["Other", "Report", "make_report", "write_report"]


@dataclass(frozen=True, slots=True)
class Other:
    """Another model's answers to the same sentences.

    Attributes:
        name: How the report calls it.
        predictions: What it found.
    """

    name: str
    predictions: Sequence[Prediction]


@dataclass(frozen=True, slots=True)
class Report:
    """All scores of one model on one set of sentences.

    Attributes:
        name: Of the model.
        data: Of the sentences.
        sentences: How many.
        spoken: How many of them were answered with speech.
        breakdowns: ``flat`` and, where the model can say such, ``nested``.
        differences: F1 above the other model's, by the same names; empty without another.
        homographs: Texts with several readings.
    """

    name: str
    data: str
    sentences: int
    spoken: int
    breakdowns: dict[str, Breakdown]
    differences: dict[str, Difference]
    homographs: HomographScores


def make_report(
    name: str,
    data: str,
    predictions: Sequence[Prediction],
    *,
    spoken: int,
    nested: bool = True,
    known: KnownEntities | None = None,
    other: Other | None = None,
) -> Report:
    """Score.

    Args:
        name: Of the model.
        data: Of the sentences.
        predictions: With gold entities.
        spoken: Sentences that were answered with speech.
        nested: Whether the model's entities may be nested.
        known: Entities of the training data.
        other: A model to compare with.

    Raises:
        ValueError: There are no sentences, or the other model's are not the same.
    """
    kinds = ("flat", "nested") if nested else ("flat",)
    return Report(
        name=name,
        data=data,
        sentences=len(predictions),
        spoken=spoken,
        breakdowns={k: break_down(predictions, flat=k == "flat", known=known) for k in kinds},
        differences={
            k: compare(predictions, other.predictions, flat=k == "flat") for k in kinds if other
        },
        homographs=score_homographs(
            [p.text for p in predictions],
            [p.gold or () for p in predictions],
            [p.found for p in predictions],
        ),
    )


def write_report(
    folder: Path, report: Report, predictions: Sequence[Prediction], other: Other | None
) -> None:
    """Write ``report.md``, ``report.json``, ``scores.png``; with another ``differences.md``."""
    folder.mkdir(parents=True, exist_ok=True)
    draw_breakdowns(folder / "scores.png", report.name, report.breakdowns)
    content = report_markdown(report, other.name if other else "")
    (folder / "report.md").write_text(content, encoding="utf-8")
    (folder / "report.json").write_bytes(
        msgspec.json.format(msgspec.json.encode(report_values(report)))
    )
    if other is not None:
        differences = find_differences(predictions, other.predictions)
        document = differences_document(differences, report.name, other.name)
        (folder / "differences.md").write_text(document, encoding="utf-8")


def report_values(report: Report) -> dict[str, Any]:
    """The report as plain values, percentages worked out."""
    return {
        **asdict(report),
        "breakdowns": {
            kind: {
                **asdict(b),
                "scores": _values(b.scores),
                "types": {t: _values(s) for t, s in b.types.items()},
                "depths": [
                    {**asdict(d), "precision": d.precision, "recall": d.recall} for d in b.depths
                ],
                "seen": None if b.seen is None else _values(b.seen),
                "unseen": None if b.unseen is None else _values(b.unseen),
            }
            for kind, b in report.breakdowns.items()
        },
    }


def report_markdown(report: Report, other: str = "") -> str:
    """The report as text.

    Args:
        report: What to say.
        other: Name of the model that it is compared with.
    """
    lines = [
        f"# {report.name} on {report.data}",
        "",
        f"{report.sentences} sentences, {report.spoken} answered with speech. An entity is right "
        "if start, end and type are; percentages, with 95 % intervals from a bootstrap over "
        "sentences. Of what is predicted wrongly, a *type error* has the boundaries of a gold "
        "entity and another type, a *boundary error* is every other (as in Table 5 of Sui et al. "
        "2021); *spurious* are those of them that overlap no gold entity of their type, *missed* "
        "are gold entities that no error is about.",
        "",
        "![scores](scores.png)",
    ]
    for kind, breakdown in report.breakdowns.items():
        what = "the outermost entities" if kind == "flat" else "all entities"
        lines += ["", f"## {kind.capitalize()}: {what}", ""]
        lines += _score_rows(breakdown)
        low, high = breakdown.interval
        lines += ["", f"F1 {breakdown.scores.f1:.2f}, interval [{low:.2f}, {high:.2f}]."]
        if kind in report.differences:
            d = report.differences[kind]
            lines += [
                "",
                f"Against {other}: Δ F1 {d.value:+.2f} [{d.low:+.2f}, {d.high:+.2f}], "
                f"p = {d.p_value:.4f} (paired bootstrap).",
            ]
        if len(breakdown.depths) > 1:
            lines += ["", *_depth_rows(breakdown)]
        if breakdown.confusions:
            said = ", ".join(f"{g} as {p} {n}" for g, p, n in breakdown.confusions)
            lines += ["", f"Type errors: {said}."]
    homographs = report.homographs
    if homographs.texts:
        lines += [
            "",
            f"{homographs.texts} texts with several readings: all readings right "
            f"{homographs.right}, their outermost entities {homographs.outermost_right}, told "
            f"apart {homographs.told_apart}.",
        ]
    if other:
        lines += ["", "[Sentences where the two differ](differences.md)."]
    return "\n".join(lines) + "\n"


def _values(scores: Scores) -> dict[str, float]:
    return {
        **asdict(scores),
        "precision": scores.precision,
        "recall": scores.recall,
        "f1": scores.f1,
    }


def _score_rows(breakdown: Breakdown) -> list[str]:
    rows = {"all": breakdown.scores, **breakdown.types}
    if breakdown.seen is not None and breakdown.unseen is not None:
        rows |= {"seen in training": breakdown.seen, "unseen": breakdown.unseen}
    lines = [
        "| entities | gold | predicted | P | R | F1 | boundary errors | type errors | spurious "
        "| missed |",
        "|---|" + "---:|" * 9,
    ]
    for name, s in rows.items():
        figures = (f"{s.precision:.2f}", f"{s.recall:.2f}", f"{s.f1:.2f}")
        errors = (s.boundary_errors, s.type_errors, s.spurious, s.missed)
        lines.append(
            f"| {name} | {' | '.join(map(str, (s.gold, s.predicted, *figures, *errors)))} |"
        )
    return lines


def _depth_rows(breakdown: Breakdown) -> list[str]:
    lines = ["| inside how many others | gold | predicted | P | R |", "|---|" + "---:|" * 4]
    lines += [
        f"| {d.depth} | {d.gold} | {d.predicted} | {d.precision:.2f} | {d.recall:.2f} |"
        for d in breakdown.depths
    ]
    return lines
