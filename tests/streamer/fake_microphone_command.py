"""Runs ``cnerta-stream`` with a microphone that is not there, as a process of its own.

The microphone hears silence at the pace of speech, or what the numpy file SAYS has, at 16 kHz. With
UNPLUG_AFTER_MS it is unplugged then, and is back at once unless GONE is set.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import sys
from collections.abc import Iterator

import numpy as np
import soxr
from fake_sounddevice import FakeSounddevice, FakeStream

from cnerta.streamer.audio import microphone
from cnerta.streamer.commands.stream import main

BLOCK_FRAMES = 882  # 20 ms of two channels at 44.1 kHz


def spoken() -> Iterator[bytes]:
    """Blocks of what is said, then of silence."""
    if "SAYS" in os.environ:
        mono = soxr.resample(np.load(os.environ["SAYS"]), 16_000, 44_100)
        both = np.repeat(np.rint(32_767 * mono).astype("<i2"), 2)
        for start in range(0, len(both), 2 * BLOCK_FRAMES):
            block = both[start : start + 2 * BLOCK_FRAMES]
            yield np.pad(block, (0, 2 * BLOCK_FRAMES - len(block))).tobytes()
    yield from itertools.repeat(bytes(2 * 2 * BLOCK_FRAMES))


def record(stream: FakeStream) -> None:
    loop = asyncio.get_running_loop()
    blocks = spoken()

    def speak() -> None:
        if not stream.closed:
            stream.speak(next(blocks))
            loop.call_later(0.02, speak)

    loop.call_soon(speak)
    if "UNPLUG_AFTER_MS" in os.environ:
        loop.call_later(int(os.environ.pop("UNPLUG_AFTER_MS")) / 1_000, unplug, stream)


def unplug(stream: FakeStream) -> None:
    if "GONE" in os.environ:
        fake.devices = []
        microphone.RETURN_WITHIN_S = 0.5
    stream.unplug()


fake = FakeSounddevice()
fake.on_open = record
sys.modules["sounddevice"] = fake  # type: ignore[assignment]
main()
