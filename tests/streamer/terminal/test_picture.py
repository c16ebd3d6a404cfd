from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest
from rich.cells import cell_len
from rich.text import Text

from cnerta.streamer.outputs.view_state import ViewState
from cnerta.streamer.sources import Revision
from cnerta.streamer.terminal.drawing import render
from cnerta.streamer.terminal.picture import draw_svg

from .. import server_messages as wire

CELL = 12.2
SVG = "{http://www.w3.org/2000/svg}"


def runs(svg: str) -> list[tuple[str, list[float], float | None, float]]:
    """Text, places, length if one is given, and line of each run."""
    found = []
    for text in ElementTree.fromstring(svg).iter(f"{SVG}text"):
        if "title" in text.attrib["class"]:
            continue
        length = text.attrib.get("textLength")
        places = [float(x) for x in text.attrib["x"].split()]
        line = float(text.attrib["y"])
        found.append((text.text or "", places, None if length is None else float(length), line))
    return found


@pytest.fixture
def svg() -> str:
    org, per = wire.entity("ORG", "北京大学", 2), wire.entity("PER", "江大桥", 9)
    state = ViewState().received(wire.ready(), 1.0).with_audio(2_300, -18.0)
    state = state.sent(Revision("u1", 1, "他在北京大学见到了江大桥。ab", True), 1.0)
    state = state.received(wire.final("u1", 1, "他在北京大学见到了江大桥。ab", org, per), 1.2)
    return draw_svg(render(state, 88, 20), 88, "cnerta-stream")


def test_every_character_has_the_columns_that_it_is_wide(svg: str) -> None:
    wide = 0
    for text, places, length, _ in runs(svg):
        if cell_len(text) == len(text):
            assert len(places) == 1
            assert length == pytest.approx(CELL * len(text), abs=0.11)
            continue
        wide += 1
        assert length is None, "a length would pile the characters up, or stretch them"
        assert len(places) == len(text)
        for character, place, following in zip(text, places, places[1:], strict=False):
            least = 20 if cell_len(character) == 2 else CELL
            assert following - place >= least - 0.11, "no character covers the next one"
    assert wide > 4


def test_no_run_covers_the_one_after_it(svg: str) -> None:
    ends: dict[float, float] = {}
    for text, places, length, line in runs(svg):
        assert places[0] >= ends.get(line, 0.0) - 0.11
        last = 20 if cell_len(text[-1]) == 2 else CELL
        ends[line] = places[-1] + (last if length is None else length)
    edge = re.search(r'viewBox="0 0 ([\d.]+)', svg)
    assert edge is not None
    assert max(ends.values()) <= float(edge[1])


def test_letters_beside_chinese_characters_stay_narrow(svg: str) -> None:
    assert "full-width" not in svg
    (run,) = [r for r in runs(draw_svg(Text("南a京&"), 20, "x")) if "南" in r[0]]
    assert run[0].startswith("南a京&")
    assert run[1][:4] == pytest.approx([2.2, 2 * CELL, 3 * CELL + 2.2, 5 * CELL], abs=0.06)
