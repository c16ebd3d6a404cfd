"""Who has opened a session with a token that is good for one, and comes back to it."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cnerta.streamer.access.callers import Caller, Quota
from cnerta.streamer.access.session_tokens import OwnTokenRecords
from cnerta.streamer.access.token_signer import TokenSigner
from cnerta.streamer.access.tokens import KnownToken, Tokens, digest
from cnerta.streamer.client.reconnecting import ReconnectingConnection, ReconnectOptions
from cnerta.streamer.client.stream import stream
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
from cnerta.streamer.wire.parts import ResumeRequest

from ..fault_proxy import FaultProxy
from ..speaking_client import Client, client
from . import test_handing_over as handing_over
from .test_http import ask

SITE = "the-long-lived-token-of-a-site"
TOKENS = Tokens([KnownToken(digest(SITE), Caller("site", Quota(sessions=20)))])


@contextlib.asynccontextmanager
async def serving(model: Any, **options: Any) -> AsyncIterator[Server]:
    async with Server(model, ServerOptions(tokens=TOKENS, **options)) as server:
        await server.start()
        yield server


async def issue(server: Server) -> str:
    """What the site's own server asks for, and hands to its page."""
    got = await ask(server.port, "/v1/sessions", "POST", Authorization=f"Bearer {SITE}")
    assert got.status == 201
    return str(json.loads(got.body)["token"])


def final(text: str, utterance: str = "u1") -> Transcript:
    return Transcript(utterance=utterance, revision=1, final=True, text=text)


def resuming(ready: SessionReady, last_seq: int = 0) -> SessionStart:
    assert ready.resume is not None
    return SessionStart(resume=ResumeRequest(token=ready.resume.token, last_seq=last_seq))


async def until_parked(server: Server, count: int = 1) -> None:
    async with asyncio.timeout(10):
        while len(server._lot) != count:
            await asyncio.sleep(0.01)


async def is_refused(stream: Client) -> str:
    """The connection ends with 4401. Returns what it was told."""
    error = (await stream.rest())[-1]
    assert isinstance(error, ErrorMessage)
    assert (error.code, error.name, error.retryable) == (4401, "not_authorised", False)
    assert stream.socket.close_code == 4401
    return error.detail


async def begin(server: Server, token: str) -> SessionReady:
    """A session with one answer, whose connection breaks."""
    async with client(server.port, token) as first:
        await first.send(SessionStart(), final("他在北京"))
        ready: SessionReady = await first.until(SessionReady)
        await first.until(UtteranceFinal)
        first.vanish()
    await until_parked(server)
    return ready


async def test_the_token_is_good_for_coming_back_and_for_nothing_else(model: Any) -> None:
    async with serving(model) as server:
        token = await issue(server)
        ready = await begin(server, token)
        async with client(server.port, token) as thief:
            await thief.send(SessionStart())
            assert "expected to resume" in await is_refused(thief)
        for _ in range(2):
            async with client(server.port, token) as again:
                await again.send(resuming(ready, 2))
                assert (await again.until(SessionReady)).recovered
                again.vanish()
            await until_parked(server)
        async with client(server.port, token) as last:
            await last.send(resuming(ready, 2), final("她去上海", "u2"), SessionFinish())
            messages = await last.rest()
            assert [m.utterance for m in messages if isinstance(m, UtteranceFinal)] == ["u2"]
            assert isinstance(messages[-1], SessionSummary)
        async with asyncio.timeout(10):
            while server.count_sessions:
                await asyncio.sleep(0.01)
        async with client(server.port, token) as late:
            await is_refused(late)


async def test_it_is_of_no_use_for_another_session_of_the_same_site(model: Any) -> None:
    async with serving(model) as server:
        one, other = await issue(server), await issue(server)
        async with client(server.port, one) as first, client(server.port, other) as second:
            await first.send(SessionStart())
            ready = await first.until(SessionReady)
            await second.send(SessionStart())
            await second.until(SessionReady)
            async with client(server.port, other) as thief:
                await thief.send(resuming(ready))
                assert "which is over, got another" in await is_refused(thief)
            await first.send(final("他在北京"))
            assert await first.until(UtteranceFinal), "and nobody has lost anything"


async def test_it_is_of_no_use_where_nothing_can_be_resumed(model: Any) -> None:
    async with serving(model) as server:
        token = await issue(server)
        await begin(server, token)
        bearer = {"Authorization": f"Bearer {token}"}
        body = b'{"text": "x"}'
        json_body = {"Content_Type": "application/json"}
        got = await ask(server.port, "/v1/entities", "POST", body=body, **bearer, **json_body)
        assert got.status == 401
        assert (await ask(server.port, "/v1/sessions", "POST", **bearer)).status == 401
        assert (await ask(server.port, "/metrics", **bearer)).status == 401


async def test_a_request_uses_a_token_up(model: Any) -> None:
    async with serving(model) as server:
        token = await issue(server)
        headers = {"Authorization": f"Bearer {token}", "Content_Type": "application/json"}
        body = '{"text": "他在北京"}'.encode()
        for status in (200, 401):
            got = await ask(server.port, "/v1/entities", "POST", body=body, **headers)
            assert got.status == status


async def test_it_is_over_when_its_session_was_given_up(model: Any) -> None:
    async with serving(model, parking=ParkingOptions(most=0)) as server:
        token = await issue(server)
        async with client(server.port, token) as first:
            await first.send(SessionStart())
            await first.until(SessionReady)
            first.vanish()
        async with asyncio.timeout(10):
            while server.count_sessions:
                await asyncio.sleep(0.01)
        async with client(server.port, token) as again:
            await is_refused(again)


async def test_the_newer_connection_wins_with_the_same_token(model: Any) -> None:
    async with serving(model) as server:
        token = await issue(server)
        async with client(server.port, token) as first, client(server.port, token) as second:
            await first.send(SessionStart())
            ready = await first.until(SessionReady)
            await second.send(resuming(ready))
            assert (await second.until(SessionReady)).recovered
            await first.rest()
            assert first.socket.close_code == 4409
            await second.send(final("他在北京"))
            assert await second.until(UtteranceFinal)


async def test_where_the_history_is_too_short_it_stands_for_the_session_that_follows(
    model: Any,
) -> None:
    async with serving(model, limits=ConnectionLimits(history_bytes=1)) as server:
        token = await issue(server)
        ready = await begin(server, token)
        async with client(server.port, token) as second:
            await second.send(resuming(ready, 0), final("她去上海"))
            anew = await second.until(SessionReady)
            assert (anew.recovered, anew.lost.reason) == (False, "history_too_short")
            await second.until(UtteranceFinal)
            last_seq = second.last_seq
            second.vanish()
        await until_parked(server)
        async with client(server.port, token) as third:
            await third.send(resuming(anew, last_seq))
            assert (await third.until(SessionReady)).recovered


async def test_a_newer_token_of_the_site_takes_the_older_ones_place(model: Any) -> None:
    async with serving(model) as server:
        old, new = await issue(server), await issue(server)
        ready = await begin(server, old)
        async with client(server.port, new) as second:
            await second.send(resuming(ready, 2))
            assert (await second.until(SessionReady)).recovered
            second.vanish()
        await until_parked(server)
        async with client(server.port, old) as wrong:
            await is_refused(wrong)
        async with client(server.port, new) as third:
            await third.send(resuming(ready, 2))
            assert (await third.until(SessionReady)).recovered


async def test_one_of_which_no_session_came_opens_one(model: Any) -> None:
    async with serving(model) as server:
        token = await issue(server)
        async with client(server.port, token) as first:
            first.vanish()
        async with asyncio.timeout(10):
            while server.count_sessions:
                await asyncio.sleep(0.01)
        async with client(server.port, token) as second:
            await second.send(SessionStart())
            assert await second.until(SessionReady)


async def test_a_stream_goes_on_over_a_line_that_breaks(model: Any, kit: SimpleNamespace) -> None:
    from ..client.test_reconnecting import Talk, check

    talk = Talk(kit, 4, timed=False)
    options = ReconnectOptions(give_up_s=10.0, first_pause_s=0.01, longest_pause_s=0.1)
    async with serving(model) as server, FaultProxy("127.0.0.1", server.port) as proxy:
        url = f"ws://127.0.0.1:{proxy.port}/v1/stream?token={await issue(server)}"
        seen = []
        async with await ReconnectingConnection.open([url], options=options) as connection:
            async with asyncio.timeout(30):
                async for message in stream(connection, talk, talk):
                    seen.append(message)
                    if isinstance(message, UtteranceFinal) and message.utterance != "u3":
                        proxy.cut()
        assert len(check(seen, talk)) == 4
        assert server.metrics.exposition().count(b'cnerta_resumes_total{result="recovered"} 3.0')


async def test_servers_with_one_secret_take_each_others_tokens(model: Any) -> None:
    signer = TokenSigner([b"k" * 32])
    async with (
        serving(model, token_signer=signer) as one,
        serving(model, token_signer=signer) as other,
        serving(model, token_signer=TokenSigner([b"x" * 32])) as stranger,
    ):
        token = await issue(one)
        async with client(stranger.port, token) as refused:
            await is_refused(refused)
        ready = await begin(other, token)
        async with client(other.port, token) as again:
            await again.send(SessionStart())
            await is_refused(again)
        async with client(other.port, token) as again:
            await again.send(resuming(ready, 2), SessionFinish())
            assert isinstance((await again.rest())[-1], SessionSummary)
        async with client(other.port, token) as late:
            await is_refused(late)
        # What other machines do not know of, they take: until it expires.
        async with client(one.port, token) as elsewhere:
            await elsewhere.send(SessionStart())
            assert await elsewhere.until(SessionReady)


@pytest.mark.parametrize("is_new", [False, True])
async def test_it_is_good_for_coming_back_to_another_worker(
    model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_new: bool
) -> None:
    records = OwnTokenRecords()

    class Group(handing_over.Group):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            self.ledger.token_records = records

    monkeypatch.setattr(handing_over, "Group", Group)
    async with handing_over.both(model, tmp_path, tokens=TOKENS) as two:
        a, b = two.servers["a"], two.servers["b"]
        tokens = [a.admission.session_tokens.issue(Caller("site"), _now()) for _ in range(2)]
        url = f"/v1/stream?token={tokens[0]}"
        async with handing_over.visiting(a, path=url) as first:
            await first.send(SessionStart())
            ready = await first.until(SessionReady)
            first.vanish()
        await until_parked(a)
        url = f"/v1/stream?token={tokens[is_new]}"
        for _ in range(2):
            async with handing_over.visiting(b, path=url) as second:
                await second.send(resuming(ready))
                assert (await second.until(SessionReady)).recovered
                second.vanish()
            await until_parked(a)
        async with handing_over.visiting(b, path=url) as thief:
            await thief.send(SessionStart())
            await is_refused(thief)
        states = [records.get(digest(token or "")) for token in tokens]
        known = [None if state is None else state.state for state in states]
        assert known == ([None, "spent"] if is_new else ["spent", "issued"])
        async with handing_over.visiting(b, path=url) as last:
            await last.send(resuming(ready), SessionFinish())
            assert isinstance((await last.rest())[-1], SessionSummary)
        async with asyncio.timeout(10):
            while a.count_sessions + b.count_sessions:
                await asyncio.sleep(0.01)
        assert records.get(digest(tokens[is_new] or "")) is None


def _now() -> float:
    return asyncio.get_running_loop().time()
