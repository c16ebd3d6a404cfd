"""The colour of each entity type, wherever one is shown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

__all__ = ["INK", "LabelColour", "label_colour"]


@dataclass(frozen=True, slots=True)
class LabelColour:
    """A colour for each ground that it may stand on.

    Attributes:
        block: Behind a name in a terminal, in white (`INK`), whatever the terminal's own ground:
            ``#rrggbb``. Dark enough for white text (WCAG AA), and apart from black and from white.
            All are among the 256 colours of a terminal, which therefore shows just these.
        sixteen: The same for a terminal of sixteen colours, behind black: a name that rich gives.
        on_dark: On dark ground, such as captions over a video: ``#rrggbb``.
        on_paper: On white, such as plots: ``#rrggbb``.
    """

    block: str
    sixteen: str
    on_dark: str
    on_paper: str


INK: Final = "#ffffff"
"""What stands on a `LabelColour.block`."""

_KNOWN: Final[Mapping[str, LabelColour]] = {
    "PER": LabelColour("#af0087", "bright_magenta", "#ff9cff", "#cc6677"),
    "LOC": LabelColour("#005fd7", "bright_green", "#8cff8c", "#4477aa"),
    "ORG": LabelColour("#008700", "bright_cyan", "#8cffff", "#117733"),
}
_OTHERS: Final = tuple(
    LabelColour(block, "bright_yellow", "#ffff8c", on_paper)
    for block, on_paper in (
        ("#af5f00", "#aa3377"),
        ("#8700ff", "#997700"),
        ("#5f5faf", "#66ccee"),
        ("#d7005f", "#882255"),
    )
)


def label_colour(label: str) -> LabelColour:
    """The colour of an entity type, also of one that is not among the usual three."""
    return _KNOWN.get(label) or _OTHERS[sum(label.encode()) % len(_OTHERS)]
