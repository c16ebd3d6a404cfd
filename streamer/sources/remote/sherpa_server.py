"""sherpa-onnx's streaming WebSocket server: 32-bit audio in, JSON with a segment number out.

https://k2-fsa.github.io/sherpa/onnx/websocket/online-websocket.html. Its C++ server says when a
segment is final; its Python server only goes on to the next number.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from cnerta.streamer.sources.options import read_options
from cnerta.streamer.sources.remote.client import RemoteOptions, ServerTranscript, check_url
from cnerta.streamer.sources.remote.dialect import (
    Address,
    Dialect,
    UnknownMessageError,
    encode_samples,
    read_object,
)
from cnerta.streamer.sources.utterances import Hypothesis

__all__ = ["SherpaServer", "connect_sherpa_server"]

DEFAULT_URL: Final = "ws://127.0.0.1:6006"
LEAD_MS: Final = 300
"""Times say when a token was recognised, which is a little after it began."""


class SherpaServer(Dialect):
    """One conversation with a sherpa-onnx server."""

    name = "sherpa-onnx's server"

    def __init__(self, address: Address) -> None:
        super().__init__(address)
        self._segment = 0
        self._text = ""

    def audio(self, samples: npt.NDArray[np.float32]) -> bytes:
        """Raw 32-bit floats."""
        return encode_samples(samples, "pcm_f32le")

    def closing(self) -> Sequence[str]:
        """Ask for the rest."""
        return ["Done"]

    def read(self, message: str | bytes) -> Iterable[Hypothesis]:
        """Each message has the whole text of a segment."""
        if message in ("Done!", "Done"):
            self.over = True
            return [Hypothesis(str(self._segment), self._text, final=True)] if self._text else []
        said = read_object(message)
        text, segment = said.get("text"), said.get("segment", self._segment)
        if not isinstance(text, str) or not isinstance(segment, int):
            raise UnknownMessageError("expected text and segment")
        found: list[Hypothesis] = []
        if segment != self._segment:
            if self._text:
                found.append(Hypothesis(str(self._segment), self._text, final=True))
            self._segment, self._text = segment, ""
        final = said.get("is_final") is True
        start_ms = end_ms = None
        match said.get("start_time"), said.get("timestamps"):
            case [int() | float() as begun, [int() | float() as first, *rest]]:
                start_ms = max(0.0, 1_000 * (begun + first) - LEAD_MS)
                last = rest[-1] if rest else first
                end_ms = 1_000 * (begun + last) + LEAD_MS
        found.append(Hypothesis(str(segment), text, final, start_ms, end_ms))
        # An endpoint without text keeps its number, which the next text then has.
        self._text = "" if final else text
        return found


def connect_sherpa_server(where: str = DEFAULT_URL, **options: str) -> ServerTranscript:
    """Make the source ``sherpa-server``."""
    given = read_options(RemoteOptions, "sherpa-server", options)
    address = Address(check_url(where, DEFAULT_URL))
    return ServerTranscript(lambda: SherpaServer(address), given)
