"""What a terminal shows, as an SVG that looks the same in every browser.

The SVG of rich says how long each run of text is and counts a Chinese character as one column;
browsers that obey pile them on each other. Here each character of such a run has its own place.
"""

from __future__ import annotations

import html
import io
import re
from typing import Final

from rich.cells import cell_len
from rich.console import Console, RenderableType
from rich.terminal_theme import MONOKAI

__all__ = ["draw_svg"]

_FONT_SIZE: Final = 20.0
_ASPECT_RATIO: Final = 0.61
_CELL: Final = _FONT_SIZE * _ASPECT_RATIO
"""Width of a column; a Chinese character, as wide as it is high, stands in two."""
_RUN: Final = re.compile(r' x="([^"]*)"( y="[^"]*") textLength="[^"]*"([^>]*)>([^<]*)</text>')
# Would make Latin letters as wide as Chinese characters, in fonts that have both.
_FULL_WIDTH: Final = re.compile(r"\n *font-variant-east-asian: full-width;")


def draw_svg(renderable: RenderableType, width: int, title: str) -> str:
    """Draw something as a terminal with colours would show it.

    Args:
        renderable: What is shown.
        width: Columns of the terminal.
        title: Of its window.
    """
    console = Console(
        record=True,
        width=width,
        file=io.StringIO(),
        force_terminal=True,
        color_system="truecolor",
        no_color=False,
    )
    console.print(renderable)
    svg = console.export_svg(
        title=title,
        theme=MONOKAI,
        font_aspect_ratio=_ASPECT_RATIO,
    )
    return _RUN.sub(_place_wide_characters, _FULL_WIDTH.sub("", svg))


def _place_wide_characters(run: re.Match[str]) -> str:
    """Give each character its place, if there are wide ones among them."""
    left, y, rest, escaped = float(run[1]), run[2], run[3], run[4]
    text = html.unescape(escaped)
    if cell_len(text) == len(text):
        return run[0]
    places: list[str] = []
    for character in text:
        cells = cell_len(character)
        inset = (cells * _CELL - _FONT_SIZE) / 2 if cells == 2 else 0.0
        places.append(f"{left + inset:.1f}")
        left += cells * _CELL
    return f' x="{" ".join(places)}"{y}{rest}>{escaped}</text>'
