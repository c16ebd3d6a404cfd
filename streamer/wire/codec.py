"""Messages as JSON and back.

A server decodes strictly: a type or a field that this version does not know is an error that names
it. A client passes over the fields that a newer server adds, and can pass over whole messages.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final, TypeVar, get_args

import msgspec

from cnerta.streamer.wire.errors import ErrorName, NewerMessageError, ProtocolError
from cnerta.streamer.wire.messages import (
    CLIENT_MESSAGES,
    PROTOCOL_VERSION,
    SERVER_MESSAGES,
    ClientMessage,
    ServerMessage,
    WarningMessage,
)
from cnerta.streamer.wire.parts import MAX_CHANNELS, MAX_SAMPLE_RATE, MIN_SAMPLE_RATE, Encoding

__all__ = ["decode_client", "decode_server", "encode"]

_T = TypeVar("_T")

_encoder = msgspec.json.Encoder()
_server_decoder: msgspec.json.Decoder[ServerMessage] = msgspec.json.Decoder(ServerMessage)
_client_decoder: msgspec.json.Decoder[ClientMessage] = msgspec.json.Decoder(ClientMessage)


def encode(message: ClientMessage | ServerMessage) -> bytes:
    """Write a message as JSON (UTF-8), for a text frame."""
    return _encoder.encode(message)


def decode_client(data: str | bytes) -> ClientMessage:
    """Read a client's message.

    Raises:
        ProtocolError: It is not JSON, not a message of this version, or a value is out of bounds.
    """
    return _decode(_client_decoder, data, CLIENT_MESSAGES)


def decode_server(data: str | bytes) -> ServerMessage:
    """Read a server's message; fields that this version does not know are passed over.

    Raises:
        NewerMessageError: It is of a type, or a warning of a name, that this version does not know.
        ProtocolError: It is not JSON, or not a message at all.
    """
    return _decode(_server_decoder, data, SERVER_MESSAGES)


def _decode(
    decoder: msgspec.json.Decoder[_T], data: str | bytes, types: tuple[type[msgspec.Struct], ...]
) -> _T:
    try:
        try:
            return decoder.decode(data)
        except msgspec.ValidationError as error:
            raise _explain(data, str(error), types) from None
    except msgspec.DecodeError as error:
        raise ProtocolError(ErrorName.NOT_JSON, f"expected JSON, got: {error}") from None
    except (RecursionError, UnicodeEncodeError) as error:
        raise ProtocolError(
            ErrorName.NOT_JSON, f"expected JSON, got a {type(error).__name__}"
        ) from None


@dataclass(frozen=True, slots=True)
class _Place:
    """A value inside a message that has an error of its own."""

    path: str
    name: ErrorName
    expected: str


_PLACES: Final = (
    _Place("$.audio.encoding", ErrorName.UNSUPPORTED_ENCODING, " | ".join(get_args(Encoding))),
    _Place(
        "$.audio.sample_rate",
        ErrorName.UNSUPPORTED_SAMPLE_RATE,
        f"{MIN_SAMPLE_RATE} to {MAX_SAMPLE_RATE}",
    ),
    _Place("$.audio.channels", ErrorName.UNSUPPORTED_CHANNELS, f"1 to {MAX_CHANNELS}"),
    _Place("$.version", ErrorName.UNSUPPORTED_VERSION, str(PROTOCOL_VERSION)),
)
_WARNING: Final = str(WarningMessage.__struct_config__.tag)
_QUOTED_CHARACTERS: Final = 60


def _explain(
    data: str | bytes, text: str, types: tuple[type[msgspec.Struct], ...]
) -> ProtocolError:
    """Turn what msgspec found into one of our named errors. Only runs when something is wrong."""
    raw: Any = msgspec.json.decode(data)
    tags = [str(t.__struct_config__.tag) for t in types]
    known = " | ".join(tags)
    if not isinstance(raw, dict):
        detail = f"expected an object with a type, got {_quote(raw)}"
        return ProtocolError(ErrorName.INVALID_MESSAGE, detail)
    kind = raw.get("type")
    if kind not in tags:
        detail = f"expected type {known}, got {_quote(kind)}"
        unknown_type = NewerMessageError if isinstance(kind, str) else ProtocolError
        return unknown_type(ErrorName.UNKNOWN_TYPE, detail)
    where = re.search(r" - at `(\$[^`]*)`$", text)
    path = where[1] if where else "$"
    unknown = re.match(r"Object contains unknown field `([^`]*)`", text)
    if unknown:
        detail = f"expected only known fields of {kind}, got {_quote(unknown[1])} at {path}"
        return ProtocolError(ErrorName.UNKNOWN_FIELD, detail)
    missing = re.match(r"Object missing required field `([^`]*)`", text)
    if missing:
        detail = f"expected field {missing[1]!r} of {kind} at {path}, got none"
        return ProtocolError(ErrorName.INVALID_MESSAGE, detail)
    got = _quote(_at(raw, path))
    for place in _PLACES:
        if path == place.path:
            return ProtocolError(place.name, f"expected {place.expected}, got {got} at {path}")
    if kind == _WARNING and path == "$.name" and isinstance(raw["name"], str):
        detail = f"expected the name of a warning, got {got}"
        return NewerMessageError(ErrorName.INVALID_MESSAGE, detail)
    expected = re.match(r"Expected (.*?)(?:, got `[^`]*`)?(?: - at `.*)?$", text, re.DOTALL)
    wanted = expected[1].replace("`", "") if expected else text
    return ProtocolError(
        ErrorName.INVALID_MESSAGE, f"expected {wanted}, got {got} at {path} of {kind}"
    )


def _at(raw: Any, path: str) -> Any:
    """The value at a msgspec path such as ``$.labels[1]``."""
    for key, index in re.findall(r"\.(\w+)|\[(\d+)\]", path):
        raw = raw[key] if key else raw[int(index)]
    return raw


def _quote(value: Any) -> str:
    """A value for an error message, cut to a readable length."""
    text = repr(value)
    return text if len(text) <= _QUOTED_CHARACTERS else text[: _QUOTED_CHARACTERS - 1] + "…"
