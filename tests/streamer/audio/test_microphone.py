from __future__ import annotations

import asyncio
import importlib
import logging
from typing import Any

import numpy as np
import pytest

from cnerta.streamer.audio import microphone
from cnerta.streamer.audio.microphone import Microphone, find_input_device, list_input_devices
from cnerta.streamer.errors import MicrophoneError, NoMicrophoneError, PortAudioMissingError

from ..fake_sounddevice import DEVICES, FakeSounddevice, PortAudioError, described

BLOCK = bytes(range(256)) * 5


def open_microphone(fake: FakeSounddevice, name: str = "Headset") -> Microphone:
    return Microphone(find_input_device(name, list_input_devices(fake)), fake)


async def first_blocks(mic: Microphone, fake: FakeSounddevice) -> tuple[Any, asyncio.Task[bytes]]:
    """Start recording; return the iterator, already waiting for its first block."""
    blocks = aiter(mic.blocks())
    waiting = asyncio.ensure_future(anext(blocks))
    await asyncio.sleep(0)
    assert fake.streams[0].started
    return blocks, waiting


def test_only_devices_that_record_are_listed() -> None:
    devices = list_input_devices(FakeSounddevice())
    assert [device.index for device in devices] == [1, 2, 3, 4]
    assert [device.is_default for device in devices] == [True, False, False, False]


@pytest.mark.parametrize(
    ("wanted", "index"),
    [(None, 1), ("2", 2), ("headset", 2), ("BUILT-IN", 1), ("pulse", 4), ("USB Camera", 3)],
)
def test_device_is_chosen_by_index_name_or_part_of_it(wanted: str | None, index: int) -> None:
    assert find_input_device(wanted, list_input_devices(FakeSounddevice())).index == index


@pytest.mark.parametrize(
    ("wanted", "complaint"),
    [
        ("usb", "expected one input device for 'usb', got several: 2 USB Headset; 3 USB Camera"),
        ("radio", "expected an input device called 'radio', got only: 1 HDA Intel"),
        ("0", "expected an input device called '0', got only: "),
        ("99", "expected an input device called '99', got only: "),
    ],
)
def test_device_that_is_not_there_is_named(wanted: str, complaint: str) -> None:
    with pytest.raises(NoMicrophoneError, match=complaint):
        find_input_device(wanted, list_input_devices(FakeSounddevice()))


def test_machine_without_microphone() -> None:
    with pytest.raises(NoMicrophoneError, match="got no audio input device at all"):
        find_input_device(None, list_input_devices(FakeSounddevice([])))


def test_first_device_when_the_system_has_no_default() -> None:
    fake = FakeSounddevice()
    devices = [device for device in list_input_devices(fake) if not device.is_default]
    assert find_input_device(None, devices).index == 2


def test_missing_portaudio_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> None:
        raise OSError("PortAudio library not found")

    monkeypatch.setattr(importlib, "import_module", refuse)
    with pytest.raises(PortAudioMissingError, match="apt-get install libportaudio2"):
        list_input_devices()


def test_missing_sounddevice_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> None:
        raise ImportError("No module named 'sounddevice'")

    monkeypatch.setattr(importlib, "import_module", refuse)
    with pytest.raises(MicrophoneError, match="pip install sounddevice"):
        list_input_devices()


def test_portaudio_that_does_not_start_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> None:
        raise PortAudioError("Error initializing PortAudio: Unanticipated host error")

    monkeypatch.setattr(importlib, "import_module", refuse)
    with pytest.raises(MicrophoneError, match="expected PortAudio to start, got: Error init"):
        list_input_devices()


def test_portaudio_that_cannot_list_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeSounddevice()

    def refuse() -> None:
        raise PortAudioError("Error initializing PortAudio")

    monkeypatch.setattr(fake, "query_devices", refuse)
    with pytest.raises(MicrophoneError, match="got: Error initializing PortAudio"):
        list_input_devices(fake)


@pytest.mark.parametrize(
    ("name", "recorded", "sent", "channels"),
    [
        ("Headset", 16_000, 16_000, 1),
        ("Built-in", 44_100, 44_100, 2),
        ("Camera", 96_000, 48_000, 1),
        ("pulse", 44_100, 44_100, 2),
    ],
)
async def test_native_rate_and_channels_are_sent(
    name: str, recorded: int, sent: int, channels: int
) -> None:
    fake = FakeSounddevice()
    mic = open_microphone(fake, name)
    _, waiting = await first_blocks(mic, fake)
    options = fake.streams[0].options
    assert (mic.format.encoding, options["dtype"]) == ("pcm_s16le", "int16")
    assert (mic.format.sample_rate, options["samplerate"]) == (sent, recorded)
    assert (mic.format.channels, options["channels"]) == (channels, channels)
    waiting.cancel()


async def test_blocks_come_as_they_were_recorded_and_the_device_is_closed() -> None:
    fake = FakeSounddevice()
    blocks, waiting = await first_blocks(open_microphone(fake), fake)
    fake.streams[0].speak(BLOCK)
    fake.streams[0].speak(BLOCK[::-1])
    assert await waiting == BLOCK
    assert await anext(blocks) == BLOCK[::-1]
    await blocks.aclose()
    assert fake.streams[0].closed


async def test_unplugging_is_an_error_after_what_was_recorded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(microphone, "RETURN_WITHIN_S", 0.0)
    fake = FakeSounddevice()
    blocks, waiting = await first_blocks(open_microphone(fake), fake)
    fake.streams[0].speak(BLOCK)
    fake.streams[0].unplug()
    assert await waiting == BLOCK
    with pytest.raises(MicrophoneError, match="'USB Headset', got the end of it"):
        await anext(blocks)


async def test_an_unplugged_device_that_returns_under_another_number(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(microphone, "LOOK_EVERY_S", 0.05)
    fake = FakeSounddevice(list(DEVICES))
    mic = open_microphone(fake)
    told: list[str] = []
    mic.on_silence = told.append
    blocks, waiting = await first_blocks(mic, fake)
    fake.streams[0].speak(BLOCK)
    assert await waiting == BLOCK
    headset = fake.devices.pop(2)
    fake.streams[0].unplug()
    silent = 0
    while silent < 16_000 * 2 // 5:  # 200 ms
        block = await anext(blocks)
        assert not any(block)
        silent += len(block)
    assert told == ["unplugged"]
    assert fake.restarts > 1, "PortAudio lists its devices only when it starts"
    fake.devices.append(headset)
    while len(fake.streams) < 2:
        speaking = asyncio.ensure_future(anext(blocks))
        await asyncio.wait([speaking], timeout=1.0)
    assert fake.streams[1].options["device"] == 4
    fake.streams[1].speak(BLOCK[::-1])
    block = await speaking
    while not any(block):
        block = await anext(blocks)
    assert block == BLOCK[::-1]
    assert told == ["unplugged", ""]
    assert "'USB Headset' is back" in caplog.text
    await blocks.aclose()


async def test_a_device_that_does_not_return(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(microphone, "LOOK_EVERY_S", 0.02)
    monkeypatch.setattr(microphone, "RETURN_WITHIN_S", 0.1)
    fake = FakeSounddevice(list(DEVICES))
    blocks, waiting = await first_blocks(open_microphone(fake), fake)
    fake.streams[0].speak(BLOCK)
    await waiting
    fake.devices.clear()
    fake.streams[0].unplug()
    with pytest.raises(MicrophoneError, match=r"'USB Headset' to return within 0\.1 s"):
        async for _ in blocks:
            pass


async def test_a_device_that_falls_silent_is_taken_for_gone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(microphone, "STALLED_AFTER_S", 0.05)
    monkeypatch.setattr(microphone, "RETURN_WITHIN_S", 0.0)
    fake = FakeSounddevice()
    _, waiting = await first_blocks(open_microphone(fake), fake)
    with pytest.raises(MicrophoneError, match="got the end of it"):
        await waiting
    assert fake.streams[0].closed


async def test_muted_is_silence_of_the_same_length() -> None:
    fake = FakeSounddevice()
    mic = open_microphone(fake)
    told: list[str] = []
    mic.on_silence = told.append
    blocks, waiting = await first_blocks(mic, fake)
    mic.mute()
    fake.streams[0].speak(BLOCK)
    assert await waiting == bytes(len(BLOCK))
    mic.mute()
    fake.streams[0].speak(BLOCK)
    assert await anext(blocks) == BLOCK
    assert told == ["muted", ""]
    await blocks.aclose()


def tone(rate: int, channels: int, hertz: float = 440.0, seconds: float = 0.5) -> bytes:
    """A tone on the first channel and nothing on the others; 16-bit."""
    samples = np.zeros((round(rate * seconds), channels), "<i2")
    at_s = np.arange(len(samples)) / rate
    samples[:, 0] = 10_000 * np.sin(2 * np.pi * hertz * at_s)
    return samples.tobytes()


@pytest.mark.parametrize(
    ("described_rate", "rates", "opened"),
    [(96_000, None, 96_000), (16_000, [44_100], 44_100), (192_000, [16_000], 16_000)],
)
async def test_other_rates_are_changed_to_what_is_sent(
    described_rate: int, rates: list[int] | None, opened: int
) -> None:
    fake = FakeSounddevice([described("Odd", 3, float(described_rate))])
    fake.rates = rates
    mic = Microphone(find_input_device(None, list_input_devices(fake)), fake)
    blocks, waiting = await first_blocks(mic, fake)
    options = fake.streams[-1].options
    assert (options["samplerate"], options["channels"]) == (opened, 2)
    assert mic.format.sample_rate == min(described_rate, 48_000)
    fake.streams[-1].speak(tone(opened, 2))
    got = np.frombuffer(await waiting, "<i2").reshape(-1, 2)
    assert np.abs(got[:, 1]).max() <= 1, "silence but for the dither"
    assert len(got) == pytest.approx(0.5 * mic.format.sample_rate, rel=0.1)
    spectrum = np.abs(np.fft.rfft(got[:, 0] * np.hanning(len(got))))
    loudest = spectrum.argmax() * mic.format.sample_rate / len(got)
    assert loudest == pytest.approx(440.0, abs=5.0)
    await blocks.aclose()


async def test_a_device_with_fewer_channels_than_it_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fake = FakeSounddevice([described("Odd", 2, 16_000.0)])
    mic = Microphone(find_input_device(None, list_input_devices(fake)), fake)
    real = fake.RawInputStream

    def only_mono(**options: Any) -> Any:
        if options["channels"] != 1:
            raise PortAudioError("Invalid number of channels [PaErrorCode -9998]")
        return real(**options)

    monkeypatch.setattr(fake, "RawInputStream", only_mono)
    blocks, waiting = await first_blocks(mic, fake)
    fake.streams[0].speak(np.array([1, -2, 3], "<i2").tobytes())
    assert np.frombuffer(await waiting, "<i2").tolist() == [1, 1, -2, -2, 3, 3]
    await blocks.aclose()


async def test_lost_audio_becomes_as_much_silence(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(microphone, "QUEUE_MS", 3 * microphone.BLOCK_MS)
    fake = FakeSounddevice()
    mic = open_microphone(fake)
    blocks, waiting = await first_blocks(mic, fake)
    block = b"\x01" * 640  # 20 ms at 16 kHz
    with caplog.at_level(logging.WARNING):
        for _ in range(8):
            fake.streams[0].speak(block)
        await asyncio.sleep(0)  # five of the eight find the queue full
    assert "some is lost" in caplog.text
    got = [await waiting] + [await anext(blocks) for _ in range(2)]
    fake.streams[0].speak(block)
    got += [await anext(blocks) for _ in range(6)]
    assert b"".join(got) == 3 * block + bytes(5 * 640) + block
    assert mic.lost_ms == 100
    await blocks.aclose()


async def test_status_of_portaudio_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    fake = FakeSounddevice()
    _, waiting = await first_blocks(open_microphone(fake), fake)
    fake.streams[0].speak(BLOCK, status="input overflow")
    await waiting
    assert "PortAudio: input overflow" in caplog.text


@pytest.mark.parametrize("refusal", ["refuses_open", "refuses_start"])
async def test_device_that_refuses_is_named(refusal: str) -> None:
    fake = FakeSounddevice()
    setattr(fake, refusal, True)
    with pytest.raises(MicrophoneError, match="16000 Hz with 1 channels from 'USB Headset', got: "):
        await anext(aiter(open_microphone(fake).blocks()))
    assert all(stream.closed for stream in fake.streams)
