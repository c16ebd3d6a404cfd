"""One session's share of the recogniser: its takes, one after the other.

Usually there is one take from the first audio to the last. Whoever wants what was said so far to be
written to its end ends a take, and another one begins with the next sample. Utterances of takes
after the first have the take's number before their name, and times go on where they were.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from cnerta.streamer.serving.recognition import Recogniser, Recognition
from cnerta.streamer.sources.base import Revision
from cnerta.streamer.wire.parts import AudioFormat

__all__ = ["Transcribed", "Transcription"]


class Transcribed(Protocol):
    """Whose audio is recognised; called in the event loop that began it."""

    def on_revision(self, revision: Revision) -> None:
        """The transcript of an utterance has changed."""
        ...

    def on_flushed(self) -> None:
        """What was said before a flush is written."""
        ...

    def on_transcription_over(self, is_complete: bool) -> None:
        """There will be no more; not complete: something failed."""
        ...


class Transcription:
    """See the module. All methods are for the event loop that began it."""

    def __init__(
        self,
        recogniser: Recogniser,
        audio_format: AudioFormat,
        owner: Transcribed,
        *,
        paced: bool = True,
    ) -> None:
        """Prepare; see :meth:`begin`.

        Args:
            recogniser: What writes.
            audio_format: Of the audio.
            owner: Whom to tell.
            paced: Whether the audio comes at the pace of speech.
        """
        self._paced = paced
        self._recogniser = recogniser
        self._format = audio_format
        self._owner = owner
        self._takes: list[_Take] = []
        self._count = 0
        self._wishes = 0
        self._skip = 0
        self._is_over = False

    def begin(self) -> bool:
        """Begin; False: there are as many sessions as may be."""
        return self._next_take(0.0, None)

    @property
    def is_too_slow(self) -> bool:
        """Whether more audio waits than may."""
        return any(take.recognition.is_too_slow for take in self._takes)

    @property
    def waiting_ms(self) -> float:
        """Audio that the recogniser has not taken yet."""
        return max((take.recognition.waiting_ms for take in self._takes), default=0.0)

    def push(self, block: bytes) -> None:
        """More audio."""
        if self._is_over or not self._takes:
            return
        if self._skip:
            cut = min(self._skip, len(block))
            self._skip -= cut
            block = block[cut:]
        self._takes[-1].recognition.push(block)

    def complete_sample(self) -> None:
        """The audio goes on with a whole sample, wherever it broke off."""
        self._skip = 0
        if self._takes:
            self._takes[-1].recognition.complete_sample()

    def flush(self) -> None:
        """What was said so far is to be written to its end; then the owner is told.

        One at a time: recognisers are slow to begin, and a client may ask as often as it likes.
        """
        self._wishes += 1
        if len(self._takes) == 1:
            self._flush_now()

    def end(self) -> None:
        """There is no more audio."""
        if self._takes:
            self._takes[-1].recognition.end()

    def cancel(self) -> None:
        """Nobody wants to know any more."""
        self._is_over = True
        for take in self._takes:
            take.recognition.cancel()

    def _flush_now(self) -> None:
        last = self._takes[-1]
        if not last.recognition.pushed_bytes:
            self._tell_flushed()
            return
        # A sample that was cut in two belongs to neither.
        self._skip = last.recognition.complete_sample()
        self._next_take(last.end_ms, last.recognition)
        last.recognition.end()

    def _next_take(self, start_ms: float, after: Recognition | None) -> bool:
        self._count += 1
        take = _Take(self, "" if self._count == 1 else f"t{self._count}-", start_ms, self._format)
        recognition = self._recogniser.begin(self._format, take, after=after, paced=self._paced)
        if recognition is None:
            return False
        take.recognition = recognition
        self._takes.append(take)
        return True

    def _tell_flushed(self) -> None:
        wishes, self._wishes = self._wishes, 0
        for _ in range(wishes):
            self._owner.on_flushed()

    # --- for its takes ----------------------------------------------------------------------------

    def on_revision(self, revision: Revision) -> None:
        """A take has written something."""
        if not self._is_over:
            self._owner.on_revision(revision)

    def on_take_over(self, take: _Take, is_complete: bool) -> None:
        """A take is over."""
        if self._is_over:
            return
        if not is_complete:
            self.cancel()
            self._owner.on_transcription_over(False)
            return
        was_flushed = take is not self._takes[-1]
        self._takes.remove(take)
        if not self._takes:
            self._is_over = True
            self._tell_flushed()
            self._owner.on_transcription_over(True)
        elif was_flushed:
            self._wishes -= 1
            self._owner.on_flushed()
            if self._wishes:
                self._flush_now()


class _Take:
    """Listens to one recognition."""

    recognition: Recognition

    def __init__(
        self, whole: Transcription, prefix: str, start_ms: float, audio_format: AudioFormat
    ) -> None:
        self._tell: Callable[[Revision], None] = whole.on_revision
        self._whole = whole
        self._prefix = prefix
        self._start_ms = start_ms
        self._bytes_per_ms = audio_format.sample_rate * audio_format.frame_bytes / 1000

    @property
    def end_ms(self) -> float:
        return self._start_ms + self.recognition.pushed_bytes / self._bytes_per_ms

    def on_revision(self, revision: Revision) -> None:
        """See :class:`cnerta.streamer.serving.recognition.RecognitionListener`."""
        if self._prefix:
            revision = replace(
                revision,
                utterance=self._prefix + revision.utterance,
                start_ms=self._later(revision.start_ms),
                end_ms=self._later(revision.end_ms),
            )
        self._tell(revision)

    def on_recognition_over(self, is_complete: bool) -> None:
        """See :class:`cnerta.streamer.serving.recognition.RecognitionListener`."""
        self._whole.on_take_over(self, is_complete)

    def _later(self, ms: int | None) -> int | None:
        return None if ms is None else ms + round(self._start_ms)
