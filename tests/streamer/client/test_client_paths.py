"""The engine in process and a server over WebSocket give the same answers to the same stream."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from cnerta.models.runtime.inference import Model
from cnerta.streamer.audio.source import AudioFile
from cnerta.streamer.client.connection import Connection, WebSocketConnection
from cnerta.streamer.client.local import LocalConnection
from cnerta.streamer.client.stream import stream
from cnerta.streamer.serving.server import Server
from cnerta.streamer.sources import TimedLine, TimedTranscript
from cnerta.streamer.wire.messages import (
    EntityUpsert,
    ServerMessage,
    SessionSummary,
    UtteranceFinal,
)

LINES = [
    TimedLine(text="今天在南京市长江大桥", start_ms=0, end_ms=1_500),
    TimedLine(text="江大桥市长，李明说：很好。", start_ms=1_600, end_ms=3_000),
]


@pytest.fixture
def talk(tmp_path: Path) -> AudioFile:
    noise = np.random.default_rng(1).normal(0.0, 0.1, 3 * 16_000)
    soundfile.write(tmp_path / "talk.flac", noise, 16_000)
    return AudioFile(tmp_path / "talk.flac", paced=False)


async def answers(connection: Connection, talk: AudioFile) -> list[ServerMessage]:
    async with connection:
        return [message async for message in stream(connection, talk, TimedTranscript(LINES))]


async def test_both_ways_give_the_same_finals(talk: AudioFile, tiny_bundle: Path) -> None:
    local = await answers(await LocalConnection.open(tiny_bundle), talk)
    async with Server(Model.load(tiny_bundle)) as server:
        await server.start()
        url = f"ws://127.0.0.1:{server.port}"
        remote = await answers(await WebSocketConnection.open(url), talk)

    def finals(messages: list[ServerMessage]) -> list[tuple[object, ...]]:
        return [
            (
                message.utterance,
                message.text,
                message.audio_used,
                [(entity.label, entity.start, entity.end) for entity in message.entities],
                message.characters,
            )
            for message in messages
            if isinstance(message, UtteranceFinal)
        ]

    assert len(finals(local)) == len(LINES)
    assert finals(local) == finals(remote)
    for messages in (local, remote):
        assert any(isinstance(message, EntityUpsert) for message in messages)
        assert isinstance(messages[-1], SessionSummary)
        assert (messages[-1].audio_ms, messages[-1].utterances) == (3_000, 2)
