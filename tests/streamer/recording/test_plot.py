from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from cnerta.models.fonts import find_cjk_font
from cnerta.models.label_colours import INK, label_colour
from cnerta.streamer.errors import OutputError
from cnerta.streamer.recording import plot
from cnerta.streamer.recording.file import Header
from cnerta.streamer.recording.inspection import RATE, Inspection
from cnerta.streamer.recording.plot import ROW_S, draw_pages, page_paths, rows
from cnerta.streamer.session.limits import ConnectionLimits
from cnerta.streamer.wire.messages import UtteranceFinal

from .. import server_messages as wire

pytest.importorskip("matplotlib")
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex


def final(number: int, start_ms: int, text: str, *found: Any) -> UtteranceFinal:
    """Spoken from `start_ms` on, 200 ms a character."""
    times = [(start_ms + 200 * n, start_ms + 200 * (n + 1)) for n in range(len(text))]
    entities = [
        msgspec.structs.replace(
            entity,
            start_ms=times[entity.start][0],
            end_ms=times[entity.end - 1][1],
        )
        for entity in found
    ]
    answer = wire.final(f"u{number}", 1, text, *entities)
    return msgspec.structs.replace(answer, characters=times)


def inspection(*finals: UtteranceFinal, seconds: float) -> Inspection:
    header = Header(
        package="0",
        started="2026-01-01",
        session="s1",
        now=0.0,
        bundle="tiny",
        bundle_sha256="",
        device="CPU",
        limits=ConnectionLimits(),
    )
    audio = np.sin(np.arange(int(seconds * RATE)) / 20).astype(np.float32) / 2
    return Inspection(header, audio, finals=list(finals), final_latencies_ms=[80.0])


def test_a_session_falls_into_rows_of_fifteen_seconds() -> None:
    early = final(1, 1_000, "他在北京", wire.entity("LOC", "北京", 2))
    late = final(2, 31_000, "江大桥", wire.entity("PER", "江大桥", 0))
    cut = rows([early, late], 40.0)
    assert [row.start_s for row in cut] == [0, 15, 30]
    assert "".join(character for character, _ in cut[0].characters) == "他在北京"
    assert cut[0].characters[2][1] == pytest.approx(1.5)
    assert cut[1].characters == ()
    assert cut[1].bars == ()
    (bar,) = cut[2].bars
    assert (bar.name, bar.start_s, bar.end_s) == ("江大桥", 31.0, 31.6)


def test_a_name_across_the_end_of_a_row_is_in_both_and_written_once() -> None:
    name = "中华人民共和国"
    (first, second) = rows([final(1, 14_500, name, wire.entity("LOC", name, 0))], 20.0)
    (left,), (right,) = first.bars, second.bars
    assert (left.start_s, left.end_s, left.name) == (14.5, 15.0, "")
    assert (right.start_s, right.end_s) == (15.0, pytest.approx(15.9))
    assert right.name == name


@pytest.mark.parametrize(
    ("milliseconds", "expected"),
    [(2_000, "北京大学 ORG"), (600, "北京大学"), (400, "北京…"), (100, "")],
)
def test_as_much_of_a_name_as_fits_is_written(milliseconds: int, expected: str) -> None:
    found = wire.entity("ORG", "北京大学", 0, start_ms=1_000, end_ms=1_000 + milliseconds)
    (row,) = rows([wire.final("u1", 1, "北京大学", found)], 5.0)
    assert row.bars[0].name == expected


def test_what_has_no_times_has_no_bar() -> None:
    found = wire.entity("ORG", "北京大学", 0, start_ms=None, end_ms=None)
    (row,) = rows([wire.final("u1", 1, "北京大学", found)], 0.0)
    assert row.bars == ()


def test_files_of_pages() -> None:
    assert page_paths(Path("a/talk.png"), 1) == [Path("a/talk.png")]
    assert page_paths(Path("talk.pdf"), 9) == [Path("talk.pdf")]
    assert page_paths(Path("talk.svg"), 2) == [Path("talk-1.svg"), Path("talk-2.svg")]
    assert page_paths(Path("talk.png"), 10)[0] == Path("talk-01.png")


def drawn(monkeypatch: pytest.MonkeyPatch, found: Inspection, path: Path) -> list[Any]:
    """The figures that are written."""
    figures = []
    page = plot._page

    def kept(*arguments: Any) -> Any:
        figures.append(page(*arguments))
        return figures[-1]

    monkeypatch.setattr(plot, "_page", kept)
    draw_pages(found, path)
    return figures


@pytest.mark.skipif(
    find_cjk_font() is None,
    reason="no font with Chinese characters: the boxes in their place have a width of their own",
)
def test_bars_have_the_colours_of_the_terminal_and_names_that_stay_within_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    text = "他在北京大学见到了江大桥"
    org, per = wire.entity("ORG", "北京大学", 2), wire.entity("PER", "江大桥", 9, audio_used=False)
    inner = wire.entity("LOC", "北京", 2, parent=org.id)
    found = inspection(final(1, 2_000, text, org, inner, per), seconds=6.0)
    (figure,) = drawn(monkeypatch, found, tmp_path / "talk.png")
    latencies, row = figure.axes
    assert latencies.get_ylabel() == "ms"
    names = [each for each in row.texts if len(each.get_text()) > 1]
    assert [name.get_text() for name in names] == ["北京大学 ORG", "北京", "江大桥"]
    colours = {label: label_colour(label).block for label in ("ORG", "LOC", "PER")}
    assert [name.get_color() for name in names] == [INK, INK, colours["PER"]]
    bars = row.collections[-3:]
    faces = [to_hex(bar.get_facecolor()[0]) for bar in bars]
    assert faces == [colours["ORG"], colours["LOC"], INK], "read from the text alone: no fill"
    renderer = FigureCanvasAgg(figure).get_renderer()
    for bar, name in zip(bars, names, strict=True):
        box = name.get_window_extent(renderer)
        within = row.transData.transform_bbox(bar.get_paths()[0].get_extents())
        assert box.width <= within.width
        assert within.x0 <= box.x0
        assert box.x1 <= within.x1


def test_a_long_session_takes_pages(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(plot, "ROWS_PER_PAGE", 2)
    said = [final(at, 1_000 * at, "他在北京", wire.entity("LOC", "北京", 2)) for at in (5, 20, 35)]
    found = inspection(*said, seconds=2.5 * ROW_S)
    figures = drawn(monkeypatch, found, tmp_path / "talk.png")
    assert [len(figure.axes) for figure in figures] == [3, 1], "latencies and two rows; a row"
    for name in ("talk-1.png", "talk-2.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
    assert draw_pages(found, tmp_path / "talk.pdf") == [tmp_path / "talk.pdf"]
    assert (tmp_path / "talk.pdf").read_bytes().count(b"/Type /Page ") == 2


def test_where_it_cannot_be_drawn_it_is_said(tmp_path: Path) -> None:
    found = inspection(seconds=1.0)
    for path in (tmp_path / "no" / "talk.png", tmp_path / "talk.docx"):
        with pytest.raises(OutputError, match="expected to draw to"):
            draw_pages(found, path)
