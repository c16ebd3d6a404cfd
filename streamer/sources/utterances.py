"""From what a recogniser says to revisions: names, numbers, and utterances that never end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from cnerta.streamer.sources.base import Revision
from cnerta.streamer.sources.mono_audio import without_gaps
from cnerta.streamer.wire.parts import MAX_SPEAKER_CHARACTERS

__all__ = ["Hypothesis", "Utterances"]

MAX_CHARACTERS = 400
"""A minute of fast speech: who has said so much without an end will not end by himself."""

CLOSED_KEPT = 64


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """What a recogniser says of one utterance now.

    Attributes:
        key: Its own name for the utterance.
        text: The whole text of the utterance so far.
        final: Whether it will not change any more.
        start_ms: Where the utterance starts on the stream's clock, if known.
        end_ms: Up to where the text reaches, if known.
        speaker: Who speaks, if known.
        channel: In which channel of the recording, from 0, if known.
    """

    key: str
    text: str
    final: bool
    start_ms: float | None = None
    end_ms: float | None = None
    speaker: str | None = None
    channel: int | None = None


@dataclass(slots=True)
class _Open:
    name: str
    revision: int
    text: str
    start_ms: float | None
    began_ms: float
    changed_ms: float
    speaker: str | None = None
    channel: int | None = None


class Utterances:
    """Numbers utterances and revisions, and passes on only what is new.

    An utterance may be closed before the recogniser ends it. What it says of it afterwards, without
    the text that was closed, is another utterance.

    Args:
        silence_ms: An utterance whose text has not changed for so long has ended. None where the
            recogniser says when one ends.
        longest_ms: An utterance is ended after this much audio in any case.
        write: Puts a text into the wanted script, character for character.
    """

    def __init__(
        self,
        *,
        silence_ms: float | None = None,
        longest_ms: float = 40_000,
        write: Callable[[str], str] = str,
    ) -> None:
        self._silence_ms = silence_ms
        self._longest_ms = longest_ms
        self._write = write
        self._count = 0
        self._open: dict[str, _Open] = {}
        self._said: dict[str, int] = {}  # how much of an utterance's text was closed early
        self._closed: dict[str, None] = {}  # a set that keeps its order

    def update(self, hypothesis: Hypothesis, audio_ms: float) -> list[Revision]:
        """Take what the recogniser says.

        Args:
            hypothesis: What it says.
            audio_ms: How much audio there was by then.

        Returns:
            The revision of it, if there is anything new in it.
        """
        if hypothesis.key in self._closed:
            return []
        whole = self._write(without_gaps(hypothesis.text))
        text = without_gaps(whole[self._said.get(hypothesis.key, 0) :])
        known = self._open.get(hypothesis.key)
        if hypothesis.final:
            self._said.pop(hypothesis.key, None)
            self._closed[hypothesis.key] = None
            if len(self._closed) > CLOSED_KEPT:
                del self._closed[next(iter(self._closed))]
        if known is None:
            if not text:
                return []
            self._count += 1
            known = _Open(f"u{self._count}", 0, "", hypothesis.start_ms, audio_ms, audio_ms)
            self._open[hypothesis.key] = known
        elif text == known.text and not hypothesis.final:
            return []
        known.text = text
        known.changed_ms = audio_ms
        known.start_ms = hypothesis.start_ms if hypothesis.start_ms is not None else known.start_ms
        known.speaker = hypothesis.speaker or known.speaker
        known.channel = known.channel if hypothesis.channel is None else hypothesis.channel
        if hypothesis.final:
            del self._open[hypothesis.key]
        return [_revision(known, hypothesis.final, hypothesis.end_ms)]

    def overdue(self, audio_ms: float) -> list[Revision]:
        """End the utterances that have been silent or open for too long.

        Args:
            audio_ms: How much audio there was by now.
        """
        late = []
        for key, known in self._open.items():
            silent_ms = audio_ms - known.changed_ms
            if (
                (self._silence_ms is not None and silent_ms >= self._silence_ms)
                or audio_ms - known.began_ms >= self._longest_ms
                or len(known.text) >= MAX_CHARACTERS
            ):
                late.append(key)
        return [self._close(key) for key in late]

    def close_all(self) -> list[Revision]:
        """End every open utterance with the text it has, since nothing more will be said of it."""
        ended = [self._close(key) for key in tuple(self._open)]
        self._said.clear()
        return ended

    def forget(self) -> None:
        """Let another recogniser use the same keys for other utterances."""
        self._said.clear()
        self._closed.clear()

    def _close(self, key: str) -> Revision:
        known = self._open.pop(key)
        self._said[key] = self._said.get(key, 0) + len(known.text)
        return _revision(known, True, None)


def _revision(known: _Open, final: bool, end_ms: float | None) -> Revision:
    known.revision += 1
    start = None if known.start_ms is None else max(0, round(known.start_ms))
    end = None if end_ms is None else max(0, round(end_ms))
    if start is not None and end is not None:
        end = max(start, end)
    speaker = known.speaker[:MAX_SPEAKER_CHARACTERS] if known.speaker else None
    return Revision(
        known.name, known.revision, known.text, final, start, end, speaker, known.channel
    )
