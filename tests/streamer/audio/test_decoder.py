from __future__ import annotations

import io

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from cnerta.streamer.audio.decoder import AudioInput
from cnerta.streamer.wire.errors import ProtocolError
from cnerta.streamer.wire.parts import AudioFormat


def decode(audio_format: AudioFormat, data: bytes, cuts: list[int] | None = None) -> np.ndarray:
    audio = AudioInput(audio_format)
    parts, at = [], 0
    for cut in [*(cuts or []), len(data)]:
        parts.append(audio.add(data[at : at + cut]))
        at += cut
    return np.concatenate([*parts, audio.finish()])


@pytest.mark.parametrize(("encoding", "subtype"), [("mulaw", "ULAW"), ("alaw", "ALAW")])
def test_companded_codes_decode_as_libsndfile_does(encoding: str, subtype: str) -> None:
    codes = bytes(range(256))
    expected, _ = soundfile.read(
        io.BytesIO(codes),
        samplerate=16_000,
        channels=1,
        format="RAW",
        subtype=subtype,
        dtype="float32",
    )
    np.testing.assert_array_equal(decode(AudioFormat(encoding=encoding), codes), expected)


def test_sixteen_bit_and_float_samples_mean_the_same() -> None:
    values = np.array([0, 1, -1, 32767, -32768, 12345], dtype="<i2")
    floats = (values / 32768).astype("<f4")
    np.testing.assert_array_equal(
        decode(AudioFormat(), values.tobytes()),
        decode(AudioFormat(encoding="pcm_f32le"), floats.tobytes()),
    )


def test_channels_are_mixed_down_by_their_mean() -> None:
    left, right = np.array([1000, 2000], "<i2"), np.array([3000, -2000], "<i2")
    mixed = decode(AudioFormat(channels=2), np.stack([left, right], axis=1).tobytes())
    np.testing.assert_allclose(mixed * 32768, [2000, 0])


@settings(max_examples=40)
@given(
    st.sampled_from(["pcm_s16le", "pcm_f32le", "mulaw", "alaw"]),
    st.sampled_from([8_000, 11_025, 16_000, 44_100, 48_000]),
    st.integers(1, 3),
    st.lists(st.integers(0, 777), max_size=20),
)
def test_where_frames_are_cut_makes_no_difference(
    encoding: str, rate: int, channels: int, cuts: list[int]
) -> None:
    audio_format = AudioFormat(encoding=encoding, sample_rate=rate, channels=channels)
    random = np.random.default_rng(1)
    if encoding == "pcm_f32le":
        data = random.uniform(-1, 1, 2000 * channels).astype("<f4").tobytes()
    else:
        data = random.integers(0, 256, 4000 * channels, dtype=np.uint8).tobytes()
    np.testing.assert_array_equal(decode(audio_format, data, cuts), decode(audio_format, data))


@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 44_100, 48_000])
def test_resampling_keeps_times(rate: int) -> None:
    seconds, at = 2.0, 1.25
    samples = np.zeros(int(seconds * rate), np.float32)
    samples[int(at * rate)] = 0.9
    data = (samples * 32767).astype("<i2").tobytes()
    resampled = decode(AudioFormat(sample_rate=rate), data, [999] * 30)
    assert len(resampled) == pytest.approx(seconds * 16_000, abs=1)
    assert np.abs(resampled).argmax() / 16_000 == pytest.approx(at, abs=1 / 8_000)


def test_time_is_counted_in_received_samples_across_formats() -> None:
    audio = AudioInput(AudioFormat(sample_rate=44_100))
    for _ in range(441):
        audio.add(bytes(2 * 100))  # 100 samples: 2.27 ms, which no integer can sum
    assert audio.received_ms == 1000
    audio.add(b"\x00")
    assert audio.received_ms == 1000
    assert audio.partial_bytes == 1
    audio.change(AudioFormat(encoding="mulaw", sample_rate=8_000))
    audio.add(bytes(8_000))
    assert audio.received_ms == 2000


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_sample_that_is_no_number_is_refused(bad: float) -> None:
    audio = AudioInput(AudioFormat(encoding="pcm_f32le"))
    with pytest.raises(ProtocolError, match=r"audio_not_finite: expected finite samples, got"):
        audio.add(np.array([0.0, bad, 0.0], "<f4").tobytes())


def test_samples_beyond_full_scale_are_cut() -> None:
    audio = AudioInput(AudioFormat(encoding="pcm_f32le"))
    samples = audio.add(np.array([0.5, 3e38, -2.0], "<f4").tobytes())
    np.testing.assert_array_equal(samples, np.array([0.5, 1.0, -1.0], np.float32))
    assert audio.clipped
