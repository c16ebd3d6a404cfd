"""What a person sees of a session: the live terminal view, or plain lines without a terminal.

`cnerta.streamer.outputs.view_state` is the fold of everything sent and received, and
`cnerta.streamer.terminal.drawing` turns it into something rich can draw: both without effects, so
that a test can draw any moment. `LiveView`, `PlainView` and `JsonView` put them on a console.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from types import TracebackType
from typing import IO, Self

from rich.console import Console, RenderableType
from rich.control import Control
from rich.live import Live
from rich.text import Text

from cnerta.models.command_line import printable
from cnerta.streamer.client.connection_change import ConnectionChange, ConnectionState
from cnerta.streamer.outputs.highlighting import Highlighter
from cnerta.streamer.outputs.presenter import FoldingView, PresenterBase
from cnerta.streamer.outputs.view_state import ViewState
from cnerta.streamer.terminal.drawing import (
    badge,
    draw_caption,
    entity_line,
    readings_line,
    render,
    summary_line,
)
from cnerta.streamer.terminal.keyboard import Key
from cnerta.streamer.terminal.palette import palette_of
from cnerta.streamer.wire.codec import encode
from cnerta.streamer.wire.messages import (
    ServerMessage,
    SessionGoingAway,
    SessionReady,
    SessionSummary,
    UtteranceFinal,
    WarningMessage,
)

__all__ = ["JsonView", "LiveView", "PlainView"]

log = logging.getLogger(__name__)


class LiveView(FoldingView):
    """Redraws the view in place, ten times a second.

    Args:
        console: A terminal.
        paced: See `FoldingView`.
        highlighter: See `FoldingView`.
        name_speakers: See `FoldingView`.
        mends: See `FoldingView`.
    """

    def __init__(
        self,
        console: Console,
        *,
        paced: bool = True,
        highlighter: Highlighter | None = None,
        name_speakers: bool = False,
        mends: bool = False,
    ) -> None:
        super().__init__(
            paced=paced, highlighter=highlighter, name_speakers=name_speakers, mends=mends
        )
        self.keys: tuple[Key, ...] = ()
        """What can be pressed; `own_keys` are among them."""
        self._console = console
        self._palette = palette_of(console)
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
        frozen = replace(self.state, status="frozen", is_silent=False)
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
            palette=self._palette,
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
        name_speakers: See `FoldingView`.
        mends: See `FoldingView`.
    """

    def __init__(
        self,
        console: Console,
        *,
        paced: bool = True,
        highlighter: Highlighter | None = None,
        name_speakers: bool = False,
        mends: bool = False,
    ) -> None:
        super().__init__(
            paced=paced, highlighter=highlighter, name_speakers=name_speakers, mends=mends
        )
        self._console = console
        self._palette = palette_of(console)
        self._connection: ConnectionState | None = None

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
                self._line(draw_caption(caption, self._palette))
                for entity in caption.entities:
                    self._line(entity_line(entity, caption.final_latency_ms, self._palette))
                if caption.readings:
                    self._line(Text(f"  {readings_line(caption)}", style="dim"))
                if caption.is_text_alone:
                    self._line(Text("  answered from the text alone", style="dim"))
            case SessionReady() if message.recorded is True:
                self._tell_recorded()
            case WarningMessage() if not self._is_expected(message):
                said = f" {message.name}: {printable(message.detail)}"
                self._line(Text.assemble(("warning", self._palette.warning), said))
            case SessionGoingAway():
                self._line(Text(f"the server is going away: {printable(message.reason)}"))
            case SessionSummary():
                self._line(Text(summary_line(message), style="dim"))
            case _:
                pass

    def on_connection(self, change: ConnectionChange) -> None:
        """Print it, and of a row of attempts the first."""
        super().on_connection(change)
        is_told = change.state == self._connection == "waiting"
        self._connection = change.state
        if is_told:
            return
        self._line(Text(f"  {printable(str(change))}"))
        if change.is_recorded:
            self._tell_recorded()

    def _tell_recorded(self) -> None:
        recorded = badge("● REC", self._palette.recording)
        self._line(Text.assemble(recorded, " audio, transcript and messages are recorded"))

    def _line(self, text: Text) -> None:
        self._console.print(text, soft_wrap=True, highlight=False)


class JsonView(PresenterBase):
    """Writes every server message as one line of JSON, at once, and nothing else.

    Args:
        out: Where to write, usually standard output's buffer.
    """

    def __init__(self, out: IO[bytes]) -> None:
        self._out = out

    def on_message(self, message: ServerMessage) -> None:
        """Write the message."""
        self._out.write(encode(message) + b"\n")
        self._out.flush()

    def on_connection(self, change: ConnectionChange) -> None:
        """Say it in the log: it is no message of the server."""
        log.warning("%s", change)
