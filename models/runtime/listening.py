"""How far an answer follows the audio: as far as the audio fits its text.

The tagger can answer from the text alone, and from text and audio. Of a voice that it hears well
the audio tells more than the text. A voice unlike those of its training it hears badly, and this
misleads it where the text is sure. The alignment score tells the two apart, so the emission scores
lie on the line between both answers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["Listening"]

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Listening:
    """Weighs the answer from text and audio against that from the text alone.

    Attributes:
        none_at: Alignment score up to which the answer is from the text alone.
        full_at: Alignment score from which the audio counts in full; above ``none_at``.
    """

    none_at: float
    full_at: float

    def __post_init__(self) -> None:
        if not self.none_at < self.full_at:
            raise ValueError(
                f"expected none_at below full_at, got {self.none_at:g} and {self.full_at:g}"
            )

    def share(self, score: float) -> float:
        """Share of the answer that hears, 0 to 1, at an alignment score."""
        share = (score - self.none_at) / (self.full_at - self.none_at)
        return min(max(share, 0.0), 1.0)

    def combined(self, heard: Floats, from_text: Floats, score: float) -> Floats:
        """Emission scores of both answers as one.

        Args:
            heard: With the audio. shape: (length, tags)
            from_text: Without it. shape: (length, tags)
            score: Alignment score of the audio.

        Returns:
            shape: (length, tags)
        """
        share = np.float32(self.share(score))
        mixed: Floats = from_text + share * (heard - from_text)
        return mixed
