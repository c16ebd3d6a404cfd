"""The protocol's public description, AsyncAPI 3.1, made from the message types themselves."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from cnerta.streamer.wire.errors import ErrorName
from cnerta.streamer.wire.examples import EXAMPLES
from cnerta.streamer.wire.messages import (
    CLIENT_MESSAGES,
    PROTOCOL_VERSION,
    SERVER_MESSAGES,
    ErrorMessage,
)

__all__ = ["STREAM_PATH", "asyncapi_document"]

STREAM_PATH: Final = "/v1/stream"
_SCHEMAS: Final = "#/components/schemas/{name}"
_AUDIO: Final = "audio"


def asyncapi_document() -> dict[str, Any]:
    """The document as plain JSON values."""
    _, schemas = msgspec.json.schema_components(
        (*CLIENT_MESSAGES, *SERVER_MESSAGES), ref_template=_SCHEMAS
    )
    schemas[ErrorMessage.__name__]["properties"]["name"]["enum"] = [e.wire_name for e in ErrorName]
    messages = {_tag(t): _message(t) for t in (*CLIENT_MESSAGES, *SERVER_MESSAGES)}
    messages[_AUDIO] = {
        "summary": "A binary frame: raw audio in the negotiated encoding, cut anywhere.",
        "contentType": "application/octet-stream",
        "payload": {"type": "string", "format": "binary"},
    }
    return {
        "asyncapi": "3.1.0",
        "info": {
            "title": "cnerta-stream",
            "version": f"{PROTOCOL_VERSION}.0.0",
            "description": "Live audio and its transcript in, named-entity events out. "
            "Text frames are JSON, one message each; binary frames are audio. An error message "
            "precedes every close whose code is not 1000: " + _error_table(),
            "license": {"name": "Apache-2.0"},
        },
        "servers": {
            "loopback": {
                "host": "127.0.0.1:8765",
                "protocol": "ws",
                "description": "Where cnerta-serve listens unless it is told otherwise.",
            },
            "network": {
                "host": "{host}",
                "protocol": "wss",
                "description": "A server that other machines reach, over TLS.",
                "variables": {"host": {"description": "Its name, with a port where it needs one."}},
            },
        },
        "defaultContentType": "application/json",
        "channels": {
            "stream": {
                "address": STREAM_PATH,
                "messages": {tag: {"$ref": _message_ref(tag)} for tag in messages},
                "bindings": {"ws": {"method": "GET"}},
            }
        },
        "operations": {
            # The server's view: it receives what clients send.
            "receive": _operation("receive", [*map(_tag, CLIENT_MESSAGES), _AUDIO]),
            "send": _operation("send", [*map(_tag, SERVER_MESSAGES)]),
        },
        "components": {"messages": messages, "schemas": schemas},
    }


def _tag(message: type[msgspec.Struct]) -> str:
    return str(message.__struct_config__.tag)


def _message(message: type[msgspec.Struct]) -> dict[str, Any]:
    return {
        "name": _tag(message),
        "summary": (message.__doc__ or "").partition("\n")[0],
        "contentType": "application/json",
        "payload": {"$ref": _SCHEMAS.format(name=message.__name__)},
        "examples": [{"payload": msgspec.to_builtins(EXAMPLES[_tag(message)])}],
    }


def _message_ref(tag: str) -> str:
    return f"#/components/messages/{tag}"


def _operation(action: str, tags: list[str]) -> dict[str, Any]:
    return {
        "action": action,
        "channel": {"$ref": "#/channels/stream"},
        "messages": [{"$ref": f"#/channels/stream/messages/{tag}"} for tag in tags],
    }


def _error_table() -> str:
    return "; ".join(f"{e.code} {e.wire_name}" for e in ErrorName) + "."
