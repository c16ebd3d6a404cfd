"""What can go wrong with a recogniser's server, played by a real WebSocket server.

The dialect is vosk-server's, as the plainest; the connection is the same for all.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

import numpy as np
import pytest
from websockets.asyncio.server import ServerConnection
from websockets.http11 import Request, Response

from cnerta.streamer.errors import RecogniserError, TranscriptError
from cnerta.streamer.sources import LiveAudio, Revision, make_transcript_source
from cnerta.streamer.sources.remote import client
from cnerta.streamer.sources.remote.dialect import Dialect
from cnerta.streamer.wire.parts import AudioFormat

from ..collect import collect, finals
from .recorded_server import listening

FAST = "speed=1000,patience=2"
SECONDS = np.zeros(32_000, np.float32)  # two seconds
BLOCKS_A_SECOND = 10


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "FIRST_WAIT_S", 0.01)


async def count_audio(connection: ServerConnection, blocks: int) -> None:
    """Read so many blocks of audio."""
    heard = 0
    while heard < blocks:
        heard += isinstance(await connection.recv(), bytes)


def partial(text: str) -> str:
    return json.dumps({"partial": text})


def text(said: str, start_s: float = 0.0, end_s: float = 0.0) -> str:
    result = [{"word": said, "start": start_s, "end": end_s}] if end_s else []
    return json.dumps({"text": said, "result": result})


async def test_nobody_there() -> None:
    async with listening(lambda _: None) as (url, _):
        pass
    with pytest.raises(RecogniserError, match=f"expected vosk-server at {url}, got: ") as caught:
        await collect(make_transcript_source(f"vosk:{url},retries=3"), SECONDS)
    assert caught.value.exit_status == 5


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (HTTPStatus.UNAUTHORIZED, "HTTP status 401: no such key"),
        (HTTPStatus.NOT_FOUND, "HTTP status 404: no such key"),
        (HTTPStatus.SERVICE_UNAVAILABLE, "HTTP status 503: no such key"),
    ],
)
async def test_a_server_that_does_not_let_one_in(status: HTTPStatus, said: str) -> None:
    def refuse(connection: ServerConnection, request: Request) -> Response:
        return connection.respond(status, "no such key\n")

    async with listening(lambda _: None, process_request=refuse) as (url, _):
        with pytest.raises(RecogniserError, match=said):
            await collect(make_transcript_source(f"vosk:{url}"), SECONDS)


async def test_something_else_listens_there() -> None:
    async def speak_something_else(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        writer.write(b"220 mail.example.org ESMTP\r\n")
        await reader.read(100)
        writer.close()

    mail = await asyncio.start_server(speak_something_else, "127.0.0.1", 0)
    port = mail.sockets[0].getsockname()[1]
    with pytest.raises(RecogniserError, match=f"vosk-server at ws://127.0.0.1:{port}, got: "):
        await collect(make_transcript_source(f"vosk:ws://127.0.0.1:{port}"), SECONDS)
    mail.close()


async def test_a_refusal_is_not_tried_again() -> None:
    connections = 0

    async def refuse(connection: ServerConnection) -> None:
        nonlocal connections
        connections += 1
        await connection.close(1008, "no more minutes this month")

    async with listening(refuse) as (url, _):
        with pytest.raises(RecogniserError, match=r"to listen, got: .*no more minutes this month"):
            await collect(make_transcript_source(f"vosk:{url},{FAST}"), SECONDS)
    assert connections == 1


async def test_what_the_server_complained_of_is_told() -> None:
    async def complain(connection: ServerConnection) -> None:
        await connection.send('{"type": "Error", "description": "no such language"}')
        await connection.close(4000)

    async with listening(complain) as (url, _):
        with pytest.raises(RecogniserError, match=r"got: no such language \(.*4000"):
            await collect(make_transcript_source(f"deepgram:{url},{FAST}"), SECONDS)


async def test_dying_in_mid_utterance_ends_it_and_the_next_connection_goes_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    connections = 0

    async def die_once(connection: ServerConnection) -> None:
        nonlocal connections
        connections += 1
        if connections == 1:
            await count_audio(connection, BLOCKS_A_SECOND)
            await connection.send(text("南京", 0.1, 0.4))
            await connection.send(partial("市长"))
            await asyncio.sleep(0.1)
            connection.transport.abort()
            return
        # Its clock starts anew: a second of audio has gone to the first connection.
        while await connection.recv() != '{"eof" : 1}':
            pass
        await connection.send(text("江大桥", 0.1, 0.4))

    async with listening(die_once) as (url, _):
        # A pace, so that the second connection finds audio.
        got = await collect(make_transcript_source(f"vosk:{url},speed=2"), SECONDS)
    assert [(r.utterance, r.text, r.final) for r in got] == [
        ("u1", "南京", True),
        ("u2", "市长", False),
        ("u2", "市长", True),
        ("u3", "江大桥", True),
    ]
    assert (got[0].start_ms, got[0].end_ms) == (100, 400)
    assert got[-1].start_ms is not None
    assert 1_000 <= got[-1].start_ms <= 1_800
    assert "trying again" in caplog.text


async def test_a_server_that_does_not_come_back_is_given_up() -> None:
    connections = 0

    async def die(connection: ServerConnection) -> None:
        nonlocal connections
        connections += 1
        connection.transport.abort()

    async with listening(die) as (url, _):
        with pytest.raises(RecogniserError, match=r"to come back, got 3 failures in a row, the la"):
            await collect(make_transcript_source(f"vosk:{url},retries=2,{FAST}"), SECONDS)
    assert connections == 3


@pytest.mark.parametrize(
    "garbage", ["<html>", "[1]", '{"result": 1}', b"\xff\x00", '{"text": 5}', "{" * 3_000]
)
async def test_a_server_that_speaks_something_else(garbage: str | bytes) -> None:
    async def babble(connection: ServerConnection) -> None:
        await connection.send(garbage)
        await connection.wait_closed()

    async with listening(babble) as (url, _):
        with pytest.raises(RecogniserError, match="expected messages of vosk-server") as caught:
            await collect(make_transcript_source(f"vosk:{url},{FAST}"), SECONDS)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("times", [3, client.UNKNOWN_IN_A_ROW])
async def test_garbage_in_between_is_passed_over_if_it_is_little(
    times: int, caplog: pytest.LogCaptureFixture
) -> None:
    async def stumble(connection: ServerConnection) -> None:
        await connection.send(partial("南京"))
        for _ in range(times):
            await connection.send("{")
        while await connection.recv() != '{"eof" : 1}':
            pass
        await connection.send(text("南京市"))

    source = make_transcript_source
    async with listening(stumble) as (url, _):
        if times < client.UNKNOWN_IN_A_ROW:
            assert finals(await collect(source(f"vosk:{url},{FAST}"), SECONDS)) == ["南京市"]
            assert caplog.text.count("not understood") == times
        else:
            with pytest.raises(RecogniserError, match="expected messages of vosk-server"):
                await collect(source(f"vosk:{url},{FAST}"), SECONDS)


@pytest.mark.parametrize("alive", [True, False])
async def test_without_a_final_text_the_last_one_counts(
    alive: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async def never_end(connection: ServerConnection) -> None:
        await connection.send(partial("江大桥"))
        while await connection.recv() != '{"eof" : 1}':
            pass
        if alive:
            await connection.wait_closed()

    async with listening(never_end) as (url, _):
        source = make_transcript_source(f"vosk:{url},speed=1000,patience=0.3")
        got = await collect(source, SECONDS)
    assert [(r.text, r.final) for r in got] == [("江大桥", False), ("江大桥", True)]
    assert ("has not said the rest within 0.3 s" in caplog.text) == alive


async def test_an_utterance_that_does_not_end_is_cut() -> None:
    async def go_on(connection: ServerConnection) -> None:
        said = ""
        async for message in connection:
            if not isinstance(message, bytes):
                continue
            said += "一"
            await connection.send(partial(said))

    async with listening(go_on) as (url, _):
        source = make_transcript_source(f"vosk:{url},speed=4,longest=0.5,patience=0.2")
        got = await collect(source, SECONDS)
    said = finals(got)
    assert len(said) >= 3
    assert set("".join(said)) == {"一"}
    assert len("".join(said)) == 2 * BLOCKS_A_SECOND
    assert max(map(len, said)) <= BLOCKS_A_SECOND


async def test_a_slow_server_is_waited_for() -> None:
    async def slow(connection: ServerConnection) -> None:
        async for message in connection:
            await asyncio.sleep(0.02)
            if message == '{"eof" : 1}':
                await asyncio.sleep(0.3)
                await connection.send(text("江大桥"))
                return

    async with listening(slow) as (url, _):
        got = await collect(make_transcript_source(f"vosk:{url},speed=1000,patience=1"), SECONDS)
    assert finals(got) == ["江大桥"]


async def push_all(audio: LiveAudio, seconds: int, done: Callable[[float], None]) -> None:
    """Stream as fast as the source lets it, at 48 kHz with two channels."""
    for _ in range(10 * seconds):
        await audio.push(bytes(4 * 4_800))
        await asyncio.sleep(0)
        done(audio.audio_ms)


@pytest.mark.parametrize("paced", [True, False])
async def test_audio_for_a_deaf_server_is_bounded(
    paced: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    feeds: list[Any] = []
    make = client._Feed

    def remember(*arguments: Any) -> Any:
        feeds.append(make(*arguments))
        return feeds[0]

    monkeypatch.setattr(client, "_Feed", remember)
    audio_ms = 0.0

    def note(ms: float) -> None:
        nonlocal audio_ms
        audio_ms = ms

    deafness = asyncio.Event()

    async def deaf(connection: ServerConnection) -> None:
        """Say something, and never read again."""
        await connection.send(partial("江大桥"))
        connection.transport.pause_reading()
        await deafness.wait()
        connection.transport.abort()

    async with listening(deaf) as (url, _):
        # 48 kHz of floats fill the socket's buffers soon.
        named = f"json:{url},text=partial,rate=48000,encoding=pcm_f32le,speed=100000"
        audio = LiveAudio(AudioFormat(sample_rate=48_000, channels=2), paced=paced)
        revisions = make_transcript_source(named).revisions(audio)
        first = await asyncio.wait_for(anext(revisions), 5)
        waiting = asyncio.ensure_future(anext(revisions))
        seconds = 200
        speaking = asyncio.create_task(push_all(audio, seconds, note))
        before = -1.0
        while not speaking.done() and audio_ms > before:
            before = audio_ms
            await asyncio.wait({speaking}, timeout=1)
        assert len(feeds[0]._waiting) <= client.WAITING_MS // 100
        if paced:
            assert speaking.done(), "live audio is not held up"
            assert "it misses some audio" in caplog.text
        else:
            assert audio_ms < 1_000 * seconds, "a file is held up, and nothing of it is lost"
            assert "misses" not in caplog.text
        speaking.cancel()
        waiting.cancel()
        await asyncio.gather(speaking, waiting, return_exceptions=True)
        deafness.set()
    assert first == Revision("u1", 1, "江大桥", False)


async def test_times_allow_for_audio_that_was_left_out() -> None:
    clock = client._Clock()
    clock.sent(0, 500)
    clock.sent(100, 600)
    clock.sent(200, 1_700)  # a second is missing
    assert clock.stream_ms(None) is None
    assert [clock.stream_ms(ms) for ms in (0, 150, 200, 250)] == [500, 650, 1_700, 1_750]


async def test_keys_in_an_address_are_not_told(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    async def refuse(connection: ServerConnection) -> None:
        await connection.close(1008, "no")

    async with listening(refuse) as (url, _):
        secret = url.replace("ws://", "ws://user:pass-word@") + "/asr?key=hush"
        with pytest.raises(RecogniserError) as caught:
            await collect(make_transcript_source(f"json:{secret},token=silence"), SECONDS)
    said = str(caught.value) + caplog.text
    assert not any(key in said for key in ("pass-word", "hush", "silence"))


@pytest.mark.parametrize(
    ("source", "variable"),
    [
        ("deepgram:ws://host/v1/listen", "DEEPGRAM_API_KEY"),
        ("openai-realtime:ws://host/v1/realtime", "OPENAI_API_KEY"),
        ("soniox:ws://host/transcribe-websocket", "SONIOX_API_KEY"),
        ("assemblyai:ws://host/v3/ws", "ASSEMBLYAI_API_KEY"),
        ("speechmatics:ws://host/v2", "SPEECHMATICS_API_KEY"),
        ("vllm-realtime:ws://host/v1/realtime", "VLLM_API_KEY"),
        ("json:ws://host/asr,token=hush", ""),
        ("json:ws://ann:hush@host/asr", ""),
        ("vosk:ws://host?token=hush", ""),
        ("funasr:ws://host?api_key=hush", ""),
        ("sherpa-server:ws://hush@host", ""),
    ],
)
def test_keys_are_not_sent_in_clear_text(
    source: str, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if variable:
        monkeypatch.setenv(variable, "hush")
    with pytest.raises(TranscriptError, match="expected wss:// for a recogniser") as caught:
        make_dialect(source)
    assert "hush" not in str(caught.value)
    make_dialect(source.replace("ws://", "wss://"))
    make_dialect(source.replace("host", "127.0.0.1"))


def make_dialect(source: str) -> Dialect:
    """What would speak to the server."""
    transcript = make_transcript_source(source)
    assert isinstance(transcript, client.ServerTranscript)
    return transcript._make_dialect()


@pytest.mark.parametrize("source", ["json:ann:hush@host", "vosk:http://ann:hush@host?token=hush"])
def test_keys_in_what_is_no_address_are_not_told(source: str) -> None:
    with pytest.raises(TranscriptError, match="expected a recogniser's address") as caught:
        make_transcript_source(source)
    assert "hush" not in str(caught.value)


def test_keys_among_the_options_are_not_told() -> None:
    with pytest.raises(TranscriptError, match="expected token once") as caught:
        make_transcript_source("json:wss://host,token=hush,token=hush")
    assert "hush" not in str(caught.value)


async def test_leaving_early_leaves_nothing_behind() -> None:
    gone = asyncio.Event()

    async def talk(connection: ServerConnection) -> None:
        await connection.send(partial("江大桥"))
        await connection.wait_closed()
        gone.set()

    async with listening(talk) as (url, _):
        before = asyncio.all_tasks()
        audio = LiveAudio(AudioFormat())
        revisions = make_transcript_source(f"vosk:{url}").revisions(audio)
        await asyncio.wait_for(anext(revisions), 5)
        await revisions.aclose()  # type: ignore[attr-defined]
        await asyncio.wait_for(gone.wait(), 5)
        await asyncio.sleep(0.05)
        left = {task for task in asyncio.all_tasks() - before if "conn_handler" not in repr(task)}
        assert not left
