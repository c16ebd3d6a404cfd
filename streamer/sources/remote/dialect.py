"""How a recogniser's server is spoken to: one small class for each kind, without any I/O."""

from __future__ import annotations

import base64
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal
from urllib.parse import urlsplit

import msgspec
import numpy as np
import numpy.typing as npt

from cnerta.models.runtime.geometry import SAMPLE_RATE
from cnerta.streamer.audio.source import encode_pcm_s16le
from cnerta.streamer.errors import TranscriptError
from cnerta.streamer.sources.utterances import Hypothesis
from cnerta.streamer.wire.addresses import exposes_secret, redact

__all__ = [
    "Address",
    "Dialect",
    "ServiceError",
    "UnknownMessageError",
    "append_message",
    "encode_samples",
    "main_speaker",
    "read_key",
    "read_number",
    "read_object",
]

Floats = npt.NDArray[np.float32]


class UnknownMessageError(Exception):
    """A server's message is not of this dialect; the text says what was expected."""


class ServiceError(Exception):
    """A service gives no address for a connection.

    Attributes:
        is_final: Whether it is no use to ask again.
    """

    def __init__(self, said: str, *, is_final: bool) -> None:
        super().__init__(said)
        self.is_final = is_final


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server is and what it wants to know first.

    Attributes:
        url: With ``ws`` or ``wss``.
        headers: Of the HTTP request, such as an authorisation.
        subprotocols: Offered to it.

    Raises:
        TranscriptError: A key, a token or a password would cross the network in clear text.
    """

    url: str
    headers: dict[str, str] = field(default_factory=dict)
    subprotocols: Sequence[str] = ()

    def __post_init__(self) -> None:
        if exposes_secret(urlsplit(self.url), sends_key="Authorization" in self.headers):
            raise TranscriptError(
                f"expected wss:// for a recogniser that is sent a key, a token or a password, got "
                f"{redact(self.url)}: it would cross the network in clear text"
            )


class Dialect(ABC):
    """One conversation with a server. Times are milliseconds of the audio that it was sent.

    Attributes:
        name: What the kind of server is called in messages.
        address: Where it is.
        sample_rate: Of the audio it wants, in Hz.
        block_ms: How much audio a message has.
        over: Whether the server has said all it had to say.
        is_ready: Whether audio may be sent; for servers that want to say so first.
        server_error: The last error that the server told of, or nothing.
    """

    name: ClassVar[str]
    sample_rate: int = SAMPLE_RATE
    block_ms: int = 100

    def __init__(self, address: Address) -> None:
        self.address = address
        self.over = False
        self.is_ready = True
        self.server_error = ""

    def locate(self) -> Address:
        """Where the connection goes; for services that make an address for each. It may take time.

        Raises:
            ServiceError: There is none, now or at all.
        """
        return self.address

    def opening(self) -> Sequence[str | bytes]:
        """What is sent before the audio; nothing if all is in the address."""
        return ()

    def audio(self, samples: Floats) -> str | bytes:
        """The message for some audio: 16-bit samples. samples: float32, -1 to 1, (samples,)."""
        return encode_samples(samples, "pcm_s16le")

    def messages(self, samples: Floats) -> Sequence[str | bytes]:
        """All that is sent for some audio; see :meth:`audio`."""
        return (self.audio(samples),)

    def closing(self) -> Sequence[str | bytes]:
        """What is sent after the audio."""
        return ()

    @abstractmethod
    def read(self, message: str | bytes) -> Iterable[Hypothesis]:
        """Understand a message.

        Raises:
            UnknownMessageError: It is none of this dialect.
        """


def read_object(message: str | bytes) -> dict[str, Any]:
    """Read a message that is a JSON object.

    Raises:
        UnknownMessageError: It is not.
    """
    try:
        value = msgspec.json.decode(message)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UnknownMessageError("expected JSON") from error
    if not isinstance(value, dict):
        raise UnknownMessageError("expected a JSON object")
    return value


def read_number(value: object) -> float | None:
    """A number that a server says, or nothing."""
    return float(value) if isinstance(value, int | float) else None


def main_speaker(words_of: Counter[str]) -> str | None:
    """Who said most of an utterance; nobody where speakers are not told apart."""
    return max(words_of, key=lambda name: words_of[name]) if words_of else None


def append_message(samples: Floats) -> str:
    """Audio as OpenAI's Realtime API and its relatives want it: 16-bit samples in base64."""
    encoded = base64.b64encode(encode_samples(samples, "pcm_s16le")).decode()
    return f'{{"type":"input_audio_buffer.append","audio":"{encoded}"}}'


def encode_samples(samples: Floats, encoding: Literal["pcm_s16le", "pcm_f32le"]) -> bytes:
    """Encode audio as a server wants it."""
    return encode_pcm_s16le(samples) if encoding == "pcm_s16le" else samples.astype("<f4").tobytes()


def read_key(variable: str, url: str, host: str, environment: Mapping[str, str]) -> str:
    """Find the key for a server; empty where none is set and none is needed.

    Args:
        variable: The environment variable that has it.
        url: Of the server.
        host: The one that lets nobody in without a key.
        environment: Where the variable is.

    Raises:
        TranscriptError: None is set and that host wants one.
    """
    key = environment.get(variable, "")
    if not key and urlsplit(url).hostname == host:
        raise TranscriptError(f"expected a key for {host} in {variable}, got none")
    return key
