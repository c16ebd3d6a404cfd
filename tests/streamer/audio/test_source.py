from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from cnerta.streamer.audio.source import AudioFile, encode_pcm_s16le, level_dbfs
from cnerta.streamer.errors import AudioFileError


async def read_all(audio: AudioFile) -> np.ndarray[tuple[int], np.dtype[np.int16]]:
    return np.frombuffer(b"".join([block async for block in audio.blocks()]), "<i2")


def tone(rate: int, seconds: float, channels: int = 1) -> np.ndarray:
    wave = 0.5 * np.sin(2 * np.pi * 440 * np.arange(round(rate * seconds)) / rate)
    return np.repeat(wave[:, None], channels, axis=1)


async def test_sixteen_bit_wav_is_sent_sample_for_sample(tmp_path: Path) -> None:
    samples = np.random.default_rng(0).integers(-32_768, 32_768, 16_001).astype(np.int16)
    soundfile.write(tmp_path / "a.wav", samples, 44_100)
    audio = AudioFile(tmp_path / "a.wav", paced=False)
    assert audio.format.sample_rate == 44_100
    assert audio.format.channels == 1
    assert audio.duration_ms == pytest.approx(16_001 / 44.1)
    np.testing.assert_array_equal(await read_all(audio), samples)


@pytest.mark.parametrize(
    ("suffix", "subtype"), [("flac", "PCM_24"), ("ogg", "VORBIS"), ("mp3", None)]
)
async def test_other_files_come_out_alike(tmp_path: Path, suffix: str, subtype: str | None) -> None:
    path = tmp_path / f"a.{suffix}"
    soundfile.write(path, tone(16_000, 1.0, channels=2), 16_000, subtype=subtype)
    sent = await read_all(AudioFile(path, paced=False))
    assert len(sent) == pytest.approx(16_000, abs=1_200), "mp3 pads its ends"
    middle = sent[4_000:12_000] / 32_768
    assert np.sqrt(np.mean(middle**2)) == pytest.approx(0.5 / np.sqrt(2), rel=0.03)


@pytest.mark.parametrize("rate", [96_000, 6_000])
async def test_rate_outside_the_protocol_is_resampled(tmp_path: Path, rate: int) -> None:
    soundfile.write(tmp_path / "a.wav", tone(rate, 1.0), rate)
    audio = AudioFile(tmp_path / "a.wav", paced=False)
    assert audio.format.sample_rate == 16_000
    sent = await read_all(audio)
    assert len(sent) == pytest.approx(16_000, abs=2)
    spectrum = np.abs(np.fft.rfft(sent[:16_000]))
    assert int(np.argmax(spectrum)) == pytest.approx(440, abs=1)


async def test_float_file_is_scaled_and_loud_samples_are_clipped(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.array([0.5, 1.5, -1.5]), 16_000, subtype="FLOAT")
    sent = await read_all(AudioFile(tmp_path / "a.wav", paced=False))
    assert sent.tolist() == [16_384, 32_767, -32_768]


async def test_paced_file_comes_at_the_pace_of_speech(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", tone(16_000, 0.3), 16_000)
    started = time.monotonic()
    await read_all(AudioFile(tmp_path / "a.wav", paced=True))
    assert 0.29 <= time.monotonic() - started < 1.0


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        AudioFileError, match=r"expected an audio file at .*none\.wav, got no such file"
    ):
        AudioFile(tmp_path / "none.wav", paced=False)
    with pytest.raises(AudioFileError, match="got a folder"):
        AudioFile(tmp_path, paced=False)


@pytest.mark.parametrize("content", [b"", b"this is not audio" * 50])
def test_file_that_is_not_audio_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(content)
    with pytest.raises(AudioFileError, match="expected audio that FFmpeg or libsndfile reads"):
        AudioFile(path, paced=False)


def test_file_without_samples_is_named(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(0), 16_000)
    with pytest.raises(AudioFileError, match="got a file without samples"):
        AudioFile(tmp_path / "a.wav", paced=False)


async def test_damage_further_in_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.flac"
    soundfile.write(path, tone(16_000, 2.0), 16_000)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    audio = AudioFile(path, paced=False)
    with pytest.raises(AudioFileError, match=r"expected 2\.0 s of audio in .*, got"):
        await read_all(audio)


@pytest.mark.parametrize("sample", [np.nan, np.inf])
async def test_sample_that_is_no_number_is_named(tmp_path: Path, sample: float) -> None:
    samples = np.zeros(16_000)
    samples[9_000] = sample
    soundfile.write(tmp_path / "a.wav", samples, 16_000, subtype="FLOAT")
    with pytest.raises(AudioFileError, match=r"expected finite samples in .*a\.wav"):
        await read_all(AudioFile(tmp_path / "a.wav", paced=False))


def test_level() -> None:
    assert level_dbfs(encode_pcm_s16le(np.ones(100, np.float32))) == pytest.approx(0.0, abs=0.01)
    assert level_dbfs(encode_pcm_s16le(np.full(100, 0.1, np.float32))) == pytest.approx(
        -20, abs=0.1
    )
    assert level_dbfs(bytes(200)) == float("-inf")
    assert level_dbfs(b"") == float("-inf")
