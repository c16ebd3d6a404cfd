"""How things look in a terminal: in all its colours, in sixteen, or in none.

Nobody knows a terminal's own ground: the same view stands on black and on white. So what has a
colour brings its ground along, and nothing is bold, since xterm shows bold black as grey.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from rich.console import Console

from cnerta.models.label_colours import INK, label_colour

__all__ = ["FULL", "NO_COLOURS", "SIXTEEN", "Palette", "palette_of"]


@dataclass(frozen=True, slots=True)
class Palette:
    """Styles for rich, by what they say.

    Attributes:
        has_colours: Whether there are colours; if not, brackets take their place.
        is_full: Whether they are the 256 that most terminals have, or more.
        good: All is well.
        warning: Look here.
        bad: This does not work.
        recording: What is said is kept.
        level: The bars of a level.
    """

    has_colours: bool
    is_full: bool
    good: str
    warning: str
    bad: str
    recording: str
    level: str

    def name(self, label: str) -> str:
        """A name of this type."""
        if not self.has_colours:
            return ""
        colour = label_colour(label)
        return f"{INK} on {colour.block}" if self.is_full else f"black on {colour.sixteen}"

    def type(self, label: str) -> str:
        """What the type itself is written in, beside the name."""
        if not self.has_colours:
            return ""
        colour = label_colour(label)
        return f"{colour.block} on {INK}" if self.is_full else f"{colour.sixteen} on black"


# Of the 256, as the types' are.
FULL: Final = Palette(
    has_colours=True,
    is_full=True,
    good="#ffffff on #008700",
    warning="#000000 on #ffaf00",
    bad="#ffffff on #d70000",
    recording="#ffffff on #d70000",
    level="#008700",
)
SIXTEEN: Final = Palette(
    has_colours=True,
    is_full=False,
    good="black on bright_green",
    warning="black on bright_yellow",
    bad="bright_white on red",
    recording="bright_white on red",
    level="green",
)
NO_COLOURS: Final = Palette(
    has_colours=False, is_full=False, good="", warning="", bad="", recording="", level=""
)


def palette_of(console: Console) -> Palette:
    """What a console can show, and is to show: ``NO_COLOR`` is obeyed."""
    if console.color_system is None or console.no_color:
        return NO_COLOURS
    return FULL if console.color_system in ("256", "truecolor") else SIXTEEN
