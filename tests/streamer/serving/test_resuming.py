"""Sessions that outlive their connections, over real sockets on this machine."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest

from cnerta.streamer.access.tokens import Tokens
from cnerta.streamer.serving.parking import ParkingOptions
from cnerta.streamer.serving.server import Server, ServerOptions
from cnerta.streamer.session.limits import ConnectionLimits
from cnerta.streamer.wire.codec import encode
from cnerta.streamer.wire.messages import (
    ErrorMessage,
    SessionFinish,
    SessionGoingAway,
    SessionReady,
    SessionStart,
    SessionSummary,
    Transcript,
    UtteranceFinal,
)
from cnerta.streamer.wire.parts import ResumeRequest

from ..fault_proxy import FaultProxy
from ..speaking_client import client


@contextlib.asynccontextmanager
async def serving(model: Any, **options: Any) -> AsyncIterator[Server]:
    async with Server(model, ServerOptions(**options)) as server:
        await server.start()
        yield server


def final(text: str, utterance: str = "u1") -> Transcript:
    return Transcript(utterance=utterance, revision=1, final=True, text=text)


def resuming(ready: SessionReady, last_seq: int = 0) -> SessionStart:
    assert ready.resume is not None
    return SessionStart(resume=ResumeRequest(token=ready.resume.token, last_seq=last_seq))


async def until_parked(server: Server, count: int) -> None:
    async with asyncio.timeout(60):
        while len(server._lot) != count:
            await asyncio.sleep(0.01)


def figures(server: Server) -> dict[str, str]:
    lines = server.metrics.exposition().decode().splitlines()
    return dict(line.rsplit(" ", 1) for line in lines if line[:1] != "#")


async def test_a_session_goes_on_after_its_connection_broke(
    model: Any, kit: SimpleNamespace
) -> None:
    async with serving(model) as server:
        async with client(server.port) as first:
            await first.send(SessionStart(), kit.speak("他在北京"), final("他在北京"))
            ready = await first.until(SessionReady)
            await first.until(UtteranceFinal)
            await first.send(kit.speak("她去上海")[:5_001])
            first.vanish()
        await until_parked(server, 1)
        assert figures(server)["cnerta_parked_sessions"] == "1.0"
        async with client(server.port) as second:
            await second.send(resuming(ready, first.last_seq))
            again = await second.until(SessionReady)
            assert again.recovered
            assert (again.session, again.epoch) == (ready.session, ready.epoch)
            spoken = kit.speak("他在北京") + kit.speak("她去上海")
            assert again.audio_received_samples * 2 <= len(kit.speak("他在北京")) + 5_001
            await second.send(spoken[2 * again.audio_received_samples :])
            await second.send(final("她去上海", "u2"), SessionFinish())
            messages = await second.rest()
            (answer,) = [m for m in messages if isinstance(m, UtteranceFinal)]
            assert answer.audio_used
            assert answer.characters[0][0] >= 600
            numbers = [m.seq for m in messages if hasattr(m, "seq")]
            assert numbers == list(range(first.last_seq + 1, first.last_seq + 1 + len(numbers)))
            assert isinstance(messages[-1], SessionSummary)
            assert messages[-1].audio_ms == 1280
            assert messages[-1].utterances == 2
        async with asyncio.timeout(60):
            while server._lot._known:  # nothing is kept after the end
                await asyncio.sleep(0.01)
        assert figures(server)["cnerta_audio_seconds_total"] == "1.28"
        assert figures(server)['cnerta_resumes_total{result="recovered"}'] == "1.0"


async def test_what_was_sent_into_a_broken_connection_comes_again(
    model: Any, kit: SimpleNamespace
) -> None:
    async with serving(model) as server, FaultProxy("127.0.0.1", server.port) as proxy:
        async with client(proxy.port) as first:
            await first.send(SessionStart())
            ready = await first.until(SessionReady)
            proxy.cut_after(700, "down")  # in the middle of a message
            await first.send(*(final("他在北京", f"u{n}") for n in range(10)))
            await first.rest()
            got = [m.utterance for m in first.seen if isinstance(m, UtteranceFinal)]
            assert len(got) < 10
        async with client(proxy.port) as second:
            await second.send(resuming(ready, first.last_seq), SessionFinish())
            messages = await second.rest()
            got += [m.utterance for m in messages if isinstance(m, UtteranceFinal)]
            assert got == [f"u{n}" for n in range(10)]
            assert isinstance(messages[-1], SessionSummary)


async def test_the_summary_comes_again_until_it_has_arrived(model: Any) -> None:
    async with serving(model) as server, FaultProxy("127.0.0.1", server.port) as proxy:
        async with client(proxy.port) as first:
            await first.send(SessionStart())
            ready = await first.until(SessionReady)
            proxy.stall("down")
            await first.send(final("他在北京"), SessionFinish())
            async with asyncio.timeout(60):
                while figures(server).get('cnerta_sent_total{type="session.summary"}') != "1.0":
                    await asyncio.sleep(0.01)
            proxy.cut()
        await until_parked(server, 1)
        async with client(proxy.port) as second:
            await second.send(resuming(ready, first.last_seq))
            kinds = [type(m) for m in await second.rest()]
            assert kinds[0] is SessionReady
            assert kinds[-2:] == [UtteranceFinal, SessionSummary]
            assert second.socket.close_code == 1000
        await until_parked(server, 0)


async def test_the_newer_connection_wins(model: Any) -> None:
    async with serving(model) as server, client(server.port) as first:
        await first.send(SessionStart(), final("他在北京"))
        ready = await first.until(SessionReady)
        await first.until(UtteranceFinal)
        async with client(server.port) as second:
            await second.send(resuming(ready, 1))
            assert (await second.until(SessionReady)).recovered
            assert (await second.until(UtteranceFinal)).seq == 2
            error = (await first.rest())[-1]
            assert isinstance(error, ErrorMessage)
            assert (error.code, error.name) == (4409, "superseded")
            assert first.socket.close_code == 4409
            await second.send(final("她去上海", "u2"), SessionFinish())
            messages = await second.rest()
            assert [m.utterance for m in messages if isinstance(m, UtteranceFinal)] == ["u2"]


async def test_a_token_is_of_use_to_its_own_user_only(model: Any) -> None:
    one, other = "0123456789abcdef", "fedcba9876543210"
    async with serving(model, tokens=Tokens([one, other])) as server:
        async with client(server.port, one) as first:
            await first.send(SessionStart(), final("他在北京"))
            ready = await first.until(SessionReady)
            await first.until(UtteranceFinal)
            async with client(server.port, other) as thief:
                await thief.send(resuming(ready))
                got = await thief.until(SessionReady)
                assert (got.recovered, got.lost.reason) == (False, "unknown_token")
                assert got.session != ready.session
            await first.send(final("她去上海", "u2"))
            await first.until(UtteranceFinal)
            first.vanish()
        await until_parked(server, 1)
        async with client(server.port, one) as second:
            await second.send(resuming(ready, first.last_seq))
            assert (await second.until(SessionReady)).recovered


@pytest.mark.parametrize("token", ["", "x" * 256, "\ud800"])
async def test_an_unknown_token_begins_a_new_session(model: Any, token: str) -> None:
    async with serving(model) as server, client(server.port) as stream:
        start = SessionStart(resume=ResumeRequest(token="x", last_seq=9))
        frame = (
            encode(start).decode().replace('"x"', f'"{token}"' if token.isascii() else '"\\ud800"')
        )
        await stream.socket.send(frame)
        message = await stream.receive()
        if not token.isascii():
            assert isinstance(message, ErrorMessage)
            assert message.code == 4400
            return
        assert isinstance(message, SessionReady)
        assert not message.recovered
        await stream.send(final("他在北京"))
        assert (await stream.until(UtteranceFinal)).seq == 2


async def test_a_number_of_the_future_harms_nobody(model: Any) -> None:
    async with serving(model) as server, client(server.port) as first:
        await first.send(SessionStart())
        ready = await first.until(SessionReady)
        async with client(server.port) as wrong:
            await wrong.send(resuming(ready, 1))
            error = (await wrong.rest())[-1]
            assert isinstance(error, ErrorMessage)
            assert (error.code, error.name) == (4400, "invalid_last_seq")
        await first.send(final("他在北京"))
        assert await first.until(UtteranceFinal)


async def test_what_is_no_longer_kept_is_a_new_session(model: Any) -> None:
    limits = ConnectionLimits(history_bytes=600)
    async with serving(model, limits=limits) as server:
        async with client(server.port) as first:
            await first.send(SessionStart(), *(final("他在北京", f"u{n}") for n in range(5)))
            ready = await first.until(SessionReady)
            while first.last_seq < 10:
                await first.receive()
            first.vanish()
        await until_parked(server, 1)
        async with client(server.port) as second:
            await second.send(resuming(ready, 2))
            got = await second.until(SessionReady)
            assert not got.recovered
            assert (got.lost.reason, got.lost.events) == ("history_too_short", 7)
            assert got.epoch == ready.epoch
        assert len(server._lot) == 0


async def test_nobody_comes_back_in_time(model: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with serving(model, parking=ParkingOptions(ttl_s=1)) as server:
        async with client(server.port) as first:
            await first.send(SessionStart())
            ready = await first.until(SessionReady)
            await first.send(final("他在北京"))
            first.vanish()
        await until_parked(server, 1)
        await until_parked(server, 0)
        async with client(server.port) as second:
            await second.send(resuming(ready))
            assert not (await second.until(SessionReady)).recovered
        found = figures(server)
        assert found['cnerta_given_up_sessions_total{reason="expired"}'] == "1.0"
        assert float(found["cnerta_lost_finals_total"]) in (0.0, 1.0)
    assert "is given up (expired)" in caplog.text
    assert "北京" not in caplog.text


async def test_what_may_not_be_resumed_is_not_offered(model: Any) -> None:
    async with serving(model, parking=ParkingOptions(ttl_s=0)) as server:
        async with client(server.port) as first:
            await first.send(SessionStart())
            assert (await first.until(SessionReady)).resume is None
            first.vanish()
        async with client(server.port) as second:
            await second.send(SessionStart(resume=ResumeRequest(token="x", last_seq=0)))
            (error,) = await second.rest()
            assert isinstance(error, ErrorMessage)
            assert (error.code, error.name) == (4404, "unknown_session")
        assert len(server._lot) == 0


async def test_whoever_says_goodbye_is_not_waited_for(model: Any) -> None:
    async with serving(model) as server:
        async with client(server.port) as leaving:
            await leaving.send(SessionStart())
            await leaving.until(SessionReady)
        async with client(server.port) as tab:
            await tab.send(SessionStart())
            await tab.until(SessionReady)
            await tab.socket.close(1001)
        await until_parked(server, 1)


async def test_idleness_parks(model: Any) -> None:
    limits = ConnectionLimits(idle_timeout_s=0.2)
    async with serving(model, limits=limits) as server:
        async with client(server.port) as quiet:
            await quiet.send(SessionStart())
            ready = await quiet.until(SessionReady)
            (error,) = await quiet.rest()
            assert (error.code, quiet.socket.close_code) == (4408, 4408)  # type: ignore[union-attr]
        async with client(server.port) as second:
            await second.send(resuming(ready))
            assert (await second.until(SessionReady)).recovered


async def test_a_silent_client_is_told_by_name_and_its_session_waits(model: Any) -> None:
    async with (
        serving(model, ping_interval_s=0.2, ping_timeout_s=2.0, close_timeout_s=0.2) as server,
        FaultProxy("127.0.0.1", server.port) as proxy,
    ):
        async with client(proxy.port) as dead, client(server.port) as alive:
            await dead.send(SessionStart())
            await alive.send(SessionStart())
            ready = await dead.until(SessionReady)
            await alive.until(SessionReady)
            proxy.stall("up")
            (error,) = await dead.rest()
            assert isinstance(error, ErrorMessage)
            assert (error.code, error.name, error.retryable) == (1011, "ping_timeout", True)
            assert dead.socket.close_code == 1011
            await until_parked(server, 1)
            await alive.send(final("他在北京"))
            assert await alive.until(UtteranceFinal), "it has answered its pings"
        async with client(server.port) as second:
            await second.send(resuming(ready))
            assert (await second.until(SessionReady)).recovered


async def test_utterances_in_progress_have_a_grace_at_a_shutdown(
    model: Any, kit: SimpleNamespace
) -> None:
    async with (
        serving(model) as server,
        client(server.port) as busy,
        client(server.port) as quiet,
    ):
        await busy.send(SessionStart())
        ready = await busy.until(SessionReady)
        await quiet.send(SessionStart())
        await quiet.until(SessionReady)
        await busy.send(
            Transcript(utterance="u1", revision=0, final=False, text="他在北"), kit.speak("他")
        )
        await asyncio.sleep(0.05)
        stopping = asyncio.create_task(server.stop())
        assert [type(m) for m in await quiet.rest()] == [SessionGoingAway, ErrorMessage]
        await busy.send(final("他在北京"))
        messages = [
            m
            for m in await busy.rest()
            if isinstance(m, UtteranceFinal | SessionGoingAway | ErrorMessage)
        ]
        assert sorted(type(m).__name__ for m in messages) == [
            "ErrorMessage",
            "SessionGoingAway",
            "UtteranceFinal",
        ]
        going = next(m for m in messages if isinstance(m, SessionGoingAway))
        assert going.resume == ready.resume
        assert busy.socket.close_code == 1001
        await stopping
    assert server.lost_finals == 0


async def test_an_utterance_without_an_end_does_not_hold_up_a_shutdown(model: Any) -> None:
    async with serving(model, grace_s=0.2) as server, client(server.port) as busy:
        await busy.send(SessionStart())
        await busy.send(Transcript(utterance="u1", revision=0, final=False, text="他在北"))
        await busy.until(SessionReady)
        await asyncio.sleep(0.05)
        await server.stop()
        assert isinstance((await busy.rest())[-1], ErrorMessage)


async def test_what_a_shutdown_leaves_behind_is_counted(
    model: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(model, drain_timeout_s=0.3) as server:
        plain = model.tag

        def slow(*arguments: Any) -> Any:
            import time

            time.sleep(1.0)
            return plain(*arguments)

        model.tag = slow
        async with client(server.port) as one, client(server.port) as two:
            await one.send(SessionStart(), final("他在北京"), final("她去上海", "u2"))
            await two.send(SessionStart(), final("张三"))
            await one.until(SessionReady)
            await two.until(SessionReady)
            await asyncio.sleep(0.1)
            two.vanish()
            await until_parked(server, 1)
            await server.stop()
            await one.rest()
    assert server.lost_finals == 3
    assert "3 final answers were left behind" in caplog.text
