"""From answers to captions: what is shown when, and which names in it are highlighted."""

from __future__ import annotations

from cnerta.streamer.outputs.caption_formats import CaptionedUtterance
from cnerta.streamer.outputs.cues import DEFAULT_LAYOUT, CaptionLayout, CueTrack
from cnerta.streamer.outputs.highlighting import Highlighter
from cnerta.streamer.outputs.mended import final_as_shown
from cnerta.streamer.outputs.speakers import lead_of, voice_of
from cnerta.streamer.outputs.words import bundled_words
from cnerta.streamer.sources import Revision
from cnerta.streamer.wire.messages import UtteranceFinal

__all__ = ["Captioner"]


class Captioner:
    """Makes the captions of one session; told of what a `StreamWatcher` is told of.

    Args:
        highlighter: Chooses what is highlighted.
        layout: How much stands on the screen at once.
        name_speakers: Whether the name of whoever speaks stands before the words.
    """

    def __init__(
        self,
        highlighter: Highlighter,
        layout: CaptionLayout = DEFAULT_LAYOUT,
        *,
        name_speakers: bool = False,
    ) -> None:
        self._highlighter = highlighter
        self._layout = layout
        self._name_speakers = name_speakers
        self._track = CueTrack(layout, bundled_words())
        self._spoken = _SpokenTimes()

    @property
    def audio_ms(self) -> float:
        """How much audio was sent."""
        return self._spoken.now_ms

    @property
    def open_since_ms(self) -> float | None:
        """Where the first utterance starts that has no answer yet; None if there is none."""
        return self._spoken.open_since_ms

    def heard(self, audio_ms: float) -> None:
        """Note how much audio was sent."""
        self._spoken.now_ms = audio_ms

    def sent(self, revision: Revision) -> None:
        """Note when the utterance was spoken."""
        self._spoken.sent(revision)

    def captioned(self, final: UtteranceFinal, *, not_before_ms: int = 0) -> CaptionedUtterance:
        """Make the captions of an answer.

        Args:
            final: The answer.
            not_before_ms: No cue begins before this time.
        """
        final = final_as_shown(final)
        chosen = self._highlighter.choose(final.utterance, final.text, final.entities, final=True)
        marked = [entity for entity in final.entities if entity.id in chosen]
        self._track.not_before(not_before_ms)
        voice = voice_of(final.speaker, final.channel)
        lead = lead_of(voice, self._layout.line_columns) if self._name_speakers else ""
        spoken_ms = self._spoken.of(final.utterance)
        cues = self._track.cues(final, marked, spoken_ms, voice=voice, lead=lead)
        return CaptionedUtterance.of(final, chosen, cues)


class _SpokenTimes:
    """From when to when each utterance was spoken, as far as can be told without an alignment."""

    def __init__(self) -> None:
        self.now_ms = 0.0
        self._last_final_ms = 0.0
        self._of: dict[str, tuple[float, float]] = {}

    @property
    def open_since_ms(self) -> float | None:
        """Where the first of the utterances starts that were not asked for yet."""
        return min((start_ms for start_ms, _ in self._of.values()), default=None)

    def sent(self, revision: Revision) -> None:
        """Note a revision: it was spoken until now, unless it says otherwise."""
        start_ms, _ = self._of.get(revision.utterance, (None, 0.0))
        if revision.start_ms is not None:
            start_ms = float(revision.start_ms)
        elif start_ms is None:
            # A line that comes whole stands for the audio since the line before it.
            start_ms = self._last_final_ms if revision.final else self.now_ms
        end_ms = self.now_ms if revision.end_ms is None else float(revision.end_ms)
        self._of[revision.utterance] = (start_ms, max(start_ms, end_ms))
        if revision.final:
            self._last_final_ms = self.now_ms

    def of(self, utterance: str) -> tuple[float, float]:
        """Return start and end of an utterance in milliseconds, and forget it."""
        return self._of.pop(utterance, (self.now_ms, self.now_ms))
