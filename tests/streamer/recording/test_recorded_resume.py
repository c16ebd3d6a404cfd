"""One recording a session, however many connections it had."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from cnerta.streamer.recording.inspection import inspect_recording
from cnerta.streamer.recording.recorder import RecordingFolder
from cnerta.streamer.recording.replay import AskAgain, Replay
from cnerta.streamer.serving.engine import Engine
from cnerta.streamer.serving.parking import ParkingOptions
from cnerta.streamer.serving.server import Server, ServerOptions
from cnerta.streamer.wire.codec import decode_server, encode
from cnerta.streamer.wire.messages import (
    ServerMessage,
    SessionFinish,
    SessionReady,
    SessionStart,
    SessionSummary,
    Transcript,
    UtteranceFinal,
)
from cnerta.streamer.wire.parts import ResumeRequest


async def converse(
    server: Server, frames: list[Any], stop_at: type, *, vanish: bool = False
) -> list[ServerMessage]:
    """Send frames, and receive up to a message of a type; then leave, or vanish."""
    url = f"ws://127.0.0.1:{server.port}/v1/stream"
    got: list[ServerMessage] = []
    async with asyncio.timeout(60), connect(url, proxy=None, compression=None) as socket:
        for frame in frames:
            raw = isinstance(frame, bytes)
            await socket.send(frame if raw else encode(frame), text=None if raw else True)
        while not (got and isinstance(got[-1], stop_at)):
            got.append(decode_server(await socket.recv()))
        if vanish:
            socket.transport.abort()
        else:
            with pytest.raises(ConnectionClosed):
                await socket.recv()
    return got


def final(text: str, utterance: str) -> Transcript:
    return Transcript(utterance=utterance, revision=1, final=True, text=text)


def check(path: Path, model: Any) -> list[ServerMessage | None]:
    played = Replay(path, model.bundle, AskAgain(Engine(model)))
    messages = [step.message for step in played.run()]
    assert played.differences == []
    return messages


async def test_a_session_that_goes_on_is_one_recording(
    model: Any, kit: SimpleNamespace, tmp_path: Path
) -> None:
    with RecordingFolder(tmp_path, 2**30) as folder:
        async with Server(model, ServerOptions(), folder.open) as server:
            await server.start()
            # The last sample is cut in two.
            first = [SessionStart(), kit.speak("他在北京"), final("他在北京", "u1"), bytes(3)]
            got = await converse(server, first, UtteranceFinal, vanish=True)
            ready = got[0]
            assert isinstance(ready, SessionReady)
            assert ready.resume is not None
            while not len(server._lot):
                await asyncio.sleep(0.01)
            again = ResumeRequest(token=ready.resume.token, last_seq=1)
            rest = [SessionStart(resume=again), kit.speak("她去上海"), final("她去上海", "u2")]
            more = await converse(server, [*rest, SessionFinish()], SessionSummary)
            assert isinstance(more[0], SessionReady)
            assert more[0].recovered
    (path,) = tmp_path.glob("*.cns")
    data = path.read_bytes()
    assert ready.resume.token.encode() not in data
    messages = check(path, model)
    assert len(messages) == len(got) + len(more)
    found = inspect_recording(path)
    assert [f.utterance for f in found.finals] == ["u1", "u2"], "what is told twice counts once"
    assert found.finished == "finished in order"
    assert found.changes["resumed"] == 1


async def test_a_session_in_the_place_of_one_that_is_lost_is_a_recording_too(
    model: Any, tmp_path: Path
) -> None:
    with RecordingFolder(tmp_path, 2**30) as folder:
        options = ServerOptions(parking=ParkingOptions(most=0))
        async with Server(model, options, folder.open) as server:
            await server.start()
            start = SessionStart(resume=ResumeRequest(token="lost", last_seq=3))
            frames = [start, final("他在北京", "u1"), SessionFinish()]
            got = await converse(server, frames, SessionSummary)
            assert isinstance(got[0], SessionReady)
            assert got[0].lost
    (path,) = tmp_path.glob("*.cns")
    assert len(check(path, model)) == len(got)
