"""Where audio comes from: one small interface, and the audio file.

An `AudioSource` yields raw blocks in a format of the wire protocol. The microphone is in
`cnerta.streamer.audio.microphone`, so that this module does not need PortAudio.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import soundfile
import soxr

from cnerta.models.runtime.loudness import power_db
from cnerta.streamer.audio.pyav_file import MediaFile
from cnerta.streamer.errors import AudioFileError
from cnerta.streamer.wire.parts import MAX_SAMPLE_RATE, MIN_SAMPLE_RATE, AudioFormat

__all__ = ["AudioFile", "AudioSource", "encode_pcm_s16le", "level_dbfs"]

BLOCK_MS = 40
FALLBACK_RATE = 16_000
"""Sent instead of a file's own rate where that is outside the protocol's; the model's own rate."""

FULL_SCALE = 32_768.0


class AudioSource(Protocol):
    """Anything that yields audio.

    Attributes:
        format: Encoding, rate and channels of the blocks.
        paced: Whether blocks come at the pace of speech.
        endless: Whether it goes on until it is closed; then the end of the transcript ends the
            stream.
    """

    format: AudioFormat
    paced: bool
    endless: bool

    def blocks(self) -> AsyncIterator[bytes]:
        """Yield raw samples in `format`, interleaved."""
        ...


class AudioFile:
    """An `AudioSource` over anything libsndfile reads: WAV, FLAC, Ogg, MP3, AIFF and more.

    With PyAV installed, also over what FFmpeg reads (see `MediaFile`). Several channels are mixed
    to one, and a rate outside 8 to 48 kHz is changed to 16 kHz; all else is sent as it is in the
    file.

    Args:
        path: The file.
        paced: Whether to yield a block only when it would have been spoken.

    Raises:
        AudioFileError: There is no such file, it is not audio, or it is empty.
    """

    endless = False

    def __init__(self, path: Path, *, paced: bool) -> None:
        self.paced = paced
        self._path = path
        if not path.is_file():
            got = "a folder" if path.is_dir() else "no such file"
            raise AudioFileError(f"expected an audio file at {path}, got {got}")
        reader: _SoundFile | MediaFile
        try:
            reader = _SoundFile(path)
        except (soundfile.SoundFileError, OSError):
            reader = MediaFile(path)
        if reader.duration_ms <= 0:
            raise AudioFileError(f"expected audio in {path}, got a file without samples")
        self._reader = reader
        self._file_rate = reader.sample_rate
        self.duration_ms = reader.duration_ms
        fits = MIN_SAMPLE_RATE <= self._file_rate <= MAX_SAMPLE_RATE
        self.format = AudioFormat(sample_rate=self._file_rate if fits else FALLBACK_RATE)

    async def blocks(self) -> AsyncIterator[bytes]:
        """Yield 40 ms at a time.

        Raises:
            AudioFileError: The file turns out to be damaged further in, or to hold samples that
                are no finite numbers.
        """
        loop = asyncio.get_running_loop()
        started = loop.time()
        yielded_samples = 0
        for samples in self._mono_blocks():
            yielded_samples += len(samples)
            if self.paced:  # against the start, so that lateness does not add up
                due = started + yielded_samples / self.format.sample_rate
                await asyncio.sleep(max(0.0, due - loop.time()))
            if len(samples):
                yield encode_pcm_s16le(samples)

    def encoded_blocks(self) -> Iterator[bytes]:
        """All of it in 40 ms at a time, for whoever has no event loop.

        Raises:
            AudioFileError: As :meth:`blocks`.
        """
        return (encode_pcm_s16le(samples) for samples in self._mono_blocks() if len(samples))

    def _mono_blocks(self) -> Iterator[npt.NDArray[np.float32]]:
        """Yield the mixed and resampled file. Each block: float32, (samples,)."""
        resampler = None
        if self.format.sample_rate != self._file_rate:
            resampler = soxr.ResampleStream(self._file_rate, self.format.sample_rate, 1)
        for mono in self._reader.blocks():
            if not np.isfinite(mono).all():  # only a file of floats can hold such
                raise AudioFileError(
                    f"expected finite samples in {self._path}, got infinity or no number"
                )
            yield mono if resampler is None else resampler.resample_chunk(mono)
        if resampler is not None:
            yield resampler.resample_chunk(np.empty(0, np.float32), last=True)


class _SoundFile:
    """A file that libsndfile reads, mixed to one channel.

    Args:
        path: The file.

    Raises:
        SoundFileError: It is none.
    """

    def __init__(self, path: Path) -> None:
        info = soundfile.info(str(path))
        self._path = path
        self.sample_rate: int = info.samplerate
        self.duration_ms: float = 1_000 * max(0, info.frames) / info.samplerate

    def blocks(self) -> Iterator[npt.NDArray[np.float32]]:
        """Yield the samples, 40 ms at a time. Each block: float32, (samples,).

        Raises:
            AudioFileError: The file is damaged further in.
        """
        block_frames = self.sample_rate * BLOCK_MS // 1_000
        try:
            with _SequentialFile(str(self._path)) as opened:
                # shape of block: (frames, channels)
                while len(block := opened.read(block_frames, dtype="float32", always_2d=True)):
                    yield block.mean(axis=1, dtype=np.float32)
        except soundfile.SoundFileError as error:
            raise AudioFileError(
                f"expected {self.duration_ms / 1_000:.1f} s of audio in {self._path}, got an error "
                f"on the way: {error}"
            ) from error


class _SequentialFile(soundfile.SoundFile):  # type: ignore[misc]  # untyped base
    """A sound file that is only read forwards.

    soundfile seeks to where it is after every read, and a seek in an MP3 loses the bits that the
    next frame needs from the ones before: read in blocks, it comes out in tatters.
    """

    def seekable(self) -> bool:
        """Say no, so that soundfile does not seek."""
        return False


def encode_pcm_s16le(samples: npt.NDArray[np.float32]) -> bytes:
    """Encode samples in [-1, 1] (louder ones are clipped) as 16-bit little-endian integers.

    Args:
        samples: float32, (samples,).
    """
    scaled = np.rint(samples * FULL_SCALE)
    encoded: bytes = np.clip(scaled, -FULL_SCALE, FULL_SCALE - 1).astype("<i2").tobytes()
    return encoded


def level_dbfs(block: bytes) -> float:
    """Return the level of 16-bit little-endian samples in dB of full scale; -inf for silence."""
    samples = np.frombuffer(block, "<i2").astype(np.float32) / FULL_SCALE
    if not samples.any():
        return -math.inf
    return float(power_db(np.mean(samples * samples, keepdims=True))[0])
