"""The engine in this process, behind the client's own interface."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cnerta.models.errors import BundleError
from cnerta.streamer.client.local import LocalConnection
from cnerta.streamer.errors import ServerUnreachableError, SessionFailedError
from cnerta.streamer.serving.hosted_session import HostedSession
from cnerta.streamer.wire.messages import (
    EntityUpsert,
    ErrorMessage,
    SessionFinish,
    SessionReady,
    SessionStart,
    SessionSummary,
    Transcript,
    UtteranceFinal,
)


async def everything(connection: LocalConnection) -> list[Any]:
    messages: list[Any] = []
    async with asyncio.timeout(60):
        while not (messages and isinstance(messages[-1], SessionSummary | ErrorMessage)):
            messages.append(await connection.receive())
    return messages


async def test_a_stream_in_this_process(model: Any, kit: SimpleNamespace) -> None:
    async with LocalConnection(model) as connection:
        await connection.send(SessionStart())
        await connection.send_audio(kit.speak("他在北京"))
        await connection.send(Transcript(utterance="u1", revision=1, final=True, text="他在北京"))
        await connection.send(SessionFinish())
        messages = await everything(connection)
        (answer,) = [m for m in messages if isinstance(m, UtteranceFinal)]
        assert answer.audio_used
        with pytest.raises(ServerUnreachableError):
            await connection.receive()
        with pytest.raises(ServerUnreachableError):
            await connection.send(SessionFinish())


async def test_audio_waits_for_the_engine_not_for_the_clock(
    model: Any, kit: SimpleNamespace
) -> None:
    async with LocalConnection(model) as connection:
        await connection.send(SessionStart())
        async with asyncio.timeout(60):
            for _ in range(40):
                await connection.send_audio(kit.silence(10_000))
        await connection.send_audio(kit.speak("他在北京"))
        await connection.send(Transcript(utterance="u1", revision=1, final=True, text="他在北京"))
        await connection.send(SessionFinish())
        messages = await everything(connection)
    assert [m.audio_used for m in messages if isinstance(m, UtteranceFinal)] == [True]
    assert messages[-1].audio_ms == 400_640
    assert model.encoded_samples == 400_640 * 16


async def test_a_mistake_is_an_error_message(model: Any) -> None:
    async with LocalConnection(model) as connection:
        await connection.send(Transcript(utterance="u1", revision=1, final=True, text="他"))
        (error,) = await everything(connection)
        assert (error.code, error.name) == (4400, "not_started")


def engine_threads() -> set[threading.Thread]:
    """Threads of engines; the event loop's own ones end with it."""
    return {thread for thread in threading.enumerate() if thread.name.startswith("cnerta-")}


async def test_a_failing_clock_is_an_error_and_the_threads_end(
    model: Any, kit: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(session: HostedSession) -> None:
        raise ZeroDivisionError("the clock stopped")

    before = engine_threads()
    async with LocalConnection(model) as connection:
        await connection.send(SessionStart())
        assert isinstance(await connection.receive(), SessionReady)
        await connection.send_audio(kit.speak("他在北京"))
        await connection.send(Transcript(utterance="u1", revision=1, final=True, text="他在北京"))
        assert isinstance(await connection.receive(), EntityUpsert | UtteranceFinal)
        assert engine_threads() > before
        monkeypatch.setattr(HostedSession, "tick", fail)
        with pytest.raises(SessionFailedError, match="the clock stopped") as caught:
            await everything(connection)
        assert isinstance(caught.value.__cause__, ZeroDivisionError)
        with pytest.raises(SessionFailedError):
            await connection.send_audio(bytes(640))
    assert engine_threads() == before


async def test_a_missing_bundle_is_named(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="expected"):
        await LocalConnection.open(tmp_path / "nothing")
