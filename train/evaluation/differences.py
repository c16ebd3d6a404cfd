"""Sentences that two models answer differently, side by side as in the paper's Table 4."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cnerta.models.runtime.labels import Span
from cnerta.train.evaluation.predictions import Prediction

__all__ = [
    "Differences",
    "DifferingSentence",
    "differences_document",
    "find_differences",
    "mark_entities",
]

_MOST = 100


@dataclass(frozen=True, slots=True)
class DifferingSentence:
    """One sentence.

    Attributes:
        text: The sentence.
        gold: Its entities.
        ours: What the model found.
        theirs: What the other found.
        gained: Errors (entities missing or too many) of the other less those of the model.
    """

    text: str
    gold: tuple[Span, ...]
    ours: tuple[Span, ...]
    theirs: tuple[Span, ...]
    gained: int


@dataclass(frozen=True, slots=True)
class Differences:
    """Sentences that differ, the greatest differences first.

    Attributes:
        fixed: The model is nearer to the gold entities than the other.
        regressed: It is farther from them.
        unresolved: Different, but as many entities wrong.
    """

    fixed: tuple[DifferingSentence, ...]
    regressed: tuple[DifferingSentence, ...]
    unresolved: tuple[DifferingSentence, ...]


def find_differences(ours: Sequence[Prediction], theirs: Sequence[Prediction]) -> Differences:
    """The sentences that two models answer differently.

    Raises:
        ValueError: They are not about the same sentences.
    """
    found: list[DifferingSentence] = []
    for own, other in zip(ours, theirs, strict=True):
        if (own.text, own.gold) != (other.text, other.gold):
            raise ValueError(f"expected predictions of {own.text!r}, got those of {other.text!r}")
        if set(own.found) != set(other.found):
            gold = set(own.gold or ())
            gained = len(gold ^ set(other.found)) - len(gold ^ set(own.found))
            found.append(
                DifferingSentence(own.text, own.gold or (), own.found, other.found, gained)
            )
    found.sort(key=lambda c: -abs(c.gained))
    return Differences(
        fixed=tuple(c for c in found if c.gained > 0),
        regressed=tuple(c for c in found if c.gained < 0),
        unresolved=tuple(c for c in found if c.gained == 0),
    )


def differences_document(
    differences: Differences, ours: str, theirs: str, *, what: str = "", most: int = _MOST
) -> str:
    """The differences as Markdown.

    Args:
        differences: What differs.
        ours: Name of the model.
        theirs: Name of the other.
        what: What the difference is put down to, such as ``Speech``; default: the model's name.
        most: Sentences of each kind to show, those with the greatest differences.
    """
    what = what or ours
    lines = [
        f"# {ours} beside {theirs}",
        "",
        "Brackets are entities, with the type behind; **bold** is right, ~~struck~~ is not in the "
        "gold annotation, and what a model missed is listed.",
    ]
    for title, own in (
        (f"Fixed by {what}", differences.fixed),
        (f"Regressed with {what}", differences.regressed),
        ("Different, with as many errors", differences.unresolved),
    ):
        shown = own[:most]
        of = f", {len(shown)} shown" if len(shown) < len(own) else ""
        lines += ["", f"## {title} ({len(own)} sentences{of})"]
        for sentence in shown:
            lines += ["", "| | |", "|---|---|"]
            lines.append(f"| gold | {mark_entities(sentence.text, sentence.gold)} |")
            for name, found in ((theirs, sentence.theirs), (ours, sentence.ours)):
                missed = sorted(set(sentence.gold) - set(found))
                note = f" — missed: {_list(sentence.text, missed)}" if missed else ""
                marked = mark_entities(sentence.text, found, sentence.gold)
                lines.append(f"| {name} | {marked}{note} |")
    return "\n".join(lines) + "\n"


def mark_entities(text: str, spans: Iterable[Span], gold: Iterable[Span] | None = None) -> str:
    """A sentence with its entities in brackets: ``[[北京]LOC 大学]ORG``.

    Args:
        text: The sentence.
        spans: Entities; nested and crossing ones are fine.
        gold: With these, right entities are bold and wrong ones struck through, each by its type.
    """
    right = None if gold is None else set(gold)
    opening: dict[int, list[Span]] = {}
    closing: dict[int, list[Span]] = {}
    for span in sorted(set(spans), key=lambda s: (s.start, -s.end, s.label)):
        opening.setdefault(span.start, []).append(span)
        closing.setdefault(span.end, []).insert(0, span)
    pieces: list[str] = []
    for place in range(len(text) + 1):
        # What began last ends first.
        for span in sorted(closing.get(place, ()), key=lambda s: -s.start):
            label = span.label
            if right is not None:
                label = f"**{label}**" if span in right else f"~~{label}~~"
            pieces.append(f"]{label} ")
        pieces.append("[" * len(opening.get(place, ())))
        pieces.append(_escape(text[place : place + 1]))
    return "".join(pieces).strip()


def _list(text: str, spans: Iterable[Span]) -> str:
    return ", ".join(f"{_escape(text[s.start : s.end])} {s.label}" for s in spans)


def _escape(text: str) -> str:
    """Characters that mean something in a Markdown table."""
    return "".join("\\" + c if c in r"\|[]*_~`<" else c for c in text)
