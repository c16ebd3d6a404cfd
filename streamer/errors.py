"""What can go wrong on the client's side, each with the exit status of ``cnerta-stream``.

CnertaError
└── ClientError              1
    ├── AudioFileError       3   the audio file is missing or is not audio
    ├── MicrophoneError      4   the microphone does not work
    │   ├── PortAudioMissingError   the PortAudio library is not installed
    │   └── NoMicrophoneError       there is no input device, or none of that name
    ├── TranscriptError      5   there is no transcript, or it has not the promised form
    │   └── RecogniserError          the speech recogniser failed, or is a server that did
    │       └── RecogniserMissingError   its package is not installed, or its model not to be had
    ├── GlossaryFileError    5   the glossary is missing, or a line is not of its form
    ├── ServerUnreachableError 6 nothing answers at the address, or it does not speak the protocol
    │   └── StreamLostError          the connection broke, and there was no way back in time
    ├── SessionRefusedError  7   the server answered with an error and closed the session
    ├── SessionFailedError   1   the session in this process met a bug
    ├── RecordingError       11  a recorded session cannot be written or read
    └── OutputError          10  a caption file or another output cannot be written

Beside these a `BundleError` ends the command with 8, an `InferenceError` with 9, and wrong options
with 2. Messages say what was expected and what came.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from cnerta.models.errors import BundleError, CnertaError, InferenceError

__all__ = [
    "AudioFileError",
    "ClientError",
    "GlossaryFileError",
    "MicrophoneError",
    "NoMicrophoneError",
    "OutputError",
    "PortAudioMissingError",
    "RecogniserError",
    "RecogniserMissingError",
    "RecordingError",
    "ServerUnreachableError",
    "SessionFailedError",
    "SessionRefusedError",
    "StreamLostError",
    "TranscriptError",
    "Unanswered",
    "exit_status",
]


class ClientError(CnertaError):
    """Root of the client's errors."""

    exit_status: ClassVar[int] = 1


class AudioFileError(ClientError):
    """The audio file is missing, is not audio, or holds no samples."""

    exit_status = 3


class MicrophoneError(ClientError):
    """The microphone could not be opened or stopped delivering."""

    exit_status = 4


class PortAudioMissingError(MicrophoneError):
    """The PortAudio library, which sounddevice needs, is not installed."""


class NoMicrophoneError(MicrophoneError):
    """There is no input device, or none with the wanted name or index."""


class TranscriptError(ClientError):
    """There is no transcript, or it does not have the promised form."""

    exit_status = 5


class RecogniserError(TranscriptError):
    """The speech recogniser failed: in this process, or a server that refused, left or babbles."""


class RecogniserMissingError(RecogniserError):
    """The recogniser's package is not installed, or its model cannot be had."""


class GlossaryFileError(ClientError):
    """The glossary file cannot be read, or a line is not of its form."""

    exit_status = 5


@dataclass(frozen=True, slots=True)
class Unanswered:
    """What a stream had sent when it ended before its time.

    Attributes:
        utterances: Those whose final transcript has no answer, the oldest first.
        audio_ms: Audio that was sent.
    """

    utterances: tuple[str, ...]
    audio_ms: float

    def __str__(self) -> str:
        named = ", ".join(self.utterances[:8]) + (", …" if len(self.utterances) > 8 else "")
        listed = f" ({named})" if named else ""
        return (
            f"{len(self.utterances)} final transcripts without an answer{listed}, "
            f"{self.audio_ms / 1_000:.1f} s of audio sent"
        )


class ServerUnreachableError(ClientError):
    """Nothing answers at the address, it does not speak the protocol, or the connection broke.

    Attributes:
        code: With which the connection was closed; None if there was none.
        retryable: Whether the same may work later.
        retry_after_s: How long the server asks to wait before that.
        unanswered: What was sent in vain, where a stream was cut off.
    """

    exit_status = 6

    def __init__(
        self,
        message: str,
        *,
        code: int | None = None,
        retryable: bool = True,
        retry_after_s: float = 0.0,
        unanswered: Unanswered | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.retryable = retryable
        self.retry_after_s = retry_after_s
        self.unanswered = unanswered


class StreamLostError(ServerUnreachableError):
    """The connection broke in the middle of a session, and no server answered in time."""


class SessionRefusedError(ClientError):
    """The server sent an error and ended the session.

    Attributes:
        code: The close code of protocol.md, such as 4400.
        name: The error's short name, such as ``bad_message``.
        retryable: Whether the server says that the same may work later.
        unanswered: What was sent in vain, where a stream was cut off.
    """

    exit_status = 7

    def __init__(
        self,
        code: int,
        name: str,
        detail: str,
        *,
        retryable: bool,
        unanswered: Unanswered | None = None,
    ) -> None:
        super().__init__(f"the server ended the session with error {code} {name}: {detail}")
        self.code = code
        self.name = name
        self.retryable = retryable
        self.unanswered = unanswered


class SessionFailedError(ClientError):
    """The session in this process met a bug; the cause is the error beneath."""


class RecordingError(ClientError):
    """A recording cannot be written, or is none, or is of a model that is not here."""

    exit_status = 11


class OutputError(ClientError):
    """A caption file cannot be written, or an output is described wrongly."""

    exit_status = 10


def exit_status(error: CnertaError) -> int:
    """With what a command ends that failed like this."""
    match error:
        case ClientError():
            return error.exit_status
        case BundleError():
            return 8
        case InferenceError():
            return 9
        case _:
            return 1
