"""OpenAI's Realtime API for transcription, and servers that speak as it does.

https://platform.openai.com/docs/guides/realtime-transcription: audio goes in as base64 within JSON.
The server finds the turns, or, for models that leave them to the client (``turns=client``), a pause
here ends one; text of a turn grows by ``delta`` and ends with ``completed``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import msgspec
import numpy as np
import numpy.typing as npt

from cnerta.streamer.sources.options import read_options
from cnerta.streamer.sources.remote.client import RemoteOptions, ServerTranscript
from cnerta.streamer.sources.remote.dialect import (
    Address,
    Dialect,
    UnknownMessageError,
    append_message,
    read_number,
    read_object,
)
from cnerta.streamer.sources.remote.pauses import Pauses
from cnerta.streamer.sources.remote.service import service_address
from cnerta.streamer.sources.utterances import Hypothesis

__all__ = ["OpenaiRealtime", "OpenaiRealtimeOptions", "connect_openai_realtime"]

DEFAULT_URL: Final = "wss://api.openai.com/v1/realtime?intent=transcription"
KEY_VARIABLE: Final = "OPENAI_API_KEY"
EMPTY: Final = "input_audio_buffer_commit_empty"
COMMIT: Final = '{"type":"input_audio_buffer.commit"}'
_TRANSCRIPTION: Final = "conversation.item.input_audio_transcription."


class OpenaiRealtimeOptions(RemoteOptions, frozen=True, kw_only=True):
    """Options of the source ``openai-realtime``; the key comes from OPENAI_API_KEY.

    Attributes:
        model: Which one recognises.
        language: What is spoken.
        rate: Of the audio, in Hz.
        turns: Who ends a turn; models such as gpt-live-transcribe leave it to the client.
        pause: With ``turns=client``: so many seconds of quiet end one.
    """

    model: str = "gpt-4o-transcribe"
    language: str = "zh"
    rate: int = 24_000
    turns: Literal["server", "client"] = "server"
    pause: float = 0.6

    @property
    def spoken(self) -> str | None:
        """See :class:`RemoteOptions`."""
        return self.language


@dataclass(slots=True)
class _Turn:
    text: str = ""
    start_ms: float | None = None
    end_ms: float | None = None


class OpenaiRealtime(Dialect):
    """One conversation with a server of this kind."""

    name = "an OpenAI Realtime server"

    def __init__(self, address: Address, options: OpenaiRealtimeOptions) -> None:
        super().__init__(address)
        self.sample_rate = options.rate
        self._options = options
        self._pauses = Pauses(options.pause, options.rate)
        self._turns: dict[str, _Turn] = {}
        self._closing = False
        self._has_last = False
        """Whether the server has taken the last turn, or says that there is none."""

    def opening(self) -> Sequence[str]:
        """Ask for transcription, and say who ends turns."""
        options = self._options
        audio = {
            "format": {"type": "audio/pcm", "rate": self.sample_rate},
            "transcription": {"model": options.model, "language": options.language},
            "turn_detection": {"type": "server_vad"} if options.turns == "server" else None,
        }
        session = {"type": "transcription", "audio": {"input": audio}}
        return [msgspec.json.encode({"type": "session.update", "session": session}).decode()]

    def audio(self, samples: npt.NDArray[np.float32]) -> str:
        """16-bit samples in base64."""
        return append_message(samples)

    def messages(self, samples: npt.NDArray[np.float32]) -> Sequence[str]:
        """The samples; and the end of a turn, where that is the client's to say."""
        audio = self.audio(samples)
        if self._options.turns == "client" and self._pauses.ends_with(samples):
            return (audio, COMMIT)
        return (audio,)

    def closing(self) -> Sequence[str]:
        """End the turn that may be open."""
        self._closing = True
        return [COMMIT]

    def read(self, message: str | bytes) -> Iterable[Hypothesis]:
        """Turns and their text."""
        said = read_object(message)
        found: list[Hypothesis] = []
        match said:
            case {"type": "input_audio_buffer.speech_started", "item_id": str() as item}:
                self._turn(item).start_ms = read_number(said.get("audio_start_ms"))
            case {"type": "input_audio_buffer.speech_stopped", "item_id": str() as item}:
                self._turn(item).end_ms = read_number(said.get("audio_end_ms"))
            case {"type": "input_audio_buffer.committed", "item_id": str() as item}:
                self._turn(item)
                self._has_last = self._closing
            case {"type": str() as kind, "item_id": str() as item, "delta": str() as delta} if (
                kind == _TRANSCRIPTION + "delta"
            ):
                turn = self._turn(item)
                turn.text += delta
                found.append(Hypothesis(item, turn.text, False, turn.start_ms, None))
            case {"type": str() as kind, "item_id": str() as item, "transcript": str() as text} if (
                kind == _TRANSCRIPTION + "completed"
            ):
                turn = self._turns.pop(item, _Turn())
                found.append(Hypothesis(item, text, True, turn.start_ms, turn.end_ms))
            case {"type": str() as kind, "item_id": str() as item} if (
                kind == _TRANSCRIPTION + "failed"
            ):
                turn = self._turns.pop(item, _Turn())
                self.server_error = _told(said)
                found.append(Hypothesis(item, turn.text, True, turn.start_ms, turn.end_ms))
            case {"type": "error"}:
                if EMPTY not in str(said.get("error")):
                    self.server_error = _told(said)
                    return found
                self._has_last = self._closing
            case {"type": str()}:
                return found  # session.created and many more
            case _:
                raise UnknownMessageError("expected a type")
        self.over = self._has_last and not self._turns
        return found

    def _turn(self, item: str) -> _Turn:
        return self._turns.setdefault(item, _Turn())


def _told(said: dict[str, object]) -> str:
    match said.get("error"):
        case {"message": str() as text}:
            return text
        case error:
            return str(error)


def connect_openai_realtime(where: str = DEFAULT_URL, **options: str) -> ServerTranscript:
    """Make the source ``openai-realtime``."""
    given = read_options(OpenaiRealtimeOptions, "openai-realtime", options)
    address = service_address(where, DEFAULT_URL, KEY_VARIABLE)
    return ServerTranscript(lambda: OpenaiRealtime(address, given), given)
