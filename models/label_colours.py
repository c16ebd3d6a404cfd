"""The colour of each entity type, wherever one is shown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

__all__ = ["LabelColour", "label_colour"]


@dataclass(frozen=True, slots=True)
class LabelColour:
    """A colour for each ground that it may stand on.

    Attributes:
        terminal: One of the sixteen colours of a terminal, by the name that rich gives it.
        on_dark: On dark ground, such as captions over a video: ``#rrggbb``.
        on_paper: On white, such as plots: ``#rrggbb``.
    """

    terminal: str
    on_dark: str
    on_paper: str


_KNOWN: Final[Mapping[str, LabelColour]] = {
    "PER": LabelColour("bright_magenta", "#ff9cff", "#cc6677"),
    "LOC": LabelColour("bright_green", "#8cff8c", "#4477aa"),
    "ORG": LabelColour("bright_cyan", "#8cffff", "#117733"),
}
_OTHERS: Final = tuple(
    LabelColour("bright_yellow", "#ffff8c", on_paper)
    for on_paper in ("#aa3377", "#997700", "#66ccee", "#882255")
)


def label_colour(label: str) -> LabelColour:
    """The colour of an entity type, also of one that is not among the usual three."""
    return _KNOWN.get(label) or _OTHERS[sum(label.encode()) % len(_OTHERS)]
