"""What was sent and may have to be sent again: audio, and transcripts without an answer, in order.

A server that dies takes with it what it had received. So the client keeps the audio that an
utterance without a final answer may need, and of each such utterance the newest transcript, each at
its place between the audio: what came before a final transcript belongs to it, what came after does
not. On another connection all that the server lacks is sent once more in the same order.

Positions are bytes of audio since the beginning of the stream. No I/O, no clock. Memory is bounded:
audio by ``keep_ms``, transcripts by ``most_open``.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass
from math import gcd
from typing import Final

from cnerta.streamer.wire.messages import ClientMessage, SessionFinish, Transcript
from cnerta.streamer.wire.parts import AudioFormat, Encoding

__all__ = ["SentLog"]

_SLACK_MS: Final = 200
"""How much earlier than its own start an utterance's audio is looked for."""
_REMEMBERED: Final = 4_096
"""So many answered utterances are known by name, as the server does."""
_SILENCE: Final[dict[Encoding, int]] = {"mulaw": 0xFF, "alaw": 0xD5}


@dataclass(eq=False, slots=True)
class _Item:
    """Something sent.

    Attributes:
        at: Where in the audio.
        sent: Samples, or a message.
    """

    at: int
    sent: bytes | ClientMessage


class SentLog:
    """The log of one stream.

    Attributes:
        end: Audio that was handed over.
        keep_bytes: Most audio that is kept.
        bytes_per_s: Of audio.
    """

    def __init__(
        self, audio_format: AudioFormat, *, keep_ms: int = 60_000, most_open: int = 64
    ) -> None:
        """Begin with nothing.

        Args:
            audio_format: Of the stream.
            keep_ms: Most audio that is kept.
            most_open: Most utterances without a final transcript that are kept.
        """
        self.end = 0
        self._format = audio_format
        self._frame_bytes = audio_format.frame_bytes
        self.bytes_per_s = self._frame_bytes * audio_format.sample_rate
        self.keep_bytes = 0
        self._most_open = 0
        self.limit(keep_ms, most_open)
        self._items: dict[int, _Item] = {}  # by a number that rises
        self._numbers = 0
        self._audio: deque[int] = deque()
        self._texts: dict[str, int] = {}
        self._answered: OrderedDict[str, None] = OrderedDict()
        self._kept_bytes = 0
        self._safe = 0  # no utterance without an answer begins before, but for those with times
        self._next = 0  # number of the next item to send
        self._audio_next = 0  # next byte of audio to send

    def limit(self, keep_ms: int, most_open: int) -> None:
        """Keep as much as a server does, see :meth:`__init__`."""
        self.keep_bytes = self.bytes_per_s * keep_ms // 1_000
        self._most_open = most_open

    # --- what is sent -----------------------------------------------------------------------------

    def add_audio(self, block: bytes) -> None:
        """Audio is to be sent."""
        if not block:
            return
        self._audio.append(self._add(block))
        self.end += len(block)
        self._kept_bytes += len(block)
        self._trim()

    def add_transcript(self, message: Transcript) -> None:
        """A revision is to be sent, in the place of the one before; none after the final one."""
        if message.utterance in self._answered or self._is_final(message.utterance):
            return
        before = self._texts.pop(message.utterance, None)
        if before is not None:
            del self._items[before]
        self._texts[message.utterance] = self._add(message)
        interims = [u for u in self._texts if not self._is_final(u)]
        if len(interims) > self._most_open:
            del self._items[self._texts.pop(interims[0])]

    def add_finish(self) -> None:
        """The end is to be sent; it is kept to the last."""
        self._add(SessionFinish())

    def next(self, max_bytes: int) -> bytes | ClientMessage | None:
        """What is to be sent next on this connection; None: all is sent.

        Args:
            max_bytes: Most audio at once.
        """
        while self._next < self._numbers:
            item = self._items.get(self._next)
            if item is None:
                self._next += 1
                continue
            if not isinstance(item.sent, bytes):
                self._next += 1
                return item.sent
            missing = item.at - self._audio_next
            if missing > 0:
                return self._advance(self._silence(min(missing, self._whole(max_bytes))))
            piece = item.sent[-missing : self._whole(max_bytes) - missing]
            if -missing + len(piece) >= len(item.sent):
                self._next += 1
            if piece:
                return self._advance(piece)
        return None

    @property
    def unsent_bytes(self) -> int:
        """Audio that was not sent on this connection."""
        return max(0, self.end - self._audio_next)

    # --- what is safe -----------------------------------------------------------------------------

    def answered(self, utterance: str, heard_ms: int | None) -> None:
        """A final transcript has its answer: it need not be sent again, nor its audio.

        Args:
            utterance: Whose.
            heard_ms: Up to where in the stream its audio was found; None: it was not.
        """
        number = self._texts.pop(utterance, None)
        if number is None:
            return
        self._answered[utterance] = None
        if len(self._answered) > _REMEMBERED:
            self._answered.popitem(last=False)
        item = self._items.pop(number)
        assert isinstance(item.sent, Transcript), "expected a transcript"
        if heard_ms is not None:
            self._safe = max(self._safe, self._position(heard_ms))
        elif item.sent.text:
            # The server leaves to the next utterance what came after.
            start, end = item.sent.start_ms, item.sent.end_ms
            if start is None or self._position(start) < item.at:
                given = item.at if end is None else min(item.at, self._position(end))
                self._safe = max(self._safe, given)
        self._trim()

    def heard(self, heard_ms: int) -> None:
        """The server wrote, and answered, what was said up to a time of the stream."""
        self._safe = max(self._safe, self._position(heard_ms))
        self._trim()

    @property
    def unanswered(self) -> tuple[str, ...]:
        """The utterances whose final transcripts have no answer, the oldest first."""
        return tuple(u for u in self._texts if self._is_final(u))

    @property
    def open_utterances(self) -> int:
        """How many utterances have no final answer."""
        return len(self._texts)

    @property
    def audio_ms(self) -> float:
        """Audio that was handed over, in milliseconds."""
        return 1_000 * (self.end // self._frame_bytes) / self._format.sample_rate

    # --- another connection -----------------------------------------------------------------------

    def resume(self, samples: int) -> None:
        """Send again what a server lacks that has received so much of the stream.

        Args:
            samples: Of each channel, since the beginning of the stream.

        Raises:
            ValueError: That is more than was ever sent.
        """
        position = samples * self._frame_bytes
        if position > self.end:
            raise ValueError(f"expected at most {self.end} bytes of audio, got {position}")
        self._begin_at(position)

    def start_again(self) -> tuple[int, int]:
        """Send again all that an utterance without an answer may need, to a new session.

        Returns:
            Where in the stream the new session begins: in samples, and in milliseconds, which are
            whole ones.
        """
        rate = self._format.sample_rate
        common = gcd(rate, 1_000)
        step = self._frame_bytes * rate // common  # so many bytes are whole milliseconds
        oldest = self._items[self._audio[0]].at if self._audio else self.end
        at = max(self._needed, oldest)
        steps = at // step
        if steps * step < oldest:
            steps += 1
        self._begin_at(steps * step)
        return steps * rate // common, steps * 1_000 // common

    def _begin_at(self, position: int) -> None:
        self._next = next(iter(self._items), self._numbers)
        self._audio_next = position

    # --- inside -----------------------------------------------------------------------------------

    def _add(self, sent: bytes | ClientMessage) -> int:
        number = self._numbers
        self._numbers += 1
        self._items[number] = _Item(self.end, sent)
        return number

    def _advance(self, piece: bytes) -> bytes:
        self._audio_next += len(piece)
        self._trim()
        return piece

    def _transcript(self, utterance: str) -> Transcript:
        sent = self._items[self._texts[utterance]].sent
        assert isinstance(sent, Transcript), "expected a transcript"
        return sent

    def _is_final(self, utterance: str) -> bool:
        return utterance in self._texts and self._transcript(utterance).final

    def _position(self, milliseconds: float) -> int:
        return self._frame_bytes * int(milliseconds * self._format.sample_rate / 1_000)

    def _whole(self, count: int) -> int:
        return max(self._frame_bytes, count - count % self._frame_bytes)

    def _silence(self, count: int) -> bytes:
        """Audio that is no longer kept: the clock goes on, whatever was said."""
        return bytes([_SILENCE.get(self._format.encoding, 0)]) * count

    @property
    def _needed(self) -> int:
        """Where the audio begins that an utterance without an answer may need."""
        needed = self._safe
        for utterance in self._texts:
            start_ms = self._transcript(utterance).start_ms
            if start_ms is not None:
                needed = min(needed, self._position(max(0, start_ms - _SLACK_MS)))
        return needed

    def _trim(self) -> None:
        """Forget audio that was sent and is not needed, or is too much."""
        needed = self._needed if self._audio else 0
        while self._audio:
            number = self._audio[0]
            item = self._items[number]
            assert isinstance(item.sent, bytes), "expected audio"
            end = item.at + len(item.sent)
            is_sent = number < self._next and end <= self._audio_next
            if not is_sent or (end > needed and self._kept_bytes <= self.keep_bytes):
                return
            self._audio.popleft()
            del self._items[number]
            self._kept_bytes -= len(item.sent)
