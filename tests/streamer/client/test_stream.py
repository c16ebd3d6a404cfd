from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from cnerta.streamer.client.stream import StreamOptions, stream
from cnerta.streamer.errors import AudioFileError, SessionRefusedError
from cnerta.streamer.sources import LiveAudio, Revision, TimedTranscript, TranscriptSource
from cnerta.streamer.wire.messages import (
    ErrorMessage,
    Keepalive,
    ServerMessage,
    SessionFinish,
    SessionReady,
    SessionStart,
    SessionSummary,
    Transcript,
    UtteranceFinal,
)
from cnerta.streamer.wire.parts import AudioFormat

from .fakes import BLOCK, FakeConnection, Said, Silence, said


async def run(
    connection: FakeConnection,
    audio: Silence,
    transcript: TranscriptSource,
    stop: asyncio.Event | None = None,
    *,
    on_message: Callable[[ServerMessage], None] = lambda message: None,
) -> list[ServerMessage]:
    messages: list[ServerMessage] = []
    async with asyncio.timeout(60):
        async for message in stream(connection, audio, transcript, stop=stop):
            messages.append(message)
            on_message(message)
    return messages


async def test_everything_is_sent_once_and_the_summary_is_last() -> None:
    connection = FakeConnection()
    messages = await run(connection, Silence(10), Said(said(1), said(2)))
    assert [type(message) for message in messages] == [
        SessionReady,
        UtteranceFinal,
        UtteranceFinal,
        SessionSummary,
    ]
    assert isinstance(connection.sent[0], SessionStart)
    assert isinstance(connection.sent[-1], SessionFinish)
    assert connection.of(bytes) == [BLOCK] * 10
    assert len(connection.of(Transcript)) == 2


async def test_options_and_format_are_asked_for() -> None:
    connection = FakeConnection()
    options = StreamOptions(labels=("PER",), nested=False, interim=False, max_delay_ms=300)
    async for _ in stream(connection, Silence(1), Said(said(1)), options):
        pass
    assert connection.sent[0] == SessionStart(
        audio=AudioFormat(sample_rate=16_000),
        labels=["PER"],
        nested=False,
        interim=False,
        max_delay_ms=300,
    )


async def test_the_transcript_follows_the_audio_even_when_it_runs() -> None:
    connection = FakeConnection()
    await run(connection, Silence(100), TimedTranscript.untimed("一二三四五", 2_000))
    audio_ms = 0
    for message in connection.sent:
        if isinstance(message, bytes):
            audio_ms += 20
        elif isinstance(message, Transcript) and not message.final:
            spoken = (audio_ms - 200) / 400
            assert spoken - 1.1 <= len(message.text) <= spoken
        elif isinstance(message, Transcript):
            assert (message.text, audio_ms) == ("一二三四五", 2_000)


async def test_endless_audio_ends_with_its_transcript_and_is_closed() -> None:
    audio = Silence(0, endless=True)
    messages = await run(FakeConnection(), audio, Said(said(1)))
    assert isinstance(messages[-1], SessionSummary)
    assert audio.closed


async def test_stopping_finishes_in_order() -> None:
    class Waiting:
        async def revisions(self, audio: LiveAudio) -> AsyncIterator[Revision]:
            yield said(1)
            await asyncio.Event().wait()

    stop = asyncio.Event()
    asyncio.get_running_loop().call_later(0.05, stop.set)
    connection = FakeConnection()
    messages = await run(connection, Silence(0, endless=True), Waiting(), stop)
    assert isinstance(connection.sent[-1], SessionFinish)
    assert [type(message) for message in messages[1:]] == [UtteranceFinal, SessionSummary]


async def test_failing_audio_is_raised_after_what_was_sent_is_answered() -> None:
    connection = FakeConnection()
    audio = Silence(3, failure=AudioFileError("expected more, got less"))
    got: list[ServerMessage] = []
    with pytest.raises(AudioFileError, match="expected more, got less"):
        await run(connection, audio, Said(said(1)), on_message=got.append)
    assert isinstance(got[-1], SessionSummary)
    assert len(connection.of(SessionFinish)) == 1


async def test_failing_transcript_is_raised_too() -> None:
    class Failing:
        async def revisions(self, audio: LiveAudio) -> AsyncIterator[Revision]:
            yield said(1)
            raise RuntimeError("the recogniser crashed")

    audio = Silence(0, endless=True)
    with pytest.raises(RuntimeError, match="the recogniser crashed"):
        await run(FakeConnection(), audio, Failing())
    assert audio.closed


async def test_error_message_is_yielded_and_then_raised() -> None:
    connection = FakeConnection()
    refusal = ErrorMessage(code=4400, name="unknown_label", retryable=False, detail="got 'X'")
    got: list[ServerMessage] = []

    def refuse(message: ServerMessage) -> None:
        got.append(message)
        if isinstance(message, UtteranceFinal):
            connection.to_client.put_nowait(refusal)

    class Endless:
        async def revisions(self, audio: LiveAudio) -> AsyncIterator[Revision]:
            yield said(1)
            await asyncio.Event().wait()

    with pytest.raises(SessionRefusedError, match="error 4400 unknown_label: got 'X'") as caught:
        await run(connection, Silence(0, endless=True), Endless(), on_message=refuse)
    assert got[-1] == refusal
    assert (caught.value.code, caught.value.name, caught.value.retryable) == (
        4400,
        "unknown_label",
        False,
    )


async def test_leaving_the_loop_stops_sending() -> None:
    connection = FakeConnection()
    audio = Silence(0, endless=True)
    messages = stream(connection, audio, Said())
    await anext(messages)
    await messages.aclose()  # type: ignore[attr-defined]
    count = len(connection.sent)
    await asyncio.sleep(0.02)
    assert len(connection.sent) == count


async def test_no_more_finals_are_open_than_the_server_takes() -> None:
    connection = FakeConnection(answers=False, max_open_utterances=4)
    messages = aiter(stream(connection, Silence(1), Said(*(said(n) for n in range(6)))))
    await anext(messages)
    for answered in range(5):
        await asyncio.sleep(0.01)
        waiting = connection.of(Transcript)
        assert len(waiting) == min(6, 2 + answered), "half of what the server keeps open"
        last = waiting[answered]
        assert isinstance(last, Transcript)
        connection.answer(last)
        await anext(messages)


async def test_fast_audio_stays_within_the_lead_that_the_server_allows() -> None:
    connection = FakeConnection(max_audio_ahead_ms=200)
    loop = asyncio.get_running_loop()
    started = loop.time()
    await run(connection, Silence(20), Said(said(1)))  # 400 ms of audio, 100 ms ahead at most
    assert 0.25 <= loop.time() - started < 1.5


async def test_long_blocks_are_cut_to_the_frames_that_the_server_takes() -> None:
    connection = FakeConnection(max_frame_bytes=300)
    await run(connection, Silence(2), Said(said(1)))
    sizes = [len(block) for block in connection.of(bytes) if isinstance(block, bytes)]
    assert sizes == [300, 300, 40, 300, 300, 40]


async def test_silent_client_says_that_it_is_there() -> None:
    class Slow:
        async def revisions(self, audio: LiveAudio) -> AsyncIterator[Revision]:
            await asyncio.sleep(0.1)
            yield said(1)

    connection = FakeConnection(idle_timeout_ms=60)
    await run(connection, Silence(1), Slow())
    assert len(connection.of(Keepalive)) >= 3


async def test_watcher_is_told_what_is_sent() -> None:
    class Watcher:
        def __init__(self) -> None:
            self.heard: list[float] = []
            self.said: list[Revision] = []

        def on_audio(self, block: bytes, audio_ms: float) -> None:
            self.heard.append(audio_ms)

        def on_revision(self, revision: Revision) -> None:
            self.said.append(revision)

    watcher = Watcher()
    async for _ in stream(FakeConnection(), Silence(3), Said(said(1)), watcher=watcher):
        pass
    assert watcher.heard == [20, 40, 60]
    assert watcher.said == [said(1)]
