"""What shows a session, and the state that most of what shows it keeps."""

from __future__ import annotations

import time
from dataclasses import replace
from types import TracebackType
from typing import Protocol, Self

from cnerta.streamer.audio.source import level_dbfs
from cnerta.streamer.client.connection_change import ConnectionChange
from cnerta.streamer.client.stream import StreamWatcher
from cnerta.streamer.outputs.highlighting import Highlighter
from cnerta.streamer.outputs.mended import as_shown
from cnerta.streamer.outputs.view_state import ViewState
from cnerta.streamer.sources import Revision
from cnerta.streamer.wire.messages import (
    CaptionUpdate,
    EntityRetract,
    EntityUpsert,
    ServerMessage,
    UtteranceFinal,
    WarningMessage,
)

__all__ = ["FoldingView", "Presenter", "PresenterBase"]


class Presenter(StreamWatcher, Protocol):
    """Shows a session while it runs; entered before it starts, left when it is over."""

    def on_message(self, message: ServerMessage) -> None:
        """Show what came from the server."""
        ...

    def on_connection(self, change: ConnectionChange) -> None:
        """Show what became of the connection."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


class PresenterBase:
    """A `Presenter` that does nothing; a base for those that need only some of what is told."""

    def on_audio(self, block: bytes, audio_ms: float) -> None:
        """Do nothing with audio."""

    def on_revision(self, revision: Revision) -> None:
        """Do nothing with the transcript."""

    def on_message(self, message: ServerMessage) -> None:
        """Do nothing with what came from the server."""

    def on_connection(self, change: ConnectionChange) -> None:
        """Do nothing with what became of the connection: events go on as if it had stood."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        pass


class FoldingView(PresenterBase):
    """Keeps the state; a base for the presenters that show it.

    Args:
        paced: Whether the audio comes at the pace of speech. If not, it runs ahead on purpose, and
            the server's warning of it says nothing to a person.
        highlighter: Chooses what is highlighted; everything if None.
        name_speakers: Whether it is shown who speaks.
        mends: Whether names that are settled are shown as the glossary writes them while their text
            still grows; what is final is always shown as the server has mended it.
    """

    def __init__(
        self,
        *,
        paced: bool = True,
        highlighter: Highlighter | None = None,
        name_speakers: bool = False,
        mends: bool = False,
    ) -> None:
        self.state = ViewState(names_speakers=name_speakers, mends=mends)
        self._paced = paced
        self._highlighter = highlighter

    def on_source(self, source: str) -> None:
        """Note what keeps the audio silent: nothing if empty."""
        self.state = replace(self.state, source=source)

    def on_audio(self, block: bytes, audio_ms: float) -> None:
        """Note the level and the time."""
        self.state = self.state.with_audio(audio_ms, level_dbfs(block))

    def on_revision(self, revision: Revision) -> None:
        """Note the text."""
        self.state = self.state.sent(revision, time.monotonic())

    def on_message(self, message: ServerMessage) -> None:
        """Note the answer."""
        if self._is_expected(message):
            return
        self.state = self.state.received(as_shown(message), time.monotonic())
        if self._highlighter is not None and isinstance(
            message, EntityUpsert | EntityRetract | CaptionUpdate | UtteranceFinal
        ):
            self.state = self.state.highlighted(message.utterance, self._highlighter)

    def on_connection(self, change: ConnectionChange) -> None:
        """Note whether there is one."""
        self.state = self.state.connection_changed(change)

    def _is_expected(self, message: ServerMessage) -> bool:
        """Whether it warns of what is done on purpose."""
        return (
            not self._paced
            and isinstance(message, WarningMessage)
            and message.name == "audio_ahead_of_realtime"
        )
