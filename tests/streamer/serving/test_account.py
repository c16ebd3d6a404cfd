"""What the operator learns of connections: metrics, log, and that every close says why."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from cnerta.streamer.access.admission import AccessOptions
from cnerta.streamer.access.callers import Caller, Quota
from cnerta.streamer.access.peers import parse_network
from cnerta.streamer.access.tokens import KnownToken, Tokens, digest
from cnerta.streamer.serving.server import Server, ServerOptions
from cnerta.streamer.wire.codec import decode_server, encode
from cnerta.streamer.wire.messages import (
    ErrorMessage,
    ServerMessage,
    SessionFinish,
    SessionStart,
    Transcript,
)

TOKEN = "0123456789abcdef"
PROXIED = AccessOptions(
    trusted_proxies=(parse_network("127.0.0.1"),),
    max_sessions_per_address=2,
    max_waiting_per_address=1,
)


@contextlib.asynccontextmanager
async def serving(model: Any, **options: Any) -> AsyncIterator[Server]:
    async with Server(model, ServerOptions(**options)) as server:
        await server.start()
        yield server


def dial(server: Server, token: str = "", address: str = "") -> Any:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    headers |= {"X-Forwarded-For": address} if address else {}
    url = f"ws://127.0.0.1:{server.port}/v1/stream"
    return connect(url, proxy=None, compression=None, additional_headers=headers)


async def say(socket: ClientConnection, *messages: Any) -> None:
    for message in messages:
        if isinstance(message, bytes):
            await socket.send(message)
        else:
            await socket.send(encode(message), text=True)


async def rest(socket: ClientConnection) -> list[ServerMessage]:
    messages: list[ServerMessage] = []
    async with asyncio.timeout(60):
        with contextlib.suppress(ConnectionClosed):
            while True:
                messages.append(decode_server(await socket.recv()))
    return messages


def figures(server: Server) -> dict[str, float]:
    lines = server.metrics.exposition().decode().splitlines()
    pairs = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    return {name: float(value) for name, value in pairs}


async def emptied(server: Server) -> None:
    async with asyncio.timeout(60):
        while server._clients:
            await asyncio.sleep(0.01)


async def test_the_log_tells_of_sessions_and_never_of_their_words(
    model: Any, kit: SimpleNamespace, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "cnerta")
    tokens = Tokens([KnownToken(digest(TOKEN), Caller("captions"))])
    async with serving(model, access=PROXIED, tokens=tokens) as server:
        async with dial(server, TOKEN, "192.0.2.1") as stream:
            final = Transcript(utterance="u1", revision=1, final=True, text="他在北京")
            await say(stream, SessionStart(), kit.speak("他在北京"), final, SessionFinish())
            await rest(stream)
        async with dial(server, "a-token-that-is-wrong", "192.0.2.1") as stranger:
            await rest(stranger)
        await emptied(server)
    infos = [r.getMessage() for r in caplog.records if r.levelno == logging.INFO]
    (opened,) = [line for line in infos if "opened" in line]
    (closed,) = [line for line in infos if "closed" in line]
    assert re.fullmatch(r"session \w+ opened: peer=192\.0\.2\.1 caller=captions", opened)
    assert re.fullmatch(
        r"session \w+ closed: code=1000 finished peer=192\.0\.2\.1 caller=captions "
        r"seconds=\d+\.\d audio_seconds=0\.6 finals=1 entities=1 dropped_interims=0",
        closed,
    )
    everything = "".join(r.getMessage() for r in caplog.records)
    assert "code=4401 not_authorised" in everything
    assert not set("他在北京") & set(everything)
    assert TOKEN not in everything


async def test_who_is_taken_and_who_is_not_is_counted(model: Any) -> None:
    tokens = Tokens([KnownToken(digest(TOKEN), Caller("captions", Quota(sessions=1)))])
    async with serving(model, access=PROXIED, tokens=tokens) as server:
        async with dial(server, "a-token-that-is-wrong") as stranger:
            await rest(stranger)
        async with dial(server, TOKEN, "192.0.2.1") as inside:
            for address, name in (("192.0.2.1", "over_quota"), ("192.0.2.2", "over_quota")):
                async with dial(server, TOKEN, address) as refused:
                    (error,) = await rest(refused)
                    assert isinstance(error, ErrorMessage)
                    assert (error.name, refused.close_code) == (name, 4429)
                    assert isinstance(error.retry_after_ms, int)
            await say(inside, SessionStart(), SessionFinish())
            await rest(inside)
        await emptied(server)
        found = figures(server)
    assert found["cnerta_admitted_total"] == 1
    assert found['cnerta_refused_total{reason="token"}'] == 1
    assert found['cnerta_refused_total{reason="address"}'] == 1
    assert found['cnerta_refused_total{reason="quota"}'] == 1
    assert found['cnerta_errors_total{code="4429",name="over_quota"}'] == 2
    assert found["cnerta_unnamed_closes_total"] == 0
    assert found['cnerta_lane_waiting{graph="tagger"}'] == 0


async def test_who_has_used_up_its_hour_is_told_so(model: Any, kit: SimpleNamespace) -> None:
    caller = Caller("captions", Quota(audio_minutes_per_hour=0.1))
    async with serving(model, tokens=Tokens([KnownToken(digest(TOKEN), caller)])) as server:
        async with dial(server, TOKEN) as stream:
            await say(stream, SessionStart(), *[kit.silence(1_000)] * 7)
            error = (await rest(stream))[-1]
            assert isinstance(error, ErrorMessage)
            assert (error.name, stream.close_code) == ("over_quota", 4429)
            assert "0.1 minutes of audio an hour" in error.detail
        async with dial(server, TOKEN) as again:
            (error,) = await rest(again)
            assert isinstance(error, ErrorMessage)
            assert error.name == "over_quota"


async def test_a_token_may_allow_more_than_real_time(model: Any, kit: SimpleNamespace) -> None:
    caller = Caller("archive", Quota(audio_rate=1_000.0))
    tokens = Tokens([KnownToken(digest(TOKEN), caller)])
    async with serving(model, tokens=tokens) as server, dial(server, TOKEN) as stream:
        await say(stream, SessionStart())
        for _ in range(5):
            await say(stream, *[kit.silence(1_000)] * 30)
            await asyncio.sleep(0.1)
        await say(stream, SessionFinish())
        messages = await rest(stream)
        assert not [m for m in messages if isinstance(m, ErrorMessage)]
        assert stream.close_code == 1000


async def test_waits_of_finals_are_measured(model: Any, kit: SimpleNamespace) -> None:
    async with serving(model) as server:
        async with dial(server) as stream:
            await say(stream, SessionStart(), kit.speak("他在北京"))
            await say(
                stream,
                *[
                    Transcript(utterance=f"u{n}", revision=1, final=True, text="他在北京")
                    for n in range(3)
                ],
            )
            await asyncio.sleep(0.3)
            await say(stream, SessionFinish())
            await rest(stream)
        await emptied(server)
        assert figures(server)["cnerta_final_wait_seconds_count"] == 3


async def test_a_connection_that_breaks_is_lost_and_none_of_ours_is_unnamed(
    model: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "cnerta")
    async with serving(model) as server:
        async with dial(server) as broken:
            await say(broken, SessionStart())
            await broken.recv()
            broken.transport.abort()
        async with dial(server) as gone:
            await say(gone, SessionStart())
            await gone.recv()
        async with dial(server) as bad:
            bad.transport.write(b"\x87\x80\0\0\0\0")
            await rest(bad)
        await emptied(server)
        found = figures(server)
        assert found["cnerta_lost_total"] == 1
        assert found["cnerta_unnamed_closes_total"] == 0
        async with dial(server) as victim:
            await say(victim, SessionStart())
            await victim.recv()
            (client,) = server._clients
            await client.connection.close(1011, "no reason at all")
            await rest(victim)
        await emptied(server)
        assert figures(server)["cnerta_unnamed_closes_total"] == 1, "it can be seen"
    assert "code=1006 lost" in caplog.text
    assert "code=1000 by the client" in caplog.text
