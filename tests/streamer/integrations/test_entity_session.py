"""A session beside a framework: what it tells, and that nothing stops the framework."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest

from cnerta.streamer.client.connection import Connection, WebSocketConnection
from cnerta.streamer.client.local import LocalConnection
from cnerta.streamer.client.stream import StreamOptions
from cnerta.streamer.errors import ServerUnreachableError
from cnerta.streamer.integrations import entity_session
from cnerta.streamer.integrations.entity_session import EntitySession, Found
from cnerta.streamer.wire.parts import AudioFormat

from .. import fake_server

PCM = AudioFormat(sample_rate=16_000)
BLOCK_BYTES = 640


@pytest.fixture
def connect(model: Any) -> Callable[[], Awaitable[Connection]]:
    async def connected() -> Connection:
        return LocalConnection(model)

    return connected


class Told:
    """All that a session has told of changes."""

    def __init__(self) -> None:
        self.found: list[Found] = []

    async def __call__(self, found: Found) -> None:
        self.found.append(found)

    async def until(self, right: Callable[[Found], bool]) -> Found:
        async with asyncio.timeout(60):
            while not (fitting := [found for found in self.found if right(found)]):
                await asyncio.sleep(0.005)
        return fitting[0]


def speak(session: EntitySession, speech: bytes) -> None:
    for at in range(0, len(speech), BLOCK_BYTES):
        session.add_audio(speech[at : at + BLOCK_BYTES], PCM)


def labels(found: Found | None) -> list[tuple[str, str]]:
    assert found is not None
    return [(entity.label, entity.text) for entity in found.entities]


async def test_interim_and_final_answers(connect: Any, kit: SimpleNamespace) -> None:
    told = Told()
    session = EntitySession(connect, StreamOptions(), on_change=told)
    speak(session, kit.speak("他在北京"))
    known = session.revise("他在北京")
    assert known == Found("u1", "他在北京"), "not answered yet"
    interim = await told.until(lambda found: bool(found.entities))
    assert not interim.final
    assert labels(interim) == [("LOC", "北京")]
    assert labels(session.revise("他在北京大")) == [("LOC", "北京")], "known from before"
    assert labels(session.revise("它")) == [], "it is no longer in the text"

    final = await session.conclude("他在北京", start_ms=0, end_ms=640)
    assert final is not None
    assert (final.utterance, final.text, final.final) == ("u1", "他在北京", True)
    assert final.audio_used
    assert labels(final) == [("LOC", "北京")]
    (entity,) = final.entities
    assert (entity.start_ms, entity.end_ms) == (298, 600)
    assert final in told.found
    second = await session.conclude("张三")
    assert second is not None
    assert second.utterance == "u2"
    await session.finish(5.0)


async def test_text_waits_for_the_audio_before_it(connect: Any, kit: SimpleNamespace) -> None:
    session = EntitySession(connect)
    speak(session, kit.silence(20_000) + kit.speak("他在北京"))
    final = await session.conclude("他在北京")
    assert final is not None
    assert final.audio_used
    assert final.entities[0].start_ms == 20_298
    await session.aclose()


async def test_what_is_owed_is_answered_before_the_end(connect: Any) -> None:
    told = Told()
    session = EntitySession(connect, on_change=told)
    answers = [session.conclude(text) for text in ("他在北京", "张三", "李四")]
    await session.finish(10.0)
    assert [labels(answer.result()) for answer in answers] == [
        [("LOC", "北京")],
        [("PER", "张三")],
        [("PER", "李四")],
    ]


@pytest.mark.parametrize("text", ["", "  ", "京" * 4_097])
async def test_text_that_no_session_takes(connect: Any, text: str) -> None:
    session = EntitySession(connect)
    assert session.revise(text) is None
    assert await session.conclude(text) is None
    assert labels(await session.conclude("北京")) == [("LOC", "北京")]
    await session.aclose()


async def test_a_server_that_comes_back(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(entity_session, "FIRST_RETRY_S", 0.01)
    sockets: list[Any] = []

    async def answering(socket: Any) -> None:
        sockets.append(socket)
        await fake_server.answering(socket)

    async with fake_server.server(answering) as url:
        session = EntitySession(lambda: WebSocketConnection.open(url))
        session.add_audio(bytes(32_000), PCM)
        first = await session.conclude(f"市长{fake_server.PERSON}")
        assert labels(first) == [("PER", "江大桥")]
        assert first is not None
        assert first.entities[0].start_ms == 300

        sockets[0].transport.abort()
        async with asyncio.timeout(60):
            while "transcripts go on without entities" not in caplog.text:
                await asyncio.sleep(0.005)
            while session.revise("市长") is None:
                await asyncio.sleep(0.005)
        second = await session.conclude(fake_server.PERSON, start_ms=1_100, end_ms=1_500)
        assert second is not None
        assert second.entities[0].start_ms == 1_300, "counted from the first audio of all"
        await session.aclose()
    assert len(sockets) == 2


async def test_nobody_there(caplog: pytest.LogCaptureFixture) -> None:
    async def nobody() -> Connection:
        raise ServerUnreachableError("expected a server, got none")

    session = EntitySession(nobody)
    session.add_audio(bytes(640), PCM)
    assert await session.conclude("北京") is None
    assert session.revise("北京") is None, "known by now"
    assert "without entities: expected a server, got none" in caplog.text
    await session.aclose()


async def test_what_trying_again_does_not_mend(
    connect: Any, caplog: pytest.LogCaptureFixture
) -> None:
    session = EntitySession(connect, StreamOptions(labels=("PET",)))
    assert await session.conclude("北京") is None
    assert await session.conclude("北京") is None
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    assert "unknown_label" in caplog.text
    await session.aclose()


async def test_a_bug_does_not_reach_the_framework(caplog: pytest.LogCaptureFixture) -> None:
    async def broken() -> Connection:
        raise ZeroDivisionError

    session = EntitySession(broken)
    assert await session.conclude("北京") is None
    assert "ZeroDivisionError" in caplog.text
    await session.aclose()


async def test_what_is_owed_when_it_is_closed_is_none() -> None:
    async def never() -> Connection:
        await asyncio.Event().wait()
        raise AssertionError

    session = EntitySession(never)
    answer = session.conclude("北京")
    await session.finish(0.01)
    assert answer.result() is None


async def test_audio_of_another_format(
    connect: Any, kit: SimpleNamespace, caplog: pytest.LogCaptureFixture
) -> None:
    session = EntitySession(connect)
    typed = await session.conclude("张三")  # Before the audio, whose rate is not known yet.
    assert labels(typed) == [("PER", "张三")]
    session.add_audio(kit.speak("他在北京", sample_rate=8_000), AudioFormat(sample_rate=8_000))
    session.add_audio(bytes(640), PCM)
    final = await session.conclude("他在北京")
    assert final is not None
    assert final.audio_used
    assert "expected audio in one format" in caplog.text
    await session.aclose()
