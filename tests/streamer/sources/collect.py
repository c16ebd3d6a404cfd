"""Streams recorded audio past a transcript source, and collects its revisions."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from cnerta.streamer.audio.source import encode_pcm_s16le
from cnerta.streamer.sources import LiveAudio, Revision, TranscriptSource
from cnerta.streamer.wire.parts import AudioFormat

BLOCK_SAMPLES = 640


async def collect(
    source: TranscriptSource,
    samples: npt.NDArray[np.float32],
    *,
    sample_rate: int = 16_000,
    paced: bool = False,
    pause_s: float = 0.0,
    patience_s: float = 20.0,
) -> list[Revision]:
    """Stream samples past a source as fast as it takes them; return all its revisions."""
    audio = LiveAudio(AudioFormat(sample_rate=sample_rate), paced=paced)
    got: list[Revision] = []

    async def read() -> None:
        got.extend([revision async for revision in source.revisions(audio)])

    reading = asyncio.create_task(read())
    await asyncio.sleep(0)

    async def speak() -> None:
        for start in range(0, len(samples), BLOCK_SAMPLES):
            await audio.push(encode_pcm_s16le(samples[start : start + BLOCK_SAMPLES]))
            await asyncio.sleep(pause_s)
        await audio.end()

    speaking = asyncio.create_task(speak())
    try:
        await asyncio.wait_for(reading, patience_s)
    finally:
        speaking.cancel()
    return got


def finals(revisions: Sequence[Revision]) -> list[str]:
    """The final texts, after a look at what all revisions promise."""
    last: dict[str, Revision] = {}
    for revision in revisions:
        before = last.get(revision.utterance)
        assert before is None or (revision.revision > before.revision and not before.final)
        if revision.start_ms is not None and revision.end_ms is not None:
            assert 0 <= revision.start_ms <= revision.end_ms
        last[revision.utterance] = revision
    assert all(revision.final for revision in last.values()), "every utterance ends"
    return [revision.text for revision in revisions if revision.final]
