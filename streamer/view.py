"""What a person sees of a session: the live terminal view, or plain lines without a terminal.

`ViewState` is the fold of everything sent and received, `render` turns it into something rich can
draw: both without effects, so that a test can draw any moment. `LiveView`, `PlainView` and
`JsonView` put them on a console.

Entities have a colour by type. An outer entity is a block of that colour followed by its type, an
inner one is underlined within it. What may still change is in italics; what is final is bold.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from types import TracebackType
from typing import IO, Protocol, Self

from msgspec import UNSET
from rich.cells import cell_len
from rich.console import Console, Group, RenderableType
from rich.control import Control
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from cnerta.streamer.audio_source import level_dbfs
from cnerta.streamer.client import StreamWatcher
from cnerta.streamer.highlighting import Highlighter
from cnerta.streamer.keyboard import Key
from cnerta.streamer.messages import (
    AudioAck,
    CharacterReading,
    Entity,
    EntityRetract,
    EntityUpsert,
    ErrorMessage,
    ServerMessage,
    SessionGoingAway,
    SessionReady,
    SessionSummary,
    UtteranceFinal,
    WarningMessage,
    encode,
)
from cnerta.streamer.sources import Revision
from cnerta.streamer.timeline import NOTHING_HEARD, SILENT_DBFS, Levels, Spoken, draw_timeline

__all__ = [
    "Caption",
    "FoldingView",
    "JsonView",
    "LiveView",
    "PlainView",
    "Presenter",
    "ViewState",
    "bracketed",
    "draw_caption",
    "entity_span",
    "fitting",
    "format_time",
    "highlighted",
    "label_text",
    "printable",
    "render",
]

LABEL_COLOURS = {"PER": "bright_magenta", "LOC": "bright_green", "ORG": "bright_cyan"}
OTHER_COLOUR = "bright_yellow"

CAPTIONS_KEPT = 12
REVISIONS_KEPT = 8
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


@dataclass(frozen=True, slots=True)
class Caption:
    """One utterance as it is shown.

    Attributes:
        utterance: Its name.
        text: The newest text sent, or the final one answered.
        final: Whether the server has answered the final text.
        audio_used: Whether the answer rests on audio too; known once final.
        readings: How characters were pronounced; known once final, if it was asked for.
        entities: What holds now, in order of the text.
        hidden: Ids of those that are listed but not highlighted.
        latencies_ms: For every entity id, from sending the text to its first answer.
        sent: The last revisions with the time they were sent, in seconds.
    """

    utterance: str
    text: str = ""
    final: bool = False
    audio_used: bool = True
    readings: tuple[CharacterReading, ...] = ()
    entities: tuple[Entity, ...] = ()
    hidden: frozenset[str] = frozenset()
    latencies_ms: tuple[tuple[str, int], ...] = ()
    final_latency_ms: int | None = None
    sent: tuple[tuple[int, float], ...] = ()

    def latency_ms(self, entity_id: str) -> int | None:
        """From sending the text to the first answer with this entity."""
        return dict(self.latencies_ms).get(entity_id)

    def _since_sent_ms(self, revision: int, now_s: float) -> int | None:
        sent_s = dict(self.sent).get(revision)
        return None if sent_s is None else round(1_000 * (now_s - sent_s))

    def with_revision(self, revision: Revision, now_s: float) -> Caption:
        """After `revision` was sent."""
        sent = (*self.sent, (revision.revision, now_s))[-REVISIONS_KEPT:]
        return replace(self, text=revision.text, sent=sent)

    def with_entity(self, message: EntityUpsert, now_s: float) -> Caption:
        """After an entity came or changed."""
        new = message.entity
        others = [entity for entity in self.entities if entity.id != new.id]
        latency_ms = self._since_sent_ms(message.revision, now_s)
        latencies = self.latencies_ms
        if self.latency_ms(new.id) is None and latency_ms is not None:
            latencies = (*latencies, (new.id, latency_ms))
        return replace(self, entities=_in_text_order([*others, new]), latencies_ms=latencies)

    def without_entity(self, entity_id: str) -> Caption:
        """After an entity was retracted."""
        left = tuple(entity for entity in self.entities if entity.id != entity_id)
        return replace(self, entities=left)

    def finished(self, message: UtteranceFinal, now_s: float) -> Caption:
        """After the final answer, which is complete by itself."""
        return replace(
            self,
            text=message.text,
            final=True,
            audio_used=message.audio_used,
            readings=() if message.readings is UNSET else tuple(message.readings),
            entities=_in_text_order(message.entities),
            final_latency_ms=self._since_sent_ms(message.revision, now_s),
        )


def _in_text_order(entities: Sequence[Entity]) -> tuple[Entity, ...]:
    """Sort by start, an outer entity before the inner ones that start with it."""
    return tuple(sorted(entities, key=lambda entity: (entity.start, -entity.end)))


@dataclass(frozen=True, slots=True)
class ViewState:
    """Everything the view shows: the fold of all that was sent and received.

    Attributes:
        status: What the session does, in a word or two.
        model: The model and what it runs on.
        captions: The last utterances, the oldest first.
        heard_ms: Audio sent.
        level_dbfs: Level of the last block sent.
        levels: Levels of the last minute.
        source: What keeps the audio silent, such as "muted"; empty if nothing does.
        behind_live_ms: What the last event said.
        notice: The last warning or error.
        summary: The last message of a finished session.
    """

    status: str = "connecting"
    model: str = ""
    captions: tuple[Caption, ...] = ()
    heard_ms: float = 0.0
    level_dbfs: float = -math.inf
    levels: Levels = NOTHING_HEARD
    source: str = ""
    behind_live_ms: int | None = None
    notice: str = ""
    summary: SessionSummary | None = None

    def heard(self, heard_ms: float, level_dbfs: float) -> ViewState:
        """After audio was sent."""
        levels = self.levels.heard(heard_ms, level_dbfs)
        return replace(self, heard_ms=heard_ms, level_dbfs=level_dbfs, levels=levels)

    def sent(self, revision: Revision, now_s: float) -> ViewState:
        """After a revision of the transcript was sent, at `now_s` on a steady clock."""
        return self._changed(
            revision.utterance, lambda caption: caption.with_revision(revision, now_s), add=True
        )

    def received(self, message: ServerMessage, now_s: float) -> ViewState:
        """After a message came, at `now_s` on the same clock."""
        match message:
            case SessionReady():
                model = f"{message.model.name} on {_provider(message.model.device)}"
                return replace(self, status="live", model=model)
            case EntityUpsert():
                state = self._changed(
                    message.utterance, lambda caption: caption.with_entity(message, now_s)
                )
                return replace(state, behind_live_ms=message.behind_live_ms)
            case EntityRetract():
                state = self._changed(
                    message.utterance, lambda caption: caption.without_entity(message.id)
                )
                return replace(state, behind_live_ms=message.behind_live_ms)
            case UtteranceFinal():
                state = self._changed(
                    message.utterance, lambda caption: caption.finished(message, now_s), add=True
                )
                return replace(state, behind_live_ms=message.behind_live_ms)
            case WarningMessage():
                return replace(self, notice=f"{message.name}: {message.detail}")
            case ErrorMessage():
                return replace(self, status="refused", notice=f"{message.name}: {message.detail}")
            case SessionGoingAway():
                return replace(self, status=f"going away ({message.reason})")
            case SessionSummary():
                return replace(self, status="ended", summary=message)
            case AudioAck():
                return self

    def highlighted(self, utterance: str, highlighter: Highlighter) -> ViewState:
        """After it was chosen what is highlighted in an utterance."""

        def choose(caption: Caption) -> Caption:
            found, final = caption.entities, caption.final
            chosen = highlighter.choose(utterance, caption.text, found, final=final)
            return replace(caption, hidden=frozenset(entity.id for entity in found) - chosen)

        return self._changed(utterance, choose)

    def _changed(
        self, utterance: str, change: Callable[[Caption], Caption], *, add: bool = False
    ) -> ViewState:
        captions = list(self.captions)
        for index, caption in enumerate(captions):
            if caption.utterance == utterance:
                captions[index] = change(caption)
                break
        else:
            if add:
                captions.append(change(Caption(utterance)))
        return replace(self, captions=tuple(captions[-CAPTIONS_KEPT:]))


def _provider(device: str) -> str:
    """Shorten ``CUDAExecutionProvider`` to ``CUDA``."""
    return device.removesuffix("ExecutionProvider")


def format_time(at_ms: float) -> str:
    """Write a time on the audio clock as minutes and seconds: ``1:02.34``."""
    minutes, hundredths = divmod(round(at_ms / 10), 6_000)
    return f"{minutes}:{hundredths // 100:02d}.{hundredths % 100:02d}"


def _colour(label: str) -> str:
    return LABEL_COLOURS.get(label, OTHER_COLOUR)


def printable(text: str) -> str:
    """Replace control characters one for one: a terminal must not obey a transcript."""
    return "".join(
        character if character.isprintable() or character == " " else "\N{REPLACEMENT CHARACTER}"
        for character in text
    )


def fitting(caption: Caption) -> list[Entity]:
    """What is highlighted and fits the text shown, which may be newer than the revision of it."""
    return [
        entity
        for entity in caption.entities
        if entity.id not in caption.hidden
        and caption.text[entity.start : entity.end] == entity.text
    ]


def highlighted(caption: Caption) -> Text:
    """Draw a caption: outer entities as blocks with their type, inner ones underlined."""
    text = Text(printable(caption.text), style="bold" if caption.final else "italic")
    entities = fitting(caption)
    for entity in entities:
        certain = "bold" if entity.status == "final" else "italic"
        if entity.parent is None:
            style = f"not dim {certain} black on {_colour(entity.label)}"
        else:
            style = "underline"
        text.stylize(style, entity.start, entity.end)
    drawn = Text(overflow="fold")
    at = 0
    for entity in entities:
        if entity.parent is None and entity.end > at:
            drawn.append_text(text[at : entity.end])
            label_style = f"not bold not italic {_colour(entity.label)}"
            drawn.append(f"{printable(entity.label)} ", style=label_style)
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
    return "".join(parts)


def readings_line(caption: Caption) -> str:
    """Write how characters were pronounced: ``reading 长 zhang3 98%, 行 hang2 91%``."""
    told = (
        f"{printable(heard.text)} {printable(heard.reading)} {heard.confidence:.0%}"
        for heard in caption.readings
    )
    return "reading " + ", ".join(told)


def draw_caption(caption: Caption, console: Console) -> Text:
    """Draw a caption with blocks of colour, or with brackets where there is no colour."""
    return highlighted(caption) if _has_colour(console) else Text(bracketed(caption))


def _has_colour(console: Console) -> bool:
    return console.color_system is not None and not console.no_color


def label_text(label: str) -> Text:
    """Draw an entity type in its colour."""
    return Text(printable(label), style=_colour(label))


def entity_span(entity: Entity) -> str:
    """Write when an entity was spoken, or a dash."""
    if entity.start_ms is None or entity.end_ms is None:
        return "-"
    return f"{format_time(entity.start_ms)}-{format_time(entity.end_ms)}"


def _meter(dbfs: float) -> Text:
    share = 0.0 if dbfs <= SILENT_DBFS else min(1.0, 1.0 - dbfs / SILENT_DBFS)
    lit = round(share * METER_CELLS)
    return Text("█" * lit, style="green").append("░" * (METER_CELLS - lit), style="dim")


def _header(state: ViewState, width: int) -> Table:
    header = Table.grid(expand=True, padding=(0, 1))
    header.add_column(no_wrap=True, overflow="ellipsis", ratio=1, min_width=8)
    header.add_column(no_wrap=True, justify="right", overflow="ellipsis")
    left = Text().append(state.status, style="bold green" if state.status == "live" else "bold")
    if state.model and width >= NARROW_WIDTH:
        left.append(f"  {printable(state.model)}", style="dim")
    meter = Text(state.source, "bold yellow") if state.source else _meter(state.level_dbfs)
    right = Text.assemble(meter, f" {format_time(state.heard_ms)}")
    if state.behind_live_ms is not None:
        right.append(f"  {state.behind_live_ms} ms behind", style="dim")
    header.add_row(left, right)
    return header


def _entity_table(captions: Sequence[Caption], width: int, rows: int) -> Table:
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
            label_text(entity.label),
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
    coloured: bool = True,
    keys: Sequence[Key] = (),
    explained: bool = False,
) -> RenderableType:
    """Draw one moment of a session.

    Args:
        state: The moment.
        width: Columns there are.
        height: Lines there are.
        coloured: Whether colours can be seen; brackets take their place.
        keys: What can be pressed.
        explained: Whether to explain the keys and the picture instead of showing captions.
    """
    inner = max(2, width - OUTER_COLUMNS)
    framed = Panel if not keys else partial(Panel, subtitle=_keys_line(keys, inner))
    notes: list[Text] = []
    if state.notice:
        style = "yellow"
        notes.append(Text(printable(state.notice), style, no_wrap=True, overflow="ellipsis"))
    if state.summary is not None:
        notes.append(Text(_summary_line(state.summary), "bold", no_wrap=True, overflow="ellipsis"))
    room = max(2, height - FIXED_LINES - len(notes))
    timeline: list[Text] = []
    if height >= LOW_HEIGHT and inner >= NARROW_WIDTH:
        timeline = draw_timeline(
            state.levels, _spoken(state.captions), state.heard_ms, inner, format_time
        )
        room -= TIMELINE_LINES
    entities = sum(len(caption.entities) for caption in state.captions)
    lines: list[Text] = []
    for caption in state.captions:
        drawn = highlighted(caption) if coloured else Text(bracketed(caption))
        lines += _folded(drawn, max(2, inner - OUTER_COLUMNS))
        if caption.readings:
            lines += _folded(Text(readings_line(caption), "dim"), max(2, inner - OUTER_COLUMNS))
    lines = lines[-max(room // 2, room - entities) :]
    if explained:
        lines = _explanation(keys, coloured=coloured)[: max(1, room)]
    captions = Group(*lines) if lines else Text("waiting for speech …", style="dim")
    parts: list[RenderableType] = [
        _header(state, inner),
        *timeline,
        Panel(captions, title="help" if explained else "captions"),
        _entity_table(state.captions, inner, room - max(1, len(lines))),
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


def _explanation(keys: Sequence[Key], *, coloured: bool) -> list[Text]:
    """Say what the keys do and what the picture means."""
    lines = [Text(f"{key.name}  {key.does}") for key in keys]
    if coloured:
        outer = Text.assemble((" 北京大学 ", f"black on {_colour('ORG')}"), ("ORG", _colour("ORG")))
        lines.append(outer.append("  an entity and its type"))
        lines.append(Text.assemble(("北京", "underline"), "  one inside another"))
    else:
        lines.append(Text("[ORG [LOC 北京]大学]  entities and their types, one inside another"))
    lines.append(
        Text.assemble(("italics", "italic"), "  may still change; ", ("bold", "bold"), " is final")
    )
    return lines


def _spoken(captions: Sequence[Caption]) -> list[Spoken]:
    """The outermost entities, for the time line."""
    return [
        Spoken(
            printable(entity.text),
            entity.start_ms,
            entity.end_ms,
            f"{'' if entity.status == 'final' else 'italic '}{_colour(entity.label)}",
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


def _summary_line(summary: SessionSummary) -> str:
    utterances = _counted(summary.utterances, "utterance", "utterances")
    entities = _counted(summary.entities, "entity", "entities")
    dropped = _counted(summary.dropped_interims, "interim", "interims")
    audio = format_time(summary.audio_ms)
    return f"{utterances}, {entities} in {audio} of audio; {dropped} dropped"


def _counted(count: int, one: str, many: str) -> str:
    return f"{count} {one if count == 1 else many}"


class Presenter(StreamWatcher, Protocol):
    """Shows a session while it runs; entered before it starts, left when it is over."""

    def on_message(self, message: ServerMessage) -> None:
        """Show what came from the server."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


class FoldingView:
    """Keeps the state; a base for the presenters that show it.

    Args:
        paced: Whether the audio comes at the pace of speech. If not, it runs ahead on purpose, and
            the server's warning of it says nothing to a person.
        highlighter: Chooses what is highlighted; everything if None.
    """

    def __init__(self, *, paced: bool = True, highlighter: Highlighter | None = None) -> None:
        self.state = ViewState()
        self._paced = paced
        self._highlighter = highlighter

    def on_source(self, source: str) -> None:
        """Note what keeps the audio silent: nothing if empty."""
        self.state = replace(self.state, source=source)

    def on_audio(self, block: bytes, heard_ms: float) -> None:
        """Note the level and the time."""
        self.state = self.state.heard(heard_ms, level_dbfs(block))

    def on_revision(self, revision: Revision) -> None:
        """Note the text."""
        self.state = self.state.sent(revision, time.monotonic())

    def on_message(self, message: ServerMessage) -> None:
        """Note the answer."""
        if self._is_expected(message):
            return
        self.state = self.state.received(message, time.monotonic())
        if self._highlighter is not None and isinstance(
            message, EntityUpsert | EntityRetract | UtteranceFinal
        ):
            self.state = self.state.highlighted(message.utterance, self._highlighter)

    def _is_expected(self, message: ServerMessage) -> bool:
        """Whether it warns of what is done on purpose."""
        return (
            not self._paced
            and isinstance(message, WarningMessage)
            and message.name == "audio_ahead_of_realtime"
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        pass


class LiveView(FoldingView):
    """Redraws the view in place, ten times a second.

    Args:
        console: A terminal.
        paced: See `FoldingView`.
        highlighter: See `FoldingView`.
    """

    def __init__(
        self, console: Console, *, paced: bool = True, highlighter: Highlighter | None = None
    ) -> None:
        super().__init__(paced=paced, highlighter=highlighter)
        self.keys: tuple[Key, ...] = ()
        """What can be pressed; `own_keys` are among them."""
        self._console = console
        self._explained = False
        self._frozen: ViewState | None = None
        self._size: tuple[int, int] | None = None
        self._live = Live(
            console=console, get_renderable=self.picture, refresh_per_second=10, transient=False
        )

    @property
    def own_keys(self) -> tuple[Key, ...]:
        """The keys that change what is shown."""
        return (Key("?", "help", self._explain), Key("f", "freeze", self._freeze))

    def _explain(self) -> None:
        self._explained = not self._explained

    def _freeze(self) -> None:
        frozen = replace(self.state, status="frozen")
        self._frozen = None if self._frozen is not None else frozen

    def picture(self) -> RenderableType:
        """Draw the session as it is now."""
        width, height = self._console.size
        if self._size not in (None, (width, height)):
            # Lines that a narrower terminal has wrapped cannot be found again to be overwritten.
            self._console.control(Control.clear(), Control.home())
        self._size = width, height
        return render(
            self._frozen or self.state,
            width,
            height,
            coloured=_has_colour(self._console),
            keys=self.keys,
            explained=self._explained,
        )

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # The last picture stays, and is that of the end.
        self._frozen, self._explained, self.keys = None, False, ()
        self._live.stop()


class PlainView(FoldingView):
    """Prints a line for every final utterance and one for each of its entities.

    Args:
        console: Where to print; need not be a terminal.
        paced: See `FoldingView`.
        highlighter: See `FoldingView`.
    """

    def __init__(
        self, console: Console, *, paced: bool = True, highlighter: Highlighter | None = None
    ) -> None:
        super().__init__(paced=paced, highlighter=highlighter)
        self._console = console

    def on_message(self, message: ServerMessage) -> None:
        """Print what is final, and what is wrong."""
        super().on_message(message)
        match message:
            case UtteranceFinal():
                caption = next(
                    caption
                    for caption in self.state.captions
                    if caption.utterance == message.utterance
                )
                self._line(draw_caption(caption, self._console))
                for entity in caption.entities:
                    self._line(_entity_line(entity, caption.final_latency_ms))
                if caption.readings:
                    self._line(Text(f"  {readings_line(caption)}", style="dim"))
                if caption.text and not caption.audio_used:
                    self._line(Text("  answered from the text alone", style="dim"))
            case WarningMessage() if not self._is_expected(message):
                self._line(Text(f"warning {message.name}: {printable(message.detail)}", "yellow"))
            case SessionGoingAway():
                self._line(Text(f"the server is going away: {printable(message.reason)}", "yellow"))
            case SessionSummary():
                self._line(Text(_summary_line(message), style="dim"))
            case _:
                pass

    def _line(self, text: Text) -> None:
        self._console.print(text, soft_wrap=True, highlight=False)


def entity_name(entity: Entity) -> str:
    """What an entity is called, and what the glossary calls it where that is something else."""
    suggested = entity.suggested_text
    name = printable(entity.text)
    return name if suggested is UNSET else f"{name} → {printable(suggested)}?"


def _entity_line(entity: Entity, latency_ms: int | None) -> Text:
    inner = "└ " if entity.parent is not None else ""
    line = Text("  ").append_text(label_text(entity.label))
    line.append(f"  {inner}{entity_name(entity)}  {entity_span(entity)}  {entity.confidence:.0%}")
    if latency_ms is not None:
        line.append(f"  after {latency_ms} ms", style="dim")
    return line


class JsonView:
    """Writes every server message as one line of JSON, at once, and nothing else.

    Args:
        out: Where to write, usually standard output's buffer.
    """

    def __init__(self, out: IO[bytes]) -> None:
        self._out = out

    def on_audio(self, block: bytes, heard_ms: float) -> None:
        """Nothing is written for what is sent."""

    def on_revision(self, revision: Revision) -> None:
        """Nothing is written for what is sent."""

    def on_message(self, message: ServerMessage) -> None:
        """Write the message."""
        self._out.write(encode(message) + b"\n")
        self._out.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        pass
