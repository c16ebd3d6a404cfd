"""Local agreement: of a text that is recognised again and again, what two in a row agree on.

Macháček, Dabre and Bojar 2023, "Turning Whisper into Real-Time Transcription System", section 2
(after Liu et al. 2020): the longest common prefix of two consecutive hypotheses is taken as
settled and is not taken back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Agreement", "Word"]


@dataclass(frozen=True, slots=True)
class Word:
    """A recognised word.

    Attributes:
        text: What was said.
        end_s: Where it ends in the window of audio, in seconds.
    """

    text: str
    end_s: float


class Agreement:
    """Settles the words of one utterance, whose window of audio grows and may lose its beginning.

    Attributes:
        dropped_s: How much audio at the beginning is settled and out of the window.
        text_before: What was said in it.
    """

    def __init__(self) -> None:
        self.dropped_s = 0.0
        self.text_before = ""
        self._settled: tuple[Word, ...] = ()
        self._last: tuple[Word, ...] = ()

    @property
    def settled(self) -> str:
        """The text that is settled, that before the window included."""
        return self.text_before + "".join(word.text for word in self._settled)

    def add(self, words: Sequence[Word]) -> None:
        """Take another hypothesis of all that is in the window."""
        agreed = 0
        for earlier, later in zip(self._last, words, strict=False):
            if earlier.text != later.text:
                break
            agreed += 1
        # Later hypotheses may differ in what is settled; it stays as it is.
        self._settled += tuple(words[len(self._settled) : agreed])
        self._last = tuple(words)

    def drop_settled(self) -> None:
        """Let the window begin after the last settled word."""
        if not self._settled:
            return
        end_s = self._settled[-1].end_s
        self.text_before = self.settled
        self.dropped_s += end_s
        self._settled = self._last = ()

    def whole(self, words: Sequence[Word]) -> str:
        """The text of the utterance, given the last hypothesis of what is in the window."""
        return self.text_before + "".join(word.text for word in words)
