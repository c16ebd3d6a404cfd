"""A server with a recogniser that knows the fake speech of the tests."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cnerta.streamer.errors import RecogniserError
from cnerta.streamer.serving.recognition import Recogniser
from cnerta.streamer.serving.server import Server, ServerOptions
from cnerta.streamer.sources.base import LiveAudio, Revision

__all__ = ["CHARACTER_BYTES", "KNOWN", "Listener", "recogniser", "serving"]

CHARACTER_BYTES = 2 * 16 * 160
KNOWN = "他在北京上海学南市"


@dataclass
class Listener:
    """A source that knows the fake speech: a revision a character, a final after a silent one."""

    fails_at: str = ""
    dawdles: bool = False
    threads: set[str] = field(default_factory=set)

    async def revisions(self, audio: LiveAudio) -> AsyncIterator[Revision]:
        utterance, text, revision = 1, "", 0
        pending = b""
        async for block in audio.blocks():
            self.threads.add(threading.current_thread().name)
            pending += block
            while len(pending) >= CHARACTER_BYTES:
                character = hear(pending[:CHARACTER_BYTES])
                pending = pending[CHARACTER_BYTES:]
                if character and character == self.fails_at:
                    raise RecogniserError("expected a recogniser, got none")
                text, revision = text + character, revision + 1
                if character or text:
                    yield Revision(f"s{utterance}", revision, text, final=not character)
                if not character:
                    utterance, text, revision = utterance + 1, "", 0
        while self.dawdles:
            await asyncio.sleep(1)
        if text:
            yield Revision(f"s{utterance}", revision + 1, text, final=True)


def hear(samples: bytes) -> str:
    """The character of a stretch of fake speech; empty for silence."""
    loudest = np.abs(np.frombuffer(samples, "<i2")).max() / 32768
    levels = {c: 0.1 + 0.008 * (ord(c) % 97) for c in KNOWN}
    return min(KNOWN, key=lambda c: abs(levels[c] - loudest)) if loudest > 0.05 else ""


@contextlib.contextmanager
def recogniser(source: Any, most: int = 4) -> Iterator[Recogniser]:
    made = Recogniser(source, most)
    try:
        yield made
    finally:
        made.close()
        assert not made._thread.is_alive()


@contextlib.asynccontextmanager
async def serving(model: Any, source: Any, most: int = 4, **options: Any) -> AsyncIterator[Server]:
    with recogniser(source, most) as made:
        async with Server(model, ServerOptions(**options), recogniser=made) as server:
            await server.start()
            yield server
