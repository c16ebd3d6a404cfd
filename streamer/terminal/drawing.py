"""Draws a session: a moment of it for the live view, or single lines for the plain one.

Entities have a colour by type. An outer entity is a block of that colour followed by its type, an
inner one is underlined within it. What may still change is in italics, and its type has a question
mark, for terminals without italics; nothing moves when it is settled.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from msgspec import UNSET
from rich.cells import cell_len
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from cnerta.models.command_line import printable
from cnerta.streamer.outputs.speakers import lead_of
from cnerta.streamer.outputs.view_state import Caption, ViewState, fitting
from cnerta.streamer.terminal.keyboard import Key
from cnerta.streamer.terminal.palette import FULL, Palette
from cnerta.streamer.terminal.timeline import SILENT_DBFS, Spoken, draw_timeline
from cnerta.streamer.wire.messages import SessionSummary
from cnerta.streamer.wire.parts import Entity

__all__ = [
    "badge",
    "bracketed",
    "draw_caption",
    "entity_line",
    "entity_name",
    "entity_span",
    "format_time",
    "highlighted",
    "label_text",
    "readings_line",
    "render",
    "summary_line",
]

NARROW_WIDTH = 64
VERY_NARROW_WIDTH = 40
"""Below these the entity list leaves out what matters least."""
OUTER_COLUMNS = 4
"""Border and padding of a panel, both sides."""
FIXED_LINES = 7
"""Two panels' borders, the header, the heads of the entity list, and the line of the cursor."""
TIMELINE_LINES = 2
LOW_HEIGHT = 14
"""Below this there is no time line."""
METER_CELLS = 8
VOICE_COLUMNS = 40
"""Half of it is the longest name of a speaker."""


def format_time(at_ms: float) -> str:
    """Write a time on the audio clock as minutes and seconds: ``1:02.34``."""
    minutes, hundredths = divmod(round(at_ms / 10), 6_000)
    return f"{minutes}:{hundredths // 100:02d}.{hundredths % 100:02d}"


def highlighted(caption: Caption, palette: Palette = FULL) -> Text:
    """Draw a caption: outer entities as blocks with their type, inner ones underlined.

    Args:
        caption: What is drawn.
        palette: One with colours.
    """
    text = Text(printable(caption.text), style="" if caption.final else "italic")
    entities = fitting(caption)
    for entity in entities:
        if entity.parent is None:
            certain = "not italic" if entity.status == "final" else "italic"
            style = f"{certain} {palette.name(entity.label)}"
        else:
            style = "underline"
        text.stylize(style, entity.start, entity.end)
    drawn = Text(overflow="fold")
    if caption.voice and caption.text:
        drawn.append(_lead(caption), style="dim")
    at = 0
    for entity in entities:
        if entity.parent is None and entity.end > at:
            drawn.append_text(text[at : entity.end])
            mark = "?" if entity.status == "tentative" else " "
            drawn.append(f"{printable(entity.label)}{mark}", style=palette.type(entity.label))
            at = entity.end
    drawn.append_text(text[at:])
    return drawn


def bracketed(caption: Caption) -> str:
    """Write a caption with its entities in brackets: ``[ORG [LOC 北京]大学]``."""
    opening: dict[int, list[Entity]] = {}
    closing: dict[int, int] = {}
    for entity in fitting(caption):
        opening.setdefault(entity.start, []).append(entity)
        closing[entity.end] = closing.get(entity.end, 0) + 1
    parts: list[str] = []
    for index, character in enumerate(printable(caption.text)):
        parts.append("]" * closing.get(index, 0))
        parts.extend(f"[{printable(entity.label)} " for entity in opening.get(index, []))
        parts.append(character)
    parts.append("]" * closing.get(len(caption.text), 0))
    return (_lead(caption) if caption.text else "") + "".join(parts)


def _lead(caption: Caption) -> str:
    """Who speaks, before the words."""
    return printable(lead_of(caption.voice, VOICE_COLUMNS))


def readings_line(caption: Caption) -> str:
    """Write how characters were pronounced: ``reading 长 zhang3 98%, 行 hang2 91%``."""
    told = (
        f"{printable(reading.text)} {printable(reading.reading)} {reading.confidence:.0%}"
        for reading in caption.readings
    )
    return "reading " + ", ".join(told)


def draw_caption(caption: Caption, palette: Palette) -> Text:
    """Draw a caption with blocks of colour, or with brackets where there is no colour."""
    return highlighted(caption, palette) if palette.has_colours else Text(bracketed(caption))


def label_text(label: str, palette: Palette) -> Text:
    """Draw an entity type in its colour."""
    return Text.assemble((printable(label), f"not dim not italic {palette.name(label)}"))


def badge(text: str, style: str) -> Text:
    """Draw a word that is to be seen at once."""
    return Text.assemble((f" {text} ", style) if style else text)


def entity_span(entity: Entity) -> str:
    """Write when an entity was spoken, or a dash."""
    if entity.start_ms is None or entity.end_ms is None:
        return "-"
    return f"{format_time(entity.start_ms)}-{format_time(entity.end_ms)}"


def _meter(dbfs: float, palette: Palette) -> Text:
    share = 0.0 if dbfs <= SILENT_DBFS else min(1.0, 1.0 - dbfs / SILENT_DBFS)
    lit = round(share * METER_CELLS)
    return Text.assemble(("█" * lit, palette.level), ("░" * (METER_CELLS - lit), "dim"))


def _status(state: ViewState, palette: Palette) -> Text:
    if state.is_silent:
        return badge("no answer", palette.bad)
    styles = {"live": palette.good, "reconnecting": palette.warning, "refused": palette.bad}
    return badge(state.status, styles.get(state.status, ""))


def _header(state: ViewState, width: int, palette: Palette) -> Table:
    header = Table.grid(expand=True, padding=(0, 1))
    header.add_column(no_wrap=True, overflow="ellipsis", ratio=1, min_width=8)
    header.add_column(no_wrap=True, justify="right", overflow="ellipsis")
    left = Text()
    if state.recorded:
        left.append_text(badge("● REC", palette.recording)).append(" ")
    left.append_text(_status(state, palette))
    if state.model and width >= NARROW_WIDTH:
        left.append(f"  {printable(state.model)}", style="dim")
    right = Text()
    if state.source:
        right.append_text(badge(state.source, palette.warning)).append(" ")
    elif width >= VERY_NARROW_WIDTH:
        right.append_text(_meter(state.level_dbfs, palette)).append(" ")
    right.append(format_time(state.audio_ms))
    if state.behind_live_ms is not None and not state.is_stale:
        right.append(f"  {state.behind_live_ms} ms behind", style="dim")
    header.add_row(left, right)
    return header


def _entity_table(captions: Sequence[Caption], width: int, rows: int, palette: Palette) -> Table:
    wide, narrow = width >= NARROW_WIDTH, width < VERY_NARROW_WIDTH
    table = Table(box=None, expand=True, pad_edge=False, header_style="dim")
    table.add_column("type", no_wrap=True)
    table.add_column("entity", ratio=1, no_wrap=True, overflow="ellipsis", min_width=8)
    table.add_column("at" if narrow else "audio time", no_wrap=True)
    if not narrow:
        table.add_column("sure", justify="right", no_wrap=True)
    if wide:
        table.add_column("latency", justify="right", no_wrap=True)
        table.add_column("status", no_wrap=True)
    listed = [(caption, entity) for caption in captions for entity in caption.entities]
    for caption, entity in listed[-rows:] if rows > 0 else []:
        latency_ms = caption.latency_ms(entity.id)
        name = Text("└ " if entity.parent is not None else "").append(entity_name(entity))
        cells: list[RenderableType] = [
            label_text(entity.label, palette),
            name,
            entity_span(entity).split("-")[0] if narrow else entity_span(entity),
        ]
        if not narrow:
            cells.append(f"{entity.confidence:.0%}")
        if wide:
            cells += ["" if latency_ms is None else f"{latency_ms} ms", entity.status]
        table.add_row(*cells, style="italic dim" if entity.status == "tentative" else "")
    return table


def render(
    state: ViewState,
    width: int,
    height: int,
    *,
    palette: Palette = FULL,
    keys: Sequence[Key] = (),
    explained: bool = False,
) -> RenderableType:
    """Draw one moment of a session.

    Args:
        state: The moment.
        width: Columns there are.
        height: Lines there are.
        palette: How things look.
        keys: What can be pressed.
        explained: Whether to explain the keys and the picture instead of showing captions.
    """
    captions = state.shown
    inner = max(2, width - OUTER_COLUMNS)
    framed = Panel if not keys else partial(Panel, subtitle=_keys_line(keys, inner))
    notes: list[Text] = []
    if state.notice:
        mark = badge("!", palette.warning)
        notice = Text.assemble(mark, f" {printable(state.notice)}", no_wrap=True)
        notice.overflow = "ellipsis"
        notes.append(notice)
    if state.summary is not None:
        notes.append(Text(summary_line(state.summary), no_wrap=True, overflow="ellipsis"))
    room = max(2, height - FIXED_LINES - len(notes))
    timeline: list[Text] = []
    if height >= LOW_HEIGHT and inner >= NARROW_WIDTH:
        timeline = draw_timeline(
            state.levels,
            _spoken(captions, palette),
            state.audio_ms,
            inner,
            format_time,
            palette.level,
        )
        room -= TIMELINE_LINES
    entities = sum(len(caption.entities) for caption in captions)
    lines: list[Text] = []
    for caption in captions:
        drawn = draw_caption(caption, palette)
        if caption.is_text_alone:
            drawn = Text.assemble(drawn, ("  from the text alone", "dim"))
        lines += _folded(drawn, max(2, inner - OUTER_COLUMNS))
        if caption.readings:
            lines += _folded(Text(readings_line(caption), "dim"), max(2, inner - OUTER_COLUMNS))
    lines = lines[-max(room // 2, room - entities) :]
    if explained:
        lines = _explanation(keys, palette)[: max(1, room)]
    spoken = Group(*lines) if lines else Text("waiting for speech …", style="dim")
    parts: list[RenderableType] = [
        _header(state, inner, palette),
        *timeline,
        Panel(spoken, title="help" if explained else "captions"),
        _entity_table(captions, inner, room - max(1, len(lines)), palette),
        *notes,
    ]
    return framed(Group(*parts), title="cnerta-stream", title_align="left", border_style="dim")


def _keys_line(keys: Sequence[Key], width: int) -> str:
    """Name the keys, as many as fit."""
    line = ""
    for key in keys:
        longer = f"{line}{' · ' if line else ''}{key.name} {key.does}"
        if cell_len(longer) > width - OUTER_COLUMNS:
            break
        line = longer
    return line


def _explanation(keys: Sequence[Key], palette: Palette) -> list[Text]:
    """Say what the keys do and what the picture means."""
    lines = [Text(f"{key.name}  {key.does}") for key in keys]
    if palette.has_colours:
        outer = (" 北京大学 ", palette.name("ORG")), ("ORG ", palette.type("ORG"))
        lines.append(Text.assemble(*outer, "  an entity and its type"))
        lines.append(Text.assemble(("北京", "underline"), "  one inside another"))
        mark = ("ORG?", palette.type("ORG"))
        lines.append(Text.assemble(mark, " and ", ("italics", "italic"), "  may still change"))
    else:
        lines.append(Text("[ORG [LOC 北京]大学]  entities and their types, one inside another"))
        lines.append(Text.assemble(("italics", "italic"), "  may still change"))
    return lines


def _spoken(captions: Sequence[Caption], palette: Palette) -> list[Spoken]:
    """The outermost entities, for the time line."""
    return [
        Spoken(
            printable(entity.text),
            entity.start_ms,
            entity.end_ms,
            f"{'' if entity.status == 'final' else 'italic '}{palette.name(entity.label)}",
        )
        for caption in captions
        for entity in caption.entities
        if entity.parent is None and entity.start_ms is not None and entity.end_ms is not None
    ]


def _folded(text: Text, width: int) -> list[Text]:
    """Break at the edge, wherever that is: Chinese has no spaces, and the height must be known."""
    breaks: list[int] = []
    cells = 0
    for index, character in enumerate(text.plain):
        cells += cell_len(character)
        if cells > width:
            breaks.append(index)
            cells = cell_len(character)
    return list(text.divide(breaks))


def summary_line(summary: SessionSummary) -> str:
    """Write the end of a session in one line."""
    utterances = _counted(summary.utterances, "utterance", "utterances")
    entities = _counted(summary.entities, "entity", "entities")
    dropped = _counted(summary.dropped_interims, "interim", "interims")
    audio = format_time(summary.audio_ms)
    return f"{utterances}, {entities} in {audio} of audio; {dropped} dropped"


def _counted(count: int, one: str, many: str) -> str:
    return f"{count} {one if count == 1 else many}"


def entity_name(entity: Entity) -> str:
    """What an entity is called; where the glossary calls it otherwise, that, or what it was."""
    suggested = entity.suggested_text
    name = printable(entity.text)
    if entity.original_text is not UNSET:
        name = f"{printable(entity.original_text)} → {name}"
    return name if suggested is UNSET else f"{name} → {printable(suggested)}?"


def entity_line(entity: Entity, latency_ms: int | None, palette: Palette) -> Text:
    """Write an entity in one line."""
    inner = "└ " if entity.parent is not None else ""
    line = Text("  ").append_text(label_text(entity.label, palette))
    line.append(f"  {inner}{entity_name(entity)}  {entity_span(entity)}  {entity.confidence:.0%}")
    if latency_ms is not None:
        line.append(f"  after {latency_ms} ms", style="dim")
    return line
