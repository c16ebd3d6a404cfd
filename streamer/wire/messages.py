"""Every message of the wire protocol, version 1, as a type; and the named errors.

Binary frames are raw audio. Text frames are JSON, one message each, told apart by ``type``:

    client: session.start · transcript · session.update · keepalive · session.finish
    server: session.ready · entity.upsert · entity.retract · utterance.final · audio.ack ·
            warning · error · session.going_away · session.summary

Both sides decode strictly: a type or a field that this version does not know is an error that
names it. ``asyncapi.py`` writes the public description from these classes, so their docstrings
and field descriptions are its text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from typing import Annotated, Any, Final, Literal, TypeAlias, TypeVar, get_args

import msgspec
from msgspec import UNSET, Meta, UnsetType

from cnerta.models.errors import CnertaError

__all__ = [
    "CLIENT_MESSAGES",
    "MAX_TEXT_CHARACTERS",
    "PROTOCOL_VERSION",
    "SERVER_MESSAGES",
    "AudioAck",
    "AudioFormat",
    "CharacterReading",
    "ClientMessage",
    "Encoding",
    "Entity",
    "EntityRetract",
    "EntityStatus",
    "EntityUpsert",
    "ErrorMessage",
    "ErrorName",
    "GlossaryEntry",
    "Keepalive",
    "Limits",
    "ModelInfo",
    "PossibleReading",
    "ProtocolError",
    "ResumeOffer",
    "ResumeRequest",
    "RetractReason",
    "ServerMessage",
    "SessionFinish",
    "SessionGoingAway",
    "SessionReady",
    "SessionStart",
    "SessionSummary",
    "SessionUpdate",
    "TimeSource",
    "Transcript",
    "UtteranceFinal",
    "WarningMessage",
    "WarningName",
    "decode_client",
    "decode_server",
    "encode",
]

_T = TypeVar("_T")

PROTOCOL_VERSION: Final = 1
MIN_SAMPLE_RATE: Final = 8_000
MAX_SAMPLE_RATE: Final = 48_000
MAX_CHANNELS: Final = 8
MAX_TEXT_CHARACTERS: Final = 4_096
"""Longest text of one transcript message. A minute of fast speech is under 600."""
_MAX_ID_CHARACTERS: Final = 64
_MAX_LABELS: Final = 64
MAX_GLOSSARY_ENTRIES: Final = 500
_MAX_NAME_CHARACTERS: Final = 64
_MAX_PRONUNCIATION_CHARACTERS: Final = 512
_MAX_INTEGER: Final = 2**53 - 1
"""The largest integer that a JavaScript client can hold."""

Encoding = Literal["pcm_s16le", "pcm_f32le", "mulaw", "alaw"]
_SAMPLE_BYTES: Final[dict[Encoding, int]] = {
    "pcm_s16le": 2,
    "pcm_f32le": 4,
    "mulaw": 1,
    "alaw": 1,
}
EntityStatus = Literal["tentative", "stable", "final"]
TimeSource = Literal["alignment", "transcript", "none"]
RetractReason = Literal["text_changed", "superseded", "withdrawn", "filtered", "utterance_dropped"]
WarningName = Literal[
    "after_finish",
    "audio_ahead_of_realtime",
    "audio_clipped",
    "audio_skipped",
    "interims_dropped",
    "partial_sample_dropped",
    "revision_not_newer",
    "text_beyond_model",
    "transcript_clock_skew",
    "utterance_already_final",
    "utterance_dropped",
    "utterance_too_long",
]

_Counter: TypeAlias = Annotated[int, Meta(ge=0, le=_MAX_INTEGER)]
_Milliseconds: TypeAlias = Annotated[
    int, Meta(ge=0, le=_MAX_INTEGER, description="Milliseconds on the stream's audio clock.")
]
_UtteranceId: TypeAlias = Annotated[
    str, Meta(min_length=1, max_length=_MAX_ID_CHARACTERS, description="The caller's own id.")
]


# --- errors ---------------------------------------------------------------------------------------


class ErrorName(Enum):
    """Every error the server can name: its close code, and whether trying again can help.

    Rule 9 of the protocol: an ``error`` message precedes every close that is not 1000 and carries
    the same code.
    """

    GOING_AWAY = ("going_away", 1001, True)
    INTERNAL = ("internal", 1011, True)
    TRY_AGAIN_LATER = ("try_again_later", 1013, True)

    NOT_JSON = ("not_json", 4400, False)
    UNKNOWN_TYPE = ("unknown_type", 4400, False)
    UNKNOWN_FIELD = ("unknown_field", 4400, False)
    INVALID_MESSAGE = ("invalid_message", 4400, False)
    UNSUPPORTED_VERSION = ("unsupported_version", 4400, False)
    UNSUPPORTED_ENCODING = ("unsupported_encoding", 4400, False)
    UNSUPPORTED_SAMPLE_RATE = ("unsupported_sample_rate", 4400, False)
    UNSUPPORTED_CHANNELS = ("unsupported_channels", 4400, False)
    UNKNOWN_LABEL = ("unknown_label", 4400, False)
    UNSUPPORTED_READINGS = ("unsupported_readings", 4400, False)
    INVALID_GLOSSARY = ("invalid_glossary", 4400, False)
    NOT_STARTED = ("not_started", 4400, False)
    ALREADY_STARTED = ("already_started", 4400, False)
    INVALID_TIMES = ("invalid_times", 4400, False)
    TEXT_TOO_LONG = ("text_too_long", 4400, False)
    AUDIO_NOT_FINITE = ("audio_not_finite", 4400, False)

    NOT_AUTHORISED = ("not_authorised", 4401, False)
    ORIGIN_REFUSED = ("origin_refused", 4403, False)
    UNKNOWN_SESSION = ("unknown_session", 4404, False)
    IDLE = ("idle", 4408, True)
    SUPERSEDED = ("superseded", 4409, False)
    FRAME_TOO_LARGE = ("frame_too_large", 4413, False)
    AUDIO_TOO_FAST = ("audio_too_fast", 4429, True)
    TOO_MANY_FINALS = ("too_many_finals", 4429, True)
    READER_TOO_SLOW = ("reader_too_slow", 4429, True)

    def __init__(self, wire_name: str, code: int, retryable: bool) -> None:
        self.wire_name = wire_name
        self.code = code
        self.retryable = retryable


class ProtocolError(CnertaError):
    """A client broke a rule of the protocol, or the server has to end the session.

    Attributes:
        name: Which error of the table.
        detail: For the client: "expected X, got Y". It may quote the client's message, so it is
            sent back and never logged.
    """

    def __init__(self, name: ErrorName, detail: str) -> None:
        super().__init__(f"{name.wire_name}: {detail}")
        self.name = name
        self.detail = detail

    def message(self) -> ErrorMessage:
        """The ``error`` message that says this to the client."""
        return ErrorMessage(
            code=self.name.code,
            name=self.name.wire_name,
            retryable=self.name.retryable,
            detail=self.detail,
        )


# --- parts ----------------------------------------------------------------------------------------


class _Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A part of a message."""


class AudioFormat(_Part, frozen=True, kw_only=True):
    """How the binary frames are encoded. Several channels are interleaved and mixed down."""

    encoding: Encoding = "pcm_s16le"
    sample_rate: Annotated[
        int, Meta(ge=MIN_SAMPLE_RATE, le=MAX_SAMPLE_RATE, description="In Hz.")
    ] = 16_000
    channels: Annotated[int, Meta(ge=1, le=MAX_CHANNELS)] = 1

    @property
    def frame_bytes(self) -> int:
        """Bytes of one sample of all channels."""
        return _SAMPLE_BYTES[self.encoding] * self.channels


class GlossaryEntry(_Part, frozen=True, kw_only=True):
    """A name that the client expects to be spoken."""

    text: Annotated[
        str,
        Meta(min_length=1, max_length=_MAX_NAME_CHARACTERS, description="As it should be written."),
    ]
    label: Annotated[str, Meta(description="Its entity type, one that the model knows.")]
    pronunciation: Annotated[
        Annotated[str, Meta(max_length=_MAX_PRONUNCIATION_CHARACTERS)] | None,
        Meta(
            description="In pinyin, a syllable for each character, apart, tones as digits or marks "
            "or left out; null: as the model knows it."
        ),
    ] = None


class ResumeRequest(_Part, frozen=True, kw_only=True):
    """What a reconnecting client shows to go on with its session."""

    token: Annotated[str, Meta(max_length=256)]
    last_seq: _Counter


class ResumeOffer(_Part, frozen=True, kw_only=True):
    """What lets a client go on with this session on another connection."""

    token: str
    ttl_s: int


class ModelInfo(_Part, frozen=True, kw_only=True):
    """The model that answers."""

    name: str
    schema_version: int
    labels: Annotated[list[str], Meta(description="The entity types it knows.")]
    nested: Annotated[bool, Meta(description="Whether it finds entities inside entities.")]
    device: Annotated[str, Meta(description="The execution provider it runs on.")]
    readings: Annotated[
        bool, Meta(description="Whether it can tell how characters were pronounced.")
    ] = False


class Limits(_Part, frozen=True, kw_only=True):
    """What the server takes from one session."""

    max_frame_bytes: int
    max_text_characters: int
    max_open_utterances: int
    max_audio_ahead_ms: Annotated[
        int | None, Meta(description="How far audio may run ahead of real time; null: any.")
    ]
    idle_timeout_ms: int | None
    retained_audio_ms: Annotated[
        int, Meta(description="How much audio without a final transcript is remembered.")
    ]


class Entity(_Part, frozen=True, kw_only=True):
    """A named entity in one utterance.

    ``start`` and ``end`` are half-open code-point offsets into the text as the client sent it;
    the ``_utf16`` pair counts UTF-16 units, for JavaScript.
    """

    id: Annotated[str, Meta(description="Stays while the entity grows or is relabelled.")]
    version: Annotated[int, Meta(description="Rises with every change.")]
    status: EntityStatus
    label: str
    text: str
    start: int
    end: int
    start_utf16: int
    end_utf16: int
    parent: Annotated[str | None, Meta(description="Id of the entity around this one.")]
    start_ms: int | None
    end_ms: int | None
    time_source: TimeSource
    confidence: float
    audio_used: Annotated[bool, Meta(description="False: answered from the text alone.")]
    glossary: Annotated[
        bool | UnsetType,
        Meta(description="True: a name of the session's glossary is here; else absent."),
    ] = UNSET
    suggested_text: Annotated[
        str | UnsetType,
        Meta(
            description="The name as the glossary writes it, where the text only sounds like it; "
            "else absent. The text itself is never changed."
        ),
    ] = UNSET


class PossibleReading(_Part, frozen=True, kw_only=True):
    """One way to read a character."""

    reading: Annotated[
        str, Meta(description="Pinyin with the tone as a digit, 5 the neutral one, v for ü.")
    ]
    confidence: float


class CharacterReading(_Part, frozen=True, kw_only=True):
    """How a character that may be read in several ways was read, by its audio alone.

    Offsets as those of an entity.
    """

    start: int
    end: int
    start_utf16: int
    end_utf16: int
    text: str
    reading: Annotated[str, Meta(description="The reading that won, as in alternatives.")]
    confidence: Annotated[float, Meta(description="Of 1 shared by all readings.")]
    alternatives: Annotated[
        list[PossibleReading], Meta(description="The other readings, the likeliest first.")
    ]


# --- client to server -----------------------------------------------------------------------------


class _Message(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="type"
):
    """A message."""


class SessionStart(_Message, frozen=True, kw_only=True, tag="session.start"):
    """Opens the session; must come first."""

    version: Annotated[int, Meta(description="Protocol version; this is 1.")] = PROTOCOL_VERSION
    audio: AudioFormat = AudioFormat()
    labels: Annotated[
        Annotated[list[str], Meta(max_length=_MAX_LABELS)] | None,
        Meta(description="Entity types to send; null: all."),
    ] = None
    nested: Annotated[bool, Meta(description="False: only outermost entities.")] = True
    interim: Annotated[bool, Meta(description="False: only utterance.final.")] = True
    max_delay_ms: Annotated[
        int,
        Meta(ge=0, le=60_000, description="An unchanged reading is stable after this time."),
    ] = 700
    readings: Annotated[
        bool,
        Meta(description="True: utterance.final tells how characters were pronounced."),
    ] = False
    glossary: Annotated[
        Annotated[list[GlossaryEntry], Meta(max_length=MAX_GLOSSARY_ENTRIES)],
        Meta(description="Names that are expected: they are found sooner, misspelt ones too."),
    ] = []
    resume: ResumeRequest | None = None


class Transcript(_Message, frozen=True, kw_only=True, tag="transcript"):
    """One revision of an utterance's text, with its times if the caller knows them."""

    utterance: _UtteranceId
    revision: Annotated[_Counter, Meta(description="Rises with every revision.")]
    final: bool
    text: Annotated[str, Meta(description=f"At most {MAX_TEXT_CHARACTERS} code points.")]
    start_ms: _Milliseconds | None = None
    end_ms: _Milliseconds | None = None


class SessionUpdate(_Message, frozen=True, kw_only=True, tag="session.update"):
    """Changes options in mid-stream; what it leaves out stays as it is."""

    audio: AudioFormat | UnsetType = UNSET
    labels: Annotated[list[str], Meta(max_length=_MAX_LABELS)] | UnsetType | None = UNSET
    nested: bool | UnsetType = UNSET
    interim: bool | UnsetType = UNSET
    max_delay_ms: Annotated[int, Meta(ge=0, le=60_000)] | UnsetType = UNSET
    readings: bool | UnsetType = UNSET
    glossary: Annotated[
        Annotated[list[GlossaryEntry], Meta(max_length=MAX_GLOSSARY_ENTRIES)] | UnsetType,
        Meta(description="Takes the place of the one before; empty: none."),
    ] = UNSET


class Keepalive(_Message, frozen=True, kw_only=True, tag="keepalive"):
    """Says that a silent client is still there."""


class SessionFinish(_Message, frozen=True, kw_only=True, tag="session.finish"):
    """Asks for the remaining answers, the summary and the close."""


# --- server to client -----------------------------------------------------------------------------


class SessionReady(_Message, frozen=True, kw_only=True, tag="session.ready"):
    """Answers ``session.start``."""

    session: str
    resume: Annotated[ResumeOffer | None, Meta(description="null: cannot be resumed.")]
    model: ModelInfo
    limits: Limits
    audio_received_ms: Annotated[int, Meta(description="After a resume: send audio from here.")]
    recorded: Annotated[
        bool | UnsetType,
        Meta(
            description="True: the operator keeps audio, transcripts and messages of this session; "
            "else absent."
        ),
    ] = UNSET


class EntityUpsert(_Message, frozen=True, kw_only=True, tag="entity.upsert"):
    """A new or changed entity."""

    seq: Annotated[int, Meta(description="Rises by one per event, without gaps.")]
    utterance: str
    revision: int
    entity: Entity
    behind_live_ms: Annotated[
        int, Meta(description="Age of the newest text and audio that this answer has heard.")
    ]


class EntityRetract(_Message, frozen=True, kw_only=True, tag="entity.retract"):
    """An entity that is none after all. Never sent for a final one."""

    seq: int
    utterance: str
    revision: int
    id: str
    reason: RetractReason
    behind_live_ms: int


class UtteranceFinal(_Message, frozen=True, kw_only=True, tag="utterance.final"):
    """The complete answer for an utterance; exactly one for each final transcript."""

    seq: int
    utterance: str
    revision: int
    text: str
    entities: list[Entity]
    characters: Annotated[
        list[tuple[int, int]],
        Meta(description="[start_ms, end_ms] of each code point of text; empty if unknown."),
    ]
    time_source: TimeSource
    audio_used: bool
    behind_live_ms: int
    readings: Annotated[
        list[CharacterReading] | UnsetType,
        Meta(
            description="Of each character that may be read in several ways; absent unless asked "
            "for, empty without audio."
        ),
    ] = UNSET


class AudioAck(_Message, frozen=True, kw_only=True, tag="audio.ack"):
    """How much audio has arrived."""

    received_ms: int


class WarningMessage(_Message, frozen=True, kw_only=True, tag="warning"):
    """Something is wrong and the session goes on."""

    name: WarningName
    detail: str


class ErrorMessage(_Message, frozen=True, kw_only=True, tag="error"):
    """Why the connection is about to close with this code."""

    code: int
    name: str
    retryable: bool
    detail: str


class SessionGoingAway(_Message, frozen=True, kw_only=True, tag="session.going_away"):
    """The server is stopping; answers still owed follow."""

    resume: ResumeOffer | None
    reason: str


class SessionSummary(_Message, frozen=True, kw_only=True, tag="session.summary"):
    """The last message of a session that finished."""

    utterances: int
    entities: int
    audio_ms: int
    dropped_interims: int


ClientMessage = SessionStart | Transcript | SessionUpdate | Keepalive | SessionFinish
ServerMessage = (
    SessionReady
    | EntityUpsert
    | EntityRetract
    | UtteranceFinal
    | AudioAck
    | WarningMessage
    | ErrorMessage
    | SessionGoingAway
    | SessionSummary
)
CLIENT_MESSAGES: tuple[type[msgspec.Struct], ...] = get_args(ClientMessage)
SERVER_MESSAGES: tuple[type[msgspec.Struct], ...] = get_args(ServerMessage)


# --- JSON -----------------------------------------------------------------------------------------

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
    """Read a server's message.

    Raises:
        ProtocolError: As :func:`decode_client`.
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
    if raw.get("type") not in tags:
        detail = f"expected type {known}, got {_quote(raw.get('type'))}"
        return ProtocolError(ErrorName.UNKNOWN_TYPE, detail)
    where = re.search(r" - at `(\$[^`]*)`$", text)
    path = where[1] if where else "$"
    unknown = re.match(r"Object contains unknown field `([^`]*)`", text)
    if unknown:
        detail = f"expected only known fields of {raw['type']}, got {_quote(unknown[1])} at {path}"
        return ProtocolError(ErrorName.UNKNOWN_FIELD, detail)
    missing = re.match(r"Object missing required field `([^`]*)`", text)
    if missing:
        detail = f"expected field {missing[1]!r} of {raw['type']} at {path}, got none"
        return ProtocolError(ErrorName.INVALID_MESSAGE, detail)
    got = _quote(_at(raw, path))
    for place in _PLACES:
        if path == place.path:
            return ProtocolError(place.name, f"expected {place.expected}, got {got} at {path}")
    expected = re.match(r"Expected (.*?)(?:, got `[^`]*`)?(?: - at `.*)?$", text, re.DOTALL)
    wanted = expected[1].replace("`", "") if expected else text
    return ProtocolError(
        ErrorName.INVALID_MESSAGE, f"expected {wanted}, got {got} at {path} of {raw['type']}"
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
