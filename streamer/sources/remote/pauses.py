"""Where a speaker pauses, by level alone: for servers that leave it to the client to end a turn.

Levels are compared with the quietest of the last seconds, so a steady noise is no speech for long:
only at the beginning, when nothing quieter was heard, anything loud is taken for it.
"""

from __future__ import annotations

from collections import deque
from typing import Final

import numpy as np
import numpy.typing as npt

__all__ = ["Pauses"]

Floats = npt.NDArray[np.float32]

_ABOVE_NOISE_DB: Final = 12.0
_QUIETEST_SPEECH_DB: Final = -50.0
_NOISE_S: Final = 10.0
_UNKNOWN_S: Final = 2.0
_UNKNOWN_NOISE_DB: Final = -62.0
_LEAST_SPEECH_S: Final = 0.2
_SILENCE_DB: Final = -100.0


class Pauses:
    """Follows the audio of one connection.

    Args:
        pause_s: So much quiet after speech is a pause.
        sample_rate: In Hz.
    """

    def __init__(self, pause_s: float, sample_rate: int) -> None:
        self._pause_s = pause_s
        self._sample_rate = sample_rate
        self._levels: deque[tuple[float, float]] = deque()  # seconds, dB
        self._kept_s = 0.0
        self._unknown = round(_UNKNOWN_S * sample_rate)
        """So many samples have still to be heard until the quietest of them is noise."""
        self._spoken_s = self._quiet_s = 0.0

    def ends_with(self, samples: Floats) -> bool:
        """Whether a pause after speech is complete with this block.

        Args:
            samples: The next block, -1 to 1, some tens of milliseconds. shape: (samples,)
        """
        seconds = len(samples) / self._sample_rate
        power = float(np.mean(np.square(samples, dtype=np.float64))) if len(samples) else 0.0
        level = 10 * np.log10(power) if power > 0 else _SILENCE_DB
        self._levels.append((seconds, max(level, _SILENCE_DB)))
        self._kept_s += seconds
        self._unknown -= len(samples)
        while self._kept_s - self._levels[0][0] > _NOISE_S:
            self._kept_s -= self._levels.popleft()[0]
        noise = min(level for _, level in self._levels)
        if self._unknown >= 0:
            noise = min(noise, _UNKNOWN_NOISE_DB)
        if level > max(_QUIETEST_SPEECH_DB, noise + _ABOVE_NOISE_DB):
            self._spoken_s, self._quiet_s = self._spoken_s + seconds, 0.0
            return False
        self._quiet_s += seconds
        if self._spoken_s < _LEAST_SPEECH_S or self._quiet_s < self._pause_s:
            return False
        self._spoken_s = self._quiet_s = 0.0
        return True
