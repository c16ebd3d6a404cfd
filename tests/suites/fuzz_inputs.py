"""What the fuzzer sends: each input is the frames of one message, as they go over the wire.

Five families: noise; valid messages that were mutated; the boundary values of every field, read
from the protocol's own description; binary frames; and frames that WebSocket itself has rules for.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from websockets.frames import Opcode

from cnerta.streamer.wire.asyncapi import asyncapi_document
from cnerta.streamer.wire.messages import CLIENT_MESSAGES

__all__ = ["FAMILIES", "Family", "Input", "boundary_messages", "mutate", "valid_message"]

_CHARACTERS: Final = (
    "他昨天在北京大学见到了江大桥南京市长，。！ 2024年3.5%ABCａｂ𠀀😀\u200d\u0301\u0000\ufeff"
)
_SENTENCES: Final = ("他在北京大学", "南京市长江大桥", "2024年3.5%", "张三和李四去了上海", "")


@dataclass(frozen=True, slots=True)
class Input:
    """One message.

    Attributes:
        wire: Its frames, masked, ready to be written.
        is_last: Whether the connection is given up after it, perhaps in the middle of a frame.
    """

    wire: bytes
    is_last: bool = False


Family = Callable[[random.Random], Input]


# --- messages that are as they should be ----------------------------------------------------------


def valid_message(draw: random.Random) -> dict[str, Any]:
    """A message that the protocol allows after ``session.start``."""
    kind = draw.random()
    if kind < 0.7:
        return {
            "type": "transcript",
            "utterance": f"u{draw.randrange(20)}",
            "revision": draw.randrange(50),
            "final": draw.random() < 0.2,
            "text": _text(draw),
            **({"start_ms": 0, "end_ms": draw.randrange(90_000)} if draw.random() < 0.2 else {}),
        }
    if kind < 0.8:
        glossary = [{"text": draw.choice(_SENTENCES[:4]), "label": "PER"}]
        options: dict[str, Any] = {
            "nested": draw.random() < 0.5,
            "interim": draw.random() < 0.8,
            "max_delay_ms": draw.randrange(2_000),
            "labels": draw.choice([None, ["PER"], ["LOC", "ORG"]]),
            "glossary": glossary * draw.randrange(3),
        }
        chosen = draw.sample(sorted(options), draw.randrange(1, 4))
        return {"type": "session.update", **{key: options[key] for key in chosen}}
    return {"type": "keepalive"}


def _text(draw: random.Random) -> str:
    if draw.random() < 0.7:
        return draw.choice(_SENTENCES) * draw.randrange(1, 4)
    if draw.random() < 0.9:
        return "".join(draw.choices(_CHARACTERS, k=draw.randrange(60)))
    return "".join(draw.choices(_CHARACTERS, k=draw.choice([255, 256, 257, 1000, 4095, 4096])))


def _valid(draw: random.Random) -> Input:
    return Input(_as_text(valid_message(draw)))


# --- noise ----------------------------------------------------------------------------------------


def _noise(draw: random.Random) -> Input:
    length = draw.choice([0, 1, 2, 125, 126, 127, 1_000])
    if draw.random() < 0.5:
        return Input(_frame(Opcode.TEXT, draw.randbytes(length)))
    text = "".join(chr(draw.randrange(0x20, 0xD800)) for _ in range(length))
    return Input(_frame(Opcode.TEXT, text.encode()))


# --- valid messages, damaged ----------------------------------------------------------------------

_VALUES: Final[tuple[Any, ...]] = (
    None, True, False, 0, -1, 1, 1.5, 1e308, 2**53, 2**63, 2**64, 10**400, "", "x", "\u0000",
    "PER", [], [[]], {}, {"a": {}}, ["PER"] * 65, "北" * 4_097, "NaN",
)  # fmt: skip


def mutate(draw: random.Random, message: dict[str, Any]) -> bytes:
    """A message's JSON with one to three things about it changed."""
    changed: dict[str, Any] = json.loads(json.dumps(message))
    for _ in range(draw.randrange(1, 4)):
        keys = sorted(changed)
        match draw.randrange(6):
            case 0 if keys:
                changed.pop(draw.choice(keys))
            case 1 if keys:
                changed[draw.choice(keys)] = draw.choice(_VALUES)
            case 2:
                changed[draw.choice(["x", "type ", "Text", "\u0000", "音"])] = draw.choice(_VALUES)
            case 3 if keys:
                first, second = draw.choice(keys), draw.choice(keys)
                changed[first], changed[second] = changed[second], changed[first]
            case _:
                pass
    data = bytearray(json.dumps(changed, ensure_ascii=draw.random() < 0.5).encode())
    match draw.randrange(8):
        case 0:
            data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        case 1:
            del data[draw.randrange(len(data)) :]
        case 2:
            at = draw.randrange(len(data))
            data[at:at] = draw.choice([b"\0", b'"', b"[" * 2_000, b"{", b"\xff", b"\\u0000", b"e9"])
        case 3:
            data += draw.choice([b" ", b"\n", b"{}", b"\0"])
        case _:
            pass
    return bytes(data)


def _mutated(draw: random.Random) -> Input:
    message = valid_message(draw) if draw.random() < 0.8 else {"type": "session.start"}
    return Input(_frame(Opcode.TEXT, mutate(draw, message)))


# --- the boundaries of every field ----------------------------------------------------------------


def boundary_messages() -> list[dict[str, Any]]:
    """For every field of every client message: values at, just inside and just beyond its bounds.

    Read from the AsyncAPI document, so that a new field is fuzzed from the day that it is there.
    """
    schemas = asyncapi_document()["components"]["schemas"]
    messages: list[dict[str, Any]] = []
    for kind in CLIENT_MESSAGES:
        schema = schemas[kind.__name__]
        base = _least(schema, schemas)
        messages.append(base)
        for name, field in schema["properties"].items():
            messages += [{**base, name: value} for value in _around(field, schemas)]
            messages.append({key: value for key, value in base.items() if key != name})
    return messages


def _least(schema: Mapping[str, Any], schemas: Mapping[str, Any]) -> dict[str, Any]:
    """An object with the required fields only."""
    return {name: _plain(schema["properties"][name], schemas) for name in schema["required"]}


def _plain(field: Mapping[str, Any], schemas: Mapping[str, Any]) -> Any:
    field = _resolved(field, schemas)
    if "enum" in field:
        return field["enum"][0]
    if "anyOf" in field:
        return _plain(field["anyOf"][0], schemas)
    match field.get("type"):
        case "string":
            return "北" * max(1, field.get("minLength", 1))
        case "integer" | "number":
            return field.get("minimum", 1)
        case "boolean":
            return False
        case "array":
            return []
        case "object":
            return _least({"required": [], **field}, schemas)
    return None


def _around(field: Mapping[str, Any], schemas: Mapping[str, Any]) -> Iterator[Any]:
    """Values at the edges of what a field takes, and of other types."""
    field = _resolved(field, schemas)
    yield from (None, True, -1, 0.5, "", "x", [], {}, 2**53, -(2**63))
    for part in field.get("anyOf", ()):
        yield from _around(part, schemas)
    yield from field.get("enum", ())
    for bound in ("minimum", "maximum"):
        if bound in field:
            yield from (field[bound] - 1, field[bound], field[bound] + 1, float(field[bound]))
    for bound in ("minLength", "maxLength"):
        if bound in field:
            yield from ("北" * max(0, field[bound] + more) for more in (-1, 0, 1))
    if "items" in field:
        one = _plain(field["items"], schemas)
        most = field.get("maxItems", 1)
        yield from ([one] * count for count in (1, most, most + 1))
        yield from ([value] for value in _around(field["items"], schemas))
    if "properties" in field:
        base = _least({"required": [], **field}, schemas)
        for name, part in field["properties"].items():
            yield from ({**base, name: value} for value in _around(part, schemas))


def _resolved(field: Mapping[str, Any], schemas: Mapping[str, Any]) -> Mapping[str, Any]:
    while "$ref" in field:
        field = schemas[field["$ref"].rpartition("/")[2]]
    return field


_BOUNDARIES: Final[list[bytes]] = [json.dumps(message).encode() for message in boundary_messages()]


def _boundary(draw: random.Random) -> Input:
    return Input(_frame(Opcode.TEXT, draw.choice(_BOUNDARIES)))


# --- binary frames --------------------------------------------------------------------------------


def _audio(draw: random.Random) -> Input:
    """Audio of lengths that are odd in every sense, now and then more than is allowed."""
    length = draw.choice([0, 1, 2, 3, 125, 126, 127, 640, 1_279, 1_280, 1_281, 3_200])
    if draw.random() < 0.02:
        length = draw.choice([65_535, 65_536, 500_000, 500_000, 2**20, 2**20 + 1])
    if length > 3_200 or draw.random() < 0.3:
        return Input(_frame(Opcode.BINARY, bytes(length)))
    return Input(_frame(Opcode.BINARY, draw.randbytes(length)))


# --- WebSocket's own rules ------------------------------------------------------------------------


def _fragmented(draw: random.Random) -> Input:
    """A valid message, or audio, in fragments, empty ones and pings among them."""
    if draw.random() < 0.5:
        opcode, data = Opcode.TEXT, json.dumps(valid_message(draw), ensure_ascii=False).encode()
    else:
        opcode, data = Opcode.BINARY, draw.randbytes(draw.randrange(500))
    cuts = sorted(draw.randrange(len(data) + 1) for _ in range(draw.randrange(1, 9)))
    parts = [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]
    wire = bytearray()
    for number, part in enumerate(parts):
        kind = opcode if number == 0 else Opcode.CONT
        wire += _frame(kind, part, fin=number == len(parts) - 1)
        if draw.random() < 0.3:
            wire += _frame(Opcode.PING, draw.randbytes(draw.randrange(126)))
    return Input(bytes(wire))


def _control(draw: random.Random) -> Input:
    """Pings and pongs, as they may come."""
    kind = draw.choice([Opcode.PING, Opcode.PONG])
    return Input(_frame(kind, draw.randbytes(draw.choice([0, 1, 125]))))


def _broken(draw: random.Random) -> Input:
    """Frames that break WebSocket's rules, a length that never comes, or an end without a word."""
    message = json.dumps(valid_message(draw)).encode()
    choices: Sequence[Callable[[], Input]] = (
        lambda: Input(_frame(Opcode.CONT, message)),
        lambda: Input(_frame(Opcode.TEXT, message, fin=False) + _frame(Opcode.TEXT, message)),
        lambda: Input(_frame(Opcode.PING, bytes(126))),
        lambda: Input(_frame(Opcode.PING, b"x", fin=False)),
        lambda: Input(bytes([0x80 | draw.choice([3, 4, 5, 6, 7, 11, 15]), 0x80]) + bytes(4)),
        lambda: Input(bytes([draw.choice([0xC1, 0xA1, 0x91]), 0x80]) + bytes(4)),
        lambda: Input(b"\x81\x02{}"),  # not masked
        lambda: Input(_frame(Opcode.TEXT, b"\xed\xa0\x80")),  # a surrogate
        lambda: Input(b"\x82\xff" + (2 ** draw.choice([23, 40, 62])).to_bytes(8, "big") + bytes(4)),
        lambda: Input(b"\x82\xff" + b"\xff" * 8 + bytes(4)),
        lambda: Input(_close(draw)),
        lambda: Input(_frame(Opcode.CLOSE, b"\x03")),
        lambda: Input(_frame(Opcode.TEXT, message)[: draw.randrange(1, 20)], is_last=True),
        lambda: Input(b"", is_last=True),
        lambda: Input(bytes([draw.randrange(0x88)]) + draw.randbytes(draw.randrange(200))),
    )
    return draw.choice(choices)()


def _close(draw: random.Random) -> bytes:
    code = draw.choice([0, 999, 1000, 1001, 1004, 1005, 1006, 1011, 1015, 2999, 3000, 4999, 65535])
    reason = draw.choice([b"", b"bye", b"\xff"])
    return _frame(Opcode.CLOSE, code.to_bytes(2, "big") + reason)


FAMILIES: Final[dict[str, tuple[float, Family]]] = {
    "valid": (0.50, _valid),
    "binary": (0.15, _audio),
    "fragmented": (0.12, _fragmented),
    "control": (0.05, _control),
    "mutated": (0.06, _mutated),
    "boundary": (0.06, _boundary),
    "noise": (0.03, _noise),
    "broken frames": (0.03, _broken),
}
"""The families with their shares: enough of what is valid that sessions live for some messages."""


def _as_text(message: Mapping[str, Any]) -> bytes:
    return _frame(Opcode.TEXT, json.dumps(message, ensure_ascii=False).encode())


def _frame(opcode: Opcode, data: bytes, *, fin: bool = True) -> bytes:
    """A frame with a mask of zeros. Checks nothing, unlike the library's own."""
    size = len(data)
    if size < 126:
        length = bytes([0x80 | size])
    elif size < 2**16:
        length = b"\xfe" + size.to_bytes(2, "big")
    else:
        length = b"\xff" + size.to_bytes(8, "big")
    return bytes([0x80 * fin | opcode]) + length + bytes(4) + data
