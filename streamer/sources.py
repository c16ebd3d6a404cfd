"""Where transcripts come from: one small interface, and the sources that need no recogniser.

A source is an object with one method. It is handed the audio as it is streamed and yields a
`Revision` whenever the transcript changes. A recogniser of your own fits in twenty lines::

    class MyRecogniser:
        async def revisions(self, audio: LiveAudio) -> AsyncIterator[Revision]:
            recogniser = Recogniser(audio.format.sample_rate, audio.format.channels)
            utterance = 1
            count = 0
            async for block in audio.blocks():  # raw bytes, as long as there is audio
                text, ended = await asyncio.to_thread(recogniser.feed, block)
                if text:
                    count += 1
                    yield Revision(f"u{utterance}", count, text, final=ended)
                if ended:
                    utterance, count = utterance + 1, 0

and is found by name when its package has an entry point that makes one::

    [project.entry-points."cnerta.transcript_sources"]
    my-recogniser = "my_package:MyRecogniser"

All times are milliseconds on the stream's audio clock, which counts samples and starts at 0.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import os
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import IO, Protocol

import msgspec

from cnerta.streamer.client_errors import TranscriptError
from cnerta.streamer.messages import AudioFormat

__all__ = [
    "LineTranscript",
    "LiveAudio",
    "Revision",
    "RevisionPace",
    "TimedLine",
    "TimedTranscript",
    "TranscriptSource",
    "find_transcript_source",
    "read_timed_lines",
]

ENTRY_POINT_GROUP = "cnerta.transcript_sources"

BLOCKS_WAITING = 256
"""How many audio blocks may wait for a source; then the stream waits for the source."""

LINES_WAITING = 64
MAX_LINE_BYTES = 65_536
STANDARD_INPUT = 0


@dataclass(frozen=True, slots=True)
class Revision:
    """The transcript of one utterance as it stands now.

    Attributes:
        utterance: A name for the utterance, the same in all its revisions.
        revision: Rises with every revision of the utterance.
        text: The whole text of the utterance so far, not what was added.
        final: Whether the text will not change any more.
        start_ms: Where the utterance starts in the audio, if known.
        end_ms: Up to where in the audio the text reaches, if known.
    """

    utterance: str
    revision: int
    text: str
    final: bool
    start_ms: int | None = None
    end_ms: int | None = None


class TranscriptSource(Protocol):
    """Anything that yields revisions while audio is streamed."""

    def revisions(self, audio: LiveAudio) -> AsyncIterator[Revision]:
        """Yield the transcript as it changes, until there is no more.

        Args:
            audio: The audio as it is streamed: its format, its clock, and its samples for those who
                recognise.
        """
        ...


class LiveAudio:
    """The audio as it is being streamed, as far as a transcript source may know it.

    Args:
        audio_format: Encoding, rate and channels of the samples.
        paced: Whether the audio comes at the pace of speech. If so, what is due after its end waits
            that long.
    """

    def __init__(self, audio_format: AudioFormat, *, paced: bool = True) -> None:
        self.format = audio_format
        self.paced = paced
        self._bytes_per_ms = audio_format.sample_rate * audio_format.frame_bytes / 1_000
        self._heard_bytes = 0
        self._ended = False
        self._ended_at = 0.0
        self._waiting: list[tuple[float, int, asyncio.Future[None]]] = []
        self._count = 0
        self._readers: list[asyncio.Queue[bytes | None]] = []

    @property
    def heard_ms(self) -> float:
        """How much audio has been streamed."""
        return self._heard_bytes / self._bytes_per_ms

    async def reached(self, at_ms: float) -> None:
        """Wait until the audio clock is at `at_ms`, or the audio has ended before."""
        if self.heard_ms < at_ms and not self._ended:
            future = asyncio.get_running_loop().create_future()
            self._count += 1
            heapq.heappush(self._waiting, (at_ms, self._count, future))
            await future
        if self._ended and self.paced and at_ms > self.heard_ms:
            # Several may be due after the end: each waits from the end, not from the one before it.
            now = asyncio.get_running_loop().time()
            await asyncio.sleep(self._ended_at + (at_ms - self.heard_ms) / 1_000 - now)

    async def blocks(self) -> AsyncIterator[bytes]:
        """Yield the audio from now on, block by block, in its own format, until it ends."""
        if self._ended:
            return
        queue: asyncio.Queue[bytes | None] = asyncio.Queue(BLOCKS_WAITING)
        self._readers.append(queue)
        while (block := await queue.get()) is not None:
            yield block

    async def push(self, block: bytes) -> None:
        """Tell that `block` has been streamed (for the stream, not for sources)."""
        self._heard_bytes += len(block)
        for queue in tuple(self._readers):
            await queue.put(block)
        self._wake()

    async def end(self) -> None:
        """Tell that there is no more audio (for the stream, not for sources)."""
        self._ended = True
        self._ended_at = asyncio.get_running_loop().time()
        for queue in tuple(self._readers):
            await queue.put(None)
        self._wake()

    def detach(self) -> None:
        """Tell that no source reads any more, so that none holds up the stream (for the stream)."""
        for queue in self._readers:
            while not queue.empty():  # lets a waiting `push` go on
                queue.get_nowait()
        self._readers.clear()

    def _wake(self) -> None:
        heard_ms = self.heard_ms
        while self._waiting and (self._ended or self._waiting[0][0] <= heard_ms):
            future = heapq.heappop(self._waiting)[2]
            if not future.done():
                future.set_result(None)


@dataclass(frozen=True, slots=True)
class RevisionPace:
    """How a live recogniser would send what it hears.

    Attributes:
        interval_ms: Time between two revisions.
        delay_ms: From the end of a character to the first revision that can have it.
        final_delay_ms: From the end of the last character to the final revision.
    """

    interval_ms: int = 333
    delay_ms: int = 200
    final_delay_ms: int = 300


class TimedLine(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One utterance of a known transcript, and one line of a JSON-lines transcript file.

    Attributes:
        text: What is said.
        start_ms: Where it starts.
        end_ms: Where it ends.
        characters: Start and end of every character, where known. Otherwise every character is
            taken to last equally long, and only the utterance's own times are sent.
    """

    text: str
    start_ms: float
    end_ms: float
    characters: tuple[tuple[float, float], ...] | None = None

    def problem(self) -> str | None:
        """Say what is wrong with the values, in the form "expected …, got …"."""
        if not self.text.strip():
            return "expected text, got none"
        if not 0 <= self.start_ms < self.end_ms < float("inf"):
            return f"expected 0 <= start < end, got {self.start_ms:g} and {self.end_ms:g} ms"
        if self.characters is not None and len(self.characters) != len(self.text):
            return f"expected the times of {len(self.text)} characters, got {len(self.characters)}"
        return None

    def character_ends_ms(self) -> list[float]:
        """Return where every character ends, from its own times or in equal shares of the line."""
        if self.characters is not None:
            return [end for _, end in self.characters]
        share = (self.end_ms - self.start_ms) / len(self.text)
        return [self.start_ms + share * (index + 1) for index in range(len(self.text))]


class TimedTranscript:
    """A `TranscriptSource` that knows the text and sends it as a live recogniser would.

    Each line grows by the characters that have been spoken, about three times a second, and becomes
    final shortly after its end. It follows the audio clock, so audio streamed faster than speech
    brings its transcript faster.

    Args:
        lines: The utterances, in any order; they may overlap.
        pace: How often and how late revisions come.
        send_times: Whether the revisions carry times. Off where the times are only a guess, so that
            the server finds the audio itself.
    """

    def __init__(
        self,
        lines: Sequence[TimedLine],
        pace: RevisionPace = RevisionPace(),
        *,
        send_times: bool = True,
    ) -> None:
        self._lines = sorted(lines, key=lambda line: line.start_ms)
        self._pace = pace
        self._send_times = send_times

    @classmethod
    def untimed(
        cls,
        text: str,
        duration_ms: float,
        pace: RevisionPace = RevisionPace(),
    ) -> TimedTranscript:
        """Spread `text` evenly over `duration_ms` of audio; the revisions then carry no times.

        Raises:
            TranscriptError: There is no text.
        """
        text = text.strip()
        if not text:
            raise TranscriptError("expected a transcript, got an empty one")
        line = TimedLine(text=text, start_ms=0.0, end_ms=duration_ms)
        return cls([line], pace, send_times=False)

    async def revisions(self, audio: LiveAudio) -> AsyncIterator[Revision]:
        """Yield every line's revisions when the audio has come that far."""
        plans = [self._plan(f"u{number}", line) for number, line in enumerate(self._lines, 1)]
        for due_ms, revision in heapq.merge(*plans, key=lambda planned: planned[0]):
            await audio.reached(due_ms)
            yield revision

    def _plan(self, utterance: str, line: TimedLine) -> Iterator[tuple[float, Revision]]:
        """Yield (due on the audio clock, revision) of one line."""
        ends_ms = line.character_ends_ms()
        final_due_ms = max(ends_ms[-1], line.end_ms) + self._pace.final_delay_ms
        start_ms = round(line.start_ms) if self._send_times else None
        number = shown = 0
        due_ms = line.start_ms + self._pace.interval_ms
        while due_ms < final_due_ms:
            spoken = sum(end <= due_ms - self._pace.delay_ms for end in ends_ms)
            if spoken > shown:
                shown, number = spoken, number + 1
                # Between its ends a line's own times say nothing about how far a prefix reaches.
                exact = self._send_times and line.characters is not None
                end_ms = round(ends_ms[spoken - 1]) if exact else None
                text = line.text[:spoken]
                yield due_ms, Revision(utterance, number, text, False, start_ms, end_ms)
            due_ms += self._pace.interval_ms
        end_ms = round(line.end_ms) if self._send_times else None
        yield final_due_ms, Revision(utterance, number + 1, line.text, True, start_ms, end_ms)


def read_timed_lines(stream: IO[bytes], name: str) -> list[TimedLine]:
    r"""Read a transcript with times, one utterance a line.

    A line that starts with ``{`` is JSON: ``{"start_ms": 0, "end_ms": 2400, "text": "…"}``,
    optionally with ``"characters": [[start_ms, end_ms], …]``, one pair for every character of the
    text. Any other line is ``start<TAB>end<TAB>text`` with both times in seconds, as Audacity
    exports its label tracks. Empty lines are passed over, and so are the lines that begin with a
    backslash, in which Audacity writes the frequencies of the label before.

    Args:
        stream: The file, opened for bytes; UTF-8, with or without a byte order mark.
        name: What messages call it.

    Raises:
        TranscriptError: A line has neither form, with the number of the line; or there is no line
            at all.
    """
    lines: list[TimedLine] = []
    for number, raw in enumerate(stream, 1):
        try:
            line = _timed_line(raw.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n"))
        except (TranscriptError, UnicodeDecodeError, msgspec.MsgspecError) as error:
            raise TranscriptError(f"{name}, line {number}: {error}") from error
        if line is not None:
            lines.append(line)
    if not lines:
        raise TranscriptError(f"{name}: expected lines of a transcript, got none")
    return lines


def _timed_line(text: str) -> TimedLine | None:
    if not text.strip() or text.startswith("\\\t"):
        return None
    if text.lstrip().startswith("{"):
        line = msgspec.json.decode(text.encode(), type=TimedLine)
    else:
        fields = text.split("\t", 2)
        try:
            start_s, end_s = float(fields[0]), float(fields[1])
            line = TimedLine(text=fields[2].strip(), start_ms=1_000 * start_s, end_ms=1_000 * end_s)
        except (ValueError, IndexError):
            raise TranscriptError(
                "expected start<TAB>end<TAB>text with times in seconds, or a JSON object with "
                f"start_ms, end_ms and text, got {text[:80]!r}"
            ) from None
    problem = line.problem()
    if problem:
        raise TranscriptError(problem)
    return line


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


def find_transcript_source(name: str) -> Callable[[], TranscriptSource]:
    """Find what an installed package offers under `name` in the entry point group.

    Raises:
        TranscriptError: No installed package offers a source of that name.
    """
    offered = entry_points(group=ENTRY_POINT_GROUP)
    for entry_point in offered:
        if entry_point.name == name:
            make: Callable[[], TranscriptSource] = entry_point.load()
            return make
    names = ", ".join(sorted(entry_point.name for entry_point in offered)) or "none is installed"
    raise TranscriptError(f"expected a transcript source, got {name!r}; there are: {names}")
