"""Deepgram's own SDK against this server."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import threading
import warnings
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from cnerta.streamer.access.callers import Caller, Quota
from cnerta.streamer.access.tokens import KnownToken, Tokens, digest
from cnerta.streamer.serving.http.deepgram_file import FILE_LIMITS
from cnerta.streamer.serving.server import Server
from cnerta.streamer.sources.registry import make_transcript_source

from ..apis.test_wave_stream import written
from ..recognising import Listener, serving
from ..sources.collect import collect
from .test_http import ask

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    deepgram = pytest.importorskip("deepgram")
    from deepgram.core.api_error import ApiError
    from deepgram.core.events import EventType
    from deepgram.environment import DeepgramClientEnvironment

KEY = "a-key"
RAW = {"encoding": "linear16", "sample_rate": "16000"}
ALL = {**RAW, "interim_results": "true", "detect_entities": "true"}


def sdk(port: int, key: str = KEY) -> Any:
    http, ws = f"http://127.0.0.1:{port}", f"ws://127.0.0.1:{port}"
    environment = DeepgramClientEnvironment(base=http, production=ws, agent=ws, agent_rest=http)
    return deepgram.AsyncDeepgramClient(api_key=key, environment=environment)


class Heard:
    """What the SDK hands to its user."""

    def __init__(self, socket: Any) -> None:
        self.messages: list[Any] = []
        self.socket = socket

    async def listen(self) -> None:
        """Until the connection closes."""
        self.socket.on(EventType.MESSAGE, self.messages.append)
        async with asyncio.timeout(60):
            await self.socket.start_listening()

    def of(self, kind: str) -> list[Any]:
        return [m for m in self.messages if m.type == kind]

    async def until(self, condition: Any) -> None:
        async with asyncio.timeout(60):
            while not condition():
                await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def listening(port: int, key: str = KEY, **query: str) -> AsyncIterator[Heard]:
    async with sdk(port, key).listen.v1.connect(model="nova-3", **query) as socket:
        heard = Heard(socket)
        task = asyncio.create_task(heard.listen())
        yield heard
        await task


@pytest.fixture
def tokens() -> Tokens:
    return Tokens([KEY])


async def test_the_sdk_gets_transcripts_with_entities(
    model: Any, kit: SimpleNamespace, tokens: Tokens
) -> None:
    said = kit.speak("他在南京市") + kit.silence(160) + kit.speak("在上海")
    made = serving(model, Listener(), tokens=tokens)
    async with made as server, listening(server.port, **ALL) as heard:
        early = len(kit.speak("他在南"))
        await heard.socket.send_media(said[:early])
        await heard.until(lambda: heard.of("Results"))
        for start in range(early, len(said), 4_000):
            await heard.socket.send_media(said[start : start + 4_000])
        await heard.socket.send_keep_alive()
        await heard.socket.send_close_stream()
    results = heard.of("Results")
    finals = [r for r in results if r.is_final]
    assert [r.channel.alternatives[0].transcript for r in finals] == ["他在南京市", "在上海"]
    found = [[(e.label, e.value, e.start_word, e.end_word) for e in r.entities] for r in finals]
    assert sorted(found[0]) == [("LOCATION", "南京", 2, 4), ("LOCATION", "南京市", 2, 5)]
    assert found[1] == [("LOCATION", "上海", 1, 3)]
    assert all(r.speech_final for r in finals)
    words = finals[0].channel.alternatives[0].words
    assert [w.word for w in words] == list("他在南京市")
    assert [w.start for w in words] == pytest.approx([0.16 * i for i in range(5)], abs=0.05)
    interim = [r.channel.alternatives[0].transcript for r in results if not r.is_final]
    assert "他在南".startswith(interim[0])
    (metadata,) = heard.of("Metadata")
    assert heard.messages[-1] is metadata
    assert metadata.sha256 == hashlib.sha256(said).hexdigest()
    assert metadata.duration == pytest.approx(len(said) / 32_000)
    assert metadata.request_id == finals[0].metadata.request_id
    assert finals[0].metadata.model_info.name == "fake"


async def test_finalize_ends_what_is_being_said_and_it_goes_on(
    model: Any, kit: SimpleNamespace
) -> None:
    async with serving(model, Listener()) as server, listening(server.port, **ALL) as heard:
        await heard.socket.send_media(kit.speak("他在北京"))
        await heard.socket.send_finalize()
        await heard.until(lambda: any(r.from_finalize for r in heard.of("Results")))
        await heard.socket.send_finalize()  # nothing was said since
        await heard.until(lambda: sum(r.from_finalize for r in heard.of("Results")) == 2)
        await heard.socket.send_media(kit.speak("在上海"))
        await heard.socket.send_close_stream()
    finals = [r for r in heard.of("Results") if r.is_final]
    assert [(r.channel.alternatives[0].transcript, r.from_finalize) for r in finals] == [
        ("他在北京", True),
        ("", True),
        ("在上海", False),
    ]
    assert [e.value for e in finals[2].entities] == ["上海"]
    # On the clock of the whole stream.
    assert finals[2].start == pytest.approx(4 * 0.16, abs=0.05)


async def test_a_wav_file_needs_no_parameters(model: Any, kit: SimpleNamespace) -> None:
    file = written("PCM_16", np.frombuffer(kit.speak("他在北京"), "<i2"))
    async with serving(model, Listener()) as server, listening(server.port) as heard:
        await heard.socket.send_media(file)
        await heard.socket.send_close_stream()
    (result,) = heard.of("Results")
    assert result.channel.alternatives[0].transcript == "他在北京"
    assert result.entities is None


async def test_the_synchronous_client_works_too(model: Any, kit: SimpleNamespace) -> None:
    def talk(port: int) -> list[Any]:
        http, ws = f"http://127.0.0.1:{port}", f"ws://127.0.0.1:{port}"
        environment = DeepgramClientEnvironment(base=http, production=ws, agent=ws, agent_rest=http)
        client = deepgram.DeepgramClient(api_key=KEY, environment=environment)
        messages: list[Any] = []
        with client.listen.v1.connect(model="nova-3", **ALL) as socket:
            socket.on(EventType.MESSAGE, messages.append)
            reader = threading.Thread(target=socket.start_listening)
            reader.start()
            socket.send_media(kit.speak("他在北京"))
            socket.send_close_stream()
            reader.join(20)
        return messages

    async with serving(model, Listener()) as server:
        messages = await asyncio.to_thread(talk, server.port)
    finals = [m for m in messages if m.type == "Results" and m.is_final]
    assert [e.value for e in finals[0].entities] == ["北京"]


# --- who may --------------------------------------------------------------------------------------


async def test_a_wrong_key_is_refused_before_the_handshake(model: Any, tokens: Tokens) -> None:
    async with serving(model, Listener(), tokens=tokens) as server:
        with pytest.raises(ApiError) as caught:
            async with listening(server.port, "another", **RAW):
                pass
    assert caught.value.status_code == 401


@pytest.fixture
def url() -> Iterator[Any]:
    return lambda server, query="": f"ws://127.0.0.1:{server.port}/v1/listen?{query}"  # type: ignore[return-value]


async def refusal(address: str, **headers: str) -> tuple[int, dict[str, Any], Any]:
    with pytest.raises(InvalidStatus) as caught:
        async with connect(address, proxy=None, additional_headers=headers):
            pass
    response = caught.value.response
    return response.status_code, json.loads(response.body), response.headers


async def test_refusals_have_the_shape_that_their_clients_read(model: Any, url: Any) -> None:
    known = KnownToken(digest(KEY), Caller("somebody", Quota(sessions=1)))
    key = {"Authorization": f"Token {KEY}"}
    async with serving(model, Listener(), tokens=Tokens([known])) as server:
        status, body, headers = await refusal(url(server, "encoding=linear16&sample_rate=16000"))
        assert (status, body["err_code"]) == (401, "INVALID_AUTH")
        assert body["request_id"] == headers["dg-request-id"]
        status, body, _ = await refusal(url(server, "encoding=speex"), **key)
        assert (status, body["err_code"]) == (400, "Bad Request")
        assert "expected encoding" in body["err_msg"]
        raw = url(server, "encoding=linear16&sample_rate=16000")
        async with connect(raw, proxy=None, additional_headers=key) as socket:
            assert socket.response is not None
            assert socket.response.headers["dg-request-id"]
            status, body, _ = await refusal(raw, **key)
            assert status == 429
            assert "at most 1 sessions" in body["err_msg"]
        status, _, _ = await refusal(raw, Origin="https://elsewhere.example", **key)
        assert status == 403


async def test_a_server_without_a_recogniser_says_so(model: Any, url: Any) -> None:
    async with Server(model) as server:
        await server.start()
        status, body, _ = await refusal(url(server))
    assert status == 400
    assert "--source" in body["err_msg"]


@pytest.mark.parametrize("scheme", ["token", "bearer"])
async def test_a_browser_sends_its_key_as_a_subprotocol(
    model: Any, url: Any, tokens: Tokens, scheme: str
) -> None:
    async with serving(model, Listener(), tokens=tokens) as server:
        raw = url(server, "encoding=linear16&sample_rate=16000")
        async with connect(raw, proxy=None, subprotocols=[scheme, KEY]) as socket:  # type: ignore[list-item]
            assert socket.subprotocol == scheme
            await socket.send('{"type":"CloseStream"}')
            said = json.loads(await socket.recv())
    assert said["type"] == "Metadata"


async def test_more_than_the_recogniser_takes_is_an_error_of_theirs(model: Any) -> None:
    made = serving(model, Listener(), most=1)
    async with made as server, listening(server.port, **RAW) as first:
        async with listening(server.port, **RAW) as second:
            pass
        await first.socket.send_close_stream()
    (error,) = second.messages
    assert (error.type, error.variant) == ("Error", "try_again_later")
    assert first.of("Metadata")


async def test_nonsense_ends_a_connection_with_their_code(model: Any, url: Any) -> None:
    async with serving(model, Listener()) as server, connect(url(server), proxy=None) as socket:
        await socket.send("nonsense")
        assert json.loads(await socket.recv())["type"] == "Error"
        with pytest.raises(ConnectionClosed) as caught:
            await socket.recv()
    assert caught.value.rcvd is not None
    assert (caught.value.rcvd.code, caught.value.rcvd.reason) == (1008, "DATA-0000")


async def test_a_connection_that_broke_is_not_kept(model: Any, url: Any) -> None:
    async with serving(model, Listener()) as server:
        async with connect(
            url(server, "encoding=linear16&sample_rate=16000"), proxy=None
        ) as socket:
            await socket.send(bytes(3_200))
            socket.transport.abort()
        async with asyncio.timeout(60):
            while server._clients:
                await asyncio.sleep(0.01)
        assert len(server._lot) == 0


# --- whole files ----------------------------------------------------------------------------------


async def test_the_sdk_gets_the_transcript_of_a_file_with_entities(
    model: Any, kit: SimpleNamespace, tokens: Tokens
) -> None:
    said = kit.speak("他在南京市") + kit.silence(160) + kit.speak("在上海")
    file = written("PCM_16", np.frombuffer(said, "<i2"))
    async with serving(model, Listener(), tokens=tokens) as server:
        answer = await sdk(server.port).listen.v1.media.transcribe_file(
            request=file, model="nova-3", detect_entities=True, utterances=True
        )
    (channel,) = answer.results.channels
    (alternative,) = channel.alternatives
    assert alternative.transcript == "他在南京市在上海"
    assert [w.word for w in alternative.words] == list("他在南京市在上海")
    starts = [0.16 * (i if i < 5 else i + 1) for i in range(8)]
    assert [w.start for w in alternative.words] == pytest.approx(starts, abs=0.05)
    found = [(e.label, e.value, e.start_word, e.end_word) for e in alternative.entities]
    assert sorted(found) == [
        ("LOCATION", "上海", 6, 8),
        ("LOCATION", "南京", 2, 4),
        ("LOCATION", "南京市", 2, 5),
    ]
    assert [u.transcript for u in answer.results.utterances] == ["他在南京市", "在上海"]
    assert answer.metadata.sha256 == hashlib.sha256(file).hexdigest()
    assert answer.metadata.duration == pytest.approx(len(said) / 32_000, abs=0.001)
    assert [info["name"] for info in answer.metadata.model_info.values()] == ["fake"]


async def test_raw_samples_and_the_synchronous_client(model: Any, kit: SimpleNamespace) -> None:
    def transcribe(port: int) -> Any:
        http, ws = f"http://127.0.0.1:{port}", f"ws://127.0.0.1:{port}"
        environment = DeepgramClientEnvironment(base=http, production=ws, agent=ws, agent_rest=http)
        client = deepgram.DeepgramClient(api_key=KEY, environment=environment)
        return client.listen.v1.media.transcribe_file(
            request=kit.speak("他在北京"),
            encoding="linear16",
            request_options={"additional_query_parameters": {"sample_rate": "16000"}},
        )

    async with serving(model, Listener()) as server:
        answer = await asyncio.to_thread(transcribe, server.port)
    (alternative,) = answer.results.channels[0].alternatives
    assert alternative.transcript == "他在北京"
    assert alternative.entities is None
    assert answer.results.utterances is None


async def test_a_file_in_which_nothing_is_said_has_an_empty_transcript(
    model: Any, kit: SimpleNamespace
) -> None:
    file = written("PCM_16", np.frombuffer(kit.silence(500), "<i2"))
    async with serving(model, Listener()) as server:
        answer = await sdk(server.port).listen.v1.media.transcribe_file(
            request=file, detect_entities=True, utterances=True
        )
    (alternative,) = answer.results.channels[0].alternatives
    assert (alternative.transcript, alternative.words, alternative.entities) == ("", [], [])
    assert answer.results.utterances == []


async def posted(server: Server, content: bytes, query: str = "", **headers: str) -> Any:
    got = await ask(server.port, f"/v1/listen?{query}", "POST", body=content, **headers)
    return got, json.loads(got.body)


@pytest.mark.parametrize(
    ("query", "content", "headers", "complaint"),
    [
        ("", b"no audio", {}, "expected a sound file"),
        ("", b'{"url": "http://example.org"}', {"Content_Type": "application/json"}, "got JSON"),
        ("multichannel=true", b"", {}, "multichannel=true"),
        ("encoding=speex", b"", {}, "expected encoding"),
        ("encoding=linear16&sample_rate=16000", b"", {}, "expected samples, got none"),
        ("callback=http://example.org", b"", {}, "expected no callback"),
    ],
)
async def test_what_is_no_file_is_refused_in_their_shape(
    model: Any, query: str, content: bytes, headers: dict[str, str], complaint: str
) -> None:
    async with serving(model, Listener()) as server:
        got, body = await posted(server, content, query, **headers)
    assert (got.status, body["err_code"]) == (400, "Bad Request")
    assert complaint in body["err_msg"]
    assert body["request_id"] == got.headers["dg-request-id"]


async def test_a_file_has_bounds(model: Any, kit: SimpleNamespace) -> None:
    file = written("PCM_16", np.frombuffer(kit.speak("他在北京"), "<i2"))
    async with serving(model, Listener()) as server:
        server._deepgram_files.door.limits = replace(FILE_LIMITS, max_audio_ms=100)
        got, body = await posted(server, file)
        assert (got.status, body["err_msg"]) == (400, "expected at most 0.1 s of audio, got more")
        raw = "encoding=linear16&sample_rate=16000"
        got, body = await posted(server, bytes(6_400), raw)
        assert (got.status, body["err_msg"]) == (400, "expected at most 0.1 s of audio, got more")
        server._deepgram_files.door.limits = replace(FILE_LIMITS, max_bytes=100)
        got, body = await posted(server, file)
        assert (got.status, body["err_code"]) == (413, "content_too_large")
        server._deepgram_files.door.limits = replace(FILE_LIMITS, at_once=0)
        got, body = await posted(server, file)
        assert (got.status, got.headers["retry-after"]) == (503, "1")


async def test_a_file_needs_a_key_where_there_are_any(model: Any, tokens: Tokens) -> None:
    async with serving(model, Listener(), tokens=tokens) as server:
        with pytest.raises(ApiError) as caught:
            await sdk(server.port, "another").listen.v1.media.transcribe_file(request=b"x")
    assert caught.value.status_code == 401
    assert caught.value.body["err_code"] == "INVALID_AUTH"


async def test_a_recogniser_that_fails_is_no_answer(model: Any, kit: SimpleNamespace) -> None:
    file = written("PCM_16", np.frombuffer(kit.speak("他在北京"), "<i2"))
    async with serving(model, Listener(fails_at="北")) as server:
        got, _ = await posted(server, file)
    assert got.status in (400, 503)
    async with Server(model) as server:
        await server.start()
        got, body = await posted(server, file)
    assert got.status == 400
    assert "--source" in body["err_msg"]


async def test_a_recogniser_of_files_may_go_as_fast_as_it_can(
    model: Any, kit: SimpleNamespace
) -> None:
    """Its source is told that the audio is not paced, so that it leaves nothing out."""

    told: list[bool] = []

    class Paced(Listener):
        async def revisions(self, audio: Any) -> AsyncIterator[Any]:
            told.append(audio.paced)
            async for revision in super().revisions(audio):
                yield revision

    file = written("PCM_16", np.frombuffer(kit.speak("他在北京"), "<i2"))
    async with serving(model, Paced()) as server:
        got, _ = await posted(server, file)
        assert got.status == 200
        async with listening(server.port, **RAW) as heard:
            await heard.socket.send_close_stream()
    assert told == [False, True]


# --- both ends ours -------------------------------------------------------------------------------


async def test_our_own_source_for_deepgram_understands_it(model: Any, kit: SimpleNamespace) -> None:
    async with serving(model, Listener()) as server:
        source = make_transcript_source(f"deepgram:ws://127.0.0.1:{server.port}/v1/listen")
        said = kit.speak("他在北京") + kit.silence(160)
        revisions = await collect(source, np.frombuffer(said, "<i2") / np.float32(32_768))
    assert [r.text for r in revisions if r.final] == ["他在北京"]
