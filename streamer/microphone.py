"""The microphone as an audio source, through PortAudio.

sounddevice is imported only here and only when a microphone or the device list is asked for,
because its import fails where the PortAudio library is missing, and everything else works without
it.

The device's own sample rate and channels are sent as they are; the session resamples and mixes.
PortAudio calls back on a thread of its own: the callback copies the block into a bounded queue and
returns. When the consumer falls behind and the queue is full, blocks are lost; silence of the same
length takes their place, so that the audio clock, which counts samples, stays true.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import logging
import math
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from cnerta.streamer.client_errors import (
    MicrophoneError,
    NoMicrophoneError,
    PortAudioMissingError,
)
from cnerta.streamer.messages import MAX_SAMPLE_RATE, MIN_SAMPLE_RATE, AudioFormat

__all__ = ["InputDevice", "Microphone", "find_input_device", "list_input_devices"]

log = logging.getLogger(__name__)

BLOCK_MS = 20
QUEUE_MS = 4_000
"""How much audio may wait for its consumer before blocks are lost."""

WARN_EVERY_S = 5.0
MAX_CHANNELS = 2
"""Virtual devices claim 32 or 128 channels; a voice is on the first two."""


@dataclass(frozen=True, slots=True)
class InputDevice:
    """One device that can record."""

    index: int
    name: str
    channels: int
    sample_rate: int
    is_default: bool

    @property
    def format(self) -> AudioFormat:
        """What this device will be asked for and what is then sent."""
        return AudioFormat(
            encoding="pcm_s16le",
            sample_rate=min(max(self.sample_rate, MIN_SAMPLE_RATE), MAX_SAMPLE_RATE),
            channels=min(self.channels, MAX_CHANNELS),
        )


def _import_sounddevice() -> Any:
    try:
        return importlib.import_module("sounddevice")
    except ImportError as error:
        raise MicrophoneError(
            f"expected the Python package sounddevice for the microphone, got: {error}. "
            "Install it with: pip install sounddevice"
        ) from error
    except OSError as error:  # what sounddevice raises when it does not find the shared library
        raise PortAudioMissingError(
            f"expected the PortAudio library for the microphone, got: {error}. "
            "On Debian and Ubuntu: apt-get install libportaudio2; on Fedora: dnf install portaudio"
        ) from error
    except Exception as error:  # its own PortAudioError, which cannot be named before it is there
        raise MicrophoneError(f"expected PortAudio to start, got: {error}") from error


def list_input_devices(sounddevice: Any = None) -> list[InputDevice]:
    """List the devices that can record, in PortAudio's order.

    Args:
        sounddevice: The sounddevice module, or a stand-in with the same functions; imported if
            None.

    Raises:
        PortAudioMissingError: The PortAudio library is not installed.
        MicrophoneError: PortAudio cannot list its devices.
    """
    sounddevice = sounddevice or _import_sounddevice()
    try:
        described = list(sounddevice.query_devices())
        default_index = int(sounddevice.default.device[0])
    except sounddevice.PortAudioError as error:
        raise MicrophoneError(
            f"expected a list of audio devices from PortAudio, got: {error}"
        ) from error
    return [
        InputDevice(
            index=index,
            name=str(device["name"]),
            channels=int(device["max_input_channels"]),
            sample_rate=round(device["default_samplerate"]),
            is_default=index == default_index,
        )
        for index, device in enumerate(described)
        if device["max_input_channels"] > 0
    ]


def find_input_device(wanted: str | None, devices: list[InputDevice]) -> InputDevice:
    """Choose a device by index, by name, or by a part of its name (whatever the case).

    Args:
        wanted: An index, a name or a part of one; None for the system's default device.
        devices: What `list_input_devices` gave.

    Raises:
        NoMicrophoneError: There is no input device, none fits, or several do.
    """
    if not devices:
        raise NoMicrophoneError(
            "expected a microphone, got no audio input device at all: plug one in, or stream a "
            "file with --file"
        )
    if wanted is None:
        return next((device for device in devices if device.is_default), devices[0])
    if wanted.isdecimal():
        fitting = [device for device in devices if device.index == int(wanted)]
    else:
        name = wanted.casefold()
        fitting = [device for device in devices if device.name.casefold() == name]
        fitting = fitting or [device for device in devices if name in device.name.casefold()]
    if len(fitting) == 1:
        return fitting[0]
    listed = "; ".join(f"{device.index} {device.name}" for device in fitting or devices)
    if fitting:
        raise NoMicrophoneError(f"expected one input device for {wanted!r}, got several: {listed}")
    raise NoMicrophoneError(f"expected an input device called {wanted!r}, got only: {listed}")


@dataclass(frozen=True, slots=True)
class _Block:
    """One callback's samples, and how many bytes were lost just before them."""

    lost_bytes: int
    samples: bytes


class Microphone:
    """An `AudioSource` that records from one device until it is closed.

    Args:
        device: What to record from.
        sounddevice: The sounddevice module, or a stand-in; imported if None.
    """

    paced = True
    endless = True

    def __init__(self, device: InputDevice, sounddevice: Any = None) -> None:
        self._sounddevice = sounddevice or _import_sounddevice()
        self.device = device
        self.format = device.format
        self.lost_ms = 0.0

    async def blocks(self) -> AsyncIterator[bytes]:
        """Record, yielding interleaved 16-bit samples about every 20 ms.

        Raises:
            MicrophoneError: The device cannot be opened, or it stopped (it was unplugged).
        """
        frame_bytes = 2 * self.format.channels
        bytes_per_ms = frame_bytes * self.format.sample_rate / 1_000
        block_frames = self.format.sample_rate * BLOCK_MS // 1_000
        silence = bytes(block_frames * frame_bytes)
        loop = asyncio.get_running_loop()
        waiting: asyncio.Queue[_Block | None] = asyncio.Queue(QUEUE_MS // BLOCK_MS)
        lost_bytes = 0
        warned_at = -math.inf

        def enqueue(samples: bytes) -> None:
            nonlocal lost_bytes, warned_at
            try:
                waiting.put_nowait(_Block(lost_bytes, samples))
                lost_bytes = 0
            except asyncio.QueueFull:
                if loop.time() - warned_at > WARN_EVERY_S:
                    warned_at = loop.time()
                    log.warning("more than %d ms of audio wait: some is lost", QUEUE_MS)
                lost_bytes += len(samples)
                self.lost_ms += len(samples) / bytes_per_ms

        def enqueue_end() -> None:
            if waiting.full():  # the end must get through: a block gives way
                waiting.get_nowait()
            waiting.put_nowait(None)

        def on_block(samples: Any, frames: int, time: Any, status: Any) -> None:
            if status:
                log.warning("PortAudio: %s", status)
            # The loop may close while PortAudio still calls; then nobody wants the block.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(enqueue, bytes(samples))

        def on_finished() -> None:
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(enqueue_end)

        try:
            stream = self._sounddevice.RawInputStream(
                samplerate=self.format.sample_rate,
                blocksize=block_frames,
                device=self.device.index,
                channels=self.format.channels,
                dtype="int16",
                callback=on_block,
                finished_callback=on_finished,
            )
        except (self._sounddevice.PortAudioError, ValueError) as error:
            raise MicrophoneError(self._complaint(error)) from error
        with contextlib.closing(stream):
            try:
                stream.start()
            except self._sounddevice.PortAudioError as error:
                raise MicrophoneError(self._complaint(error)) from error
            while (block := await waiting.get()) is not None:
                for start in range(0, block.lost_bytes, len(silence)):
                    yield silence[: block.lost_bytes - start]
                yield block.samples
        raise MicrophoneError(
            f"expected audio from {self.device.name!r}, got the end of it: was it unplugged?"
        )

    def _complaint(self, error: Exception) -> str:
        return (
            f"expected {self.format.sample_rate} Hz with {self.format.channels} channels from "
            f"{self.device.name!r}, got: {error}"
        )
