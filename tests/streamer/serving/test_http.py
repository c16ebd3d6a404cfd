"""HTTP beside the stream: methods, hosts, headers, and who may read what."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from cnerta.streamer.access.admission import AccessOptions
from cnerta.streamer.access.callers import Caller, Quota
from cnerta.streamer.access.tokens import KnownToken, Tokens, digest
from cnerta.streamer.client.connection import WebSocketConnection
from cnerta.streamer.errors import ServerUnreachableError
from cnerta.streamer.serving.listening import AddressError
from cnerta.streamer.serving.server import Server, ServerOptions
from cnerta.streamer.wire.messages import ErrorMessage, SessionReady, SessionStart

TOKEN = "0123456789abcdef"
AUTHORISED = {"Authorization": f"Bearer {TOKEN}"}
PAGE = "https://captions.example"


@contextlib.asynccontextmanager
async def serving(model: Any, **options: Any) -> AsyncIterator[Server]:
    async with Server(model, ServerOptions(**options)) as server:
        await server.start()
        yield server


@dataclass(frozen=True)
class Got:
    status: int
    headers: dict[str, str]
    body: bytes


async def ask(
    port: int, path: str, method: str = "GET", *, body: bytes = b"", **headers: str
) -> Got:
    """A request, byte by byte: nothing is added, nothing followed."""
    named = {"Host": f"127.0.0.1:{port}"}
    named |= {name.replace("_", "-"): value for name, value in headers.items()}
    if body:
        named["Content-Length"] = str(len(body))
    lines = [f"{method} {path} HTTP/1.1", *(f"{k}: {v}" for k, v in named.items() if v)]
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write("\r\n".join([*lines, "", ""]).encode() + body)
    async with asyncio.timeout(60):
        answer = await reader.read()
    writer.close()
    head, _, content = answer.partition(b"\r\n\r\n")
    first, *rest = head.decode().split("\r\n")
    pairs = (line.partition(": ") for line in rest)
    return Got(int(first.split()[1]), {k.lower(): v for k, _, v in pairs}, content)


async def test_methods(model: Any) -> None:
    async with serving(model) as server:
        read = await ask(server.port, "/healthz")
        assert (read.status, read.body) == (200, b"ok\n")
        head = await ask(server.port, "/healthz", "HEAD")
        assert (head.status, head.body) == (200, b"")
        assert head.headers["content-length"] == "3"
        for path, method, allow in (
            ("/healthz", "POST", "GET, HEAD, OPTIONS"),
            ("/metrics", "DELETE", "GET, HEAD, OPTIONS"),
            ("/v1/sessions", "GET", "OPTIONS, POST"),
            ("/v1/sessions", "HEAD", "OPTIONS, POST"),
            ("/v1/stream", "PUT", "GET, HEAD, OPTIONS"),
        ):
            got = await ask(server.port, path, method)
            assert (got.status, got.headers["allow"]) == (405, allow)
        options = await ask(server.port, "/healthz", "OPTIONS")
        assert (options.status, options.headers["allow"]) == (204, "GET, HEAD, OPTIONS")
        assert (await ask(server.port, "/nowhere")).status == 404
        assert (await ask(server.port, "/nowhere", "POST")).status == 404
        assert (await ask(server.port, "/v1/stream")).status == 426
        got = await ask(server.port, "/v1/sessions", "POST", body=b"{}")
        assert got.status == 400
        assert b"expected an HTTP request without content" in got.body


async def test_every_answer_has_its_security_headers(model: Any) -> None:
    async with serving(model) as server:
        for path in ("/healthz", "/readyz", "/metrics", "/nowhere", "/v1/stream", "/asyncapi.json"):
            headers = (await ask(server.port, path)).headers
            assert headers["x-content-type-options"] == "nosniff"
            assert "frame-ancestors 'none'" in headers["content-security-policy"]
            assert headers["referrer-policy"] == "no-referrer"
            assert headers["cache-control"] == "no-store"
            assert "server" not in headers
        bad = await ask(server.port, "/v1/stream", Upgrade="websocket", Connection="Upgrade")
        assert bad.status == 400, "the library's own answer"
        assert bad.headers["x-content-type-options"] == "nosniff"


async def test_a_server_of_this_machine_answers_to_its_names_only(model: Any) -> None:
    access = AccessOptions(allowed_hosts=("captions.example",))
    async with serving(model, access=access) as server:
        for host, status in (
            ("localhost", 200),
            ("captions.example", 200),
            ("evil.example", 421),
            ("", 421),
        ):
            assert (await ask(server.port, "/healthz", Host=host)).status == status
        url = f"ws://127.0.0.1:{server.port}/v1/stream"
        with pytest.raises(InvalidStatus) as refused:
            await connect(url, proxy=None, additional_headers={"Host": "evil.example"})
        assert refused.value.response.status_code == 421


async def test_pages_that_are_listed_may_read_and_others_may_not(model: Any) -> None:
    async with serving(model, origins=(PAGE,), tokens=Tokens([TOKEN])) as server:
        preflight = await ask(
            server.port,
            "/v1/sessions",
            "OPTIONS",
            Origin=PAGE,
            Access_Control_Request_Method="POST",
        )
        assert preflight.status == 204
        assert preflight.headers["access-control-allow-origin"] == PAGE
        assert preflight.headers["access-control-allow-headers"] == "Authorization"
        assert "POST" in preflight.headers["access-control-allow-methods"]
        got = await ask(server.port, "/v1/sessions", "POST", Origin=PAGE, **AUTHORISED)
        assert (got.status, got.headers["access-control-allow-origin"]) == (201, PAGE)
        assert got.headers["vary"] == "Origin"
        for method in ("OPTIONS", "POST"):
            evil = await ask(
                server.port, "/v1/sessions", method, Origin="https://evil.example", **AUTHORISED
            )
            assert "access-control-allow-origin" not in evil.headers
        assert evil.status == 403


async def test_a_short_lived_token_opens_one_session(model: Any) -> None:
    caller = Caller("site", Quota(sessions=1))
    tokens = Tokens([KnownToken(digest(TOKEN), caller)])
    async with serving(model, tokens=tokens) as server:
        assert (await ask(server.port, "/v1/sessions", "POST")).status == 401
        got = await ask(server.port, "/v1/sessions", "POST", **AUTHORISED)
        assert (got.status, got.headers["content-type"]) == (201, "application/json")
        assert got.headers["cache-control"] == "no-store"
        made = json.loads(got.body)
        assert made["expires_in_s"] == 60
        assert made["url"] == f"ws://127.0.0.1:{server.port}/v1/stream?token={made['token']}"
        again = {"Authorization": f"Bearer {made['token']}"}
        assert (await ask(server.port, "/v1/sessions", "POST", **again)).status == 401
        async with await WebSocketConnection.open(made["url"]) as page:
            await page.send(SessionStart())
            assert isinstance(await page.receive(), SessionReady)
        async with await WebSocketConnection.open(made["url"]) as second:
            error = await second.receive()
            assert isinstance(error, ErrorMessage)
            assert error.name == "not_authorised"
        encrypted = await ask(
            server.port, "/v1/sessions", "POST", X_Forwarded_Proto="https", **AUTHORISED
        )
        assert json.loads(encrypted.body)["url"].startswith("wss://")


async def test_a_caller_without_anything_left_gets_no_token(model: Any) -> None:
    caller = Caller("site", Quota(megabytes_per_hour=0.001))
    tokens = Tokens([KnownToken(digest(TOKEN), caller)])
    async with serving(model, tokens=tokens) as server:
        server.admission.quotas.take(caller, asyncio.get_running_loop().time(), size=10**6)
        got = await ask(server.port, "/v1/sessions", "POST", **AUTHORISED)
        assert got.status == 429
        assert int(got.headers["retry-after"]) > 60


async def test_metrics_want_a_token_where_sessions_do(model: Any) -> None:
    async with serving(model, tokens=Tokens([TOKEN])) as server:
        refused = await ask(server.port, "/metrics")
        assert (refused.status, refused.headers["www-authenticate"]) == (401, "Bearer")
        assert (await ask(server.port, "/metrics", **AUTHORISED)).status == 200
        assert (await ask(server.port, "/healthz")).status == 200


async def test_metrics_at_an_address_of_their_own(model: Any) -> None:
    options = {"tokens": Tokens([TOKEN]), "metrics_address": ("127.0.0.1", 0)}
    async with serving(model, **options) as server:
        assert (await ask(server.port, "/metrics", **AUTHORISED)).status == 404
        got = await ask(server.metrics_port, "/metrics")
        assert got.status == 200
        assert b"cnerta_sessions" in got.body
        assert (await ask(server.metrics_port, "/healthz")).status == 200
        assert (await ask(server.metrics_port, "/v1/stream")).status == 404
        with pytest.raises(ServerUnreachableError):
            await WebSocketConnection.open(f"ws://127.0.0.1:{server.metrics_port}", token=TOKEN)
        taken = ServerOptions(metrics_address=("127.0.0.1", server.port))
        with pytest.raises(AddressError, match=rf"port {server.port} to be free"):
            await Server(model, taken).start()


async def test_health_means_it(model: Any) -> None:
    async with serving(model) as server:
        assert server._batcher is not None
        server._batcher._stalled_at = asyncio.get_running_loop().time()
        for path in ("/healthz", "/readyz"):
            got = await ask(server.port, path)
            assert (got.status, got.body) == (503, b"engine stalled\n")
        server._batcher._stalled_at = None
        assert (await ask(server.port, "/healthz")).status == 200
        for task in server._tasks:
            task.cancel()
        server._turned_at = asyncio.get_running_loop().time() - 6
        assert (await ask(server.port, "/healthz")).body == b"event loop stalled\n"


async def test_who_may_not_come_in_is_told_after_a_moment(model: Any) -> None:
    async def knock(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", port, local_addr=("127.0.0.2", 0))

    async with serving(model, access=AccessOptions(max_waiting_per_address=1)) as server:
        silent, silent_writer = await knock(server.port)
        reader, writer = await knock(server.port)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.read(), 0.2)
        assert await asyncio.wait_for(reader.read(), 30) == b""
        writer.close()
        assert not silent.at_eof()
        reader, writer = await knock(server.port)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.read(), 0.05)
        silent_writer.close()
    assert await asyncio.wait_for(reader.read(), 30) == b"", "nobody is kept by a server that ends"
    writer.close()
