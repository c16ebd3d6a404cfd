"""What really goes over the wire matches the schemas that the server publishes."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest

from cnerta.streamer.wire.asyncapi import asyncapi_document

from . import soak
from .server_process import ServerProcess

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.fixture(scope="module")
def validators() -> dict[str, jsonschema.protocols.Validator]:
    """One for each type of message."""
    document = json.loads(msgspec.json.encode(asyncapi_document()))
    checker = jsonschema.Draft202012Validator
    return {
        tag: checker({**message["payload"], "components": document["components"]})
        for tag, message in document["components"]["messages"].items()
    }


def golden_events() -> list[dict[str, Any]]:
    """What both models said in the sessions that are kept."""
    kept = [json.loads(path.read_text(encoding="utf-8")) for path in GOLDEN.rglob("*.json")]
    return [event for file in kept for event in file["answers"] if "type" in event]


async def live_messages(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What goes both ways between a server and the sessions of a short soak."""
    seen: list[dict[str, Any]] = []

    def encode(message: Any) -> bytes:
        data = msgspec.json.encode(message)
        seen.append(json.loads(data))
        return data

    def decode(frame: Any, known: Any = soak.decode_server) -> Any:
        seen.append(json.loads(frame))
        return known(frame)

    monkeypatch.setattr(soak, "encode", encode)
    monkeypatch.setattr(soak, "decode_server", decode)
    with ServerProcess() as server:
        found = await soak.soak(server, soak.demo_clips(), 0.06, parallel=4)
    assert found.wrong == []
    return seen


async def test_a_thousand_real_messages_match_their_schemas(
    validators: dict[str, jsonschema.protocols.Validator], monkeypatch: pytest.MonkeyPatch
) -> None:
    messages = golden_events() + await live_messages(monkeypatch)
    assert len(messages) >= 1_000
    wrong = [
        f"{message['type']}: {error.message}"
        for message in messages
        for error in validators[message["type"]].iter_errors(message)
    ]
    assert wrong == []
    assert {"session.start", "transcript", "entity.upsert", "utterance.final"} <= Counter(
        message["type"] for message in messages
    ).keys()


@pytest.mark.parametrize(
    "message",
    [
        {"type": "transcript", "utterance": "u", "revision": 1, "final": True},
        {"type": "transcript", "utterance": "u", "revision": 1, "final": True, "text": 3},
        {"type": "transcript", "utterance": "", "revision": 1, "final": True, "text": ""},
        {"type": "keepalive", "x": 1},
        {"type": "session.start", "audio": {"channels": 9}},
        {"type": "audio.ack", "received_ms": "1"},
    ],
)
def test_a_schema_refuses_what_the_server_does(
    validators: dict[str, jsonschema.protocols.Validator], message: dict[str, Any]
) -> None:
    assert not validators[str(message["type"])].is_valid(message)
