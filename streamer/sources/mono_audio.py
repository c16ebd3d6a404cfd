"""The audio as recognisers want it: one channel, their own rate, blocks of one length."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

import numpy as np
import numpy.typing as npt

from cnerta.streamer.audio.decoder import AudioInput
from cnerta.streamer.sources.base import LiveAudio

__all__ = ["MonoAudio", "without_gaps"]

Floats = npt.NDArray[np.float32]

_WIDE = r"[\u2e80-\u303f\u3400-\u9fff\uf900-\ufaff\uff00-\uffef]"
_GAP = re.compile(rf"(?<={_WIDE})[^\S\n]+(?={_WIDE})")


class MonoAudio:
    """The stream's audio, mixed to one channel and resampled.

    Args:
        audio: The stream's audio.
        sample_rate: Wanted rate, in Hz.
        block_samples: Length of the blocks, in samples of that rate.

    Attributes:
        start_ms: Where on the stream's clock the first block begins.
    """

    def __init__(self, audio: LiveAudio, sample_rate: int, block_samples: int) -> None:
        self.start_ms = audio.audio_ms
        # From now on, even if it is a while until somebody reads.
        self._blocks = audio.blocks()
        self._front = AudioInput(audio.format, sample_rate)
        self._block_samples = block_samples

    async def blocks(self) -> AsyncIterator[Floats]:
        """Yield the audio until it ends; the last block may be shorter.

        Each block: float32, -1 to 1, (samples,).
        """
        pending = np.zeros(0, np.float32)
        async for block in self._blocks:
            pending = np.concatenate([pending, self._front.add(block)])
            while len(pending) >= self._block_samples:
                yield pending[: self._block_samples]
                pending = pending[self._block_samples :]
        pending = np.concatenate([pending, self._front.finish()])
        for start in range(0, len(pending), self._block_samples):
            yield pending[start : start + self._block_samples]


def without_gaps(text: str) -> str:
    """Take out the spaces between Chinese characters, which some recognisers put between words."""
    return _GAP.sub("", text.strip())
