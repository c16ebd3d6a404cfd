"""Binary frames of any supported encoding, rate and channel count → mono samples of one rate.

Frames may be cut anywhere: an incomplete sample waits for the next frame, and the resampler keeps
its state, so the result does not depend on where the cuts were. Time is counted in received
samples. The resampler delays its output by a few tens of milliseconds but does not shift it:
output sample ``i`` always belongs to the time ``i / rate``.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Final

import numpy as np
import numpy.typing as npt
import soxr

from cnerta.models.runtime.companding import ALAW, MULAW
from cnerta.models.runtime.geometry import SAMPLE_RATE
from cnerta.streamer.wire.errors import ErrorName, ProtocolError
from cnerta.streamer.wire.parts import AudioFormat

__all__ = ["AudioInput"]

Floats = npt.NDArray[np.float32]


_FULL_SCALE: Final = np.float32(1 / 32768)


class AudioInput:
    """One stream's audio front door.

    Args:
        audio_format: Of what comes in.
        sample_rate: Of what goes out, in Hz.

    Attributes:
        clipped: Whether float samples beyond -1 to 1 were met (they are cut).
    """

    def __init__(self, audio_format: AudioFormat, sample_rate: int = SAMPLE_RATE) -> None:
        self.clipped = False
        self._sample_rate = sample_rate
        self._before = Fraction(0)
        self._samples_before = 0
        self._begin(audio_format)

    def _begin(self, audio_format: AudioFormat) -> None:
        self._format = audio_format
        self._partial = b""
        self._received = 0
        self._resampler = (
            None
            if audio_format.sample_rate == self._sample_rate
            else soxr.ResampleStream(
                audio_format.sample_rate, self._sample_rate, 1, dtype="float32"
            )
        )

    @property
    def received_ms(self) -> int:
        """Audio received so far, complete samples only, in milliseconds."""
        rate, before = self._format.sample_rate, self._before
        # Whole numbers: this is asked twice a frame, and fractions take ten times as long.
        parts = before.numerator * rate + self._received * before.denominator
        return 1000 * parts // (before.denominator * rate)

    @property
    def received_samples(self) -> int:
        """Complete samples of each channel received so far, each counted at the rate it had."""
        return self._samples_before + self._received

    @property
    def partial_bytes(self) -> int:
        """Bytes of an incomplete sample that wait for the rest."""
        return len(self._partial)

    def drop_partial(self) -> None:
        """Forget an incomplete sample: it will come again as a whole."""
        self._partial = b""

    def add(self, data: bytes) -> Floats:
        """Take one binary frame.

        Returns:
            The new samples at the rate that goes out, perhaps none. shape: (samples,)

        Raises:
            ProtocolError: A float sample is NaN or infinite.
        """
        if self._partial:
            data = self._partial + data
        whole = len(data) - len(data) % self._format.frame_bytes
        self._partial = data[whole:]
        mono = self._decode(memoryview(data)[:whole])
        self._received += len(mono)
        if self._resampler is None or not len(mono):
            return mono
        resampled: Floats = self._resampler.resample_chunk(mono)
        return resampled

    def change(self, audio_format: AudioFormat) -> Floats:
        """Go on in another format; an incomplete sample of the old one is lost.

        Returns:
            The last samples of the old format.
        """
        rest = self.finish()
        self._before += Fraction(self._received, self._format.sample_rate)
        self._samples_before += self._received
        self._begin(audio_format)
        return rest

    def finish(self) -> Floats:
        """The samples that the resampler still holds, when no more will come."""
        if self._resampler is None or not self._received:
            return np.zeros(0, np.float32)
        rest: Floats = self._resampler.resample_chunk(np.zeros(0, np.float32), last=True)
        return rest

    def _decode(self, data: memoryview) -> Floats:
        """Bytes of whole samples → mono, -1 to 1. shape: (samples,)."""
        encoding = self._format.encoding
        if encoding == "pcm_s16le":
            # One step over the samples, not two: see cnerta.models.runtime.buffers.
            whole = np.frombuffer(data, "<i2")
            samples: Floats = np.multiply(whole, _FULL_SCALE, dtype=np.float32)
        elif encoding == "pcm_f32le":
            samples = self._checked(np.frombuffer(data, "<f4").astype(np.float32))
        else:
            table = MULAW if encoding == "mulaw" else ALAW
            samples = table[np.frombuffer(data, np.uint8)]
        if self._format.channels == 1:
            return samples
        mixed: Floats = samples.reshape(-1, self._format.channels).mean(axis=1, dtype=np.float32)
        return mixed

    def _checked(self, samples: Floats) -> Floats:
        if not len(samples):
            return samples
        # One pass over the samples: NaN and infinities survive a minimum and a maximum.
        low, high = float(samples.min()), float(samples.max())
        if not (np.isfinite(low) and np.isfinite(high)):
            bad = samples[~np.isfinite(samples)][0]
            raise ProtocolError(ErrorName.AUDIO_NOT_FINITE, f"expected finite samples, got {bad}")
        if low < -1 or high > 1:
            self.clipped = True
            return np.clip(samples, np.float32(-1), np.float32(1))
        return samples
