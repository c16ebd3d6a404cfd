"""vLLM's realtime transcription, ``/v1/realtime``.

https://docs.vllm.ai/en/latest/serving/openai_compatible_server and the source of
vllm/entrypoints/openai/realtime: it looks like OpenAI's, and is not. A session names its model, one
commit starts the transcription, another with ``final`` ends it, and all text of a connection is
one. Audio that comes between a final commit and its answer is dropped there, so there is one
transcription for a connection, and a pause in the text ends an utterance here.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

from cnerta.streamer.sources.options import read_options
from cnerta.streamer.sources.remote.client import RemoteOptions, ServerTranscript, check_url
from cnerta.streamer.sources.remote.dialect import (
    Address,
    Dialect,
    UnknownMessageError,
    append_message,
    read_object,
)
from cnerta.streamer.sources.utterances import Hypothesis

__all__ = ["VllmRealtime", "VllmRealtimeOptions", "connect_vllm_realtime"]

DEFAULT_URL: Final = "ws://127.0.0.1:8000/v1/realtime"
DEFAULT_MODEL: Final = "mistralai/Voxtral-Mini-4B-Realtime-2602"
KEY_VARIABLE: Final = "VLLM_API_KEY"
SILENCE_S: Final = 1.5
_KEY: Final = "whole"


class VllmRealtimeOptions(RemoteOptions, frozen=True, kw_only=True):
    """Options of the source ``vllm-realtime``; a key comes from VLLM_API_KEY.

    Attributes:
        model: The one that is served.
    """

    model: str = DEFAULT_MODEL


class VllmRealtime(Dialect):
    """One conversation with a server of this kind."""

    name = "a vLLM realtime server"

    def __init__(self, address: Address, options: VllmRealtimeOptions) -> None:
        super().__init__(address)
        self._model = options.model
        self._text = ""

    def opening(self) -> Sequence[str]:
        """Name the model, and start."""
        return [
            msgspec.json.encode({"type": "session.update", "model": self._model}).decode(),
            '{"type":"input_audio_buffer.commit"}',
        ]

    def audio(self, samples: npt.NDArray[np.float32]) -> str:
        """16-bit samples in base64."""
        return append_message(samples)

    def closing(self) -> Sequence[str]:
        """Tell that there is no more."""
        return ['{"type":"input_audio_buffer.commit","final":true}']

    def read(self, message: str | bytes) -> Iterable[Hypothesis]:
        """Pieces of the text, and at the end all of it."""
        said = read_object(message)
        match said:
            case {"type": "transcription.delta", "delta": str() as delta}:
                self._text += delta
                return [Hypothesis(_KEY, self._text, final=False)]
            case {"type": "transcription.done", "text": str() as text}:
                self.over = True
                return [Hypothesis(_KEY, text, final=True)]
            case {"type": "error"}:
                self.server_error = str(said.get("error"))
                return ()
            case {"type": str()}:
                return ()  # session.created
        raise UnknownMessageError("expected a type")


def connect_vllm_realtime(where: str = DEFAULT_URL, **options: str) -> ServerTranscript:
    """Make the source ``vllm-realtime``."""
    given = read_options(VllmRealtimeOptions, "vllm-realtime", options)
    if not given.silence:
        given = msgspec.structs.replace(given, silence=SILENCE_S)
    key = os.environ.get(KEY_VARIABLE, "")
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    address = Address(check_url(where, DEFAULT_URL), headers=headers)
    return ServerTranscript(lambda: VllmRealtime(address, given), given)
