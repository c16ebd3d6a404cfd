"""The server over real sockets on this machine, each on a port of its own."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import json
import logging
import subprocess
import sys
import urllib.error
import urllib.request
import weakref
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import websockets.asyncio.server as ws
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from cnerta.models.runtime.inference import Model
from cnerta.streamer.access.tokens import Tokens
from cnerta.streamer.client.connection import WebSocketConnection
from cnerta.streamer.serving.listening import AddressError
from cnerta.streamer.serving.parking import ParkingOptions
from cnerta.streamer.serving.reading.metered_connection import MeteredConnection
from cnerta.streamer.serving.reading.reading_budget import ReadingBudget
from cnerta.streamer.serving.server import Server, ServerOptions
from cnerta.streamer.session.limits import ConnectionLimits
from cnerta.streamer.wire.codec import encode
from cnerta.streamer.wire.messages import (
    EntityUpsert,
    ErrorMessage,
    SessionFinish,
    SessionGoingAway,
    SessionReady,
    SessionStart,
    SessionSummary,
    SessionUpdate,
    Transcript,
    UtteranceFinal,
    WarningMessage,
)
from cnerta.streamer.wire.parts import AudioFormat, GlossaryEntry

from ..speaking_client import client


@contextlib.asynccontextmanager
async def serving(model: Any, **options: Any) -> AsyncIterator[Server]:
    async with Server(model, ServerOptions(**options)) as server:
        await server.start()
        yield server


def final(text: str, utterance: str = "u1", revision: int = 1, **times: int) -> Transcript:
    return Transcript(utterance=utterance, revision=revision, final=True, text=text, **times)


async def get(server: Server, path: str, method: str = "GET") -> tuple[int, str, bytes]:
    def fetch() -> tuple[int, str, bytes]:
        request = urllib.request.Request(f"http://127.0.0.1:{server.port}{path}", method=method)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=10) as response:
                return response.status, response.headers["Content-Type"], response.read()
        except urllib.error.HTTPError as error:
            return error.code, error.headers.get("Content-Type", ""), error.read()

    return await asyncio.to_thread(fetch)


async def still_serves(server: Server, kit: SimpleNamespace) -> bool:
    """A fresh client gets its answer."""
    async with client(server.port) as good:
        await good.send(SessionStart(), kit.speak("他在北京"), final("他在北京"), SessionFinish())
        messages = await good.rest()
        answers = [m for m in messages if isinstance(m, UtteranceFinal)]
        return (
            len(answers) == 1
            and answers[0].audio_used
            and [e.text for e in answers[0].entities] == ["北京"]
            and isinstance(messages[-1], SessionSummary)
            and good.socket.close_code == 1000
        )


# --- the way through ------------------------------------------------------------------------------


async def test_a_stream_from_start_to_summary(model: Any, kit: SimpleNamespace) -> None:
    async with serving(model) as server, client(server.port) as stream:
        await stream.send(SessionStart())
        assert isinstance(await stream.until(SessionReady), SessionReady)
        await stream.send(kit.speak("他在北京") + kit.silence(320))
        await stream.send(Transcript(utterance="u1", revision=1, final=False, text="他在北"))
        await stream.send(Transcript(utterance="u1", revision=2, final=False, text="他在北京"))
        first = await stream.until(EntityUpsert)
        assert first.entity.text == "北京"
        await stream.send(final("他在北京", revision=3), SessionFinish())
        messages = await stream.rest()
        (answer,) = [m for m in messages if isinstance(m, UtteranceFinal)]
        assert answer.audio_used
        assert answer.entities[0].id == first.entity.id
        assert isinstance(messages[-1], SessionSummary)
        assert stream.socket.close_code == 1000


async def test_many_streams_at_once_keep_apart(model: Any, kit: SimpleNamespace) -> None:
    texts = ["他在北京", "她去上海", "张三李四", "在南京市"] * 6

    async def one(server: Server, text: str) -> list[str]:
        async with client(server.port) as stream:
            await stream.send(SessionStart(nested=False))
            for number in range(1, 4):
                spoken = "去" * number + text
                data = kit.speak(spoken) + kit.silence(200)
                for at in range(0, len(data), 3200):
                    await stream.send(data[at : at + 3200])
                await stream.send(final(spoken, f"u{number}"))
            await stream.send(SessionFinish())
            answers = [m for m in await stream.rest() if isinstance(m, UtteranceFinal)]
            assert [a.utterance for a in answers] == ["u1", "u2", "u3"]
            assert all(a.audio_used for a in answers)
            return [e.text for a in answers for e in a.entities]

    async with serving(model) as server:
        results = await asyncio.gather(*(one(server, text) for text in texts))
    expected = {"他在北京": ["北京"], "她去上海": ["上海"], "张三李四": ["张三", "李四"]}
    for text, found in zip(texts, results, strict=True):
        assert found == expected.get(text, ["南京市"]) * 3
    # Three utterances of 1+n, 2+n and 3+n characters and a pause, whole frames, each once.
    samples = sum(sum(4 * 640 * (n + len(t)) + 3200 for n in (1, 2, 3)) for t in texts)
    assert model.encoded_samples == samples
    assert max(batch for batch, _ in model.encode_batches) > 1, "batched across sessions"


async def test_the_real_graphs_answer(tiny_bundle: Path, kit: SimpleNamespace) -> None:
    real = Model.load(tiny_bundle, device="cpu")
    async with serving(real) as server, client(server.port) as stream:
        await stream.send(SessionStart(audio=AudioFormat(sample_rate=48_000)))
        ready = await stream.until(SessionReady)
        assert ready.model.device == "CPUExecutionProvider"
        noise = bytes((7 * i * i) % 251 for i in range(48_000 * 2 * 2))
        for at in range(0, len(noise), 9_600):
            await stream.send(noise[at : at + 9_600])
        text = "今天在南京市长江大桥上"
        for revision in range(1, 6):
            part = text[: 2 * revision]
            await stream.send(Transcript(utterance="u1", revision=revision, final=False, text=part))
            await asyncio.sleep(0.02)
        await stream.send(final(text, revision=9), final("", "empty"), SessionFinish())
        messages = await stream.rest()
    answers = {m.utterance: m for m in messages if isinstance(m, UtteranceFinal)}
    assert set(answers) == {"u1", "empty"}
    answer = answers["u1"]
    if answer.audio_used:
        edges = [edge for pair in answer.characters for edge in pair]
        assert edges == sorted(edges)
        assert edges[-1] <= 2000
    for entity in answer.entities:
        assert answer.text[entity.start : entity.end] == entity.text
    assert real.encoded_samples == 2 * 16_000 // 640 * 640


# --- bad input and bad behaviour ------------------------------------------------------------------

START = encode(SessionStart()).decode()
BAD_FRAMES: dict[str, tuple[list[str | bytes], int, str]] = {
    "not JSON": ([START, "{"], 4400, "not_json"),
    "unknown type": ([START, '{"type":"x"}'], 4400, "unknown_type"),
    "unknown field": ([START, '{"type":"keepalive","x":1}'], 4400, "unknown_field"),
    "unknown version": (['{"type":"session.start","version":9}'], 4400, "unsupported_version"),
    "unsupported encoding": (
        ['{"type":"session.start","audio":{"encoding":"opus"}}'],
        4400,
        "unsupported_encoding",
    ),
    "unsupported rate": (
        ['{"type":"session.start","audio":{"sample_rate":1}}'],
        4400,
        "unsupported_sample_rate",
    ),
    "binary before start": ([b"\0\0"], 4400, "not_started"),
    "10,000 characters": (
        [START, encode(final("北" * 10_000)).decode()],
        4400,
        "text_too_long",
    ),
    "frame too large": ([START, bytes(2**20 + 1)], 4413, "frame_too_large"),
    "too fast": ([START, bytes(2**20), bytes(2**20)], 4429, "audio_too_fast"),
}


@pytest.mark.parametrize("case", BAD_FRAMES)
async def test_bad_input_ends_its_own_session_only(
    model: Any, kit: SimpleNamespace, case: str
) -> None:
    frames, code, name = BAD_FRAMES[case]
    async with serving(model) as server, client(server.port) as neighbour:
        await neighbour.send(SessionStart(), kit.speak("她去上海"))
        async with client(server.port) as bad:
            await bad.send(*frames)
            error = (await bad.rest())[-1]
            assert isinstance(error, ErrorMessage)
            assert (error.code, error.name) == (code, name)
            assert bad.socket.close_code == code
        await neighbour.send(final("她去上海"))
        assert (await neighbour.until(UtteranceFinal)).audio_used
        assert await still_serves(server, kit)


async def test_what_is_no_websocket_is_answered_or_refused(
    model: Any, kit: SimpleNamespace, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(model) as server:
        status, _, body = await get(server, "/v1/stream")
        assert status == 426
        assert b"WebSocket" in body
        for garbage in (b"\x16\x03\x01\x02\x00\x01\x00", b"HELLO\r\n\r\n", b"\0" * 5000):
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(garbage)
            await writer.drain()
            writer.write_eof()
            async with asyncio.timeout(60):
                await reader.read()
            writer.close()
        # A WebSocket frame whose opcode does not exist.
        async with client(server.port) as bad:
            bad.socket.transport.write(b"\x87\x80\0\0\0\0")
            await bad.rest()
            assert bad.socket.close_code == 1002
        # Text that is not UTF-8.
        async with client(server.port) as bad:
            bad.socket.transport.write(b"\x81\x82\0\0\0\0\xff\xfe")
            await bad.rest()
            assert bad.socket.close_code == 1007
        assert await still_serves(server, kit)
    own = [r for r in caplog.records if r.name.startswith("cnerta")]
    assert not [r for r in own if r.levelno >= logging.ERROR], "not the server's fault"


async def test_frames_far_too_large_are_refused_by_the_transport(
    model: Any, kit: SimpleNamespace
) -> None:
    limits = ConnectionLimits(max_frame_bytes=1000)
    async with serving(model, limits=limits) as server:
        async with client(server.port) as bad:
            await bad.send(SessionStart())
            await bad.until(SessionReady)
            with contextlib.suppress(ConnectionClosed):
                await bad.send(bytes(100_000))
            await bad.rest()
            assert bad.socket.close_code == 1009
        async with client(server.port) as good:
            await good.send(SessionStart(), final("他在北京"))
            assert await good.until(UtteranceFinal)


async def test_a_client_that_vanishes_harms_nobody(model: Any, kit: SimpleNamespace) -> None:
    async with serving(model) as server:
        for _ in range(10):
            async with client(server.port) as stream:
                await stream.send(SessionStart(), kit.speak("他在北京"), final("他在北京"))
                stream.socket.transport.abort()
        assert await still_serves(server, kit)
        async with asyncio.timeout(60):
            while server._clients:
                await asyncio.sleep(0.01)


async def test_a_client_that_never_reads_costs_bounded_memory_and_is_cut_off(
    model: Any, kit: SimpleNamespace
) -> None:
    limits = ConnectionLimits(waiting_bytes=300_000)
    async with (
        serving(model, limits=limits, write_buffer_bytes=4096, close_timeout_s=0.3) as server,
        client(server.port, max_queue=1) as deaf,
    ):
        await deaf.send(SessionStart())
        deaf.socket.transport.pause_reading()
        number = 0
        with contextlib.suppress(ConnectionClosed):
            async with asyncio.timeout(60):
                while server._clients:
                    number += 1
                    await deaf.send(final("他在北京大学" * 20, f"u{number}"))
                    await asyncio.sleep(0.001)
        assert not server._clients
        assert await still_serves(server, kit)
        deaf.socket.transport.abort()


async def test_pongs_flow_while_a_reader_is_slow_and_the_engine_busy(
    model: Any, kit: SimpleNamespace
) -> None:
    plain = model.tag

    def slow(*arguments: Any) -> Any:
        import time

        time.sleep(0.5)
        return plain(*arguments)

    model.tag = slow
    async with serving(model) as server, client(server.port) as stream:
        await stream.send(SessionStart(), final("他在北京"))
        await asyncio.sleep(0.05)
        async with asyncio.timeout(0.3):
            for _ in range(5):
                await (await stream.socket.ping())
        assert await stream.until(UtteranceFinal)


@pytest.mark.parametrize("hangs_up", [False, True])
@pytest.mark.parametrize("frame", [b"\x82\x80\0\0\0\0", b"\x89\x80\0\0\0\0"])
async def test_a_flood_of_tiny_frames_holds_nobody_up(
    model: Any,
    kit: SimpleNamespace,
    monkeypatch: pytest.MonkeyPatch,
    frame: bytes,
    hangs_up: bool,
) -> None:
    # Not by the clock, which a busy machine stretches: by what is read in one turn of the loop.
    turns, read = 0, Counter[int]()
    receive = ws.ServerConnection.data_received

    def counted(self: ws.ServerConnection, data: bytes) -> None:
        read[turns] += len(data)
        receive(self, data)

    async def turn() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    monkeypatch.setattr(ws.ServerConnection, "data_received", counted)
    # Every slice takes as long as a turn may.
    times = itertools.count(step=ReadingBudget().turn_s)
    clock = SimpleNamespace(thread_time=lambda: next(times))
    monkeypatch.setattr("cnerta.streamer.serving.reading.metered_connection.time", clock)
    turning = asyncio.create_task(turn())
    async with serving(model) as server, client(server.port) as flood, client(server.port) as other:
        await flood.send(SessionStart())
        await other.send(SessionStart())
        await other.until(SessionReady)
        flood.socket.transport.write(frame * 20_000)
        if hangs_up:
            flood.socket.transport.close()
        await other.send(kit.speak("他在北京"), final("他在北京"))
        assert await other.until(UtteranceFinal)
        assert await still_serves(server, kit)
    turning.cancel()
    # Three clients at most had a slice in one turn of the loop.
    assert max(read.values()) <= 3 * 2_048


async def test_little_is_read_at_once(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """So little is left to be read of a client that hangs up."""
    sizes = []
    receive = MeteredConnection.data_received

    def noted(self: MeteredConnection, data: bytes) -> None:
        sizes.append(len(data))
        receive(self, data)

    monkeypatch.setattr(MeteredConnection, "data_received", noted)
    async with serving(model) as server, client(server.port) as stream:
        await stream.send(SessionStart())
        await stream.until(SessionReady)
        stream.socket.transport.write(b"\x89\x80\0\0\0\0" * 20_000)
        await (await stream.socket.ping())
    assert max(sizes) <= 8_192
    assert sum(sizes) > 120_000, "all of it"


async def test_what_a_session_held_is_given_back_at_its_end(
    model: Any, kit: SimpleNamespace
) -> None:
    async with serving(model) as server:
        gc.collect()
        gc.disable()  # Only what is in no circle goes by itself.
        try:
            async with client(server.port) as stream:
                await stream.send(SessionStart(), kit.speak("他在北京"), final("他在北京"))
                await stream.until(UtteranceFinal)
                (entry,) = server._lot._known.values()
                held = weakref.ref(entry.session.protocol)
                del entry
                await stream.send(SessionFinish())
                await stream.rest()
            async with asyncio.timeout(60):
                while held() is not None:
                    await asyncio.sleep(0.01)
        finally:
            gc.enable()


@pytest.mark.parametrize("end", ["finished", "refused", "broken", "lost"])
async def test_a_connection_is_given_back_at_its_end(model: Any, end: str) -> None:
    async with serving(model, parking=ParkingOptions(ttl_s=0)) as server:
        gc.collect()
        gc.disable()  # Only what is in no circle goes by itself.
        try:
            async with client(server.port) as stream:
                await stream.send(SessionStart(), final("他在北京"))
                await stream.until(UtteranceFinal)
                (known,) = server._clients
                held = weakref.ref(known.connection)
                del known
                match end:
                    case "finished":
                        await stream.send(SessionFinish())
                        await stream.rest()
                    case "refused":
                        await stream.send("{")
                        await stream.rest()
                    case "broken":
                        stream.socket.transport.write(b"\xff\xff")
                        await stream.rest()
                    case "lost":
                        stream.vanish()
            async with asyncio.timeout(10):
                while held() is not None:
                    await asyncio.sleep(0.01)
        finally:
            gc.enable()


async def test_new_glossaries_are_taken_once_a_second(model: Any) -> None:
    names = [GlossaryEntry(text=f"北京{n}", label="LOC") for n in range(3)]
    async with serving(model) as server, client(server.port, close_timeout=0.1) as eager:
        await eager.send(SessionStart())
        await eager.until(SessionReady)
        await eager.send(*[SessionUpdate(glossary=names)] * 20, SessionUpdate(nested=False))
        (entry,) = server._lot._known.values()
        await asyncio.sleep(0.2)
        # Those beyond the first few wait unread, and so does all that comes after.
        session = entry.session.protocol.session
        assert session is not None
        assert session._options.nested
        (connection,) = server._clients
        assert connection.connection._budget.debt_s > 0.3


async def test_what_came_before_the_end_of_a_connection_is_taken(
    model: Any, kit: SimpleNamespace
) -> None:
    async with serving(model) as server:
        async with client(server.port) as hasty:
            await hasty.send(SessionStart(), *[kit.silence(200)] * 50)
            hasty.socket.transport.write_eof()
            await hasty.socket.wait_closed()
        _, _, body = await get(server, "/metrics")
    assert b"cnerta_audio_seconds_total 10.0\n" in body


async def test_an_internal_failure_is_1011_and_not_logged_with_its_text(
    model: Any, kit: SimpleNamespace, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    model.poison = "毒"
    async with serving(model) as server:
        async with client(server.port) as unlucky:
            await unlucky.send(SessionStart(), kit.speak("毒"), final("毒药在北京"))
            error = (await unlucky.rest())[-1]
            assert isinstance(error, ErrorMessage)
            assert (error.code, error.name) == (1011, "internal")
            assert unlucky.socket.close_code == 1011
        assert await still_serves(server, kit)
        bug = Server._receive
        Server._receive = lambda self, client, frame: bug(self, client, None)  # type: ignore[assignment, arg-type, method-assign]
        try:
            async with client(server.port) as unlucky:
                await unlucky.send(SessionStart())
                await unlucky.rest()
                assert unlucky.socket.close_code == 1011
        finally:
            Server._receive = bug  # type: ignore[method-assign]
        assert await still_serves(server, kit)
    own = [r.getMessage() for r in caplog.records if r.name.startswith("cnerta")]
    assert any("ValueError" in line for line in own)
    for line in own:
        assert not set("毒药北京") & set(line)


# --- limits and the server's own life -------------------------------------------------------------


async def test_more_sessions_than_allowed_are_told_to_try_again(
    model: Any, kit: SimpleNamespace
) -> None:
    async with serving(model, max_sessions=2) as server:
        async with client(server.port) as one, client(server.port) as two:
            await one.send(SessionStart())
            await two.send(SessionStart())
            await one.until(SessionReady)
            await two.until(SessionReady)
            async with client(server.port) as three:
                (error,) = await three.rest()
                assert isinstance(error, ErrorMessage)
                assert (error.code, error.retryable) == (1013, True)
                assert three.socket.close_code == 1013
        async with asyncio.timeout(60):
            while server._clients:
                await asyncio.sleep(0.01)
        assert await still_serves(server, kit)


async def test_browsers_from_elsewhere_are_refused(model: Any, kit: SimpleNamespace) -> None:
    async with serving(model, origins=("https://captions.example",)) as server:
        async with client(server.port, origin="https://evil.example") as bad:
            (error,) = await bad.rest()
            assert isinstance(error, ErrorMessage)
            assert (error.code, error.name) == (4403, "origin_refused")
            assert bad.socket.close_code == 4403
        async with client(server.port, origin="https://captions.example") as good:
            await good.send(SessionStart())
            assert await good.until(SessionReady)
        assert await still_serves(server, kit), "what is no browser sends no origin"
    async with serving(model) as server:
        async with client(server.port, origin="https://evil.example") as bad:
            (error,) = await bad.rest()
            assert isinstance(error, ErrorMessage)
            assert error.name == "origin_refused", "pages of other servers, unless they are listed"
        async with client(server.port, origin=f"http://127.0.0.1:{server.port}") as own:
            await own.send(SessionStart())
            assert await own.until(SessionReady)


async def test_a_session_needs_a_token_where_one_is_asked_for(
    model: Any, kit: SimpleNamespace, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    token = "0123456789abcdef"
    async with serving(model, tokens=Tokens([token])) as server:
        async with client(server.port) as stranger:
            (error,) = await stranger.rest()
            assert isinstance(error, ErrorMessage)
            assert (error.code, error.name) == (4401, "not_authorised")
            assert stranger.socket.close_code == 4401
        offered = [Subprotocol("cnerta.v1"), Subprotocol(f"bearer.{token}")]
        async with client(server.port, subprotocols=offered) as browser:
            await browser.send(SessionStart())
            assert await browser.until(SessionReady)
            assert browser.socket.subprotocol == "cnerta.v1", "the token is not sent back"
        url = f"ws://127.0.0.1:{server.port}"
        async with await WebSocketConnection.open(url, token=token) as ours:
            await ours.send(SessionStart())
            assert isinstance(await ours.receive(), SessionReady)
    own = [r for r in caplog.records if r.name.startswith("cnerta")]
    assert token not in "".join(r.getMessage() for r in own)


async def test_idle_connections_are_closed(model: Any) -> None:
    limits = ConnectionLimits(idle_timeout_s=0.2)
    async with serving(model, limits=limits) as server, client(server.port) as quiet:
        (error,) = await quiet.rest()
        assert isinstance(error, ErrorMessage)
        assert (error.code, quiet.socket.close_code) == (4408, 4408)


async def test_who_pings_is_not_idle(model: Any) -> None:
    limits = ConnectionLimits(idle_timeout_s=0.6)
    async with serving(model, limits=limits) as server:
        async with client(server.port) as pinging, client(server.port) as quiet:
            for each in (pinging, quiet):
                await each.send(SessionStart())
                assert await each.until(SessionReady)
            while quiet.socket.close_code is None:
                await pinging.socket.ping()
                await asyncio.sleep(0.05)
            # Another while as long, to be sure.
            for _ in range(20):
                await pinging.socket.ping()
                await asyncio.sleep(0.05)
            assert pinging.socket.close_code is None
            await pinging.send(SessionFinish())
            assert isinstance((await pinging.rest())[-1], SessionSummary)
        assert quiet.socket.close_code == 4408


async def test_a_shutdown_gives_the_answers_owed_and_says_so(
    model: Any, kit: SimpleNamespace
) -> None:
    plain = model.tag

    def slow(*arguments: Any) -> Any:
        import time

        time.sleep(0.3)
        return plain(*arguments)

    model.tag = slow
    async with serving(model) as server:
        async with client(server.port) as stream, client(server.port) as quiet:
            await stream.send(SessionStart(), kit.speak("他在北京"), final("他在北京"))
            await quiet.send(SessionStart())
            await stream.until(SessionReady)
            await quiet.until(SessionReady)
            await asyncio.sleep(0.05)
            stopping = asyncio.create_task(server.stop())
            messages = await stream.rest()
            kinds = [type(m) for m in messages if not isinstance(m, EntityUpsert)]
            assert kinds == [SessionGoingAway, UtteranceFinal, ErrorMessage]
            assert messages[-1].code == stream.socket.close_code == 1001
            assert [type(m) for m in await quiet.rest()] == [SessionGoingAway, ErrorMessage]
            await stopping
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", server.port)


async def test_a_taken_port_is_named(model: Any) -> None:
    async with serving(model) as server:
        with pytest.raises(AddressError, match=rf"port {server.port} to be free"):
            await Server(model).start(port=server.port)
    with pytest.raises(AddressError, match="expected an address of this machine"):
        await Server(model).start("192.0.2.1")


async def test_a_full_server_is_not_ready(model: Any) -> None:
    async with serving(model, max_sessions=1) as server:
        async with client(server.port) as only:
            await only.send(SessionStart())
            await only.until(SessionReady)
            assert (await get(server, "/readyz"))[::2] == (503, b"full\n")
            assert (await get(server, "/healthz"))[0] == 200
        async with asyncio.timeout(60):
            while (await get(server, "/readyz"))[0] != 200:
                await asyncio.sleep(0.01)


async def test_http_beside_the_stream(model: Any, kit: SimpleNamespace) -> None:
    async with serving(model) as server:
        assert (await get(server, "/healthz"))[::2] == (200, b"ok\n")
        assert (await get(server, "/readyz?x=1"))[::2] == (200, b"ready\n")
        assert (await get(server, "/nowhere"))[0] == 404
        status, kind, body = await get(server, "/asyncapi.json")
        assert (status, kind) == (200, "application/json")
        assert json.loads(body)["asyncapi"].startswith("3.")
        assert await still_serves(server, kit)
        async with client(server.port) as bad:
            await bad.send("{")
            await bad.rest()
        status, kind, body = await get(server, "/metrics")
        assert status == 200
        assert kind.startswith("text/plain")
        figures = dict(
            line.rsplit(" ", 1) for line in body.decode().splitlines() if line[:1] != "#"
        )
        assert figures['cnerta_sent_total{type="utterance.final"}'] == "1.0"
        assert figures["cnerta_audio_seconds_total"] == "0.64"
        assert figures['cnerta_closed_total{code="1000"}'] == "1.0"
        assert figures['cnerta_closed_total{code="4400"}'] == "1.0"
        assert figures['cnerta_model_info{device="fake",name="fake"}'] == "1.0"


async def test_warnings_reach_the_client(model: Any, kit: SimpleNamespace) -> None:
    async with serving(model) as server, client(server.port) as stream:
        await stream.send(SessionStart(), *[kit.silence(1000)] * 7)
        warning = await stream.until(WarningMessage)
        assert warning.name == "audio_ahead_of_realtime"


def test_the_server_imports_without_torch() -> None:
    code = (
        "import sys, cnerta.streamer.serving.server, cnerta.streamer.commands.serve\n"
        "import cnerta.streamer.client.local\n"
        "heavy = {'torch', 'transformers', 'sounddevice'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


async def test_only_a_request_has_to_come_in_time(
    model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cnerta.streamer.serving.reading.metered_connection._OPENING_S", 0.5)
    async with serving(model) as server, client(server.port) as stream:
        await stream.send(SessionStart())
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"GET /healthz HT")
        async with asyncio.timeout(60):
            with contextlib.suppress(ConnectionResetError):
                assert await reader.read() == b""
        writer.close()
        await asyncio.sleep(0.6)
        await stream.send(final("他在北京"))
        assert await stream.until(UtteranceFinal), "a session stays for as long as it likes"
