"""That what has a colour can be read, on dark and on light terminals, by WCAG 2's formula."""

from __future__ import annotations

import io
from typing import Final

import pytest
from rich.color import Color, ColorSystem
from rich.console import Console
from rich.style import Style

from cnerta.streamer.client.connection_change import ConnectionChange
from cnerta.streamer.outputs.view_state import ViewState
from cnerta.streamer.sources import Revision
from cnerta.streamer.terminal.drawing import render
from cnerta.streamer.terminal.palette import FULL, NO_COLOURS, SIXTEEN, Palette, palette_of
from cnerta.streamer.wire.messages import WarningMessage

from .. import server_messages as wire

Rgb = tuple[int, int, int]

TEXT_AA: Final = 4.5
GRAPHIC_AA: Final = 3.0
LABELS: Final = ("PER", "LOC", "ORG", "GPE", "FAC", "作品", "x", "")
GROUNDS: Final[tuple[Rgb, ...]] = ((0, 0, 0), (255, 255, 255))
# The first sixteen colours of xterm, and those of VGA.
XTERM: Final[tuple[Rgb, ...]] = (
    (0, 0, 0), (205, 0, 0), (0, 205, 0), (205, 205, 0),
    (0, 0, 238), (205, 0, 205), (0, 205, 205), (229, 229, 229),
    (127, 127, 127), (255, 0, 0), (0, 255, 0), (255, 255, 0),
    (92, 92, 255), (255, 0, 255), (0, 255, 255), (255, 255, 255),
)  # fmt: skip
VGA: Final[tuple[Rgb, ...]] = (
    (0, 0, 0), (170, 0, 0), (0, 170, 0), (170, 85, 0),
    (0, 0, 170), (170, 0, 170), (0, 170, 170), (170, 170, 170),
    (85, 85, 85), (255, 85, 85), (85, 255, 85), (255, 255, 85),
    (85, 85, 255), (255, 85, 255), (85, 255, 255), (255, 255, 255),
)  # fmt: skip


def luminance(rgb: Rgb) -> float:
    """Relative luminance, https://www.w3.org/TR/WCAG22/#dfn-relative-luminance."""
    shares = [value / 255 for value in rgb]
    linear = [s / 12.92 if s <= 0.04045 else ((s + 0.055) / 1.055) ** 2.4 for s in shares]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: Rgb, other: Rgb) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def shown(color: Color | None, sixteen: tuple[Rgb, ...]) -> Rgb:
    assert color is not None, "expected a colour and its ground, got one without the other"
    if color.triplet is not None:
        return tuple(color.triplet)
    assert color.number is not None
    return sixteen[color.number]


def pair(style: Style, sixteen: tuple[Rgb, ...]) -> tuple[Rgb, Rgb]:
    return shown(style.color, sixteen), shown(style.bgcolor, sixteen)


def styles(palette: Palette) -> list[str]:
    own = [palette.good, palette.warning, palette.bad, palette.recording]
    named = [style(label) for label in LABELS for style in (palette.name, palette.type)]
    return own + named


def test_the_formula_is_that_of_the_w3c() -> None:
    assert contrast((0, 0, 0), (255, 255, 255)) == pytest.approx(21)
    # The well-known lightest grey for text on white.
    assert contrast((118, 118, 118), (255, 255, 255)) == pytest.approx(4.54, abs=0.005)


@pytest.mark.parametrize("style", styles(FULL))
def test_all_text_on_a_colour_can_be_read_and_256_colours_are_enough(style: str) -> None:
    parsed = Style.parse(style)
    assert not parsed.bold
    ink, ground = pair(parsed, ())
    assert contrast(ink, ground) >= TEXT_AA
    for color in (parsed.color, parsed.bgcolor):
        assert color is not None
        number = color.downgrade(ColorSystem.EIGHT_BIT)
        assert number.get_truecolor() == color.triplet, "one of the 256"


@pytest.mark.parametrize("style", styles(SIXTEEN))
@pytest.mark.parametrize("sixteen", [XTERM, VGA])
def test_sixteen_colours_can_be_read(style: str, sixteen: tuple[Rgb, ...]) -> None:
    parsed = Style.parse(style)
    assert not parsed.bold
    assert contrast(*pair(parsed, sixteen)) >= TEXT_AA


def test_blocks_and_bars_stand_out_on_dark_and_on_light() -> None:
    blocks = [Style.parse(FULL.name(label)).bgcolor for label in LABELS]
    for color in [*blocks, Style.parse(FULL.level).color]:
        for ground in GROUNDS:
            assert contrast(shown(color, ()), ground) >= GRAPHIC_AA


def session() -> ViewState:
    org, per = wire.entity("ORG", "北京大学", 2, status="final"), wire.entity("PER", "江大桥", 9)
    inner = wire.entity("LOC", "北京", 2, parent=org.id)
    state = ViewState().received(wire.ready(), 1.0).with_audio(2_300, -18.0)
    state = state.sent(Revision("u1", 1, "他在北京大学见到了江大桥", True), 2.0)
    state = state.received(wire.final("u1", 1, "他在北京大学见到了江大桥", org, inner, per), 2.1)
    return state.received(WarningMessage(name="audio_clipped", detail="loud"), 2.2)


@pytest.mark.parametrize("palette", [FULL, SIXTEEN])
@pytest.mark.parametrize("explained", [False, True])
@pytest.mark.parametrize("change", ["resumed", "silent", "lost"])
def test_in_the_whole_view_every_colour_brings_its_ground_along_and_none_is_bold(
    palette: Palette, explained: bool, change: str
) -> None:
    state = session().connection_changed(ConnectionChange(change, "ws://a", is_recorded=True))  # type: ignore[arg-type]
    console = Console(file=io.StringIO(), width=100, height=24, color_system="truecolor")
    picture = render(state, 100, 24, palette=palette, explained=explained)
    coloured = set()
    for segment in console.render(picture):
        style = segment.style
        if style is None or style.color is None or not segment.text.strip(" ▁▂▃▄▅▆▇█"):
            continue
        coloured.add(segment.text.strip())
        assert contrast(*pair(style, XTERM)) >= TEXT_AA, segment.text
        assert not style.bold, segment.text
        assert not style.dim, segment.text
    assert len(coloured) >= 3


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"TERM": "xterm-256color"}, FULL),
        ({"TERM": "xterm", "COLORTERM": "truecolor"}, FULL),
        ({"TERM": "xterm"}, SIXTEEN),
        ({"TERM": "xterm-256color", "NO_COLOR": "1"}, NO_COLOURS),
        ({"TERM": "dumb"}, NO_COLOURS),
    ],
)
def test_what_a_terminal_can_show(environment: dict[str, str], expected: Palette) -> None:
    console = Console(file=io.StringIO(), force_terminal=True, _environ=environment)
    assert palette_of(console) == expected
