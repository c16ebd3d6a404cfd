"""The door of a replica behind a real ASGI server: what holds at our own server holds there."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import httpx2
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Origin, Subprotocol

from cnerta.streamer.access.admission import AccessOptions
from cnerta.streamer.access.tokens import SUBPROTOCOL, Tokens
from cnerta.streamer.ray_serve.ingress import Ingress
from cnerta.streamer.serving.parking import ParkingOptions
from cnerta.streamer.serving.server import Server, ServerOptions
from cnerta.streamer.session.limits import ConnectionLimits
from cnerta.streamer.wire.messages import (
    ErrorMessage,
    SessionFinish,
    SessionReady,
    SessionStart,
    SessionSummary,
    Transcript,
    UtteranceFinal,
)

from ..client.test_reconnecting import Talk, Watcher, check, run
from ..fault_proxy import FaultProxy
from ..speaking_client import Client, client
from .asgi_server import asgi_server

TOKEN = "a-token-of-sixteen-or-more"


@dataclass
class Behind:
    """A server behind the door, and where to knock."""

    server: Server
    ingress: Ingress
    port: int

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    async def ask(self, path: str, method: str = "GET", **more: Any) -> httpx2.Response:
        async with httpx2.AsyncClient(trust_env=False, timeout=20) as caller:
            return await caller.request(method, f"http://127.0.0.1:{self.port}{path}", **more)


@contextlib.asynccontextmanager
async def behind(
    model: Any, host: str = "127.0.0.1", root_path: str = "", **options: Any
) -> AsyncIterator[Behind]:
    # On a machine that is busy with other tests a server would say that it is overloaded.
    options.setdefault("access", AccessOptions(max_final_wait_ms=None))
    server = Server(model, ServerOptions(**options))
    ingress = Ingress(server, host)
    await ingress.start()
    try:
        async with asgi_server(ingress, root_path=root_path) as port:
            yield Behind(server, ingress, port)
    finally:
        await ingress.stop()


def final(text: str) -> Transcript:
    return Transcript(utterance="u1", revision=1, final=True, text=text)


async def test_a_stream_from_start_to_summary(model: Any, kit: SimpleNamespace) -> None:
    async with behind(model) as there, client(there.port) as stream:
        await stream.send(SessionStart(), kit.speak("他在北京") + kit.silence(320))
        await stream.send(final("他在北京"), SessionFinish())
        messages = await stream.rest()
        (answer,) = [m for m in messages if isinstance(m, UtteranceFinal)]
        assert answer.audio_used
        assert [e.text for e in answer.entities] == ["北京"]
        assert isinstance(messages[-1], SessionSummary)
        assert (stream.socket.close_code, stream.socket.close_reason) == (1000, "finished")
    assert not there.server.count_sessions


async def test_a_stream_that_loses_its_connection_goes_on(model: Any, kit: SimpleNamespace) -> None:
    talk, watcher = Talk(kit, 8, timed=True), Watcher()
    async with behind(model) as there, FaultProxy("127.0.0.1", there.port) as proxy:

        def cut(message: Any) -> None:
            if isinstance(message, UtteranceFinal) and message.utterance in ("u1", "u4"):
                proxy.cut()

        url = f"ws://127.0.0.1:{proxy.port}"
        messages = await run([url], talk, watcher=watcher, on_message=cut)
    check(messages, talk)
    assert watcher.states.count("resumed") == 2
    assert "restarted" not in watcher.states


async def test_a_drain_gives_what_is_owed_and_sends_clients_elsewhere(
    model: Any, kit: SimpleNamespace
) -> None:
    talk, watcher = Talk(kit, 8, timed=False), Watcher()
    async with behind(model) as one, behind(kit.FakeModel()) as two:
        stopping: list[asyncio.Task[None]] = []

        def stop(message: Any) -> None:
            if isinstance(message, UtteranceFinal) and message.utterance == "u2":
                stopping.append(asyncio.create_task(one.ingress.stop()))

        messages = await run([one.url, two.url], talk, watcher=watcher, on_message=stop)
        await asyncio.gather(*stopping)
        assert not one.server.lost_finals
        # Nobody is taken there any more, and all are told so.
        with pytest.raises(InvalidStatus) as refused:
            await connect(f"{one.url}/v1/stream", proxy=None)
        assert refused.value.response.status_code == 503
        answer = await one.ask("/readyz")
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
    check(messages, talk)
    assert watcher.states == ["lost", "restarted"]


async def test_a_session_needs_a_token_where_one_is_asked_for(model: Any) -> None:
    async with behind(model, tokens=Tokens((TOKEN,))) as there:
        async with client(there.port) as stream:
            await stream.send(SessionStart())
            error = await stream.until(ErrorMessage)
            assert error.name == "not_authorised"
            await stream.rest()
            assert stream.socket.close_code == error.code == 4401
        async with client(there.port, token=TOKEN) as stream:
            await stream.send(SessionStart())
            await stream.until(SessionReady)
        # As browsers bring it: beside the protocol's name, which alone is sent back.
        offered = [Subprotocol(SUBPROTOCOL), Subprotocol(f"bearer.{TOKEN}")]
        async with connect(f"{there.url}/v1/stream", proxy=None, subprotocols=offered) as socket:
            assert socket.subprotocol == SUBPROTOCOL
            stream = Client(socket)
            await stream.send(SessionStart())
            await stream.until(SessionReady)
        assert (await there.ask("/metrics")).status_code == 401
        bearer = {"Authorization": f"Bearer {TOKEN}"}
        assert "cnerta_sessions" in (await there.ask("/metrics", headers=bearer)).text
        made = await there.ask("/v1/sessions", "POST", headers=bearer)
        assert made.json()["url"].startswith(f"ws://127.0.0.1:{there.port}/v1/stream?token=")
        async with connect(made.json()["url"], proxy=None) as socket:
            stream = Client(socket)
            await stream.send(SessionStart())
            await stream.until(SessionReady)


async def test_pages_from_elsewhere_and_other_names_are_refused(model: Any) -> None:
    async with behind(model) as there:
        url = f"{there.url}/v1/stream"
        async with connect(url, proxy=None, origin=Origin("https://elsewhere.example")) as socket:
            await Client(socket).rest()
            assert socket.close_code == 4403
        async with connect(
            url, proxy=None, origin=Origin(f"http://127.0.0.1:{there.port}")
        ) as socket:
            stream = Client(socket)
            await stream.send(SessionStart())
            await stream.until(SessionReady)
        # A page whose name was bound to this machine's address.
        answer = await there.ask("/readyz", headers={"Host": "elsewhere.example"})
        assert answer.status_code == 421
        answer = await there.ask("/readyz", headers={"Host": "user:pass@127.0.0.1"})
        assert answer.status_code == 400


async def test_limits_of_an_address_hold_for_the_address_of_the_client(model: Any) -> None:
    access = AccessOptions(max_sessions_per_address=1, max_final_wait_ms=None)
    async with behind(model, "0.0.0.0", access=access) as there:
        # uvicorn believes this machine, where a proxy may be; so does Ray's.
        elsewhere = {"X-Forwarded-For": "192.0.2.7"}
        url = f"{there.url}/v1/stream"
        async with connect(url, proxy=None, additional_headers=elsewhere) as first:
            await Client(first).send(SessionStart())
            await Client(first).until(SessionReady)
            async with connect(url, proxy=None, additional_headers=elsewhere) as second:
                stream = Client(second)
                assert (await stream.until(ErrorMessage)).name == "over_quota"
        # A client that says so itself is not believed: it is no proxy that is trusted.
        assert there.server.admission.peer("198.51.100.1", None) == "198.51.100.1"


async def test_bad_input_is_told_and_closed_as_everywhere(model: Any) -> None:
    limits = ConnectionLimits(max_frame_bytes=1_000)
    async with behind(model, limits=limits) as there:
        async with client(there.port) as stream:
            await stream.send("no message")
            assert (await stream.until(ErrorMessage)).name == "not_json"
            await stream.rest()
            assert stream.socket.close_code == 4400
        async with client(there.port) as stream:
            await stream.send(SessionStart(), bytes(2_000))
            await stream.rest()
            assert stream.socket.close_code == 4413
            assert stream.socket.close_reason


@pytest.mark.parametrize("code", [1000, 1001, 3000])
async def test_whoever_leaves_is_known_by_how_it_leaves(model: Any, code: int) -> None:
    async with behind(model) as there:
        async with client(there.port) as stream:
            await stream.send(SessionStart())
            await stream.until(SessionReady)
            await stream.socket.close(code)
        async with asyncio.timeout(10):
            while there.server._clients:
                await asyncio.sleep(0.01)
        # Only who has closed in order will not come back.
        assert there.server.count_sessions == (0 if code == 1000 else 1)


async def test_nobody_waits_for_a_client_that_vanishes(model: Any) -> None:
    async with behind(model, parking=ParkingOptions(ttl_s=0)) as there:
        async with client(there.port) as stream:
            await stream.send(SessionStart())
            await stream.until(SessionReady)
            stream.vanish()
        async with asyncio.timeout(10):
            while there.server.count_sessions:
                await asyncio.sleep(0.01)


async def test_what_is_asked_over_http(model: Any) -> None:
    async with behind(model) as there:
        for path, status in [("/healthz", 200), ("/readyz", 200), ("/", 200), ("/nothing", 404)]:
            assert (await there.ask(path)).status_code == status, path
        head = await there.ask("/healthz", "HEAD")
        assert (head.status_code, head.content) == (200, b"")
        assert (await there.ask("/v1/stream")).status_code == 426
        asked = {"text": "他在北京"}
        answer = await there.ask("/v1/entities", "POST", json=asked)
        assert [e["text"] for e in answer.json()["entities"]] == ["北京"]

        async def pieces() -> AsyncIterator[bytes]:
            for piece in ('{"text":', '"她去上海"}'):
                yield piece.encode()
                await asyncio.sleep(0.01)

        json = {"Content-Type": "application/json"}
        answer = await there.ask("/v1/entities", "POST", content=pieces(), headers=json)
        assert [e["text"] for e in answer.json()["entities"]] == ["上海"]
        much = await there.ask("/v1/entities", "POST", content=bytes(2**25), headers=json)
        assert much.status_code == 413


async def test_what_goes_on_below_a_path(model: Any) -> None:
    async with behind(model, root_path="/captions") as there:
        assert (await there.ask("/readyz")).status_code == 200
        async with connect(f"{there.url}/v1/stream", proxy=None) as socket:
            stream = Client(socket)
            await stream.send(SessionStart())
            await stream.until(SessionReady)


async def test_a_client_of_deepgram_is_told_its_request(model: Any) -> None:
    async with behind(model, tokens=Tokens((TOKEN,))) as there:
        url = f"{there.url}/v1/listen"
        with pytest.raises(InvalidStatus) as refused:
            await connect(url, proxy=None)
        assert refused.value.response.status_code == 401
        assert refused.value.response.headers["dg-request-id"]


async def test_a_server_that_breaks_off_is_no_order(model: Any) -> None:
    async with behind(model) as there, client(there.port) as stream:
        await stream.send(SessionStart())
        await stream.until(SessionReady)
        for one in there.server._clients:
            one.connection.transport.abort()
        with pytest.raises(ConnectionClosed):
            await stream.socket.recv()
        assert stream.socket.close_code == 1011
