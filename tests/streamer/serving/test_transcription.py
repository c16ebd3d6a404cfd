"""A session's takes at the recogniser: flushes, their order, their times."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from cnerta.streamer.serving.transcription import Transcription
from cnerta.streamer.sources.base import LiveAudio, Revision
from cnerta.streamer.wire.parts import AudioFormat

from ..recognising import recogniser

FORMAT = AudioFormat()
SECOND = 32_000


class Lengths:
    """A source that writes how many bytes it has heard, and begins to write late if told so."""

    def __init__(self, *waits_s: float) -> None:
        self.waits_s = list(waits_s)
        self.started = 0

    async def revisions(self, audio: LiveAudio) -> AsyncIterator[Revision]:
        self.started += 1
        wait_s = self.waits_s.pop(0) if self.waits_s else 0.0
        heard = 0
        async for block in audio.blocks():
            heard += len(block)
        await asyncio.sleep(wait_s)
        yield Revision("u1", 1, str(heard), True, 0, round(audio.audio_ms))


class Owner:
    def __init__(self) -> None:
        self.told: list[Any] = []
        self.over = asyncio.Event()

    def on_revision(self, revision: Revision) -> None:
        self.told.append((revision.utterance, revision.text, revision.start_ms, revision.end_ms))

    def on_flushed(self) -> None:
        self.told.append("flushed")

    def on_transcription_over(self, is_complete: bool) -> None:
        self.told.append("over" if is_complete else "failed")
        self.over.set()

    async def until(self, count: int) -> None:
        async with asyncio.timeout(60):
            while len(self.told) < count:
                await asyncio.sleep(0.005)


async def test_a_flush_ends_a_take_and_the_next_goes_on_with_the_clock() -> None:
    owner = Owner()
    with recogniser(Lengths(), most=1) as made:
        transcription = Transcription(made, FORMAT, owner)
        assert transcription.begin()
        transcription.push(bytes(SECOND))
        transcription.flush()
        transcription.push(bytes(SECOND // 2))
        await owner.until(2)
        assert len(made) == 1
        transcription.end()
        await owner.until(4)
    assert owner.told == [
        ("u1", "32000", 0, 1_000),
        "flushed",
        ("t2-u1", "16000", 1_000, 1_500),
        "over",
    ]


async def test_flushes_without_audio_between_them_are_answered_and_begin_nothing() -> None:
    owner, source = Owner(), Lengths(0.05)
    with recogniser(source) as made:
        transcription = Transcription(made, FORMAT, owner)
        transcription.begin()
        transcription.flush()
        assert owner.told == ["flushed"]
        transcription.push(bytes(SECOND))
        for _ in range(5):
            transcription.flush()
        await owner.until(7)
        transcription.end()
        await owner.until(9)
    assert owner.told[:7] == ["flushed", ("u1", "32000", 0, 1_000), *["flushed"] * 5]
    assert source.started == 2


async def test_one_flush_at_a_time_and_none_is_forgotten() -> None:
    owner = Owner()
    with recogniser(Lengths(0.1)) as made:
        transcription = Transcription(made, FORMAT, owner)
        transcription.begin()
        for _ in range(3):
            transcription.push(bytes(SECOND))
            transcription.flush()
        await owner.until(5)
        transcription.end()
        await owner.over.wait()
    flushed = [told for told in owner.told if told == "flushed"]
    texts = [int(told[1]) for told in owner.told if isinstance(told, tuple)]
    assert len(flushed) == 3
    assert sum(texts) == 3 * SECOND


async def test_the_end_comes_after_a_flush_that_takes_longer() -> None:
    owner = Owner()
    with recogniser(Lengths(0.2)) as made:
        transcription = Transcription(made, FORMAT, owner)
        transcription.begin()
        transcription.push(bytes(SECOND))
        transcription.flush()
        transcription.push(bytes(SECOND))
        transcription.end()
        await owner.over.wait()
    assert owner.told == [
        ("t2-u1", "32000", 1_000, 2_000),
        ("u1", "32000", 0, 1_000),
        "flushed",
        "over",
    ]


async def test_a_sample_that_a_flush_cuts_in_two_belongs_to_neither() -> None:
    owner = Owner()
    with recogniser(Lengths()) as made:
        transcription = Transcription(made, FORMAT, owner)
        transcription.begin()
        transcription.push(bytes(SECOND - 1))
        transcription.flush()
        transcription.push(bytes(SECOND + 1))
        transcription.end()
        await owner.over.wait()
    assert sorted(told[1] for told in owner.told if isinstance(told, tuple)) == ["32000", "32000"]


async def test_those_who_flush_keep_nobody_out_and_let_nobody_in() -> None:
    one, two, three = Owner(), Owner(), Owner()
    with recogniser(Lengths(0.1, 0.1), most=2) as made:
        takes = [Transcription(made, FORMAT, owner) for owner in (one, two)]
        for transcription in takes:
            assert transcription.begin()
            transcription.push(bytes(SECOND))
        for transcription in takes:
            transcription.flush()
            transcription.push(bytes(SECOND))
        assert not Transcription(made, FORMAT, three).begin()
        for transcription in takes:
            transcription.end()
        await one.over.wait()
        await two.over.wait()
        assert Transcription(made, FORMAT, three).begin()
    assert "flushed" in one.told
    assert "flushed" in two.told
