"""A sound file in memory as samples that a session takes."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import soundfile
import soxr

from cnerta.streamer.audio.source import FALLBACK_RATE, encode_pcm_s16le
from cnerta.streamer.errors import AudioFileError
from cnerta.streamer.wire.parts import MAX_CHANNELS, MAX_SAMPLE_RATE, MIN_SAMPLE_RATE, AudioFormat

__all__ = ["DecodedRecording", "decode_recording"]

_BLOCK_FRAMES: Final = 16_384


@dataclass(frozen=True, slots=True)
class DecodedRecording:
    """What was in a file.

    Attributes:
        audio_format: Of the samples; what was decoded has 16 bits and one channel.
        samples: All of them.
    """

    audio_format: AudioFormat
    samples: bytes

    @property
    def duration_ms(self) -> float:
        """How long it is."""
        audio_format = self.audio_format
        return 1_000 * len(self.samples) / (audio_format.frame_bytes * audio_format.sample_rate)


def decode_recording(content: bytes, most_ms: int) -> DecodedRecording:
    """Decode whatever libsndfile reads, up to a length: a small file may hold days of silence.

    Args:
        content: The file.
        most_ms: How long it may be.

    Raises:
        AudioFileError: It is none, is damaged, or is too long.
    """
    try:
        with soundfile.SoundFile(io.BytesIO(content)) as file:
            return _decode(file, most_ms)
    except (soundfile.SoundFileError, OSError) as error:
        raise AudioFileError("expected a sound file that can be read, got another") from error


def _decode(file: soundfile.SoundFile, most_ms: int) -> DecodedRecording:
    if file.channels > MAX_CHANNELS:
        raise AudioFileError(f"expected at most {MAX_CHANNELS} channels, got {file.channels}")
    rate: int = file.samplerate
    blocks = list(_blocks(file, most_ms * rate // 1_000))
    mono = np.concatenate(blocks) if blocks else np.zeros(0, np.float32)
    if not len(mono):
        raise AudioFileError("expected samples, got a sound file without")
    if not np.isfinite(mono).all():
        raise AudioFileError("expected finite samples, got infinity or no number")
    if not MIN_SAMPLE_RATE <= rate <= MAX_SAMPLE_RATE:
        mono = soxr.resample(mono, rate, FALLBACK_RATE)
        rate = FALLBACK_RATE
    return DecodedRecording(AudioFormat(sample_rate=rate), encode_pcm_s16le(mono))


def _blocks(file: soundfile.SoundFile, most: int) -> Iterator[npt.NDArray[np.float32]]:
    count = 0
    while len(block := file.read(_BLOCK_FRAMES, dtype="float32", always_2d=True)):
        count += len(block)
        if count > most:
            raise AudioFileError(
                f"expected at most {most / file.samplerate:g} s of audio, got more"
            )
        yield block.mean(axis=1, dtype=np.float32)
