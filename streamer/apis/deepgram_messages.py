"""What Deepgram's transcription says, live and of files, as its clients read it. Times in seconds.

https://developers.deepgram.com/reference/speech-to-text/listen-streaming and …/listen-pre-recorded
"""

from __future__ import annotations

import msgspec
from msgspec import UNSET, UnsetType

__all__ = [
    "Alternative",
    "Channel",
    "ConfigureFailure",
    "Error",
    "FileAlternative",
    "FileAnswer",
    "FileChannel",
    "FileMetadata",
    "FileResults",
    "FileUtterance",
    "FoundEntity",
    "Metadata",
    "ModelInfo",
    "Results",
    "ResultsMetadata",
    "SpeechStarted",
    "UtteranceEnd",
    "WordItem",
]


class _Message(msgspec.Struct, frozen=True, kw_only=True, tag_field="type"):
    pass


class WordItem(msgspec.Struct, frozen=True, kw_only=True):
    """A word of a transcript."""

    word: str
    start: float
    end: float
    confidence: float
    punctuated_word: str


class Alternative(msgspec.Struct, frozen=True, kw_only=True):
    """A transcript."""

    transcript: str
    confidence: float
    words: list[WordItem]


class Channel(msgspec.Struct, frozen=True, kw_only=True):
    """What was heard in a channel."""

    alternatives: list[Alternative]


class ModelInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What a model is called."""

    name: str
    version: str
    arch: str


class ResultsMetadata(msgspec.Struct, frozen=True, kw_only=True):
    """By whom it was heard."""

    request_id: str
    model_info: ModelInfo
    model_uuid: str


class FoundEntity(msgspec.Struct, frozen=True, kw_only=True):
    """An entity; from ``id`` on what Deepgram itself does not tell, and its clients keep."""

    label: str
    value: str
    raw_value: str
    confidence: float
    start_word: int
    end_word: int
    id: str
    parent: str | None
    status: str
    start: float | None
    end: float | None


class Results(_Message, frozen=True, kw_only=True, tag="Results"):
    """Text, and what is in it."""

    channel_index: list[int]
    duration: float
    start: float
    is_final: bool
    speech_final: bool
    channel: Channel
    metadata: ResultsMetadata
    from_finalize: bool
    entities: list[FoundEntity] | UnsetType = UNSET


class SpeechStarted(_Message, frozen=True, kw_only=True, tag="SpeechStarted"):
    """Somebody speaks."""

    channel: list[int]
    timestamp: float


class UtteranceEnd(_Message, frozen=True, kw_only=True, tag="UtteranceEnd"):
    """Nobody has spoken for a while."""

    channel: list[int]
    last_word_end: float


class Metadata(_Message, frozen=True, kw_only=True, tag="Metadata"):
    """The last message of a connection that ended as it should."""

    transaction_key: str
    request_id: str
    sha256: str
    created: str
    duration: float
    channels: int
    models: list[str]
    model_info: dict[str, ModelInfo]


class ConfigureFailure(_Message, frozen=True, kw_only=True, tag="ConfigureFailure"):
    """Options cannot be changed."""

    request_id: str
    code: str
    description: str


class Error(_Message, frozen=True, kw_only=True, tag="Error"):
    """Why the connection is about to close."""

    description: str
    message: str
    variant: str


class FileAlternative(Alternative, frozen=True, kw_only=True):
    """A transcript of a whole file, and what is in it."""

    entities: list[FoundEntity] | UnsetType = UNSET


class FileChannel(msgspec.Struct, frozen=True, kw_only=True):
    """What was heard in a channel of a file."""

    alternatives: list[FileAlternative]


class FileUtterance(msgspec.Struct, frozen=True, kw_only=True):
    """What was said between two pauses."""

    start: float
    end: float
    confidence: float
    channel: int
    transcript: str
    words: list[WordItem]
    id: str


class FileResults(msgspec.Struct, frozen=True, kw_only=True):
    """All that was heard in a file."""

    channels: list[FileChannel]
    utterances: list[FileUtterance] | UnsetType = UNSET


class FileMetadata(msgspec.Struct, frozen=True, kw_only=True):
    """Which file it was, and by whom it was heard."""

    transaction_key: str
    request_id: str
    sha256: str
    created: str
    duration: float
    channels: int
    models: list[str]
    model_info: dict[str, ModelInfo]


class FileAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to a file."""

    metadata: FileMetadata
    results: FileResults
