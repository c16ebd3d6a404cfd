"""Sessions that send nothing but audio: the server's recogniser writes what is said."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cnerta.streamer.client.reconnecting import ReconnectingConnection, ReconnectOptions
from cnerta.streamer.recording.inspection import inspect_recording
from cnerta.streamer.recording.recorder import RecordingFolder
from cnerta.streamer.recording.replay import AskAgain, Replay
from cnerta.streamer.serving.engine import Engine
from cnerta.streamer.serving.server import Server, ServerOptions
from cnerta.streamer.sources.base import LiveAudio, Revision
from cnerta.streamer.wire.messages import (
    ErrorMessage,
    RecognisedTranscript,
    ServerMessage,
    SessionFinish,
    SessionGoingAway,
    SessionReady,
    SessionStart,
    SessionSummary,
    SessionUpdate,
    Transcript,
    UtteranceFinal,
)
from cnerta.streamer.wire.parts import AudioFormat, ResumeRequest

from ..recognising import Listener, recogniser, serving
from ..speaking_client import client

AUDIO_ONLY = SessionStart(transcript="server")


def of(kind: type, messages: list[ServerMessage]) -> list[Any]:
    return [m for m in messages if isinstance(m, kind)]


async def test_audio_alone_is_enough(model: Any, kit: SimpleNamespace) -> None:
    source = Listener()
    async with serving(model, source) as server, client(server.port) as stream:
        await stream.send(AUDIO_ONLY)
        said = kit.speak("他在北京") + kit.silence(160) + kit.speak("在上海")
        for start in range(0, len(said), 1000):
            await stream.send(said[start : start + 1000])
        await stream.send(SessionFinish())
        messages = await stream.rest()
        assert stream.socket.close_code == 1000
    written = of(RecognisedTranscript, messages)
    assert [(w.utterance, w.text) for w in written if w.final] == [
        ("s1", "他在北京"),
        # The end of the session is the end of what is being said.
        ("s2", "在上海"),
    ]
    answers = of(UtteranceFinal, messages)
    assert [(a.text, [e.text for e in a.entities], a.audio_used) for a in answers] == [
        ("他在北京", ["北京"], True),
        ("在上海", ["上海"], True),
    ]
    assert messages.index(written[-1]) < messages.index(answers[-1])
    assert isinstance(messages[-1], SessionSummary)
    assert messages[-1].utterances == 2
    assert source.threads == {"cnerta-recogniser"}


async def test_those_who_bring_their_text_are_served_beside(
    model: Any, kit: SimpleNamespace
) -> None:
    async with serving(model, Listener()) as server, client(server.port) as stream:
        text = Transcript(utterance="u1", revision=1, final=True, text="他在北京")
        await stream.send(SessionStart(), kit.speak("他在北京"), text, SessionFinish())
        messages = await stream.rest()
    assert of(RecognisedTranscript, messages) == []
    assert len(of(UtteranceFinal, messages)) == 1


async def test_there_is_room_for_so_many_and_it_is_given_back(
    model: Any, kit: SimpleNamespace
) -> None:
    async with serving(model, Listener(), most=1) as server:
        async with client(server.port) as first, client(server.port) as second:
            await first.send(AUDIO_ONLY)
            await first.until(SessionReady)
            await second.send(AUDIO_ONLY)
            error = (await second.rest())[-1]
            assert isinstance(error, ErrorMessage)
            assert (error.code, error.retryable) == (1013, True)
            assert "at most 1 sessions" in error.detail
            await first.send(SessionFinish())
            await first.rest()
        async with client(server.port) as third:
            await third.send(AUDIO_ONLY, kit.speak("北京"), SessionFinish())
            assert len(of(UtteranceFinal, await third.rest())) == 1


@pytest.mark.parametrize(
    ("sent", "name"),
    [
        (Transcript(utterance="u", revision=1, final=True, text="他"), "transcript_not_taken"),
        (SessionUpdate(audio=AudioFormat(sample_rate=8_000)), "format_fixed"),
    ],
)
async def test_what_does_not_go_with_a_recogniser_is_named(
    model: Any, sent: Any, name: str
) -> None:
    async with serving(model, Listener()) as server, client(server.port) as stream:
        await stream.send(AUDIO_ONLY, SessionUpdate(audio=AudioFormat(), nested=False), sent)
        error = (await stream.rest())[-1]
    assert isinstance(error, ErrorMessage)
    assert (error.code, error.name) == (4400, name)


async def test_a_server_without_a_recogniser_says_so(model: Any) -> None:
    async with Server(model) as server:
        await server.start()
        async with client(server.port) as stream:
            await stream.send(AUDIO_ONLY)
            (error,) = await stream.rest()
    assert isinstance(error, ErrorMessage)
    assert error.name == "no_recogniser"


async def test_a_recogniser_that_fails_ends_its_session_by_name_and_no_other(
    model: Any, kit: SimpleNamespace, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    failing = serving(model, Listener(fails_at="上"))
    async with failing as server, client(server.port) as unlucky, client(server.port) as lucky:
        await lucky.send(AUDIO_ONLY, kit.speak("他在北京"))
        await unlucky.send(AUDIO_ONLY, kit.speak("在上海"))
        error = (await unlucky.rest())[-1]
        assert isinstance(error, ErrorMessage)
        assert (error.code, error.name) == (1011, "recogniser_failed")
        await lucky.send(SessionFinish())
        assert len(of(UtteranceFinal, await lucky.rest())) == 1
    assert "the recogniser failed: expected a recogniser, got none" in caplog.text


async def test_one_that_does_not_come_to_its_end_is_given_up(
    model: Any, kit: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cnerta.streamer.serving.recognition._FLUSH_S", 0.1)
    async with serving(model, Listener(dawdles=True)) as server, client(server.port) as stream:
        await stream.send(AUDIO_ONLY, kit.speak("他在北京"), SessionFinish())
        error = (await stream.rest())[-1]
    assert isinstance(error, ErrorMessage)
    assert error.name == "recogniser_failed"


async def test_one_that_does_not_keep_up_is_an_overload(
    model: Any, kit: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Deaf:
        async def revisions(self, audio: LiveAudio) -> AsyncIterator[Revision]:
            blocks = audio.blocks()
            await asyncio.sleep(60)
            async for _ in blocks:
                yield Revision("s1", 1, "", final=False)

    monkeypatch.setattr("cnerta.streamer.serving.recognition._MOST_WAITING_MS", 1_000)
    monkeypatch.setattr("cnerta.streamer.sources.base.BLOCKS_WAITING", 1)
    async with serving(model, Deaf()) as server, client(server.port) as stream:
        await stream.send(AUDIO_ONLY, *[kit.silence(500)] * 8)
        error = (await stream.rest())[-1]
    assert isinstance(error, ErrorMessage)
    assert error.code == 1013


async def test_a_client_that_comes_back_goes_on_with_the_same_recogniser(
    model: Any, kit: SimpleNamespace
) -> None:
    async with serving(model, Listener()) as server:
        async with client(server.port) as before:
            await before.send(AUDIO_ONLY)
            ready = await before.until(SessionReady)
            assert ready.resume is not None
            # The last sample is cut in two.
            await before.send(kit.speak("他在"), kit.silence(10) + b"\0")
            await before.until(RecognisedTranscript)
            before.socket.transport.abort()
        async with client(server.port) as after:
            resume = ResumeRequest(token=ready.resume.token, last_seq=0)
            await after.send(SessionStart(transcript="server", resume=resume))
            again = await after.until(SessionReady)
            assert again.recovered
            missed = kit.speak("他在") + kit.silence(10) + kit.speak("北京")
            await after.send(missed[2 * again.audio_received_samples :], SessionFinish())
            messages = await after.rest()
    (answer,) = of(UtteranceFinal, messages)
    assert [e.text for e in answer.entities] == ["北京"]


async def test_a_client_of_two_servers_gets_everything_once_when_one_dies(
    model: Any, kit: SimpleNamespace
) -> None:
    first, second = kit.speak("他在北京") + kit.silence(160), kit.speak("在上海") + kit.silence(160)
    async with serving(model, Listener()) as one, serving(model, Listener()) as two:
        urls = [f"ws://127.0.0.1:{server.port}" for server in (one, two)]
        messages: list[ServerMessage] = []

        async def read(connection: ReconnectingConnection, until: type) -> None:
            async with asyncio.timeout(60):
                while not (messages and isinstance(messages[-1], until)):
                    messages.append(await connection.receive())

        options = ReconnectOptions(first_pause_s=0.01)
        async with await ReconnectingConnection.open(urls, options=options) as connection:
            await connection.send(AUDIO_ONLY)
            await connection.send_audio(first)
            await read(connection, UtteranceFinal)
            await connection.send_audio(second[: len(second) // 2])
            await read(connection, RecognisedTranscript)
            for each in one._clients:
                each.connection.transport.abort()
            one._lot._known.clear()  # it has forgotten everything
            assert one._listener is not None
            one._listener.close()
            await connection.send_audio(second[len(second) // 2 :])
            await connection.send(SessionFinish())
            await read(connection, SessionSummary)
    answers = of(UtteranceFinal, messages)
    assert [a.text for a in answers] == ["他在北京", "在上海"]
    assert len({a.utterance for a in answers}) == 2
    assert [a.audio_used for a in answers] == [True, True]
    # On the clock of the whole stream.
    assert answers[1].characters[0][0] == pytest.approx(len(first) / 32, abs=80)
    sequence = [m.seq for m in messages if hasattr(m, "seq")]
    assert sequence == list(range(1, len(sequence) + 1))
    # What the first had begun to write is taken back.
    cut_off = [w for w in of(RecognisedTranscript, messages) if w.final and not w.text]
    assert [w.utterance for w in cut_off] == ["s2"]


async def test_a_recording_has_what_the_recogniser_wrote(
    model: Any, kit: SimpleNamespace, tmp_path: Path
) -> None:
    with recogniser(Listener()) as made, RecordingFolder(tmp_path, 2**24) as folder:
        async with Server(model, ServerOptions(), folder.open, made) as server:
            await server.start()
            async with client(server.port) as stream:
                said = kit.speak("他在北京") + kit.silence(160)
                await stream.send(AUDIO_ONLY, said, SessionFinish())
                seen = await stream.rest()
    (path,) = tmp_path.glob("*.cns")
    played = Replay(path, model.bundle, AskAgain(Engine(model)))
    messages = [step.message for step in played.run()]
    assert played.differences == []
    assert of(RecognisedTranscript, messages) == of(RecognisedTranscript, seen)  # type: ignore[arg-type]
    found = inspect_recording(path)
    assert found.revisions == (4, 1)


async def test_a_server_that_stops_has_what_is_being_said_written_first(
    model: Any, kit: SimpleNamespace
) -> None:
    async with serving(model, Listener(), grace_s=0.0) as server, client(server.port) as stream:
        await stream.send(AUDIO_ONLY, kit.speak("在上海"))
        while (await stream.until(RecognisedTranscript)).text != "在上海":
            pass
        stopping = asyncio.create_task(server.stop())
        messages = await stream.rest()
        await stopping
        assert server.lost_finals == 0
    assert of(SessionGoingAway, messages)
    assert [a.text for a in of(UtteranceFinal, messages)] == ["在上海"]
    assert isinstance(messages[-1], ErrorMessage)
    assert messages[-1].code == 1001
