"""The last seconds as a picture of two lines: how loud it was, and which names were spoken when."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from rich.cells import cell_len, set_cell_size
from rich.text import Text

from cnerta.streamer.outputs.levels import CELL_MS, Levels

__all__ = ["SILENT_DBFS", "Spoken", "draw_timeline"]

SILENT_DBFS: Final = -60.0
_BARS: Final = " ▁▂▃▄▅▆▇█"


@dataclass(frozen=True, slots=True)
class Spoken:
    """A name on the time line.

    Attributes:
        text: What is written.
        start_ms: On the audio clock.
        end_ms: After it.
        style: How it is written, for rich.
    """

    text: str
    start_ms: int
    end_ms: int
    style: str


def draw_timeline(
    levels: Levels,
    names: Iterable[Spoken],
    audio_ms: float,
    width: int,
    clock: Callable[[float], str],
    level_style: str,
) -> list[Text]:
    """Draw the seconds up to now.

    Args:
        levels: How loud it was.
        names: What was spoken; of two at the same time the later one is seen.
        audio_ms: Now, the right edge.
        width: Columns.
        clock: Writes a time.
        level_style: How levels are drawn, for rich.

    Returns:
        Two lines of `width` columns: levels, between the times of both edges, and names.
    """
    last = max(0, math.ceil(audio_ms / CELL_MS) - 1)
    left = clock(max(0, last + 1 - width) * CELL_MS) + " "
    right = " " + clock(audio_ms)
    columns = max(1, width - cell_len(left) - cell_len(right))
    first = max(0, last + 1 - columns)
    left = set_cell_size(clock(first * CELL_MS), cell_len(left))
    bars = "".join(_bar(levels.at(column)) for column in range(first, first + columns))
    loudness = Text.assemble((left, "dim"), (bars, level_style), (right, "dim"))
    line = Text(" " * cell_len(left))
    shown = sorted(names, key=lambda name: (name.start_ms, -name.end_ms))
    starts = [math.floor(name.start_ms / CELL_MS) - first for name in shown]
    at = 0
    for name, start in zip(shown, starts, strict=True):
        if start < at or start >= columns:
            continue  # Beyond an edge, or spoken at the same time as another.
        wide = max(1, math.ceil(name.end_ms / CELL_MS) - first - start)
        # A name takes more columns than its time where nothing else is.
        later = [place for place in range(len(shown)) if starts[place] > start]
        following = starts[later[0]] if later else columns
        size = min(max(wide, cell_len(name.text)), following - start, columns - start)
        if later and size == following - start > 1 and shown[later[0]].style == name.style:
            size -= 1  # Else the two would look like one.
        line.append(" " * (start - at))
        line.append(set_cell_size(name.text, size), style=name.style)
        at = start + size
    line.append(" " * (width - cell_len(line.plain)))
    return [loudness, line]


def _bar(dbfs: float) -> str:
    if dbfs <= SILENT_DBFS:
        return _BARS[0]
    share = min(1.0, 1.0 - dbfs / SILENT_DBFS)
    return _BARS[max(1, round(share * (len(_BARS) - 1)))]
