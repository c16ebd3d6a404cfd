"""What a client of Deepgram's transcription asks for in its address, live or with a file.

https://developers.deepgram.com/reference/speech-to-text/listen-streaming. Parameters that mean
something here are read; those that would change what the client may rely on, and cannot be had,
are refused; the rest is passed over, as are names that are not known.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qs, urlsplit

from cnerta.streamer.wire.parts import (
    MAX_CHANNELS,
    MAX_SAMPLE_RATE,
    MIN_SAMPLE_RATE,
    AudioFormat,
    Encoding,
)

__all__ = ["LISTEN_PATH", "BadQueryError", "ListenQuery"]

LISTEN_PATH: Final = "/v1/listen"
_ENCODINGS: Final[dict[str, Encoding]] = {
    "linear16": "pcm_s16le",
    "linear32": "pcm_f32le",
    "mulaw": "mulaw",
    "alaw": "alaw",
}
_ELSEWHERE: Final = ("callback", "redact", "search", "replace")
"""To pass over these would send results to nobody, show what was to be hidden, or hide a miss."""
_MOST_MS: Final = 60_000


class BadQueryError(Exception):
    """A parameter has a value that it cannot have here: "expected X, got Y"."""


@dataclass(frozen=True, slots=True)
class ListenQuery:
    """How a client wants to be listened to.

    Attributes:
        audio_format: Of its audio; None: the audio says so itself, as a WAV file does.
        interim: Whether it wants to be told of text that may still change.
        entities: Whether it wants entities.
        endpointing: Whether it wants to know where a speaker pauses.
        utterance_end_ms: Silence after a word, after which it wants to be told; None: never.
        vad_events: Whether it wants to know when somebody begins to speak.
        model: What it called the model.
        utterances: Of a file: whether it wants each utterance by itself.
        multichannel: Whether it wants several channels to be heard apart, if there are any.
    """

    audio_format: AudioFormat | None = None
    interim: bool = False
    entities: bool = False
    endpointing: bool = True
    utterance_end_ms: int | None = None
    vad_events: bool = False
    model: str = ""
    utterances: bool = False
    multichannel: bool = False

    @classmethod
    def read(cls, path: str) -> ListenQuery:
        """Read the path of a request, with what stands behind the question mark.

        Raises:
            BadQueryError: Something in it cannot be had.
        """
        values = parse_qs(urlsplit(path).query, keep_blank_values=True)
        given = {name: found[-1] for name, found in values.items()}
        for name in _ELSEWHERE:
            if name in given and given[name].lower() not in ("", "false"):
                raise BadQueryError(f"expected no {name}, which cannot be had here, got one")
        return cls(
            audio_format=_audio_format(given),
            interim=_flag(given, "interim_results"),
            entities=_flag(given, "detect_entities"),
            endpointing=given.get("endpointing", "").lower() != "false",
            utterance_end_ms=_number(given, "utterance_end_ms", 1, _MOST_MS),
            vad_events=_flag(given, "vad_events"),
            model=given.get("model", "")[:64],
            utterances=_flag(given, "utterances"),
            multichannel=_flag(given, "multichannel"),
        )


def _audio_format(given: Mapping[str, str]) -> AudioFormat | None:
    channels = _number(given, "channels", 1, MAX_CHANNELS) or 1
    if channels > 1 and _flag(given, "multichannel"):
        raise BadQueryError("expected channels that are heard as one, got multichannel=true")
    rate = _number(given, "sample_rate", MIN_SAMPLE_RATE, MAX_SAMPLE_RATE)
    name = given.get("encoding")
    if name is None:
        return None
    if name not in _ENCODINGS:
        raise BadQueryError(f"expected encoding {', '.join(_ENCODINGS)}, got {name[:32]!a}")
    if rate is None:
        raise BadQueryError("expected sample_rate beside encoding, got none")
    return AudioFormat(encoding=_ENCODINGS[name], sample_rate=rate, channels=channels)


def _flag(given: Mapping[str, str], name: str) -> bool:
    value = given.get(name, "false").lower()
    if value not in ("true", "false"):
        raise BadQueryError(f"expected {name} to be true or false, got {value[:32]!a}")
    return value == "true"


def _number(given: Mapping[str, str], name: str, least: int, most: int) -> int | None:
    value = given.get(name)
    if value is None or value.lower() == "false":
        return None
    if not (value.isascii() and value.isdigit() and least <= int(value[:9]) <= most):
        raise BadQueryError(f"expected {name} from {least} to {most}, got {value[:32]!a}")
    return int(value)
