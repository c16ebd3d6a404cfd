"""Lines on standard input, each the final text of one utterance."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import threading
from collections.abc import AsyncIterator, Iterable, Iterator

from cnerta.streamer.errors import TranscriptError
from cnerta.streamer.sources.base import LiveAudio, Revision

__all__ = ["LINES_WAITING", "STANDARD_INPUT", "LineTranscript"]

LINES_WAITING = 64
MAX_LINE_BYTES = 65_536
STANDARD_INPUT = 0


class LineTranscript:
    """A `TranscriptSource` of lines typed or piped in: each the final text of one utterance.

    The revisions carry no times: a line stands for the audio since the line before it.

    Args:
        lines: Where to read; standard input if None.

    Raises:
        TranscriptError: Standard input is wanted and closed.
    """

    def __init__(self, lines: Iterable[bytes] | None = None) -> None:
        if lines is None and sys.__stdin__ is None:
            raise TranscriptError("expected lines on standard input, got a closed one")
        self._lines = _standard_input_lines() if lines is None else lines

    async def revisions(self, audio: LiveAudio) -> AsyncIterator[Revision]:
        """Yield a final revision for every line that is not empty, until the lines end.

        Raises:
            TranscriptError: The lines cannot be read.
        """
        loop = asyncio.get_running_loop()
        waiting: asyncio.Queue[bytes | OSError | None] = asyncio.Queue()
        # Reading blocks and cannot be cancelled, so it has a thread that nobody waits for at exit.
        # The semaphore keeps it from reading more than is wanted.
        room = threading.Semaphore(LINES_WAITING)
        stopped = False

        def read() -> None:
            # When the stream has ended before the lines, so has its loop.
            with contextlib.suppress(RuntimeError):
                try:
                    for line in self._lines:
                        room.acquire()
                        if stopped:
                            return
                        loop.call_soon_threadsafe(waiting.put_nowait, line)
                    loop.call_soon_threadsafe(waiting.put_nowait, None)
                except OSError as error:
                    loop.call_soon_threadsafe(waiting.put_nowait, error)

        threading.Thread(target=read, name="transcript-lines", daemon=True).start()
        number = 0
        try:
            while (line := await waiting.get()) is not None:
                if isinstance(line, OSError):
                    raise TranscriptError(f"expected lines of a transcript, got: {line}") from line
                room.release()
                # One broken byte in a live feed must not end the session.
                text = line.decode("utf-8", errors="replace").strip()
                if text:
                    number += 1
                    yield Revision(f"u{number}", 1, text, final=True)
        finally:
            stopped = True
            room.release()


def _standard_input_lines() -> Iterator[bytes]:
    """Yield the lines of standard input as they come, without Python's buffer.

    At exit the interpreter locks that buffer, and aborts if a thread waits inside it.
    """
    pending = b""
    while chunk := os.read(STANDARD_INPUT, MAX_LINE_BYTES):
        *lines, pending = (pending + chunk).split(b"\n")
        yield from lines
        if len(pending) > MAX_LINE_BYTES:  # no line of a transcript, but not to be kept either
            yield pending
            pending = b""
    if pending:
        yield pending
