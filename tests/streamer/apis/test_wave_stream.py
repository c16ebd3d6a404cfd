"""WAV files that arrive in pieces."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from cnerta.streamer.apis.wave_stream import NotWaveError, WaveStream
from cnerta.streamer.wire.parts import AudioFormat

SAMPLES = (np.sin(np.arange(400) / 9) * 9_000).astype("<i2")


def written(subtype: str, samples: np.ndarray = SAMPLES, rate: int = 16_000) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format="WAV", subtype=subtype)
    return file.getvalue()


def header(*, size: int, kind: int = 1, bits: int = 16, before: bytes = b"") -> bytes:
    fmt = struct.pack("<HHIIHH", kind, 1, 16_000, 32_000, 2, bits)
    chunks = before + b"fmt " + struct.pack("<I", len(fmt)) + fmt
    return b"RIFF\xff\xff\xff\xffWAVE" + chunks + b"data" + struct.pack("<I", size)


@given(st.lists(st.integers(1, 300), max_size=20))
def test_wherever_it_was_cut_the_samples_are_the_same(cuts: list[int]) -> None:
    file, stream = written("PCM_16"), WaveStream()
    found, at = b"", 0
    for cut in [*cuts, len(file)]:
        found += stream.add(file[at : at + cut])
        at += cut
    assert found == SAMPLES.tobytes()
    assert stream.audio_format == AudioFormat(encoding="pcm_s16le", sample_rate=16_000)


@pytest.mark.parametrize(
    ("subtype", "encoding"),
    [("PCM_16", "pcm_s16le"), ("FLOAT", "pcm_f32le"), ("ULAW", "mulaw"), ("ALAW", "alaw")],
)
def test_the_header_tells_the_format(subtype: str, encoding: str) -> None:
    stream = WaveStream()
    stream.add(written(subtype, np.stack([SAMPLES, SAMPLES], axis=1), 8_000))
    assert stream.audio_format == AudioFormat(
        encoding=encoding,  # type: ignore[arg-type]
        sample_rate=8_000,
        channels=2,
    )


@pytest.mark.parametrize("size", [0, 0xFFFFFFFF])
def test_without_a_length_all_that_comes_is_audio(size: int) -> None:
    stream = WaveStream()
    assert stream.add(header(size=size) + b"ab") == b"ab"
    assert stream.add(b"cdefgh") == b"cdefgh"


def test_what_stands_behind_the_samples_is_none() -> None:
    stream = WaveStream()
    assert stream.add(header(size=4) + b"abcdLIST\x04\0\0\0xxxx") == b"abcd"
    assert stream.add(b"more") == b""


def test_other_chunks_are_passed_over() -> None:
    stream = WaveStream()
    other = b"LIST" + struct.pack("<I", 3) + b"abc\0"
    assert stream.add(header(size=2, before=other) + b"xy") == b"xy"


@pytest.mark.parametrize(
    ("sent", "why"),
    [
        (b"OggS\0\2", "expected a WAV file"),
        (b"RIFF\0\0\0\0AVI ", "expected a WAV file"),
        (written("PCM_24"), "format 1 of 24 bits"),
        (header(size=0, kind=2, bits=4), "format 2 of 4 bits"),
        (b"RIFF\0\0\0\0WAVEdata\0\0\0\0", "the format before"),
        (b"RIFF\0\0\0\0WAVEjunk\xff\xff\xff\x0f", "at most 65536"),
    ],
)
def test_what_is_none_is_refused(sent: bytes, why: str) -> None:
    with pytest.raises(NotWaveError, match=why):
        WaveStream().add(sent)
