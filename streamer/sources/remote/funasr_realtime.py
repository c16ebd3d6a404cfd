"""FunASR's newer realtime server (``funasr-realtime-server``): START, audio, COMMIT, STOP.

https://github.com/modelscope/FunASR/blob/main/examples/industrial_data_pretraining/fun_asr_nano/docs/realtime_demo.md
and funasr/bin/realtime_ws.py: every answer has the sentences that will not change (``sentences``)
and what is being said (``partial``). The server ends sentences itself, or, started with
``--endpoint-mode client``, where the client says COMMIT. Sentences are told again with every
answer, so they are known by their times. Where speakers are told apart (``--enable-spk``), a
sentence has one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from cnerta.streamer.errors import TranscriptError
from cnerta.streamer.sources.options import read_options
from cnerta.streamer.sources.remote.client import RemoteOptions, ServerTranscript, check_url
from cnerta.streamer.sources.remote.dialect import (
    Address,
    Dialect,
    UnknownMessageError,
    read_number,
    read_object,
)
from cnerta.streamer.sources.remote.pauses import Pauses
from cnerta.streamer.sources.utterances import Hypothesis

__all__ = ["FunasrRealtime", "FunasrRealtimeOptions", "connect_funasr_realtime"]

DEFAULT_URL: Final = "ws://127.0.0.1:10095"
COMMIT: Final = "COMMIT"


class FunasrRealtimeOptions(RemoteOptions, frozen=True, kw_only=True):
    """Options of the source ``funasr-realtime``.

    Attributes:
        endpoints: Who ends sentences, as the server was started.
        pause: With ``endpoints=client``: so many seconds of quiet end one.
        language: As the server calls it (中文, English); its own choice if empty.
        hotwords: Expected words, with spaces between.
    """

    endpoints: Literal["server", "client"] = "server"
    pause: float = 0.6
    language: str = ""
    hotwords: str = ""


class FunasrRealtime(Dialect):
    """One conversation with such a server."""

    name = "FunASR (realtime)"

    def __init__(self, address: Address, options: FunasrRealtimeOptions) -> None:
        super().__init__(address)
        self._options = options
        self._pauses = Pauses(options.pause, self.sample_rate)
        self._utterance = 0
        self._told_ms = -1.0
        """Where the last sentence begins that was told as final."""

    def opening(self) -> Sequence[str]:
        """Begin, and tell what is expected."""
        said = ["START"]
        if self._options.language:
            said.append(f"LANGUAGE:{self._options.language}")
        if self._options.hotwords:
            said.append(f"HOTWORDS:{','.join(self._options.hotwords.split())}")
        return said

    def messages(self, samples: npt.NDArray[np.float32]) -> Sequence[str | bytes]:
        """16-bit samples; and the end of a sentence, where that is the client's to say."""
        audio = self.audio(samples)
        if self._options.endpoints == "client" and self._pauses.ends_with(samples):
            return (audio, COMMIT)
        return (audio,)

    def closing(self) -> Sequence[str]:
        """Ask for the rest."""
        return ["STOP"]

    def read(self, message: str | bytes) -> Iterable[Hypothesis]:
        """Sentences, and what is being said."""
        said = read_object(message)
        match said:
            case {"event": "stopped"}:
                self.over = True
                return ()
            case {"event": "error", "error": error}:
                self.server_error = str(error)
                return ()
            case {"event": str()}:
                return ()
            case {"sentences": list() as sentences, "partial": str() as partial}:
                found = [*self._finals(sentences)]
                if partial:
                    start_ms = read_number(said.get("partial_start_ms"))
                    found.append(Hypothesis(str(self._utterance), partial, False, start_ms))
                return found
        raise UnknownMessageError("expected an event, or sentences and partial")

    def _finals(self, sentences: Iterable[object]) -> Iterable[Hypothesis]:
        for sentence in sentences:
            match sentence:
                case {"text": str() as text, "start": int() | float() as start, **rest}:
                    if start <= self._told_ms:
                        continue
                    self._told_ms = float(start)
                    key, self._utterance = str(self._utterance), self._utterance + 1
                    end_ms = read_number(rest.get("end"))
                    yield Hypothesis(key, text, True, float(start), end_ms, _speaker(rest))
                case _:
                    raise UnknownMessageError("expected text and start of each sentence")


def _speaker(sentence: Mapping[Any, Any]) -> str | None:
    speaker = sentence.get("spk")
    return str(speaker) if isinstance(speaker, int) and speaker >= 0 else None


def connect_funasr_realtime(where: str = DEFAULT_URL, **options: str) -> ServerTranscript:
    """Make the source ``funasr-realtime``."""
    given = read_options(FunasrRealtimeOptions, "funasr-realtime", options)
    if given.pause <= 0:
        raise TranscriptError(f"expected a pause above 0 s, got {given.pause:g}")
    address = Address(check_url(where, DEFAULT_URL))
    return ServerTranscript(lambda: FunasrRealtime(address, given), given)
