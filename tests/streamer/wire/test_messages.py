from __future__ import annotations

import json
from typing import Any

import jsonschema
import msgspec
import pytest

from cnerta.streamer.wire.asyncapi import STREAM_PATH, asyncapi_document
from cnerta.streamer.wire.codec import decode_client, decode_server, encode
from cnerta.streamer.wire.errors import ErrorName, NewerMessageError, ProtocolError
from cnerta.streamer.wire.examples import EXAMPLES
from cnerta.streamer.wire.messages import (
    CLIENT_MESSAGES,
    MAX_TEXT_CHARACTERS,
    SERVER_MESSAGES,
    AudioAck,
    ServerMessage,
    SessionStart,
    Transcript,
    UtteranceFinal,
)
from cnerta.streamer.wire.parts import AudioFormat

from .. import server_messages

TRANSCRIPT = {"type": "transcript", "utterance": "u1", "revision": 1, "final": False, "text": "他"}


@pytest.mark.parametrize(
    ("frame", "name", "detail"),
    [
        ("{", "not_json", "expected JSON"),
        (b"\xff\xfe", "not_json", "expected JSON"),
        ('{"type":"keepalive"', "not_json", "expected JSON"),
        ("[" * 100_000, "not_json", "expected JSON"),
        ('{"type":"keepalive","x":' + "[" * 100_000, "not_json", "expected JSON"),
        ("[1]", "invalid_message", "expected an object with a type, got [1]"),
        ("{}", "unknown_type", "got None"),
        ('{"type":"hello"}', "unknown_type", "got 'hello'"),
        ('{"type":["a"]}', "unknown_type", "got ['a']"),
        ('{"type":"keepalive","colour":1}', "unknown_field", "got 'colour' at $"),
        (
            '{"type":"session.start","audio":{"rate":1}}',
            "unknown_field",
            "got 'rate' at $.audio",
        ),
        ('{"type":"session.start","version":"1"}', "unsupported_version", "expected 1, got '1'"),
        (
            '{"type":"session.start","audio":{"encoding":"opus"}}',
            "unsupported_encoding",
            "expected pcm_s16le | pcm_f32le | mulaw | alaw, got 'opus'",
        ),
        (
            '{"type":"session.start","audio":{"sample_rate":96000}}',
            "unsupported_sample_rate",
            "expected 8000 to 48000, got 96000",
        ),
        (
            '{"type":"session.start","audio":{"sample_rate":"16k"}}',
            "unsupported_sample_rate",
            "got '16k'",
        ),
        (
            '{"type":"session.start","audio":{"channels":0}}',
            "unsupported_channels",
            "expected 1 to 8, got 0",
        ),
        (
            json.dumps({**TRANSCRIPT, "revision": -1}),
            "invalid_message",
            "expected int >= 0, got -1 at $.revision",
        ),
        (json.dumps({**TRANSCRIPT, "final": 1}), "invalid_message", "expected bool, got 1"),
        (
            json.dumps({**TRANSCRIPT, "text": None}),
            "invalid_message",
            "expected str, got None at $.text",
        ),
        (
            json.dumps({**TRANSCRIPT, "utterance": "x" * 65}),
            "invalid_message",
            "expected str of length <= 64",
        ),
        (
            json.dumps({**TRANSCRIPT, "start_ms": "1.5"}),
            "invalid_message",
            "expected float | null, got '1.5'",
        ),
        (
            json.dumps({**TRANSCRIPT, "start_ms": -0.5}),
            "invalid_message",
            "expected float >= 0.0",
        ),
        (
            '{"type":"transcript","utterance":"u1"}',
            "invalid_message",
            "expected field 'revision' of transcript at $, got none",
        ),
        (
            '{"type":"session.start","labels":["PER",3]}',
            "invalid_message",
            "expected str, got 3 at $.labels[1]",
        ),
    ],
)
def test_a_bad_message_is_an_error_that_names_what_was_expected(
    frame: str | bytes, name: str, detail: str
) -> None:
    with pytest.raises(ProtocolError) as caught:
        decode_client(frame)
    assert caught.value.name.wire_name == name
    assert caught.value.name.code == 4400
    assert detail in caught.value.detail
    assert len(caught.value.detail) < 300, "a client's frame is not sent back whole"


def test_messages_survive_the_wire() -> None:
    start = SessionStart(
        audio=AudioFormat(encoding="mulaw", sample_rate=8000, channels=2), labels=["PER"]
    )
    assert decode_client(encode(start)) == start
    text = Transcript(utterance="u", revision=2**53 - 1, final=True, text="\u0000𠀀é", start_ms=0)
    assert decode_client(encode(text)) == text
    final = UtteranceFinal(
        seq=1,
        utterance="u",
        revision=1,
        text="他",
        entities=[],
        characters=[(0, 40)],
        time_source="alignment",
        audio_used=True,
        behind_live_ms=0,
    )
    assert decode_server(encode(final)) == final


@pytest.mark.parametrize(
    "message",
    [
        AudioAck(received_ms=1),
        server_messages.ready(),
        server_messages.final("u1", 1, "北京", server_messages.entity("LOC", "北京", 0)),
        server_messages.summary(1),
    ],
)
def test_fields_that_a_newer_server_adds_are_passed_over(message: ServerMessage) -> None:
    newer = json.loads(encode(message))

    def add(value: Any) -> None:
        match value:
            case dict():
                for part in list(value.values()):
                    add(part)
                value["added_later"] = {"more": [1]}
            case list():
                for part in value:
                    add(part)

    add(newer)
    assert decode_server(json.dumps(newer)) == message


@pytest.mark.parametrize(
    ("frame", "detail"),
    [
        ('{"type":"session.moved","to":"wss://x"}', "got 'session.moved'"),
        ('{"type":"warning","name":"too_dark","detail":"x"}', "got 'too_dark'"),
    ],
)
def test_messages_that_a_newer_server_adds_are_told_from_broken_ones(
    frame: str, detail: str
) -> None:
    with pytest.raises(NewerMessageError, match=detail):
        decode_server(frame)


@pytest.mark.parametrize(
    "frame",
    [
        "{}",
        '{"type":3}',
        '{"type":"audio.ack"}',
        '{"type":"audio.ack","received_ms":"1"}',
        '{"type":"warning","name":3,"detail":"x"}',
        '{"type":"warning","name":"after_finish"}',
        "[",
    ],
)
def test_a_broken_message_of_a_server_is_an_error(frame: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        decode_server(frame)
    assert not isinstance(caught.value, NewerMessageError)


def test_codes_and_names_of_errors_are_those_of_the_protocol() -> None:
    codes = {e.code for e in ErrorName}
    assert codes == {1001, 1011, 1013, 4400, 4401, 4403, 4404, 4408, 4409, 4413, 4429}
    assert len({e.wire_name for e in ErrorName}) == len(ErrorName)


def references(value: Any) -> list[str]:
    if isinstance(value, dict):
        own = [value["$ref"]] if "$ref" in value else []
        return own + [r for v in value.values() for r in references(v)]
    if isinstance(value, list):
        return [r for v in value for r in references(v)]
    return []


def test_the_asyncapi_document_describes_every_message_and_resolves() -> None:
    document = json.loads(msgspec.json.encode(asyncapi_document()))
    assert document["asyncapi"] == "3.1.0"
    tags = {str(t.__struct_config__.tag) for t in (*CLIENT_MESSAGES, *SERVER_MESSAGES)}
    assert set(document["components"]["messages"]) == tags | {"audio"}
    assert document["channels"]["stream"]["address"] == STREAM_PATH
    for reference in references(document):
        at: Any = document
        for step in reference.removeprefix("#/").split("/"):
            at = at[step]
    listed = {
        reference.rpartition("/")[2]
        for operation in document["operations"].values()
        for reference in references(operation["messages"])
    }
    assert listed == tags | {"audio"}
    schemas = document["components"]["schemas"]
    assert schemas["Transcript"]["additionalProperties"] is False
    assert "additionalProperties" not in schemas["UtteranceFinal"], "a newer server may add fields"
    assert set(schemas["Transcript"]["required"]) == {
        "type",
        "utterance",
        "revision",
        "final",
        "text",
    }
    assert schemas["Transcript"]["properties"]["text"]["maxLength"] == MAX_TEXT_CHARACTERS
    assert {server["protocol"] for server in document["servers"].values()} == {"ws", "wss"}
    assert "idle" in schemas["ErrorMessage"]["properties"]["name"]["enum"]


@pytest.mark.parametrize("tag", EXAMPLES)
def test_the_example_of_a_message_matches_its_schema(tag: str) -> None:
    document = json.loads(msgspec.json.encode(asyncapi_document()))
    message = document["components"]["messages"][tag]
    (example,) = message["examples"]
    assert example["payload"] == json.loads(encode(EXAMPLES[tag]))
    schema = {**message["payload"], "components": document["components"]}
    jsonschema.Draft202012Validator(schema).validate(example["payload"])
    jsonschema.Draft202012Validator.check_schema(schema)


@pytest.mark.parametrize(
    ("sent", "taken"), [("0.5", 0), ("1.5", 2), ("350", 350), ("350.0", 350), ("3.4e2", 340)]
)
def test_times_may_have_parts_of_a_millisecond(sent: str, taken: int) -> None:
    line = json.dumps(TRANSCRIPT)[:-1] + f',"start_ms":{sent},"end_ms":{sent}}}'
    message = decode_client(line)
    assert isinstance(message, Transcript)
    assert (message.start_ms, message.end_ms) == (taken, taken)
    assert isinstance(message.start_ms, int)
    assert f'"start_ms":{taken},'.encode() in msgspec.json.encode(message)
