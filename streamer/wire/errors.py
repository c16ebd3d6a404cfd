"""The protocol's named errors, and how one is raised."""

from __future__ import annotations

from enum import Enum
from typing import Final

from msgspec import UNSET

from cnerta.models.errors import CnertaError
from cnerta.streamer.wire.messages import ErrorMessage

__all__ = ["ErrorName", "NewerMessageError", "ProtocolError"]

_WITH_DELAY: Final = (1013, 4429)
_USUAL_DELAY_MS: Final = 1_000


class ErrorName(Enum):
    """Every error the server can name: its close code, and whether trying again can help.

    Rule 9 of the protocol: an ``error`` message precedes every close that is not 1000 and carries
    the same code.
    """

    GOING_AWAY = ("going_away", 1001, True)
    INTERNAL = ("internal", 1011, True)
    RECOGNISER_FAILED = ("recogniser_failed", 1011, True)
    PING_TIMEOUT = ("ping_timeout", 1011, True)
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
    NO_RECOGNISER = ("no_recogniser", 4400, False)
    TRANSCRIPT_NOT_TAKEN = ("transcript_not_taken", 4400, False)
    FORMAT_FIXED = ("format_fixed", 4400, False)
    NOT_STARTED = ("not_started", 4400, False)
    ALREADY_STARTED = ("already_started", 4400, False)
    INVALID_LAST_SEQ = ("invalid_last_seq", 4400, False)
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
    OVER_QUOTA = ("over_quota", 4429, True)

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
        retry_after_ms: When trying again may help; with 1013 and 4429 only.
    """

    def __init__(self, name: ErrorName, detail: str, retry_after_ms: int | None = None) -> None:
        super().__init__(f"{name.wire_name}: {detail}")
        self.name = name
        self.detail = detail
        self.retry_after_ms = retry_after_ms
        if retry_after_ms is None and name.code in _WITH_DELAY:
            self.retry_after_ms = _USUAL_DELAY_MS

    def message(self) -> ErrorMessage:
        """The ``error`` message that says this to the client."""
        return ErrorMessage(
            code=self.name.code,
            name=self.name.wire_name,
            retryable=self.name.retryable,
            detail=self.detail,
            retry_after_ms=UNSET if self.retry_after_ms is None else self.retry_after_ms,
        )


class NewerMessageError(ProtocolError):
    """A server's message that a later version of the protocol may have and this one has not.

    A client can pass over it and go on.
    """
