"""POST /v1/entities: one text, its recording if there is one, and the entities."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import jsonschema
import numpy as np
import pytest
import soundfile

from cnerta.streamer.access.callers import Caller, Quota
from cnerta.streamer.access.tokens import KnownToken, Tokens, digest
from cnerta.streamer.apis.openapi import openapi_document
from cnerta.streamer.serving.http.entities import ENTITIES_LIMITS
from cnerta.streamer.serving.server import Server, ServerOptions

from .test_http import Got, ask

PATH = "/v1/entities"
JSON = {"Content_Type": "application/json"}
KEY = {"Authorization": "Bearer a-token"}
BOUNDARY = "a-boundary"
FORM = {"Content_Type": f"multipart/form-data; boundary={BOUNDARY}"}


@contextlib.asynccontextmanager
async def serving(model: Any, limits: Any = None, **options: Any) -> AsyncIterator[Server]:
    async with Server(model, ServerOptions(**options)) as server:
        await server.start()
        if limits is not None:
            server._entities.door.limits = limits
        yield server


async def post(server: Server, body: bytes | dict[str, Any], **headers: str) -> Got:
    if isinstance(body, dict):
        body, headers = json.dumps(body).encode(), JSON | headers
    got = await ask(server.port, PATH, "POST", body=body, **headers)
    agrees(got)
    return got


def agrees(got: Got) -> None:
    """What came is what the description says of that status."""
    document = openapi_document()
    responses = document["paths"][PATH]["post"]["responses"]
    assert str(got.status) in responses
    schema = responses[str(got.status)]["content"]["application/json"]["schema"]
    whole = {**schema, "components": document["components"]}
    jsonschema.Draft202012Validator(whole).validate(json.loads(got.body))


def form(**parts: bytes | str) -> bytes:
    lines = []
    for name, value in parts.items():
        data = value.encode() if isinstance(value, str) else value
        head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n'
        lines.append(head.encode() + data + b"\r\n")
    return b"".join([*lines, f"--{BOUNDARY}--\r\n".encode()])


def recording(samples: bytes, kind: str = "FLAC", rate: int = 16_000) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, np.frombuffer(samples, "<i2"), rate, format=kind)
    return file.getvalue()


async def test_a_text_has_its_entities(model: Any) -> None:
    async with serving(model) as server:
        got = await post(server, {"text": "张三在南京市"})
    answer = json.loads(got.body)
    assert got.status == 200
    assert got.headers["content-type"] == "application/json"
    found = [(e["label"], e["text"], e["start"], e["end"]) for e in answer["entities"]]
    assert ("PER", "张三", 0, 2) in found
    assert ("LOC", "南京市", 3, 6) in found
    inner = next(e for e in answer["entities"] if e["text"] == "南京")
    outer = next(e for e in answer["entities"] if e["text"] == "南京市")
    assert inner["parent"] == outer["id"]
    assert (answer["audio_used"], answer["time_source"], answer["characters"]) == (
        False,
        "none",
        [],
    )


async def test_options_are_those_of_a_session(model: Any) -> None:
    async with serving(model) as server:
        got = await post(server, {"text": "张三在南京市", "labels": ["LOC"], "nested": False})
    assert [e["text"] for e in json.loads(got.body)["entities"]] == ["南京市"]


@pytest.mark.parametrize("is_form", [False, True])
async def test_a_misspelt_name_is_told_as_the_glossary_writes_it(model: Any, is_form: bool) -> None:
    text, glossary = "他是上海的", [{"text": "尚海", "label": "LOC"}]
    options = {"glossary": glossary, "apply_suggestions": True}
    async with serving(model) as server:
        if is_form:
            got = await post(server, form(text=text, options=json.dumps(options)), **FORM)
        else:
            got = await post(server, {"text": text, **options})
        not_asked = await post(server, {"text": text, "glossary": glossary})
        spelt_right = await post(server, {"text": "他是尚海的", **options})
    answer = json.loads(got.body)
    assert (answer["text"], answer["mended"]["text"]) == (text, "他是尚海的")
    (named,) = (e for e in answer["mended"]["entities"] if "original_text" in e)
    assert (named["text"], named["original_text"]) == ("尚海", "上海")
    assert answer["mended"]["text"][named["start"] : named["end"]] == "尚海"
    assert "mended" not in json.loads(not_asked.body)
    assert "mended" not in json.loads(spelt_right.body)


@pytest.mark.parametrize("kind", ["FLAC", "WAV", "OGG"])
async def test_with_its_recording_it_has_times(model: Any, kit: SimpleNamespace, kind: str) -> None:
    body = form(text="他在北京", audio=recording(kit.speak("他在北京"), kind))
    async with serving(model) as server:
        got = await post(server, body, **FORM)
    answer = json.loads(got.body)
    assert got.status == 200
    if kind == "OGG":  # lossy: the fake speech need not survive it
        return
    assert answer["audio_used"]
    (entity,) = answer["entities"]
    assert (entity["start_ms"], entity["end_ms"]) == pytest.approx((320, 640), abs=50)
    assert len(answer["characters"]) == 4


async def test_a_long_recording_is_heard_to_its_end(model: Any, kit: SimpleNamespace) -> None:
    body = form(
        text="他在北京",
        audio=recording(kit.silence(50_000) + kit.speak("他在北京"), "WAV"),
        options='{"labels": ["LOC"]}',
    )
    async with serving(model) as server:
        got = await post(server, body, **FORM)
    assert got.status == 200
    answer = json.loads(got.body)
    assert answer["warnings"] == []
    assert answer["entities"][0]["start_ms"] == pytest.approx(50_320, abs=100)


@pytest.mark.parametrize(
    ("body", "headers", "status", "name"),
    [
        (b"", JSON, 400, "not_json"),
        (b'{"text": "\xff"}', JSON, 400, "not_json"),
        (b'{"text": 1}', JSON, 422, "invalid_request"),
        (b"{}", JSON, 422, "invalid_request"),
        (b'{"text": ""}', JSON, 422, "invalid_request"),
        (b'{"text": "a", "other": 1}', JSON, 422, "invalid_request"),
        (b'{"text": "a", "labels": ["X"]}', JSON, 422, "unknown_label"),
        (b'{"text": "a", "readings": true}', JSON, 422, "unsupported_readings"),
        (json.dumps({"text": "a" * 4_097}).encode(), JSON, 422, "invalid_request"),
        (b"text=a", {"Content_Type": "application/x-www-form-urlencoded"}, 415, None),
        (b"a", {}, 415, "unsupported_media_type"),
        (b"a", {"Content_Type": "multipart/form-data"}, 400, "invalid_form"),
        (b"nonsense", FORM, 400, "invalid_form"),
        (form(text="a")[:-6], FORM, 400, "invalid_form"),
        (form(audio=b"a"), FORM, 422, "invalid_request"),
        (form(text=b"\xff"), FORM, 422, "invalid_request"),
        (form(text="a", other="b"), FORM, 422, "invalid_request"),
        (form(text="a")[: -len(f"--{BOUNDARY}--\r\n")] + form(text="b"), FORM, 422, None),
        (form(text="a", audio=b"no sound"), FORM, 422, "invalid_audio"),
        (form(text="a", options="{"), FORM, 400, "not_json"),
    ],
)
async def test_what_cannot_be_answered_is_refused_by_name(
    model: Any, body: bytes, headers: dict[str, str], status: int, name: str | None
) -> None:
    async with serving(model) as server:
        got = await post(server, body, **headers)
        error = json.loads(got.body)
        assert got.status == status, error
        assert name in (None, error["name"])
        assert not server.admission._places
        assert (await post(server, {"text": "张三"})).status == 200


async def test_too_much_is_refused_and_the_answer_arrives(model: Any, kit: SimpleNamespace) -> None:
    limits = replace(ENTITIES_LIMITS, max_bytes=100_000, max_audio_ms=1_000)
    async with serving(model, limits) as server:
        assert (await post(server, b"x" * 150_000, **JSON)).status == 413
        # Silence takes next to nothing in a file.
        long = form(text="他", audio=recording(kit.silence(30_000)))
        assert len(long) < 100_000
        got = await post(server, long, **FORM)
        assert json.loads(got.body)["name"] == "invalid_audio"
        assert "at most 1 s" in json.loads(got.body)["detail"]


async def test_content_that_does_not_come_is_not_waited_for(model: Any) -> None:
    async with serving(model, replace(ENTITIES_LIMITS, read_timeout_s=0.1)) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        head = f"POST {PATH} HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nContent-Length: 9\r\n\r\n"
        writer.write(head.encode() + b"{")
        async with asyncio.timeout(60):
            assert b" 408 " in await reader.readline()
        writer.close()


async def test_so_many_at_once_and_the_rest_is_told_to_come_again(model: Any) -> None:
    async with serving(model, replace(ENTITIES_LIMITS, at_once=1)) as server:
        _, writer = await asyncio.open_connection("127.0.0.1", server.port)
        head = f"POST {PATH} HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nContent-Length: 9\r\n\r\n"
        writer.write(head.encode() + b"{")
        async with asyncio.timeout(60):
            while not server._entities.door._busy:
                await asyncio.sleep(0.01)
        got = await post(server, {"text": "张三"})
        assert (got.status, got.headers["retry-after"]) == (503, "1")
        writer.close()
        async with asyncio.timeout(60):
            while server._entities.door._busy:
                await asyncio.sleep(0.01)
        assert (await post(server, {"text": "张三"})).status == 200
        assert not server.admission._places


async def test_who_may_ask_is_who_may_connect(model: Any) -> None:
    known = KnownToken(digest("a-token"), Caller("somebody", Quota(megabytes_per_hour=0.001)))
    async with serving(model, tokens=Tokens([known])) as server:
        assert (await post(server, {"text": "张三"})).status == 401
        elsewhere = {"Origin": "https://elsewhere.example"}
        assert (await post(server, {"text": "张三"}, **KEY, **elsewhere)).status == 403
        assert (await post(server, {"text": "张三" * 500}, **KEY)).status == 200
        got = await post(server, {"text": "张三"}, **KEY)
        assert got.status == 429
        assert int(got.headers["retry-after"]) >= 1


async def test_other_methods_are_told_which_one(model: Any) -> None:
    async with serving(model) as server:
        got = await ask(server.port, PATH)
        assert (got.status, got.headers["allow"]) == (405, "OPTIONS, POST")
        got = await ask(server.port, PATH, "OPTIONS", Origin=f"http://127.0.0.1:{server.port}")
        assert got.status == 204
        assert "Content-Type" in got.headers["access-control-allow-headers"]


async def test_content_comes_in_any_pieces(model: Any) -> None:
    body = json.dumps({"text": "张三在上海"}).encode()
    pieces = [body[at : at + 7] for at in range(0, len(body), 7)]
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)
    async with serving(model) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        head = (
            f"POST {PATH}?x=1 HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n"
            "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n"
            "Expect: 100-continue\r\n\r\n"
        ).encode()
        for start in range(0, len(head), 5):
            writer.write(head[start : start + 5])
            await asyncio.sleep(0)
        async with asyncio.timeout(60):
            assert await reader.readline() == b"HTTP/1.1 100 Continue\r\n"
            writer.write(chunks + b"0\r\n\r\n")
            writer.write_eof()
            answer = await reader.read()
    assert b" 200 OK" in answer
    assert "上海".encode() in answer


@pytest.mark.parametrize("half_closed", [False, True])
async def test_a_connection_ends_with_its_answer(model: Any, half_closed: bool) -> None:
    """And is not kept until the time that a stream has to close."""
    body = json.dumps({"text": "张三在上海"}).encode()
    head = f"POST {PATH} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    async with serving(model, close_timeout_s=300.0) as server:
        listener = server._listener
        assert listener is not None
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        if half_closed:
            writer.write_eof()
        async with asyncio.timeout(60):
            assert b" 200 OK" in await reader.read()
            if not half_closed:
                writer.close()
            while listener.count_open:
                await asyncio.sleep(0.01)


async def test_a_request_that_is_none_is_told_so(model: Any) -> None:
    async with serving(model) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(f"POST {PATH} HTTP/1.1\r\nContent-Length: many\r\n\r\n".encode())
        async with asyncio.timeout(60):
            assert b" 400 " in await reader.readline()
        writer.close()


async def test_the_description_is_served(model: Any) -> None:
    async with serving(model) as server:
        got = await ask(server.port, "/openapi.json")
    assert json.loads(got.body) == openapi_document()
    assert json.loads(got.body)["openapi"] == "3.1.0"


async def test_others_are_served_while_one_sends_slowly(model: Any) -> None:
    async with serving(model) as server:
        _, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(
            f"POST {PATH} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9\r\n\r\n".encode()
        )
        assert (await ask(server.port, "/healthz")).status == 200
        assert (await post(server, {"text": "张三"})).status == 200
        writer.close()
