"""A real WebSocket server that finds one person in whatever final transcript it is sent."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

from websockets.asyncio.server import ServerConnection, serve

from cnerta.streamer.wire.codec import decode_client, encode
from cnerta.streamer.wire.messages import (
    SessionFinish,
    SessionStart,
    SessionSummary,
    Transcript,
    UtteranceFinal,
)

from . import server_messages as wire

PERSON = "江大桥"


@contextlib.asynccontextmanager
async def server(handler: Callable[[ServerConnection], Awaitable[None]]) -> AsyncIterator[str]:
    async with serve(handler, "127.0.0.1", 0) as listening:
        port = next(iter(listening.sockets)).getsockname()[1]
        yield f"ws://127.0.0.1:{port}"


def answer_to(transcript: Transcript, seq: int = 1) -> UtteranceFinal:
    start = transcript.text.find(PERSON)
    found = [] if start < 0 else [wire.entity("PER", PERSON, start, status="final")]
    return wire.final(transcript.utterance, transcript.revision, transcript.text, *found, seq=seq)


async def answering(connection: ServerConnection) -> None:
    assert connection.request is not None
    assert connection.request.path == "/v1/stream"
    audio_bytes = finals = 0
    bytes_per_ms = 1.0
    async for frame in connection:
        if isinstance(frame, bytes):
            audio_bytes += len(frame)
            continue
        match decode_client(frame):
            case SessionStart(audio=audio):
                bytes_per_ms = 2 * audio.channels * audio.sample_rate / 1_000
                await connection.send(encode(wire.ready()), text=True)
            case Transcript(final=True) as transcript:
                finals += 1
                await connection.send(encode(answer_to(transcript, finals)), text=True)
            case SessionFinish():
                done = SessionSummary(
                    utterances=finals,
                    entities=0,
                    audio_ms=round(audio_bytes / bytes_per_ms),
                    dropped_interims=0,
                )
                await connection.send(encode(done), text=True)
                return
