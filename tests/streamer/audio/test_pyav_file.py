from __future__ import annotations

import sys
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from cnerta.streamer.audio.source import AudioFile
from cnerta.streamer.errors import AudioFileError

RATE = 48_000


def write(
    path: Path,
    codec: str | None,
    *,
    seconds: float = 1.0,
    starts_s: float = 0.0,
    gap_s: float = 0.0,
    picture: bool = False,
    damaged: bool = False,
) -> None:
    """Write 440 Hz on the left and silence on the right, with a pause in the middle if wanted."""
    with av.open(str(path), "w") as container:
        if picture:
            film = container.add_stream("mpeg4", rate=10)
            film.width = film.height = 32
            film.pix_fmt = "yuv420p"
        track = None
        if codec is not None:
            track = container.add_stream(codec, rate=RATE, layout="stereo")
        for number in range(round(10 * seconds) if picture else 0):
            image = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")
            image.pts = number
            container.mux(film.encode(image))
        if track is not None:
            for start in range(0, round(RATE * seconds), 960):
                at_s = np.arange(start, start + 960) / RATE
                left = 0.5 * np.sin(2 * np.pi * 440 * at_s)
                samples = np.stack([left, np.zeros(960)]).astype(np.float32)
                frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="stereo")
                frame.sample_rate = RATE
                late_s = starts_s + (gap_s if at_s[0] >= seconds / 2 else 0.0)
                frame.pts = start + round(late_s * RATE)
                container.mux(track.encode(frame))
            container.mux(track.encode(None))
        if picture:
            container.mux(film.encode(None))
    if damaged:
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 3])


async def read_all(audio: AudioFile) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    sent = b"".join([block async for block in audio.blocks()])
    return np.frombuffer(sent, "<i2") / 32_768


def loud_from_to_s(samples: np.ndarray) -> tuple[float, float]:
    loud = np.flatnonzero(np.abs(samples) > 0.05)
    return loud[0] / RATE, loud[-1] / RATE


@pytest.mark.parametrize(("suffix", "codec"), [("m4a", "aac"), ("mp4", "aac"), ("mkv", "flac")])
async def test_what_libsndfile_does_not_read(tmp_path: Path, suffix: str, codec: str) -> None:
    path = tmp_path / f"a.{suffix}"
    write(path, codec, picture=suffix == "mp4")
    with pytest.raises(soundfile.SoundFileError):
        soundfile.info(str(path))
    audio = AudioFile(path, paced=False)
    assert audio.format.sample_rate == RATE
    assert audio.duration_ms == pytest.approx(1_000, abs=50)
    sent = await read_all(audio)
    assert len(sent) == pytest.approx(RATE, abs=0.05 * RATE)
    middle = sent[RATE // 4 : 3 * RATE // 4]
    assert np.abs(middle).max() == pytest.approx(0.25, abs=0.02), (
        "both channels, one of them silent"
    )
    spectrum = np.abs(np.fft.rfft(middle * np.hanning(len(middle))))
    assert spectrum.argmax() * RATE / len(middle) == pytest.approx(440, abs=3)


async def test_sound_that_starts_later_than_the_picture(tmp_path: Path) -> None:
    write(tmp_path / "a.mkv", "flac", starts_s=0.5, picture=True)
    start_s, end_s = loud_from_to_s(await read_all(AudioFile(tmp_path / "a.mkv", paced=False)))
    assert (start_s, end_s) == pytest.approx((0.5, 1.5), abs=0.06)


async def test_a_gap_is_silence(tmp_path: Path) -> None:
    write(tmp_path / "a.mkv", "flac", gap_s=2.5)
    sent = await read_all(AudioFile(tmp_path / "a.mkv", paced=False))
    assert loud_from_to_s(sent) == pytest.approx((0.0, 3.5), abs=0.06)
    assert not sent[round(0.6 * RATE) : round(2.9 * RATE)].any()


def test_film_without_sound(tmp_path: Path) -> None:
    write(tmp_path / "a.mp4", None, picture=True)
    with pytest.raises(AudioFileError, match=r"a\.mp4, got a file without any"):
        AudioFile(tmp_path / "a.mp4", paced=False)


def test_file_that_was_cut_off(tmp_path: Path) -> None:
    write(tmp_path / "a.m4a", "aac", damaged=True)
    with pytest.raises(AudioFileError, match="expected audio that FFmpeg or libsndfile reads"):
        AudioFile(tmp_path / "a.m4a", paced=False)


async def test_file_without_a_length(tmp_path: Path) -> None:
    # As a recording is while it is written: Matroska that cannot go back to say how long it is.
    path = tmp_path / "a.mkv"
    write(path, "flac")
    content = bytearray(path.read_bytes())
    duration = content.index(b"\x44\x89\x88")
    content[duration : duration + 2] = b"\xec\x89"  # An element that means nothing, as long as it.
    path.write_bytes(content)
    assert AudioFile(path, paced=False).duration_ms == pytest.approx(1_000, abs=30)


def test_without_pyav_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.m4a").write_bytes(b"\x00\x00\x00\x1cftypM4A ")
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(AudioFileError, match=r"pip install 'cnerta-stream\[media\]'"):
        AudioFile(tmp_path / "a.m4a", paced=False)
