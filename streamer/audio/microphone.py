"""The microphone as an audio source, through PortAudio.

sounddevice is imported only here and only when a microphone or the device list is asked for,
because its import fails where the PortAudio library is missing, and everything else works without
it.

The device's own sample rate and channels are sent as they are where the protocol has them; the
session resamples and mixes. What it does not have is resampled here.
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
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import soxr

from cnerta.streamer.errors import MicrophoneError, NoMicrophoneError, PortAudioMissingError
from cnerta.streamer.wire.parts import MAX_SAMPLE_RATE, MIN_SAMPLE_RATE, AudioFormat

__all__ = ["InputDevice", "Microphone", "find_input_device", "list_input_devices"]

log = logging.getLogger(__name__)

BLOCK_MS = 20
QUEUE_MS = 4_000
"""How much audio may wait for its consumer before blocks are lost."""

WARN_EVERY_S = 5.0
STALLED_AFTER_S = 5.0
"""A device that sends nothing for so long is taken for gone."""
LOOK_EVERY_S = 1.0
RETURN_WITHIN_S = 300.0
"""So long a device that was unplugged is waited for."""
COMMON_RATES = (48_000, 44_100, 16_000)
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


@dataclass(frozen=True, slots=True)
class _Setting:
    """How a device is asked to record 16-bit samples."""

    sample_rate: int
    channels: int

    @property
    def frame_bytes(self) -> int:
        """Bytes of one sample of all channels."""
        return 2 * self.channels


class Microphone:
    """An `AudioSource` that records from one device until it is closed.

    The device records at its own rate and with its own channels; where it does not take them, or
    the protocol does not, they are changed here. One that is unplugged is waited for: until it is
    back there is silence, so that the audio clock goes on.

    Args:
        device: What to record from.
        sounddevice: The sounddevice module, or a stand-in; imported if None.
    """

    paced = True
    endless = True

    def __init__(self, device: InputDevice, sounddevice: Any = None) -> None:
        self._sounddevice = sounddevice or _import_sounddevice()
        self._muted = False
        self._gone_at_s: float | None = None
        self.device = device
        self.format = device.format
        self.lost_ms = 0.0
        self.on_silence: Callable[[str], None] | None = None
        """Told why there is only silence whenever that changes; an empty text if there is sound."""

    def mute(self) -> None:
        """Send silence instead of what is recorded, or no longer."""
        self._muted = not self._muted
        self._tell()

    def _tell(self) -> None:
        if self.on_silence is not None:
            unplugged = self._gone_at_s is not None
            self.on_silence("unplugged" if unplugged else "muted" if self._muted else "")

    async def blocks(self) -> AsyncIterator[bytes]:
        """Record, yielding interleaved 16-bit samples about every 20 ms.

        Raises:
            MicrophoneError: The device cannot be opened, or it was unplugged and did not return.
        """
        recorded = False
        while True:
            try:
                async with contextlib.aclosing(self._record()) as blocks:
                    async for block in blocks:
                        if self._gone_at_s is not None:
                            log.warning("%r is back", self.device.name)
                            self._gone_at_s = None
                            self._tell()
                        recorded = True
                        yield bytes(len(block)) if self._muted else block
            except MicrophoneError as error:
                if not recorded or self._has_waited_enough():
                    raise
                if self._gone_at_s is None:
                    log.warning("%s Waiting for it to return", error)
                    self._gone_at_s = asyncio.get_running_loop().time()
                    self._tell()
            async with contextlib.aclosing(self._silence_until_back()) as silence:
                async for block in silence:
                    yield block

    def _has_waited_enough(self) -> bool:
        if self._gone_at_s is None:
            return RETURN_WITHIN_S <= 0
        return asyncio.get_running_loop().time() - self._gone_at_s > RETURN_WITHIN_S

    async def _silence_until_back(self) -> AsyncGenerator[bytes, None]:
        """Yield silence at the pace of time until the device is listed again.

        Raises:
            MicrophoneError: It is not, in the time it has.
        """
        loop = asyncio.get_running_loop()
        started = loop.time()
        frames = 0
        while True:
            looked_at = loop.time()
            looking = asyncio.create_task(asyncio.to_thread(self._look_again))
            try:
                while not looking.done() or loop.time() - looked_at < LOOK_EVERY_S:
                    await asyncio.sleep(BLOCK_MS / 1_000)
                    due = int((loop.time() - started) * self.format.sample_rate)
                    yield bytes((due - frames) * self.format.frame_bytes)
                    frames = due
            finally:
                # PortAudio must not be asked for anything else in the middle of it.
                await asyncio.wait([looking])
            if (found := looking.result()) is not None:
                self.device = found
                return
            if self._has_waited_enough():
                raise MicrophoneError(
                    f"expected {self.device.name!r} to return within {RETURN_WITHIN_S:g} s, "
                    "got nothing"
                )

    def _look_again(self) -> InputDevice | None:
        """Find the device by its name; its number may be another now."""
        try:
            # PortAudio lists its devices once, when it starts; sounddevice has no other way.
            self._sounddevice._terminate()
            self._sounddevice._initialize()
            devices = list_input_devices(self._sounddevice)
        except (MicrophoneError, self._sounddevice.PortAudioError) as error:
            log.debug("no devices: %s", error)
            return None
        return next((device for device in devices if device.name == self.device.name), None)

    async def _record(self) -> AsyncGenerator[bytes, None]:
        """Yield what the device records, in `format`.

        Raises:
            MicrophoneError: It cannot be opened, or stops.
        """
        loop = asyncio.get_running_loop()
        waiting: asyncio.Queue[_Block | None] = asyncio.Queue(QUEUE_MS // BLOCK_MS)
        setting = _Setting(0, 0)
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
                self.lost_ms += 1_000 * len(samples) / setting.frame_bytes / setting.sample_rate

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

        stream, setting = self._open(on_block, on_finished)
        convert = _converter(setting, self.format)
        silence = bytes(setting.sample_rate * BLOCK_MS // 1_000 * setting.frame_bytes)
        with contextlib.closing(stream):
            try:
                stream.start()
            except self._sounddevice.PortAudioError as error:
                raise MicrophoneError(self._explain(setting, error)) from error
            while True:
                try:
                    async with asyncio.timeout(STALLED_AFTER_S):
                        block = await waiting.get()
                except TimeoutError:
                    break  # Some drivers do not say that the device is gone.
                if block is None:
                    break
                for start in range(0, block.lost_bytes, len(silence)):
                    yield convert(silence[: block.lost_bytes - start])
                yield convert(block.samples)
        raise MicrophoneError(
            f"expected audio from {self.device.name!r}, got the end of it: was it unplugged?"
        )

    def _open(
        self, on_block: Callable[..., None], on_finished: Callable[[], None]
    ) -> tuple[Any, _Setting]:
        """Open the device as it records by itself, or in another way if it does not take that."""
        device = self.device
        own = _Setting(device.sample_rate, min(device.channels, MAX_CHANNELS))
        # Some say they have a rate or as few channels, and do not.
        others = [
            _Setting(rate, channels)
            for channels in (own.channels, device.channels, 1)
            for rate in (own.sample_rate, *COMMON_RATES)
        ]
        refusal: MicrophoneError | None = None
        for setting in dict.fromkeys([own, *others]):
            try:
                stream = self._sounddevice.RawInputStream(
                    samplerate=setting.sample_rate,
                    blocksize=setting.sample_rate * BLOCK_MS // 1_000,
                    device=device.index,
                    channels=setting.channels,
                    dtype="int16",
                    callback=on_block,
                    finished_callback=on_finished,
                )
            except (self._sounddevice.PortAudioError, ValueError) as error:
                refusal = refusal or MicrophoneError(self._explain(setting, error))
                continue
            if setting != own:
                log.info("%r records %d Hz", device.name, setting.sample_rate)
            return stream, setting
        assert refusal is not None, "it was tried at least once"
        raise refusal

    def _explain(self, setting: _Setting, error: Exception) -> str:
        return (
            f"expected {setting.sample_rate} Hz with {setting.channels} channels from "
            f"{self.device.name!r}, got: {error}"
        )


def _converter(recorded: _Setting, sent: AudioFormat) -> Callable[[bytes], bytes]:
    """Return what turns samples as they were recorded into samples as they are sent."""
    same_channels = recorded.channels == sent.channels
    if same_channels and recorded.sample_rate == sent.sample_rate:
        return bytes
    resampler = soxr.ResampleStream(
        recorded.sample_rate, sent.sample_rate, sent.channels, dtype="int16"
    )

    def convert(samples: bytes) -> bytes:
        # shape: (frames, channels)
        frames = np.frombuffer(samples, "<i2").reshape(-1, recorded.channels)
        if recorded.channels > sent.channels:
            frames = frames[:, : sent.channels]
        elif not same_channels:
            frames = np.repeat(frames[:, :1], sent.channels, axis=1)
        if recorded.sample_rate != sent.sample_rate:
            frames = resampler.resample_chunk(np.ascontiguousarray(frames))
        converted: bytes = np.ascontiguousarray(frames, "<i2").tobytes()
        return converted

    return convert
