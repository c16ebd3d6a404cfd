"""Caption files that are written while a session runs, and are whole at any moment.

A file watches the session as the views do. What is final is written at once, a whole utterance at a
time and without a buffer of ours: a process that is killed leaves everything up to its last
utterance. A format that needs an end (TTML) is written anew beside the old file, which it replaces.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import IO, Final, Self

from cnerta.models.files import write_atomically
from cnerta.streamer.errors import OutputError
from cnerta.streamer.outputs.caption_formats import FORMATS
from cnerta.streamer.outputs.captioner import Captioner
from cnerta.streamer.outputs.cues import DEFAULT_LAYOUT, CaptionLayout
from cnerta.streamer.outputs.highlighting import Highlighter
from cnerta.streamer.outputs.presenter import PresenterBase
from cnerta.streamer.sources import Revision
from cnerta.streamer.wire.codec import encode
from cnerta.streamer.wire.messages import ServerMessage, SessionReady, UtteranceFinal

__all__ = ["CaptionFile", "EventFile", "open_caption_file"]

_EVENTS_SUFFIX: Final = ".jsonl"


def open_caption_file(
    path: Path,
    recording: str,
    highlighter: Highlighter,
    layout: CaptionLayout = DEFAULT_LAYOUT,
    *,
    name_speakers: bool = False,
) -> CaptionFile | EventFile:
    """Make the output that the end of a file's name asks for.

    Args:
        path: What was there is replaced when the session starts.
        recording: What an entity list calls the audio.
        highlighter: Chooses what is highlighted.
        layout: How much stands on the screen at once.
        name_speakers: See `Captioner`.

    Raises:
        OutputError: No format has files of that name.
    """
    name = path.name.lower()
    if name.endswith(_EVENTS_SUFFIX):
        return EventFile(path)
    fitting = [suffix for suffix in FORMATS if name.endswith(suffix)]
    if not fitting:
        known = ", ".join([*FORMATS, _EVENTS_SUFFIX])
        raise OutputError(f"expected a caption file that ends with one of {known}, got {path}")
    captioner = Captioner(highlighter, layout, name_speakers=name_speakers)
    return CaptionFile(path, max(fitting, key=len), recording, captioner)


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(f"expected to write {path}, got: {error.strerror or error}") from error


class _File:
    """A file that only grows; what is added goes to the system at once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._out: IO[bytes] | None = None

    def open(self) -> None:
        with _explained(self.path):
            self._out = open(self.path, "wb", buffering=0)  # noqa: SIM115 (open for the session)

    def add(self, content: bytes) -> None:
        assert self._out is not None, "entered before the session starts"
        with _explained(self.path):
            while content:  # A write may take only a part, as on a disk that is nearly full.
                content = content[self._out.write(content) :]

    def close(self) -> None:
        if self._out is not None:
            with _explained(self.path):
                self._out.close()


class CaptionFile(PresenterBase):
    """A `Presenter` that writes captions to a file.

    Use `open_caption_file` to make one.
    """

    def __init__(self, path: Path, suffix: str, recording: str, captioner: Captioner) -> None:
        self._format = FORMATS[suffix](recording)
        self._file = _File(path)
        self._captioner = captioner
        self._body: list[str] = []
        """All that stands before the tail, where there is one."""

    def on_audio(self, block: bytes, audio_ms: float) -> None:
        """Note the time."""
        self._captioner.heard(audio_ms)

    def on_revision(self, revision: Revision) -> None:
        """Note when the utterance was spoken."""
        self._captioner.sent(revision)

    def on_message(self, message: ServerMessage) -> None:
        """Write what is final.

        Raises:
            OutputError: It cannot be written.
        """
        match message:
            case SessionReady():
                head = self._format.head(message.model.labels)
                if self._format.tail():
                    self._body = [head]
                    self._replace()
                else:
                    self._file.add(head.removeprefix(self._format.head(())).encode())
            case UtteranceFinal():
                block = self._format.block(self._captioner.captioned(message))
                if not self._format.tail():
                    self._file.add(block.encode())
                elif block:
                    self._body.append(block)
                    self._replace()
            case _:
                pass

    def _replace(self) -> None:
        with _explained(self._file.path):
            whole = "".join([*self._body, self._format.tail()])
            write_atomically(self._file.path, whole.encode())

    def __enter__(self) -> Self:
        head = self._format.head(())
        if self._format.tail():
            self._body = [head]
            self._replace()
        else:
            self._file.open()
            self._file.add(head.encode())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()


class EventFile(PresenterBase):
    """A `Presenter` that writes every server message as a line of JSON to a file.

    Args:
        path: What was there is replaced when the session starts.
    """

    def __init__(self, path: Path) -> None:
        self._file = _File(path)

    def on_message(self, message: ServerMessage) -> None:
        """Write the message.

        Raises:
            OutputError: It cannot be written.
        """
        self._file.add(encode(message) + b"\n")

    def __enter__(self) -> Self:
        self._file.open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()
