from __future__ import annotations

import asyncio
import importlib
import logging
from typing import Any

import pytest

from cnerta.streamer import microphone
from cnerta.streamer.client_errors import (
    MicrophoneError,
    NoMicrophoneError,
    PortAudioMissingError,
)
from cnerta.streamer.microphone import Microphone, find_input_device, list_input_devices

from .fake_sounddevice import FakeSounddevice, PortAudioError

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
    ("name", "rate", "channels"),
    [("Headset", 16_000, 1), ("Built-in", 44_100, 2), ("Camera", 48_000, 1), ("pulse", 44_100, 2)],
)
async def test_native_rate_and_channels_are_sent(name: str, rate: int, channels: int) -> None:
    fake = FakeSounddevice()
    mic = open_microphone(fake, name)
    _, waiting = await first_blocks(mic, fake)
    options = fake.streams[0].options
    assert (mic.format.encoding, options["dtype"]) == ("pcm_s16le", "int16")
    assert (mic.format.sample_rate, options["samplerate"]) == (rate, rate)
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


async def test_unplugging_is_an_error_after_what_was_recorded() -> None:
    fake = FakeSounddevice()
    blocks, waiting = await first_blocks(open_microphone(fake), fake)
    fake.streams[0].speak(BLOCK)
    fake.streams[0].unplug()
    assert await waiting == BLOCK
    with pytest.raises(MicrophoneError, match="'USB Headset', got the end of it"):
        await anext(blocks)


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
