"""Everything a session is shown to, written to and sent to, as one."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self, runtime_checkable

from cnerta.streamer.client.connection_change import ConnectionChange
from cnerta.streamer.errors import OutputError
from cnerta.streamer.outputs.caption_files import open_caption_file
from cnerta.streamer.outputs.highlighting import Highlighter
from cnerta.streamer.outputs.hls import HlsCaptions, HlsOptions
from cnerta.streamer.outputs.obs import ObsAddress, ObsTextFile, ObsWebSocket
from cnerta.streamer.outputs.plain_marks import DEFAULT_MARKS
from cnerta.streamer.outputs.presenter import Presenter
from cnerta.streamer.outputs.webhook import TOKEN_VARIABLE, Webhook
from cnerta.streamer.outputs.withholding import Withholding
from cnerta.streamer.outputs.youtube import YouTubeCaptions
from cnerta.streamer.outputs.zoom import ZoomCaptions
from cnerta.streamer.sources import Revision
from cnerta.streamer.wire.messages import ServerMessage

__all__ = ["Draining", "OutputOptions", "Outputs", "make_outputs"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class OutputOptions:
    """What a session is written to and sent to, beside what a person sees of it.

    Attributes:
        captions: Caption files; the end of each name says in which format.
        obs_text: A text file for OBS.
        obs: Address of obs-websocket.
        obs_source: The text source of OBS that shows the text; None for captions of the stream.
        marks: What opens and what closes a name in OBS, Zoom and YouTube.
        zoom: Caption address of a Zoom meeting.
        youtube: Caption address of a YouTube live stream.
        hls: A folder for HLS subtitles.
        hls_mpeg_time: Of the video, at which the audio begins; in 1/90,000 s.
        is_paced: Whether the audio comes at the pace of speech.
        webhook: URL that gets the events.
        name_speakers: Whether captions name whoever speaks before the words.
        mends: Whether names in text that still grows are shown as the glossary writes them.
    """

    captions: tuple[Path, ...] = ()
    obs_text: Path | None = None
    obs: str | None = None
    obs_source: str | None = None
    marks: str = DEFAULT_MARKS
    zoom: str | None = None
    youtube: str | None = None
    hls: Path | None = None
    hls_mpeg_time: int = 0
    is_paced: bool = True
    webhook: str | None = None
    name_speakers: bool = False
    mends: bool = False


def make_outputs(
    options: OutputOptions,
    recording: str,
    highlighter: Highlighter,
    environment: Mapping[str, str],
) -> list[Presenter]:
    """Make what the options ask for.

    Args:
        options: What is wanted.
        recording: What an entity list calls the audio.
        highlighter: Chooses what is highlighted.
        environment: Where passwords are: `CNERTA_OBS_PASSWORD` and `CNERTA_WEBHOOK_TOKEN`.

    Raises:
        OutputError: A file's format is not known, or an address is none.
    """
    names = options.name_speakers
    made: list[Presenter] = [
        open_caption_file(path, recording, highlighter, name_speakers=names)
        for path in options.captions
    ]
    marks = options.marks
    if options.obs_text is not None:
        made.append(
            ObsTextFile(
                options.obs_text,
                marks=marks,
                highlighter=highlighter,
                name_speakers=names,
                mends=options.mends,
            )
        )
    if options.obs is not None:
        address = ObsAddress.parse(options.obs, environment)
        source = options.obs_source
        made.append(
            ObsWebSocket(
                address,
                source,
                marks=marks,
                highlighter=highlighter,
                name_speakers=names,
                mends=options.mends,
            )
        )
    if options.zoom is not None:
        made.append(ZoomCaptions(options.zoom, highlighter, marks=marks, name_speakers=names))
    if options.youtube is not None:
        made.append(YouTubeCaptions(options.youtube, highlighter, marks=marks, name_speakers=names))
    if options.hls is not None:
        segments = HlsOptions(mpeg_time=options.hls_mpeg_time, is_paced=options.is_paced)
        made.append(HlsCaptions(options.hls, highlighter, segments, name_speakers=names))
    if options.webhook is not None:
        made.append(Webhook(options.webhook, token=environment.get(TOKEN_VARIABLE, "")))
    return made


@runtime_checkable
class Draining(Protocol):
    """A `Presenter` that sends in the background, and has to be waited for at the end."""

    async def drain(self) -> None:
        """Send what is left, or give up after a while.

        Raises:
            OutputError: Something could not be sent.
        """
        ...


class Outputs:
    """Tells several presenters; entered before the session starts and left when it is over.

    One that fails with an `OutputError` is told nothing more, and the session goes on: a full disk
    must not end what is still seen elsewhere. The first failure is raised when all is over.

    Args:
        view: What a person sees. It is entered last, so that what is said before stays readable,
            and what it raises ends the session.
        others: The rest, such as caption files.
        withholding: Says what all of them are told of, if text is held back.
    """

    def __init__(
        self,
        view: Presenter,
        others: Sequence[Presenter] = (),
        withholding: Withholding | None = None,
    ) -> None:
        self.view = view
        self._withholding = withholding
        self._others = list(others)
        self._entered = contextlib.ExitStack()
        self._failure: OutputError | None = None

    def on_audio(self, block: bytes, audio_ms: float) -> None:
        """Tell it to all."""
        self.view.on_audio(block, audio_ms)
        self._tell(lambda output: output.on_audio(block, audio_ms))

    def on_revision(self, revision: Revision) -> None:
        """Tell it to all: of text that is held back, what is released."""
        if self._withholding is not None:
            revision = self._withholding.revision(revision)
        self.view.on_revision(revision)
        self._tell(lambda output: output.on_revision(revision))

    def on_message(self, message: ServerMessage) -> None:
        """Tell it to all, unless it is withheld."""
        told = message if self._withholding is None else self._withholding.message(message)
        if told is None:
            return
        # The files first: the view may raise because nobody reads it any more.
        self._tell(lambda output: output.on_message(told))
        self.view.on_message(told)

    def on_connection(self, change: ConnectionChange) -> None:
        """Tell it to all."""
        self._tell(lambda output: output.on_connection(change))
        self.view.on_connection(change)

    def _tell(self, tell: Callable[[Presenter], None]) -> None:
        for output in tuple(self._others):
            try:
                tell(output)
            except OutputError as error:
                log.error("%s; the session goes on without it", error)
                self._others.remove(output)
                self._failure = self._failure or error

    async def __aenter__(self) -> Self:
        with contextlib.ExitStack() as entering:
            for output in self._others:
                entering.enter_context(output)
            self._entered = entering.pop_all()
        try:
            self.view.__enter__()
        except BaseException as error:
            self._entered.__exit__(type(error), error, error.__traceback__)
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._entered:
            self.view.__exit__(kind, error, trace)
            # Whoever is interrupted twice wants to leave at once.
            if not isinstance(error, asyncio.CancelledError | KeyboardInterrupt):
                await self._drain()
        if self._failure is not None and error is None:
            raise self._failure

    async def _drain(self) -> None:
        """Let those who send finish, all at the same time."""
        drains = [output.drain() for output in self._others if isinstance(output, Draining)]
        for result in await asyncio.gather(*drains, return_exceptions=True):
            if isinstance(result, OutputError):
                if self._failure is not None:  # Only the first is raised.
                    log.error("%s", result)
                self._failure = self._failure or result
            elif isinstance(result, BaseException):
                raise result
