"""The services' own SDKs against the exchanges that the sources are tested with.

An SDK that gets its transcript from an exchange says that it was written down rightly: each message
is one of the SDK's own types. And what an SDK asks for, with options as ours, is what our source
asks for. Nobody has spoken to the services themselves.
"""

from __future__ import annotations

import asyncio
import base64
import json
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest

from cnerta.streamer.sources import make_transcript_source

from ..collect import collect, finals
from . import exchanges
from .recorded_server import Recording, listening

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    import assemblyai.streaming.v3 as assemblyai
    import deepgram
    import openai
    import soniox
    from deepgram.core.events import EventType
    from deepgram.environment import DeepgramClientEnvironment
    from gladiaio_sdk import (
        GladiaClient,
        LiveV2InitRequest,
        LiveV2LanguageConfig,
        LiveV2MessagesConfig,
    )
    from openai.types.realtime import RealtimeClientEvent, RealtimeServerEvent
    from pydantic import TypeAdapter
    from soniox.types.realtime import RealtimeSTTConfig
    from speechmatics import rt as speechmatics

KEY = "a-key"
FAST = "speed=1000,patience=60"
SECONDS = np.linspace(-0.5, 0.5, 32_000, dtype=np.float32)  # two seconds
PATIENCE_S = 60


def blocks(second_bytes: int = exchanges.SECOND_BYTES) -> Iterator[bytes]:
    """Two seconds of audio, 100 ms a piece."""
    return (bytes(second_bytes // 10) for _ in range(20))


def query_of(recording: Recording) -> dict[str, str]:
    return {key: value for key, (value,) in parse_qs(urlsplit(recording.path).query).items()}


async def our_source(
    make: Callable[[], Recording], source: str, serve: Callable[..., Any] | None = None
) -> tuple[Recording, list[str]]:
    """Our source at an exchange of its own: what was asked for there, and the final texts."""
    recording = make()
    handler = recording.serve_one if serve is None else partial(serve, recording)
    async with listening(handler) as (url, _):
        got = await collect(make_transcript_source(source.format(url=url)), SECONDS)
    return recording, finals(got)


async def test_soniox(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SONIOX_API_KEY", KEY)
    theirs = exchanges.soniox()
    config = RealtimeSTTConfig(
        model="stt-rt-v5",
        audio_format="pcm_s16le",
        sample_rate=16_000,
        num_channels=1,
        language_hints=["zh"],
        enable_endpoint_detection=True,
        enable_speaker_diarization=True,
    )

    async def audio() -> AsyncIterator[bytes]:
        for block in blocks():
            yield block

    async with listening(theirs.serve_one) as (url, _), asyncio.timeout(PATIENCE_S):
        client = soniox.AsyncSonioxClient(api_key=KEY, websocket_base_url=url)
        async with client.realtime.stt.connect(config=config) as session:
            await session.send_bytes(audio())
            events = [event async for event in session.receive_events()]
    spoken = [t.text for e in events for t in e.tokens if t.is_final and not t.translation_status]
    assert "".join(spoken) == "南京市长<end>你好谢谢再见"
    assert events[-1].finished
    assert all(not e.model_extra and not any(t.model_extra for t in e.tokens) for e in events)

    ours, texts = await our_source(exchanges.soniox, f"soniox:{{url}},speakers=true,{FAST}")
    assert texts == ["南京市长", "你好", "谢谢再见"]
    (first, last), (their_first, their_last, *_) = ours.texts, theirs.texts
    assert json.loads(first) == json.loads(their_first)
    assert last == their_last == ""
    assert ours.headers["Authorization"] == theirs.headers["Authorization"]
    assert len(ours.audio) == len(theirs.audio)


async def test_assemblyai(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASSEMBLYAI_API_KEY", KEY)
    theirs = exchanges.assemblyai()
    heard: list[Any] = []
    wrong: list[Any] = []
    async with listening(theirs.serve_one) as (url, _), asyncio.timeout(PATIENCE_S):
        options = assemblyai.RealTimeTranscriberOptions(api_host=url, api_key=KEY)
        client = assemblyai.AsyncRealTimeTranscriber(options)
        kinds = assemblyai.RealTimeEvents
        for kind in (kinds.Begin, kinds.Turn, kinds.Termination):
            client.on(kind, lambda _, event: heard.append(event))
        client.on(kinds.Error, lambda _, error: wrong.append(error))
        await client.connect(
            assemblyai.RealTimeParameters(
                sample_rate=16_000,
                encoding=assemblyai.Encoding.pcm_s16le,
                speech_model=assemblyai.SpeechModel.whisper_rt,
                language_codes=["zh"],
                speaker_labels=True,
            )
        )
        await client.stream(blocks())
        await client.disconnect(terminate=True)
    assert not wrong
    assert [e.type for e in heard] == ["Begin", *["Turn"] * 5, "Termination"]
    assert [(e.turn_order, e.transcript) for e in heard if e.type == "Turn" and e.end_of_turn] == [
        (0, "南京 市长"),
        (1, "江大桥"),
    ]

    ours, texts = await our_source(
        exchanges.assemblyai, f"assemblyai:{{url}}/v3/ws,speakers=true,{FAST}"
    )
    assert texts == ["南京市长", "江大桥"]
    assert query_of(ours) == {k: v.replace("True", "true") for k, v in query_of(theirs).items()}
    assert urlsplit(ours.path).path == urlsplit(theirs.path).path
    assert [json.loads(t) for t in ours.texts] == [json.loads(t) for t in theirs.texts]
    assert ours.headers["Authorization"] == theirs.headers["Authorization"]


async def test_speechmatics(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPEECHMATICS_API_KEY", KEY)
    theirs = exchanges.speechmatics()
    heard: list[speechmatics.TranscriptResult] = []
    ended: list[Any] = []

    serve = partial(exchanges.serve_speechmatics, theirs)
    async with (
        listening(serve) as (url, _),
        asyncio.timeout(PATIENCE_S),
        speechmatics.AsyncClient(api_key=KEY, url=f"{url}/v2") as client,
    ):
        kinds = speechmatics.ServerMessageType
        for kind in (kinds.ADD_TRANSCRIPT, kinds.ADD_PARTIAL_TRANSCRIPT):
            client.on(
                kind,
                lambda m: heard.append(speechmatics.TranscriptResult.from_message(m)),
            )
        client.on(kinds.END_OF_UTTERANCE, ended.append)
        await client.start_session(
            transcription_config=speechmatics.TranscriptionConfig(
                language="cmn",
                model=speechmatics.Model.ENHANCED,
                enable_partials=True,
                max_delay=2.0,
                diarization="speaker",
                conversation_config=speechmatics.ConversationConfig(
                    end_of_utterance_silence_trigger=0.7
                ),
            ),
            audio_format=speechmatics.AudioFormat(
                encoding=speechmatics.AudioEncoding.PCM_S16LE, sample_rate=16_000
            ),
        )
        for block in blocks():
            await client.send_audio(block)
        await client.stop_session()
    assert [h.metadata.transcript for h in heard if h.is_final] == ["南京", "市长", "江大桥"]
    assert len(ended) == 2

    ours, texts = await our_source(
        exchanges.speechmatics,
        f"speechmatics:{{url}}/v2,speakers=true,{FAST}",
        exchanges.serve_speechmatics,
    )
    assert texts == ["南京市长", "江大桥"]
    assert [json.loads(t) for t in ours.texts] == [json.loads(t) for t in theirs.texts]
    assert ours.headers["Authorization"] == theirs.headers["Authorization"]


async def test_gladia(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLADIA_API_KEY", KEY)
    theirs = exchanges.gladia()
    service = exchanges.GladiaService()
    heard: list[Any] = []
    wrong: list[Any] = []
    with service.serving() as address:
        async with listening(theirs.serve_one) as (url, _), asyncio.timeout(PATIENCE_S):
            service.session = f"{url}/v2/live?token=once"
            client = GladiaClient(api_key=KEY, api_url=address).live_v2_async()
            session = client.start_session(
                LiveV2InitRequest(
                    model="solaria-1",
                    encoding="wav/pcm",
                    bit_depth=16,
                    sample_rate=16_000,
                    channels=1,
                    endpointing=0.3,
                    language_config=LiveV2LanguageConfig(languages=["zh"], code_switching=False),
                    messages_config=LiveV2MessagesConfig(
                        receive_partial_transcripts=True,
                        receive_final_transcripts=True,
                        receive_lifecycle_events=True,
                    ),
                )
            )
            connected, over = asyncio.Event(), asyncio.Event()
            session.on("connected", lambda _: connected.set())
            session.on("message", heard.append)
            session.on("error", wrong.append)
            session.on("ended", lambda _: over.set())
            await connected.wait()
            for block in blocks():
                session.send_audio(block)
            session.stop_recording()
            await over.wait()
    assert not wrong
    transcripts = [m.data for m in heard if m.type == "transcript"]
    assert [(d.id, d.utterance.text) for d in transcripts if d.is_final] == [
        ("00_00000000", "南京市长"),
        ("00_00000001", "江大桥"),
    ]
    assert not any(m.to_dict().get("_unknown_fields") for m in heard)
    assert [m.type for m in heard][-2:] == ["end_recording", "end_session"]

    ours = exchanges.gladia()
    with service.serving() as address:
        async with listening(ours.serve_one) as (url, _):
            service.session = f"{url}/v2/live?token=once"
            source = make_transcript_source(f"gladia:{address}/v2/live,{FAST}")
            assert finals(await collect(source, SECONDS)) == ["南京市长", "江大桥"]
    their_request, our_request = service.asked
    # The SDK may come back to a broken connection, so it wants to be told what has come.
    assert their_request["messages_config"].pop("receive_acknowledgments") is True
    assert our_request == their_request
    assert service.keys == [KEY, KEY]
    assert [json.loads(t) for t in ours.texts] == [json.loads(t) for t in theirs.texts]


SERVER_EVENT: TypeAdapter[Any] = TypeAdapter(RealtimeServerEvent)
CLIENT_EVENT: TypeAdapter[Any] = TypeAdapter(RealtimeClientEvent)


async def test_openai_realtime(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    theirs = exchanges.openai_server_turns()
    texts: list[str] = []
    async with listening(theirs.serve_one) as (url, _), asyncio.timeout(PATIENCE_S):
        client = openai.AsyncOpenAI(api_key=KEY, websocket_base_url=f"{url}/v1")
        connecting = client.realtime.connect(extra_query={"intent": "transcription"})
        async with connecting as connection:
            await connection.session.update(
                session={
                    "type": "transcription",
                    "audio": {
                        "input": {
                            "format": {"type": "audio/pcm", "rate": 24_000},
                            "transcription": {"model": "gpt-4o-transcribe", "language": "zh"},
                            "turn_detection": {"type": "server_vad"},
                        }
                    },
                }
            )
            for block in blocks(2 * 24_000):
                await connection.input_audio_buffer.append(audio=base64.b64encode(block).decode())
            await connection.input_audio_buffer.commit()
            async for event in connection:
                if event.type == "conversation.item.input_audio_transcription.completed":
                    texts.append(event.transcript)
                if len(texts) == 2:
                    break
    assert texts == ["南京市长。", "江大桥。"]

    ours, our_texts = await our_source(
        exchanges.openai_server_turns,
        f"openai-realtime:{{url}}/v1/realtime?intent=transcription,{FAST}",
    )
    assert our_texts == texts
    assert [json.loads(t) for t in ours.texts] == [json.loads(t) for t in theirs.texts]
    assert ours.path == theirs.path
    assert ours.headers["Authorization"] == theirs.headers["Authorization"]


@pytest.mark.parametrize(
    "make",
    [
        exchanges.openai_server_turns,
        exchanges.openai_client_turns,
        exchanges.openai_nothing_to_commit,
    ],
)
def test_what_openai_says_is_of_its_types(make: Callable[[], Recording]) -> None:
    """The connection of the SDK does not look at each field; its types do."""
    recording = make()
    for said in (*recording.on_connect, *(s for _, s in recording.answers), *recording.rest):
        SERVER_EVENT.validate_python(said)


@pytest.mark.parametrize("turns", ["server", "client"])
async def test_what_our_source_says_to_openai_is_of_its_types(turns: str) -> None:
    said: list[str | bytes] = []
    make = exchanges.openai_server_turns if turns == "server" else exchanges.openai_client_turns
    recording = make()
    audio_of = recording.audio_of

    def noted(message: str | bytes) -> bytes | None:
        said.append(message)
        return audio_of(message)

    recording.audio_of = noted
    generator = np.random.default_rng(0)
    loud, quiet = (generator.normal(0, s, 16_000).astype(np.float32) for s in (0.1, 0.001))
    heard = np.concatenate([loud, quiet[:8_000], loud])
    async with listening(recording.serve_one) as (url, _):
        options = f"turns={turns},pause=0.3,{FAST}"
        await collect(make_transcript_source(f"openai-realtime:{url},{options}"), heard)
    kinds = {CLIENT_EVENT.validate_json(message).type for message in said}
    assert kinds == {
        "session.update",
        "input_audio_buffer.append",
        "input_audio_buffer.commit",
    }


async def test_deepgram(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEEPGRAM_API_KEY", KEY)
    theirs = exchanges.deepgram()
    heard: list[Any] = []
    async with listening(theirs.serve_one) as (url, _), asyncio.timeout(PATIENCE_S):
        where = DeepgramClientEnvironment(base="", production=url, agent=url, agent_rest="")
        client = deepgram.AsyncDeepgramClient(api_key=KEY, environment=where)
        async with client.listen.v1.connect(
            model="nova-2",
            language="zh-CN",
            interim_results="true",
            encoding="linear16",
            sample_rate="16000",
            channels="1",
        ) as socket:
            socket.on(EventType.MESSAGE, heard.append)
            for block in blocks():
                await socket.send_media(block)
            await socket.send_close_stream()
            await socket.start_listening()
    results = [m for m in heard if m.type == "Results" and m.is_final]
    assert [m.channel.alternatives[0].transcript for m in results] == [
        "南京 市长",
        "江大橋",
        "到 北京",
        "",
    ]
    assert [m.type for m in heard if m.type != "Results"] == [
        "SpeechStarted",
        "UtteranceEnd",
        "Metadata",
    ]

    ours, texts = await our_source(
        exchanges.deepgram, f"deepgram:{{url}}/v1/listen,model=nova-2,{FAST}"
    )
    assert texts == ["南京市长江大桥", "到北京"]
    assert query_of(ours) == query_of(theirs)
    assert urlsplit(ours.path).path == urlsplit(theirs.path).path
    assert [json.loads(t) for t in ours.texts] == [json.loads(t) for t in theirs.texts]
    assert ours.headers["Authorization"] == theirs.headers["Authorization"]
