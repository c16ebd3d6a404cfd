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
    ├── SessionRefusedError  7   the server answered with an error and closed the session
    ├── SessionFailedError   1   the session in this process met a bug
    ├── RecordingError       11  a recorded session cannot be written or read
    └── OutputError          10  a caption file or another output cannot be written

Beside these a `BundleError` ends the command with 8, an `InferenceError` with 9, and wrong options
with 2. Messages say what was expected and what came.
"""

from __future__ import annotations

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
    "TranscriptError",
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


class ServerUnreachableError(ClientError):
    """Nothing answers at the address, it does not speak the protocol, or the connection broke."""

    exit_status = 6


class SessionRefusedError(ClientError):
    """The server sent an error and ended the session.

    Attributes:
        code: The close code of protocol.md, such as 4400.
        name: The error's short name, such as ``bad_message``.
        retryable: Whether the server says that the same may work later.
    """

    exit_status = 7

    def __init__(self, code: int, name: str, detail: str, *, retryable: bool) -> None:
        super().__init__(f"the server ended the session with error {code} {name}: {detail}")
        self.code = code
        self.name = name
        self.retryable = retryable


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
