"""A recorded session as a picture: rows of 15 seconds, as many pages as it takes.

Every row has the waveform, the characters where they are spoken, and below them the entities as
bars in the colours of the terminal view, with their names in them; inner ones are a line lower.
"""

from __future__ import annotations

import itertools
import logging
import math
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from cnerta.models.fonts import find_cjk_font
from cnerta.models.label_colours import INK, label_colour
from cnerta.streamer.errors import OutputError
from cnerta.streamer.recording.inspection import RATE, Inspection
from cnerta.streamer.wire.messages import UtteranceFinal
from cnerta.streamer.wire.parts import Entity

__all__ = ["ROWS_PER_PAGE", "ROW_S", "Bar", "Row", "draw_pages", "page_paths", "rows"]

logger = logging.getLogger(__name__)

ROW_S: Final = 15
ROWS_PER_PAGE: Final = 12
"""Three minutes: what is read on a screen without losing the row."""

_WIDTH: Final = 16.0
"""Of a page, in inches, as all that follow."""
_ROW: Final = 1.3
_DELAYS: Final = 1.6
_LEFT, _RIGHT, _TOP, _BOTTOM = 0.7, 0.15, 0.55, 0.35
_GAP: Final = 0.3
_DPI: Final = 110
_INCHES_PER_S: Final = (_WIDTH - _LEFT - _RIGHT) / ROW_S
_POINTS_PER_INCH: Final = 72
_NAME_POINTS: Final = 8.0
_CHARACTER_POINTS: Final = 9.0
_COLUMNS: Final = 2_000
"""Of a row's waveform: more than it has pixels."""
# Heights within a row, which is 4 high.
_WAVE, _WAVE_HEIGHT, _TEXT = 3.2, 0.75, 2.05
_OUTER, _INNER, _BAR_HEIGHT = 0.95, 0.1, 0.75


@dataclass(frozen=True, slots=True)
class Bar:
    """A piece of an entity in one row.

    Attributes:
        entity: What it is.
        start_s: Where the piece begins, in seconds of audio.
        end_s: After it.
        name: What is written in it: what there is room for.
    """

    entity: Entity
    start_s: float
    end_s: float
    name: str


@dataclass(frozen=True, slots=True)
class Row:
    """`ROW_S` seconds of a session.

    Attributes:
        start_s: Where it begins.
        characters: What is spoken, each with its middle in seconds.
        bars: The entities.
    """

    start_s: int
    characters: tuple[tuple[str, float], ...]
    bars: tuple[Bar, ...]


def rows(finals: Sequence[UtteranceFinal], seconds: float) -> list[Row]:
    """Cut a session into rows.

    Args:
        finals: Its answers.
        seconds: How long it is; one row if nothing.
    """
    count = max(1, math.ceil(seconds / ROW_S))
    characters: list[list[tuple[str, float]]] = [[] for _ in range(count)]
    bars: list[list[Bar]] = [[] for _ in range(count)]
    for final in finals:
        for character, (start_ms, end_ms) in zip(final.text, final.characters, strict=False):
            middle_s = (start_ms + end_ms) / 2_000
            characters[min(count - 1, int(middle_s / ROW_S))].append((character, middle_s))
        for entity in final.entities:
            for bar in _pieces(entity):
                bars[min(count - 1, int(bar.start_s / ROW_S))].append(bar)
    return [
        Row(number * ROW_S, tuple(characters[number]), tuple(bars[number]))
        for number in range(count)
    ]


def _pieces(entity: Entity) -> Iterator[Bar]:
    """An entity's bar, cut where a row ends; the longest piece has the name."""
    if entity.start_ms is None or entity.end_ms is None:
        return
    start_s, end_s = entity.start_ms / 1_000, entity.end_ms / 1_000
    edges = [start_s]
    while (edge := (int(edges[-1] / ROW_S) + 1) * ROW_S) < end_s:
        edges.append(edge)
    edges.append(end_s)
    pieces = list(itertools.pairwise(edges))
    longest = max(pieces, key=lambda piece: piece[1] - piece[0])
    for piece in pieces:
        name = _fitting(entity, (piece[1] - piece[0]) * _INCHES_PER_S) if piece == longest else ""
        yield Bar(entity, *piece, name)


def _fitting(entity: Entity, room: float) -> str:
    """As much of a name and its type as there is room for, in inches."""
    for told in (f"{entity.text} {entity.label}", entity.text):
        if _inches(told) <= room:
            return told
    kept = entity.text
    while kept and _inches(f"{kept}…") > room:
        kept = kept[:-1]
    return f"{kept}…" if kept else ""


def _inches(text: str) -> float:
    """How wide a name is: Chinese characters are as wide as they are high, others two thirds."""
    wide = sum(1.0 if unicodedata.east_asian_width(each) in "WF" else 0.67 for each in text)
    return wide * _NAME_POINTS / _POINTS_PER_INCH


def page_paths(path: Path, pages: int) -> list[Path]:
    """Where the pages go: one file if there is one page, or if a file can have several."""
    if pages == 1 or path.suffix.lower() == ".pdf":
        return [path]
    digits = len(str(pages))
    return [path.with_stem(f"{path.stem}-{page:0{digits}}") for page in range(1, pages + 1)]


def draw_pages(found: Inspection, path: Path) -> list[Path]:
    """Draw waveform, characters and entities in rows, and the latencies above the first.

    Args:
        found: The session.
        path: An image; its suffix says of what kind. Where it takes several pages, a PDF has them
            all, and of others there are ``NAME-1.png``, ``NAME-2.png`` and so on.

    Returns:
        The files.

    Raises:
        OutputError: matplotlib is not installed, or an image cannot be written.
    """
    try:
        import matplotlib as mpl
        from matplotlib.backends.backend_pdf import PdfPages
        from matplotlib.figure import Figure
    except ImportError as error:
        raise OutputError(
            "expected matplotlib for a plot, got no such package: install cnerta-stream[plot]"
        ) from error
    font = find_cjk_font()
    if font is None:
        logger.warning("expected a font with Chinese characters, got none: install one")
    seconds = max(len(found.audio) / RATE, found.lasted_s)
    all_rows = rows(found.finals, seconds)
    pages = [all_rows[at : at + ROWS_PER_PAGE] for at in range(0, len(all_rows), ROWS_PER_PAGE)]
    paths = page_paths(path, len(pages))
    with mpl.rc_context({"font.family": ["DejaVu Sans", *([font] if font else [])]}):
        try:
            if len(paths) < len(pages):
                with PdfPages(path) as file:
                    for number in range(len(pages)):
                        file.savefig(_page(Figure, found, pages, number))
            else:
                for number, page_path in enumerate(paths):
                    _page(Figure, found, pages, number).savefig(page_path, dpi=_DPI)
        except (OSError, ValueError) as error:
            raise OutputError(f"expected to draw to {path}, got: {error}") from error
    return paths


def _page(figure_type: Any, found: Inspection, pages: Sequence[Sequence[Row]], number: int) -> Any:
    """Draw one page; its parts have their places in inches from above."""
    page = pages[number]
    delays = _DELAYS + _GAP if number == 0 else 0.0
    height = _TOP + delays + len(page) * (_ROW + _GAP) + _BOTTOM
    figure = figure_type(figsize=(_WIDTH, height))

    def axes_at(top: float, high: float) -> Any:
        width = (_WIDTH - _LEFT - _RIGHT) / _WIDTH
        return figure.add_axes((_LEFT / _WIDTH, 1 - (top + high) / height, width, high / height))

    title = f"{found.header.session}  {found.header.started}  {found.header.bundle}"
    if len(pages) > 1:
        title += f"  page {number + 1} of {len(pages)}"
    untimed = sum(entity.start_ms is None for each in found.finals for entity in each.entities)
    if untimed:
        title += f"  ({untimed} entities without times are not here)"
    figure.text(0.5, 1 - 0.25 / height, title, ha="center", va="center", fontsize=11)
    at = _TOP
    if number == 0:
        _draw_latencies(axes_at(at, _DELAYS - _GAP), found)
        at += delays
    for row in page:
        _draw_row(axes_at(at, _ROW), row, found.audio)
        at += _ROW + _GAP
    return figure


def _draw_row(axes: Any, row: Row, audio: npt.NDArray[np.float32]) -> None:
    piece = audio[row.start_s * RATE : (row.start_s + ROW_S) * RATE]
    size = max(1, ROW_S * RATE // _COLUMNS)
    whole = piece[: len(piece) // size * size].reshape(-1, size)
    if len(whole):
        times = row.start_s + np.arange(len(whole)) * size / RATE
        low, high = (_WAVE + _WAVE_HEIGHT * edge for edge in (whole.min(axis=1), whole.max(axis=1)))
        axes.fill_between(times, low, high, linewidth=0, color="0.4")
    for character, middle_s in row.characters:
        axes.text(middle_s, _TEXT, character, fontsize=_CHARACTER_POINTS, **_CENTRED)
    for bar in row.bars:
        _draw_bar(axes, bar)
    axes.set_xlim(row.start_s, row.start_s + ROW_S)
    axes.set_ylim(0, 4)
    axes.set_yticks([])
    seconds = range(row.start_s, row.start_s + ROW_S + 1)
    axes.set_xticks(seconds, [f"{at // 60}:{at % 60:02d}" for at in seconds], fontsize=7)
    axes.grid(axis="x", color="0.92", linewidth=0.5)
    axes.set_axisbelow(True)


_CENTRED: Final = {"ha": "center", "va": "center", "clip_on": True}


def _draw_bar(axes: Any, bar: Bar) -> None:
    """A block as in the terminal; without the colour's fill where the text alone was read."""
    colour = label_colour(bar.entity.label).block
    low = _OUTER if bar.entity.parent is None else _INNER
    face, ink = (colour, INK) if bar.entity.audio_used else (INK, colour)
    span = (bar.start_s, bar.end_s - bar.start_s)
    axes.broken_barh([span], (low, _BAR_HEIGHT), facecolor=face, edgecolor=colour, linewidth=1)
    middle_s = (bar.start_s + bar.end_s) / 2
    axes.text(
        middle_s, low + _BAR_HEIGHT / 2, bar.name, fontsize=_NAME_POINTS, color=ink, **_CENTRED
    )


def _draw_latencies(axes: Any, found: Inspection) -> None:
    for name, values in (
        ("final answer", found.final_latencies_ms),
        ("first news of a revision", found.first_latencies_ms),
    ):
        if values:
            axes.plot(range(1, len(values) + 1), values, ".-", linewidth=0.8, label=name)
            axes.legend(loc="upper right", fontsize=8)
    axes.set_ylim(bottom=0)
    axes.set_ylabel("ms", fontsize=8)
    axes.set_title("latencies, in the order of the answers", fontsize=8, loc="left")
    axes.tick_params(labelsize=7)
