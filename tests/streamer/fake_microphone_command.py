"""Runs ``cnerta-stream`` with a microphone that is not there, as a process of its own.

The microphone hears silence at the pace of speech. With UNPLUG_AFTER_MS it is unplugged then.
"""

from __future__ import annotations

import asyncio
import os
import sys

from fake_sounddevice import FakeSounddevice, FakeStream

from cnerta.streamer.cli import main

BLOCK = bytes(2 * 2 * 882)  # 20 ms of two channels at 44.1 kHz


def record(stream: FakeStream) -> None:
    loop = asyncio.get_running_loop()

    def speak() -> None:
        if not stream.closed:
            stream.speak(BLOCK)
            loop.call_later(0.02, speak)

    loop.call_soon(speak)
    if "UNPLUG_AFTER_MS" in os.environ:
        loop.call_later(int(os.environ["UNPLUG_AFTER_MS"]) / 1_000, stream.unplug)


fake = FakeSounddevice()
fake.on_open = record
sys.modules["sounddevice"] = fake  # type: ignore[assignment]
main()
