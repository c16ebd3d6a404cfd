"""A stand-in for the sounddevice module, with devices and a stream that a test drives by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class PortAudioError(Exception):
    """What sounddevice raises when PortAudio refuses."""


class _Default:
    device = (1, 3)


class FakeStream:
    """One opened stream: the test calls `speak` and `unplug`."""

    def __init__(self, owner: FakeSounddevice, options: dict[str, Any]) -> None:
        self.owner = owner
        self.options = options
        self.started = False
        self.closed = False

    def start(self) -> None:
        if self.owner.refuses_start:
            raise PortAudioError("Device unavailable [PaErrorCode -9985]")
        self.started = True

    def close(self) -> None:
        self.closed = True
        self.options["finished_callback"]()

    def speak(self, samples: bytes, status: str = "") -> None:
        frames = len(samples) // 2 // self.options["channels"]
        self.options["callback"](memoryview(samples), frames, None, status)

    def unplug(self) -> None:
        self.options["finished_callback"]()


class FakeSounddevice:
    """The part of the module that the microphone uses."""

    PortAudioError = PortAudioError
    default = _Default()

    def __init__(self, devices: list[dict[str, Any]] | None = None) -> None:
        self.devices = DEVICES if devices is None else devices
        self.streams: list[FakeStream] = []
        self.refuses_open = False
        self.refuses_start = False
        self.rates: list[int] | None = None
        self.restarts = 0
        self.on_open: Callable[[FakeStream], None] | None = None

    def _terminate(self) -> None:
        assert all(stream.closed for stream in self.streams), "it crashes with open ones"

    def _initialize(self) -> None:
        self.restarts += 1

    def query_devices(self) -> list[dict[str, Any]]:
        return self.devices

    def RawInputStream(self, **options: Any) -> FakeStream:  # noqa: N802 (the real name)
        if self.refuses_open or (self.rates and options["samplerate"] not in self.rates):
            raise PortAudioError("Invalid sample rate [PaErrorCode -9997]")
        stream = FakeStream(self, options)
        self.streams.append(stream)
        if self.on_open is not None:
            self.on_open(stream)
        return stream


def described(name: str, inputs: int, rate: float) -> dict[str, Any]:
    return {"name": name, "max_input_channels": inputs, "default_samplerate": rate}


DEVICES = [
    described("HDA Intel: Speakers", 0, 48_000.0),
    described("HDA Intel: Built-in Microphone", 2, 44_100.0),
    described("USB Headset", 1, 16_000.0),
    described("USB Camera", 1, 96_000.0),
    described("pulse", 32, 44_100.0),
]
