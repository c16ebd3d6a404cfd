"""FunASR's runtime server, in its modes ``2pass`` and ``online``.

https://github.com/modelscope/FunASR/blob/main/runtime/docs/websocket_protocol.md and the source of
runtime/python/websocket/funasr_wss_server.py: in both, text of the streaming model comes in pieces
that belong one after the other. With two passes a better text of the whole sentence comes at its
end; without, nothing says where a sentence ends.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, Literal

import msgspec

from cnerta.streamer.sources.options import read_options
from cnerta.streamer.sources.remote.client import RemoteOptions, ServerTranscript, check_url
from cnerta.streamer.sources.remote.dialect import (
    Address,
    Dialect,
    UnknownMessageError,
    read_object,
)
from cnerta.streamer.sources.utterances import Hypothesis

__all__ = ["Funasr", "FunasrOptions", "connect_funasr"]

DEFAULT_URL: Final = "ws://127.0.0.1:10095"
ONLINE_SILENCE_S: Final = 1.5


class FunasrOptions(RemoteOptions, frozen=True, kw_only=True):
    """Options of the source ``funasr``.

    Attributes:
        mode: With a second pass over each sentence, or without.
        itn: Whether numbers are written in digits.
        hotwords: A JSON object of words and weights, passed on as it is.
    """

    mode: Literal["2pass", "online"] = "2pass"
    itn: bool = False
    hotwords: str = ""


class Funasr(Dialect):
    """One conversation with a FunASR server."""

    name = "FunASR"
    block_ms = 60  # ten of them are a step of the streaming model

    def __init__(self, address: Address, options: FunasrOptions) -> None:
        super().__init__(address)
        self._options = options
        self._utterance = 0
        self._text = ""
        self._ended = False
        # Its C++ server says is_final at the end, its Python server until then: what it says
        # before the end tells which it is.
        self._final_before: bool | None = None
        # Its Python server of 1.4 says is_final of every second pass, and tells of the end apart.
        self._acknowledges = False

    def opening(self) -> Sequence[str]:
        """Tell the mode and the form of the audio."""
        first = {
            "mode": self._options.mode,
            "wav_name": "cnerta-stream",
            "wav_format": "pcm",
            "audio_fs": self.sample_rate,
            "chunk_size": [5, 10, 5],
            "chunk_interval": 10,
            "is_speaking": True,
            "itn": self._options.itn,
            **({"hotwords": self._options.hotwords} if self._options.hotwords else {}),
        }
        return [msgspec.json.encode(first).decode()]

    def closing(self) -> Sequence[str]:
        """Tell that there is no more, and ask to be told when all is said."""
        self._ended = True
        return ['{"is_speaking": false, "is_end": true}']

    def read(self, message: str | bytes) -> Iterable[Hypothesis]:
        """Pieces of the streaming model, or a sentence of the second pass."""
        said = read_object(message)
        if said.get("is_end") is True:
            self.over = True
            self.server_error = str(said.get("error") or "")
            return ()
        text, mode = said.get("text"), said.get("mode")
        if not isinstance(text, str) or not isinstance(mode, str):
            raise UnknownMessageError("expected mode and text")
        is_final = said.get("is_final") is True
        self._acknowledges = self._acknowledges or "spk_name" in said
        if not self._ended:
            self._final_before = is_final
        differs = self._final_before not in (None, is_final)
        last = self._ended and differs and not self._acknowledges
        if mode == "2pass-offline":
            self.over = last
            hypothesis = Hypothesis(str(self._utterance), text, final=True)
            self._utterance, self._text = self._utterance + 1, ""
            return [hypothesis]
        if mode == "online":
            self.over = last
        elif mode != "2pass-online":
            raise UnknownMessageError("expected mode online, 2pass-online or 2pass-offline")
        self._text += text
        return [Hypothesis(str(self._utterance), self._text, final=False)]


def connect_funasr(where: str = DEFAULT_URL, **options: str) -> ServerTranscript:
    """Make the source ``funasr``."""
    given = read_options(FunasrOptions, "funasr", options)
    if given.mode == "online" and not given.silence:
        given = msgspec.structs.replace(given, silence=ONLINE_SILENCE_S)
    # Its servers choose this one if it is offered, and some want it.
    address = Address(check_url(where, DEFAULT_URL), subprotocols=("binary",))
    return ServerTranscript(lambda: Funasr(address, given), given)
