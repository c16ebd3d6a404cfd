from __future__ import annotations

import asyncio
import contextlib
import json
import socket

import pytest
import websockets.exceptions
from websockets.asyncio.server import ServerConnection

from cnerta.streamer.client.connection import WebSocketConnection
from cnerta.streamer.client.stream import stream
from cnerta.streamer.errors import ServerUnreachableError, SessionRefusedError
from cnerta.streamer.wire.codec import decode_client, encode
from cnerta.streamer.wire.messages import (
    ErrorMessage,
    SessionFinish,
    SessionReady,
    SessionStart,
    SessionSummary,
    UtteranceFinal,
)

from .. import server_messages as wire
from ..fake_server import answering, server
from .fakes import Said, Silence, said


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
