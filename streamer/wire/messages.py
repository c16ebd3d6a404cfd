"""Every message of the wire protocol, version 1, as a type.

Binary frames are raw audio. Text frames are JSON, one message each, told apart by ``type``:

    client: session.start · transcript · session.update · keepalive · session.finish
    server: session.ready · transcript.update · caption.update · entity.upsert · entity.retract ·
            utterance.final · audio.ack · warning · error · session.going_away · session.summary

A client's message may hold known fields only; a server's may hold more, so that clients get along
with newer servers. ``codec.py`` writes and reads them. ``asyncapi.py`` writes the public
description from these classes, so their docstrings and field descriptions are its text.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal, Self, TypeAlias, get_args

import msgspec
from msgspec import UNSET, Meta, UnsetType

from cnerta.streamer.wire.parts import (
    AudioFormat,
    Channel,
    CharacterReading,
    Counter,
    Entity,
    GlossaryEntry,
    Limits,
    LostHistory,
    MendedText,
    Milliseconds,
    MinStatus,
    ModelInfo,
    ResumeOffer,
    ResumeRequest,
    RoundedMilliseconds,
    Speaker,
    TimeSource,
)

__all__ = [
    "CLIENT_MESSAGES",
    "MAX_GLOSSARY_ENTRIES",
    "MAX_HOLD_MS",
    "MAX_TEXT_CHARACTERS",
    "PROTOCOL_VERSION",
    "SERVER_MESSAGES",
    "AudioAck",
    "CaptionUpdate",
    "ClientMessage",
    "EntityRetract",
    "EntityUpsert",
    "ErrorMessage",
    "Keepalive",
    "RecognisedTranscript",
    "RetractReason",
    "ServerMessage",
    "SessionFinish",
    "SessionGoingAway",
    "SessionReady",
    "SessionStart",
    "SessionSummary",
    "SessionUpdate",
    "Transcript",
    "UtteranceFinal",
    "WarningMessage",
    "WarningName",
]

PROTOCOL_VERSION: Final = 1
MAX_TEXT_CHARACTERS: Final = 4_096
"""Longest text of one transcript message. A minute of fast speech is under 600."""
_MAX_ID_CHARACTERS: Final = 64
_MAX_LABELS: Final = 64
MAX_GLOSSARY_ENTRIES: Final = 500
MAX_HOLD_MS: Final = 60_000

RetractReason = Literal["text_changed", "superseded", "withdrawn", "filtered", "utterance_dropped"]
WarningName = Literal[
    "after_finish",
    "answer_failed",
    "audio_ahead_of_realtime",
    "audio_clipped",
    "audio_lost",
    "audio_skipped",
    "interims_dropped",
    "memory_short",
    "partial_sample_dropped",
    "revision_not_newer",
    "text_beyond_model",
    "transcript_clock_skew",
    "utterance_already_final",
    "utterance_dropped",
    "utterance_too_long",
]

_UtteranceId: TypeAlias = Annotated[
    str, Meta(min_length=1, max_length=_MAX_ID_CHARACTERS, description="The caller's own id.")
]


# --- client to server -----------------------------------------------------------------------------


class _ClientMessage(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="type"
):
    """A message to the server, which refuses a field that it does not know."""


class SessionStart(_ClientMessage, frozen=True, kw_only=True, tag="session.start"):
    """Opens the session; must come first."""

    version: Annotated[int, Meta(description="Protocol version; this is 1.")] = PROTOCOL_VERSION
    audio: AudioFormat = AudioFormat()
    labels: Annotated[
        Annotated[list[str], Meta(max_length=_MAX_LABELS)] | None,
        Meta(description="Entity types to send; null: all."),
    ] = None
    nested: Annotated[bool, Meta(description="False: only outermost entities.")] = True
    interim: Annotated[bool, Meta(description="False: only utterance.final.")] = True
    min_status: Annotated[
        MinStatus,
        Meta(description="stable: an entity is told of only when it will hardly change."),
    ] = "tentative"
    max_delay_ms: Annotated[
        int,
        Meta(ge=0, le=60_000, description="An unchanged reading is stable after this time."),
    ] = 700
    hold_ms: Annotated[
        Annotated[int, Meta(ge=0, le=MAX_HOLD_MS)] | None,
        Meta(
            description="caption.update tells how much of the text may be shown: what its entities "
            "are settled in, and what is older than this; null: no caption.update."
        ),
    ] = None
    readings: Annotated[
        bool,
        Meta(description="True: utterance.final tells how characters were pronounced."),
    ] = False
    glossary: Annotated[
        Annotated[list[GlossaryEntry], Meta(max_length=MAX_GLOSSARY_ENTRIES)],
        Meta(description="Names that are expected: they are found sooner, misspelt ones too."),
    ] = []
    apply_suggestions: Annotated[
        bool,
        Meta(description="True: texts come with the glossary's spelling, too, as mended."),
    ] = False
    transcript: Annotated[
        Literal["client", "server"],
        Meta(
            description="client: transcript messages follow. server: its recogniser writes the "
            "transcript, and tells it."
        ),
    ] = "client"
    resume: Annotated[
        ResumeRequest | None,
        Meta(
            description="Goes on with the session of another connection, with the options it had; "
            "if that cannot be, a new one begins with these."
        ),
    ] = None


class Transcript(_ClientMessage, frozen=True, kw_only=True, tag="transcript"):
    """One revision of an utterance's text, with its times if the caller knows them."""

    utterance: _UtteranceId
    revision: Annotated[Counter, Meta(description="Rises with every revision.")]
    final: bool
    # Said and not checked here: a longer text has an error of its own.
    text: Annotated[
        str,
        Meta(
            description=f"At most {MAX_TEXT_CHARACTERS} code points.",
            extra_json_schema={"maxLength": MAX_TEXT_CHARACTERS},
        ),
    ]
    start_ms: RoundedMilliseconds | None = None
    end_ms: RoundedMilliseconds | None = None
    speaker: Annotated[
        Speaker | UnsetType | None,
        Meta(description="Who speaks, by any name; the answers to this revision repeat it."),
    ] = UNSET
    channel: Annotated[
        Channel | UnsetType | None,
        Meta(description="In which channel of the recording, from 0; repeated likewise."),
    ] = UNSET

    def __post_init__(self) -> None:
        """Round the times."""
        for name in ("start_ms", "end_ms"):
            value = getattr(self, name)
            if isinstance(value, float):
                msgspec.structs.force_setattr(self, name, round(value))


class SessionUpdate(_ClientMessage, frozen=True, kw_only=True, tag="session.update"):
    """Changes options in mid-stream; what it leaves out stays as it is."""

    audio: AudioFormat | UnsetType = UNSET
    labels: Annotated[list[str], Meta(max_length=_MAX_LABELS)] | UnsetType | None = UNSET
    nested: bool | UnsetType = UNSET
    interim: bool | UnsetType = UNSET
    min_status: MinStatus | UnsetType = UNSET
    max_delay_ms: Annotated[int, Meta(ge=0, le=60_000)] | UnsetType = UNSET
    hold_ms: Annotated[int, Meta(ge=0, le=MAX_HOLD_MS)] | UnsetType | None = UNSET
    readings: bool | UnsetType = UNSET
    glossary: Annotated[
        Annotated[list[GlossaryEntry], Meta(max_length=MAX_GLOSSARY_ENTRIES)] | UnsetType,
        Meta(description="Takes the place of the one before; empty: none."),
    ] = UNSET
    apply_suggestions: bool | UnsetType = UNSET


class Keepalive(_ClientMessage, frozen=True, kw_only=True, tag="keepalive"):
    """Says that a silent client is still there."""


class SessionFinish(_ClientMessage, frozen=True, kw_only=True, tag="session.finish"):
    """Asks for the remaining answers, the summary and the close."""


# --- server to client -----------------------------------------------------------------------------

_TellsMended: TypeAlias = Annotated[
    MendedText | UnsetType,
    Meta(
        description="With apply_suggestions, where a name is misspelt, else absent: the text with "
        "the glossary's spelling."
    ),
]
_TellsSpeaker: TypeAlias = Annotated[
    str | UnsetType, Meta(description="As the transcript says; absent where it does not.")
]
_TellsChannel: TypeAlias = Annotated[
    int | UnsetType, Meta(description="As the transcript says; absent where it does not.")
]


class _ServerMessage(msgspec.Struct, frozen=True, kw_only=True, tag_field="type"):
    """A message to the client, which passes over a field that it does not know."""


class SessionReady(_ServerMessage, frozen=True, kw_only=True, tag="session.ready"):
    """Answers ``session.start``."""

    session: str
    resume: Annotated[ResumeOffer | None, Meta(description="null: cannot be resumed.")]
    model: ModelInfo
    limits: Limits
    audio_received_ms: Annotated[int, Meta(description="Audio that this session has received.")]
    audio_received_samples: Annotated[
        int,
        Meta(
            description="The same in samples of each channel, exactly: after a resume, send audio "
            "from here."
        ),
    ] = 0
    recovered: Annotated[
        bool,
        Meta(
            description="True: the session goes on, and the events after last_seq follow. "
            "False: it begins."
        ),
    ] = False
    epoch: Annotated[
        str | UnsetType,
        Meta(description="Names the server process; sessions do not outlive it."),
    ] = UNSET
    lost: Annotated[
        LostHistory | UnsetType,
        Meta(description="What could not be resumed; absent unless it was asked for in vain."),
    ] = UNSET
    recorded: Annotated[
        bool | UnsetType,
        Meta(
            description="True: the operator keeps audio, transcripts and messages of this session; "
            "else absent."
        ),
    ] = UNSET


class RecognisedTranscript(_ServerMessage, frozen=True, kw_only=True, tag="transcript.update"):
    """What the server's recogniser has written; only with ``"transcript": "server"``.

    It is no event: under load only the newest of an utterance is told, and ``utterance.final``
    repeats the final text.
    """

    utterance: str
    revision: int
    final: Annotated[bool, Meta(description="The text will not change any more.")]
    text: str
    start_ms: Milliseconds | None = None
    end_ms: Milliseconds | None = None
    speaker: _TellsSpeaker = UNSET
    channel: _TellsChannel = UNSET

    @classmethod
    def of(cls, transcript: Transcript) -> Self:
        """What a client would have sent, told to it."""
        known = msgspec.structs.asdict(transcript).items()
        return cls(**{name: value for name, value in known if value is not None})


class CaptionUpdate(_ServerMessage, frozen=True, kw_only=True, tag="caption.update"):
    """What of an unfinished utterance may be shown; only with ``hold_ms``.

    It is no event: under load only the newest of an utterance is told, and ``utterance.final``
    lets the rest go.
    """

    utterance: str
    revision: int
    text: Annotated[
        str, Meta(description="The beginning of that revision's text; takes the last one's place.")
    ]
    entities: Annotated[
        list[Entity],
        Meta(description="All that is found in it; none reaches beyond its end."),
    ]
    held: Annotated[int, Meta(description="Code points of the revision that are held back.")]
    mended: _TellsMended = UNSET
    speaker: _TellsSpeaker = UNSET
    channel: _TellsChannel = UNSET


class EntityUpsert(_ServerMessage, frozen=True, kw_only=True, tag="entity.upsert"):
    """A new or changed entity."""

    seq: Annotated[int, Meta(description="Rises by one per event, without gaps.")]
    utterance: str
    revision: int
    entity: Entity
    behind_live_ms: Annotated[
        int, Meta(description="Age of the newest text and audio that this answer has heard.")
    ]
    speaker: _TellsSpeaker = UNSET
    channel: _TellsChannel = UNSET


class EntityRetract(_ServerMessage, frozen=True, kw_only=True, tag="entity.retract"):
    """An entity that is none after all. Never sent for a final one."""

    seq: int
    utterance: str
    revision: int
    id: str
    reason: RetractReason
    behind_live_ms: int


class UtteranceFinal(_ServerMessage, frozen=True, kw_only=True, tag="utterance.final"):
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
    mended: _TellsMended = UNSET
    speaker: _TellsSpeaker = UNSET
    channel: _TellsChannel = UNSET


class AudioAck(_ServerMessage, frozen=True, kw_only=True, tag="audio.ack"):
    """How much audio has arrived."""

    received_ms: int


class WarningMessage(_ServerMessage, frozen=True, kw_only=True, tag="warning"):
    """Something is wrong and the session goes on."""

    name: WarningName
    detail: str


class ErrorMessage(_ServerMessage, frozen=True, kw_only=True, tag="error"):
    """Why the connection is about to close with this code."""

    code: int
    name: str
    retryable: bool
    detail: str
    retry_after_ms: Annotated[
        int | UnsetType,
        Meta(description="With 1013 and 4429, else absent: when trying again may help."),
    ] = UNSET


class SessionGoingAway(_ServerMessage, frozen=True, kw_only=True, tag="session.going_away"):
    """The server is stopping; answers still owed follow."""

    resume: ResumeOffer | None
    reason: str


class SessionSummary(_ServerMessage, frozen=True, kw_only=True, tag="session.summary"):
    """The last message of a session that finished."""

    utterances: int
    entities: int
    audio_ms: int
    dropped_interims: int


ClientMessage = SessionStart | Transcript | SessionUpdate | Keepalive | SessionFinish
ServerMessage = (
    SessionReady
    | RecognisedTranscript
    | CaptionUpdate
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
