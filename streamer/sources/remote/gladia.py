"""Gladia's live transcription, version 2.

https://docs.gladia.io/api-reference/v2/live/websocket: a request by HTTP makes a session and names
its address, which has a token in it and is good for one connection. Each utterance has an id; it is
told again until ``is_final``.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any, Final
from urllib.parse import urlsplit

import httpx2

from cnerta.streamer.errors import TranscriptError
from cnerta.streamer.sources.options import read_options
from cnerta.streamer.sources.remote.client import RemoteOptions, ServerTranscript
from cnerta.streamer.sources.remote.dialect import (
    Address,
    Dialect,
    ServiceError,
    UnknownMessageError,
    read_key,
    read_object,
)
from cnerta.streamer.sources.utterances import Hypothesis
from cnerta.streamer.wire.addresses import exposes_secret, is_loopback, parse_address, redact
from cnerta.streamer.wire.parts import MAX_CHANNEL

__all__ = ["Gladia", "GladiaOptions", "connect_gladia"]

DEFAULT_HOST: Final = "api.gladia.io"
DEFAULT_URL: Final = f"https://{DEFAULT_HOST}/v2/live"
KEY_VARIABLE: Final = "GLADIA_API_KEY"
TIMEOUT_S: Final = 10.0
_SHOWN_CHARACTERS: Final = 120


class GladiaOptions(RemoteOptions, frozen=True, kw_only=True):
    """Options of the source ``gladia``; the key comes from GLADIA_API_KEY.

    Attributes:
        model: Which one recognises.
        language: What is spoken.
        pause: So many seconds of quiet end an utterance.
    """

    model: str = "solaria-1"
    language: str = "zh"
    pause: float = 0.3

    @property
    def spoken(self) -> str | None:
        """See :class:`RemoteOptions`."""
        return self.language


class Gladia(Dialect):
    """One conversation with a server of this kind.

    Args:
        service: Where a session is asked for, with http or https.
        key: Of the service.
        options: What is wanted.
    """

    name = "Gladia"

    def __init__(self, service: str, key: str, options: GladiaOptions) -> None:
        super().__init__(Address(service))
        self._key = key
        self._options = options

    def locate(self) -> Address:
        """Ask for a session."""
        wanted = {
            "model": self._options.model,
            "encoding": "wav/pcm",
            "bit_depth": 16,
            "sample_rate": self.sample_rate,
            "channels": 1,
            "endpointing": self._options.pause,
            "language_config": {"languages": [self._options.language], "code_switching": False},
            "messages_config": {
                "receive_partial_transcripts": True,
                "receive_final_transcripts": True,
                "receive_lifecycle_events": True,
            },
        }
        is_local = is_loopback(urlsplit(self.address.url).hostname or "")
        try:
            with httpx2.Client(timeout=TIMEOUT_S, trust_env=not is_local) as client:
                answer = client.post(
                    self.address.url, json=wanted, headers={"x-gladia-key": self._key}
                )
            told = answer.json() if answer.is_success else None
        except (httpx2.HTTPError, ValueError) as error:
            raise ServiceError(str(error) or type(error).__name__, is_final=False) from error
        match told:
            case {"url": str() as url} if parse_address(url, ("ws", "wss")) is not None:
                return Address(url)
            case None:
                status = answer.status_code
                said = f"HTTP status {status}: {answer.text[:_SHOWN_CHARACTERS].strip()}"
                is_final = status < 500 and status not in (408, 425, 429)
                raise ServiceError(said, is_final=is_final)
            case _:
                raise ServiceError("an answer without the url of a session", is_final=True)

    def closing(self) -> Sequence[str]:
        """Ask for the rest."""
        return ['{"type": "stop_recording"}']

    def read(self, message: str | bytes) -> Iterable[Hypothesis]:
        """Utterances."""
        said = read_object(message)
        match said:
            case {"type": "transcript", "data": {"id": str() as key, "utterance": dict() as heard}}:
                return [_hypothesis(key, heard, final=said["data"].get("is_final") is True)]
            case {"type": "end_session"}:
                self.over = True
                return ()
            case {"type": str(), "error": dict() | str() as error}:
                told = error.get("message", error) if isinstance(error, dict) else error
                self.server_error = str(told)
                return ()
            case {"type": str()}:
                return ()  # speech_start, audio_chunk, and whatever it learns to say
        raise UnknownMessageError("expected a type")


def _hypothesis(key: str, heard: dict[str, Any], *, final: bool) -> Hypothesis:
    text = heard.get("text")
    if not isinstance(text, str):
        raise UnknownMessageError("expected the text of an utterance")
    channel, speaker = heard.get("channel"), heard.get("speaker")
    return Hypothesis(
        key,
        text,
        final,
        _milliseconds(heard.get("start")),
        _milliseconds(heard.get("end")),
        None if speaker is None else str(speaker),
        channel if type(channel) is int and 0 <= channel <= MAX_CHANNEL else None,
    )


def _milliseconds(seconds: object) -> float | None:
    return 1_000.0 * seconds if isinstance(seconds, int | float) else None


def connect_gladia(where: str = DEFAULT_URL, **options: str) -> ServerTranscript:
    """Make the source ``gladia``."""
    given = read_options(GladiaOptions, "gladia", options)
    address = parse_address(where, ("http", "https"))
    if address is None:
        raise TranscriptError(f"expected an address such as {DEFAULT_URL}, got {redact(where)!r}")
    key = read_key(KEY_VARIABLE, where, DEFAULT_HOST, os.environ)
    if exposes_secret(address, sends_key=bool(key)):
        raise TranscriptError(
            f"expected https:// for a recogniser that is sent a key, got {redact(where)}: it would "
            "cross the network in clear text"
        )
    return ServerTranscript(lambda: Gladia(where, key, given), given)
