"""Any server that takes raw audio and answers with JSON, by saying where in it things are.

For example ``json:ws://127.0.0.1:9000/asr,text=result.text,final=result.is_final,start=result.begin``.
A path is names and list indices with dots between them.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from cnerta.models.runtime.geometry import SAMPLE_RATE
from cnerta.streamer.errors import TranscriptError
from cnerta.streamer.sources.options import read_options
from cnerta.streamer.sources.remote.client import RemoteOptions, ServerTranscript, check_url
from cnerta.streamer.sources.remote.dialect import Address, Dialect, encode_samples, read_object
from cnerta.streamer.sources.utterances import Hypothesis
from cnerta.streamer.wire.parts import MAX_CHANNEL

__all__ = ["JsonOptions", "JsonServer", "connect_json_server"]

EXAMPLE: Final = "ws://127.0.0.1:9000/asr"
AUDIO: Final = "AUDIO"


class JsonOptions(RemoteOptions, frozen=True, kw_only=True):
    """Options of the source ``json``.

    Attributes:
        text: Path of the text. Messages without it are passed over.
        final: Path of whether the text is final; ``path:value`` where it is when it has that value.
        utterance: Path of the utterance's name. Without, one begins after each final text.
        start: Path of where the utterance starts.
        end: Path of up to where the text reaches.
        unit: Of those times.
        speaker: Path of who speaks.
        channel: Path of the number of the channel, from 0.
        pieces: Whether a text is only what was added.
        rate: Of the audio, in Hz.
        encoding: Of its samples.
        block: Length of a message's audio, in milliseconds.
        first: Sent before the audio.
        last: Sent after the audio.
        wrap: A message with AUDIO where the samples stand in base64; without, they are sent raw.
        done: Path of what a message has that is the last one.
        token: Sent as ``Authorization: Bearer …``; better in the address of a trusted network.
    """

    text: str = "text"
    final: str = "final"
    utterance: str = ""
    start: str = ""
    end: str = ""
    unit: Literal["ms", "s"] = "ms"
    speaker: str = ""
    channel: str = ""
    pieces: bool = False
    rate: int = SAMPLE_RATE
    encoding: Literal["pcm_s16le", "pcm_f32le"] = "pcm_s16le"
    block: int = 100
    first: str = ""
    last: str = ""
    wrap: str = ""
    done: str = ""
    token: str = ""


class JsonServer(Dialect):
    """One conversation with such a server."""

    name = "a JSON server"

    def __init__(self, address: Address, options: JsonOptions) -> None:
        super().__init__(address)
        self.sample_rate = options.rate
        self.block_ms = options.block
        self._options = options
        self._utterance = 0
        self._texts: dict[str, str] = {}

    def opening(self) -> Sequence[str]:
        """What the options say."""
        return [self._options.first] if self._options.first else []

    def audio(self, samples: npt.NDArray[np.float32]) -> str | bytes:
        """Raw samples, or a message around them."""
        encoded = encode_samples(samples, self._options.encoding)
        if not self._options.wrap:
            return encoded
        return self._options.wrap.replace(AUDIO, base64.b64encode(encoded).decode())

    def closing(self) -> Sequence[str]:
        """What the options say."""
        return [self._options.last] if self._options.last else []

    def read(self, message: str | bytes) -> Iterable[Hypothesis]:
        """Look up what the options tell where to find."""
        options = self._options
        said = read_object(message)
        self.over = bool(options.done) and bool(_find(said, options.done))
        text = _find(said, options.text)
        if not isinstance(text, str):
            return ()
        named = _find(said, options.utterance) if options.utterance else None
        key = str(self._utterance) if named is None else f"named {named}"
        if options.pieces:
            text = self._texts[key] = self._texts.get(key, "") + text
        path, _, wanted = options.final.partition(":")
        found = _find(said, path)
        final = str(found) == wanted if wanted else bool(found)
        if final:
            self._texts.pop(key, None)
            self._utterance += named is None
        scale = 1_000 if options.unit == "s" else 1
        start_ms, end_ms = (
            scale * float(at) if isinstance(at, int | float) else None
            for at in (_find(said, path) if path else None for path in (options.start, options.end))
        )
        speaker = _find(said, options.speaker) if options.speaker else None
        channel = _find(said, options.channel) if options.channel else None
        return [
            Hypothesis(
                key,
                text,
                final,
                start_ms,
                end_ms,
                speaker=None if speaker is None else str(speaker),
                channel=channel if _is_channel(channel) else None,
            )
        ]


def _is_channel(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_CHANNEL


def _find(value: Any, path: str) -> Any:
    """Follow a path; None if it leads nowhere."""
    for step in path.split("."):
        match value:
            case dict():
                value = value.get(step)
            case list() if step.lstrip("-").isdecimal() and -len(value) <= int(step) < len(value):
                value = value[int(step)]
            case _:
                return None
    return value


def connect_json_server(where: str, **options: str) -> ServerTranscript:
    """Make the source ``json``."""
    given = read_options(JsonOptions, "json", options)
    if not 8_000 <= given.rate <= 48_000 or not 10 <= given.block <= 1_000:
        raise TranscriptError(
            "expected a rate of 8000 to 48000 Hz and blocks of 10 to 1000 ms, got "
            f"{given.rate} Hz and {given.block} ms"
        )
    if given.wrap and AUDIO not in given.wrap:
        raise TranscriptError(f"expected {AUDIO} in wrap, got {given.wrap!r}")
    headers = {"Authorization": f"Bearer {given.token}"} if given.token else {}
    address = Address(check_url(where, EXAMPLE), headers=headers)
    return ServerTranscript(lambda: JsonServer(address, given), given)
