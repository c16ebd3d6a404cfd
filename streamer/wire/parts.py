"""What the messages of the wire protocol are made of, and the bounds of its values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final, Literal, TypeAlias

import msgspec
from msgspec import UNSET, Meta, UnsetType

__all__ = [
    "MAX_CHANNEL",
    "MAX_CHANNELS",
    "MAX_SAMPLE_RATE",
    "MAX_SPEAKER_CHARACTERS",
    "MIN_SAMPLE_RATE",
    "AudioFormat",
    "Channel",
    "CharacterReading",
    "Counter",
    "Encoding",
    "Entity",
    "EntityStatus",
    "GlossaryEntry",
    "Limits",
    "LossReason",
    "LostHistory",
    "MendedText",
    "Milliseconds",
    "MinStatus",
    "ModelInfo",
    "PossibleReading",
    "ResumeOffer",
    "ResumeRequest",
    "RoundedMilliseconds",
    "Speaker",
    "TimeSource",
]

MIN_SAMPLE_RATE: Final = 8_000
MAX_SAMPLE_RATE: Final = 48_000
MAX_CHANNELS: Final = 8
_MAX_NAME_CHARACTERS: Final = 64
MAX_CHANNEL: Final = 255
MAX_SPEAKER_CHARACTERS: Final = 64
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
MinStatus = Literal["tentative", "stable"]
TimeSource = Literal["alignment", "transcript", "none"]
LossReason = Literal["unknown_token", "history_too_short"]

Counter: TypeAlias = Annotated[int, Meta(ge=0, le=_MAX_INTEGER)]
Milliseconds: TypeAlias = Annotated[
    int, Meta(ge=0, le=_MAX_INTEGER, description="Milliseconds on the stream's audio clock.")
]

Speaker: TypeAlias = Annotated[str, Meta(min_length=1, max_length=MAX_SPEAKER_CHARACTERS)]
Channel: TypeAlias = Annotated[int, Meta(ge=0, le=MAX_CHANNEL)]

if TYPE_CHECKING:
    RoundedMilliseconds: TypeAlias = int
else:
    # On the wire any number, since recognisers have seconds with parts; rounded in the message.
    RoundedMilliseconds: TypeAlias = Annotated[
        float,
        Meta(
            ge=0,
            le=_MAX_INTEGER,
            description="Milliseconds on the stream's audio clock; parts of one are rounded.",
        ),
    ]


class _ClientPart(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A part of a client's message: a field that the server does not know is a mistake."""


class _ServerPart(msgspec.Struct, frozen=True, kw_only=True):
    """A part of a server's message: a newer server may send fields that this client passes over."""


class AudioFormat(_ClientPart, frozen=True, kw_only=True):
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


class GlossaryEntry(_ClientPart, frozen=True, kw_only=True):
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


class ResumeRequest(_ClientPart, frozen=True, kw_only=True):
    """What a reconnecting client shows to go on with its session."""

    token: Annotated[str, Meta(max_length=256, description="Of the last session.ready.")]
    last_seq: Annotated[
        Counter, Meta(description="Number of the last event that was received; 0: none was.")
    ]


class ResumeOffer(_ServerPart, frozen=True, kw_only=True):
    """What lets a client go on with this session on another connection."""

    token: Annotated[str, Meta(description="Secret: whoever shows it takes the session over.")]
    ttl_s: Annotated[
        int, Meta(description="How long the session is kept without a connection, in seconds.")
    ]


class LostHistory(_ServerPart, frozen=True, kw_only=True):
    """Why a session could not be resumed, and what is known to be lost with it."""

    reason: Annotated[
        LossReason,
        Meta(
            description="unknown_token: this server has no such session of this user (any more); "
            "history_too_short: events after last_seq are no longer kept."
        ),
    ]
    events: Annotated[
        int | None, Meta(description="Events after last_seq that are gone; null: unknown.")
    ]
    utterances: Annotated[
        list[str],
        Meta(description="Those whose final answer is owed no longer, as far as is known."),
    ]


class ModelInfo(_ServerPart, frozen=True, kw_only=True):
    """The model that answers."""

    name: str
    schema_version: int
    labels: Annotated[list[str], Meta(description="The entity types it knows.")]
    nested: Annotated[bool, Meta(description="Whether it finds entities inside entities.")]
    device: Annotated[str, Meta(description="The execution provider it runs on.")]
    readings: Annotated[
        bool, Meta(description="Whether it can tell how characters were pronounced.")
    ] = False


class Limits(_ServerPart, frozen=True, kw_only=True):
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


class Entity(_ServerPart, frozen=True, kw_only=True):
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
    original_text: Annotated[
        str | UnsetType,
        Meta(
            description="In a mended text, what the transcript has here, where that is not the "
            "same; else absent."
        ),
    ] = UNSET


class MendedText(_ServerPart, frozen=True, kw_only=True):
    """A text with the glossary's spelling of the names that only sounded like it."""

    text: str
    entities: Annotated[
        list[Entity],
        Meta(
            description="Those of the answer, with offsets into this text. One inside a mended "
            "name of another length is left out."
        ),
    ]
    characters: Annotated[
        list[tuple[int, int]],
        Meta(description="[start_ms, end_ms] of each code point of this text; empty if unknown."),
    ] = []


class PossibleReading(_ServerPart, frozen=True, kw_only=True):
    """One way to read a character."""

    reading: Annotated[
        str, Meta(description="Pinyin with the tone as a digit, 5 the neutral one, v for ü.")
    ]
    confidence: float


class CharacterReading(_ServerPart, frozen=True, kw_only=True):
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
