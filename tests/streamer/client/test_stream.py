from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import Self

import pytest
import websockets.exceptions
from websockets.asyncio.server import ServerConnection

from cnerta.streamer.client.connection import WebSocketConnection
from cnerta.streamer.client.stream import StreamOptions, stream
from cnerta.streamer.errors import AudioFileError, ServerUnreachableError, SessionRefusedError
from cnerta.streamer.sources import LiveAudio, Revision, TimedTranscript, TranscriptSource
from cnerta.streamer.wire.codec import decode_client, encode
from cnerta.streamer.wire.messages import (
    ClientMessage,
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

from .. import server_messages as wire
from ..fake_server import answering, server

BLOCK = bytes(640)  # 20 ms of 16 kHz


class Silence:
    """An audio source of so many blocks, or one without end."""

    def __init__(self, blocks: int, *, endless: bool = False, failure: Exception | None = None):
        self.format = AudioFormat(sample_rate=16_000)
        self.paced = endless
        self.endless = endless
        self._blocks = blocks
        self._failure = failure
        self.closed = False

    async def blocks(self) -> AsyncIterator[bytes]:
        try:
            sent = 0
            while self.endless or sent < self._blocks:
                yield BLOCK
                sent += 1
                if self.endless:
                    await asyncio.sleep(0.001)
            if self._failure is not None:
                raise self._failure
        finally:
            self.closed = True


class Said:
    """A transcript source of given revisions."""

    def __init__(self, *revisions: Revision) -> None:
        self._revisions = revisions

    async def revisions(self, audio: LiveAudio) -> AsyncIterator[Revision]:
        for revision in self._revisions:
            yield revision


class FakeConnection:
    """The other side: answers finals (unless told not to), and finishes when asked."""

    def __init__(self, *, answers: bool = True, **limits: int) -> None:
        self.sent: list[ClientMessage | bytes] = []
        self.to_client: asyncio.Queue[ServerMessage] = asyncio.Queue()
        self._answers = answers
        self._limits = limits
        self._finals = 0

    async def send(self, message: ClientMessage) -> None:
        self.sent.append(message)
        match message:
            case SessionStart():
                self.to_client.put_nowait(wire.ready(**self._limits))
            case Transcript(final=True):
                self._finals += 1
                if self._answers:
                    self.answer(message)
            case SessionFinish():
                self.to_client.put_nowait(wire.summary(self._finals))

    def answer(self, message: Transcript) -> None:
        self.to_client.put_nowait(wire.final(message.utterance, message.revision, message.text))

    async def send_audio(self, block: bytes) -> None:
        self.sent.append(block)

    async def receive(self) -> ServerMessage:
        return await self.to_client.get()

    def of(self, *types: type[ClientMessage] | type[bytes]) -> list[ClientMessage | bytes]:
        return [message for message in self.sent if isinstance(message, types)]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        pass


def said(utterance: int, text: str = "好") -> Revision:
    return Revision(f"u{utterance}", 1, text, final=True)


async def run(
    connection: FakeConnection,
    audio: Silence,
    transcript: TranscriptSource,
    stop: asyncio.Event | None = None,
    *,
    on_message: Callable[[ServerMessage], None] = lambda message: None,
) -> list[ServerMessage]:
    messages: list[ServerMessage] = []
    async with asyncio.timeout(5):
        async for message in stream(connection, audio, transcript, stop=stop):
            messages.append(message)
            on_message(message)
    return messages


# --- the driver -----------------------------------------------------------------------------------


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


# --- the WebSocket --------------------------------------------------------------------------------


async def test_session_over_a_real_websocket() -> None:
    async with server(answering) as url, await WebSocketConnection.open(url) as connection:
        messages = [message async for message in stream(connection, Silence(50), Said(said(1)))]
    assert isinstance(messages[-1], SessionSummary)
    assert messages[-1].audio_ms == 1_000
    assert [type(message) for message in messages[:2]] == [SessionReady, UtteranceFinal]


@pytest.mark.parametrize("url", ["127.0.0.1:8765", "http://127.0.0.1:1", "ws://", "", "ws://a:b"])
async def test_address_that_is_none(url: str) -> None:
    with pytest.raises(ServerUnreachableError, match="expected a server"):
        await WebSocketConnection.open(url)


@pytest.mark.parametrize(
    "url",
    ["ws://ann:hush@host", "ws://host/?token=hush", "wss://host:1x?key=hush", "ann:hush@host:1"],
)
async def test_secrets_are_neither_sent_in_clear_text_nor_told(url: str) -> None:
    with pytest.raises(ServerUnreachableError, match="expected") as caught:
        await WebSocketConnection.open(url)
    assert "hush" not in str(caught.value)


async def test_secrets_of_a_server_that_breaks_off_are_not_told() -> None:
    async def breaking(connection: ServerConnection) -> None:
        assert connection.request is not None
        assert connection.request.path == "/v1/stream?token=hush"
        assert connection.request.headers["Authorization"].startswith("Basic ")
        await connection.close(1011, "oops")

    async with server(breaking) as url:
        url = url.replace("ws://", "ws://ann:hush@") + "?token=hush"
        async with await WebSocketConnection.open(url) as connection:
            with pytest.raises(ServerUnreachableError, match="to stay until the summary") as caught:
                await connection.receive()
    assert "ws://***@127.0.0.1" in str(caught.value)
    assert "hush" not in str(caught.value)


async def test_nothing_listens() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"ws://127.0.0.1:{unused.getsockname()[1]}"
        with pytest.raises(ServerUnreachableError, match=f"expected a server at {url}/v1/stream"):
            await WebSocketConnection.open(url)


async def test_loopback_is_reached_past_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    async with server(answering) as url, await WebSocketConnection.open(url) as connection:
        await connection.send(SessionStart())
        assert isinstance(await connection.receive(), SessionReady)


async def test_something_else_listens() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail ready\r\n")
        await writer.drain()
        writer.close()

    listening = await asyncio.start_server(talk, "127.0.0.1", 0)
    async with listening:
        port = listening.sockets[0].getsockname()[1]
        with pytest.raises(ServerUnreachableError, match="got: did not receive a valid HTTP"):
            await WebSocketConnection.open(f"ws://127.0.0.1:{port}")


async def test_plain_server_where_tls_was_expected_is_explained() -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(4_096)  # the greeting; the client's error then has no text
        writer.close()

    listening = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    async with listening:
        port = listening.sockets[0].getsockname()[1]
        with pytest.raises(ServerUnreachableError, match="/v1/stream, got: ConnectionResetError"):
            await WebSocketConnection.open(f"wss://127.0.0.1:{port}")


async def test_server_that_breaks_off_is_an_error_not_an_end() -> None:
    async def breaking(connection: ServerConnection) -> None:
        await connection.recv()
        await connection.send(encode(wire.ready()), text=True)
        await connection.close(1011, "oops")

    async with server(breaking) as url, await WebSocketConnection.open(url) as connection:
        with pytest.raises(ServerUnreachableError, match=r"to stay until the summary, got: .*1011"):
            async for _ in stream(connection, Silence(0, endless=True), Said(said(1))):
                pass


async def test_refusal_is_told_even_when_the_server_closes_at_once() -> None:
    async def refusing(connection: ServerConnection) -> None:
        await connection.recv()
        refusal = ErrorMessage(code=1013, name="try_again_later", retryable=True, detail="full")
        await connection.send(encode(refusal), text=True)
        await connection.close(1013)

    async with server(refusing) as url, await WebSocketConnection.open(url) as connection:
        with pytest.raises(SessionRefusedError, match="1013 try_again_later: full") as caught:
            async for _ in stream(connection, Silence(5), Said(said(1))):
                pass
    assert caught.value.retryable


async def test_refusal_before_the_session_starts_is_told_too() -> None:
    async def full(connection: ServerConnection) -> None:
        refusal = ErrorMessage(code=1013, name="try_again_later", retryable=True, detail="full")
        await connection.send(encode(refusal), text=True)
        await connection.close(1013)

    async with server(full) as url, await WebSocketConnection.open(url) as connection:
        await asyncio.sleep(0.05)  # the close has arrived before anything is sent
        with pytest.raises(SessionRefusedError, match="1013 try_again_later: full"):
            async for _ in stream(connection, Silence(5), Said(said(1))):
                pass


@pytest.mark.parametrize("answer", ["hello", '{"type":"session.unheard_of"}', b"\x00\x01"])
async def test_server_of_another_protocol(answer: str | bytes) -> None:
    async def babbling(connection: ServerConnection) -> None:
        await connection.recv()
        await connection.send(answer)
        with contextlib.suppress(websockets.exceptions.ConnectionClosed):
            await connection.recv()

    async with server(babbling) as url, await WebSocketConnection.open(url) as connection:
        with pytest.raises(ServerUnreachableError, match="expected messages of protocol version 1"):
            async for _ in stream(connection, Silence(1), Said(said(1))):
                pass


async def test_newer_server_is_understood_as_far_as_it_can_be(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def newer(connection: ServerConnection) -> None:
        await connection.recv()
        ready = json.loads(encode(wire.ready()))
        ready["limits"]["max_moods"] = 3
        await connection.send(json.dumps({**ready, "region": "north"}))
        for mood in ("glad", "sad"):
            await connection.send(json.dumps({"type": "mood.changed", "mood": mood}))
        await connection.send('{"type":"warning","name":"too_dark","detail":"x"}')
        async for frame in connection:
            if not isinstance(frame, bytes) and isinstance(decode_client(frame), SessionFinish):
                await connection.send(encode(wire.summary(0)), text=True)

    async with server(newer) as url, await WebSocketConnection.open(url) as connection:
        messages = [message async for message in stream(connection, Silence(1), Said())]
    assert messages == [wire.ready(), wire.summary(0)]
    (note,) = caplog.records
    assert "passing over a message of a newer server" in note.message
    assert "got 'mood.changed'" in note.message
