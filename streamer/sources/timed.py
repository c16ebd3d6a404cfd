"""Transcripts whose text and times are known, sent as a live recogniser would."""

from __future__ import annotations

import heapq
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from typing import IO

import msgspec

from cnerta.streamer.errors import TranscriptError
from cnerta.streamer.sources.base import LiveAudio, Revision
from cnerta.streamer.wire.parts import Channel, Speaker

__all__ = ["RevisionPace", "TimedLine", "TimedTranscript", "read_timed_lines"]


@dataclass(frozen=True, slots=True)
class RevisionPace:
    """How a live recogniser would send what it recognises.

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
        speaker: Who speaks, if known.
        channel: In which channel of the recording, from 0, if known.
    """

    text: str
    start_ms: float
    end_ms: float
    characters: tuple[tuple[float, float], ...] | None = None
    speaker: Speaker | None = None
    channel: Channel | None = None

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

    def outside(self, duration_ms: float) -> str | None:
        """Say so where lines lie outside audio that is so long, and are answered without it."""
        outside = [line for line in self._lines if line.start_ms >= duration_ms]
        if not outside:
            return None
        return (
            f"expected all lines within {duration_ms / 1_000:.1f} s of audio, got {len(outside)} "
            f"of {len(self._lines)} after it, from {outside[0].start_ms / 1_000:.1f} s on: they "
            "are answered from their text alone"
        )

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
        said_by = (line.speaker, line.channel)
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
                revision = Revision(utterance, number, text, False, start_ms, end_ms, *said_by)
                yield due_ms, revision
            due_ms += self._pace.interval_ms
        end_ms = round(line.end_ms) if self._send_times else None
        final = Revision(utterance, number + 1, line.text, True, start_ms, end_ms, *said_by)
        yield final_due_ms, final


def read_timed_lines(stream: IO[bytes], name: str) -> list[TimedLine]:
    r"""Read a transcript with times, one utterance a line.

    A line that starts with ``{`` is JSON: ``{"start_ms": 0, "end_ms": 2400, "text": "…"}``,
    optionally with ``"characters": [[start_ms, end_ms], …]``, one pair for every character of the
    text, and with ``"speaker": "…"`` and ``"channel": 0``. Any other line is
    ``start<TAB>end<TAB>text`` with both times in seconds, as Audacity exports its label tracks.
    Empty lines are passed over, and so are the lines that begin with a backslash, in which Audacity
    writes the frequencies of the label before.

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
