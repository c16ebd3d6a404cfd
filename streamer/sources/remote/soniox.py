"""Soniox's real-time transcription.

https://soniox.com/docs/api-reference/stt/websocket-api: text comes in tokens. A final token is told
once and will not change; the others are told anew with every answer. ``<end>`` among the final ones
says that the speaker has paused.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec

from cnerta.streamer.sources.options import read_options
from cnerta.streamer.sources.remote.client import RemoteOptions, ServerTranscript
from cnerta.streamer.sources.remote.dialect import (
    Address,
    Dialect,
    UnknownMessageError,
    read_number,
    read_object,
)
from cnerta.streamer.sources.remote.service import service_address
from cnerta.streamer.sources.utterances import Hypothesis

__all__ = ["Soniox", "SonioxOptions", "connect_soniox"]

DEFAULT_URL: Final = "wss://stt-rt.soniox.com/transcribe-websocket"
KEY_VARIABLE: Final = "SONIOX_API_KEY"
_ENDS: Final = frozenset({"<end>", "<fin>"})
_NONE_SPOKEN: Final = "translation"
"""Tokens of a translation are no transcript."""


class SonioxOptions(RemoteOptions, frozen=True, kw_only=True):
    """Options of the source ``soniox``; the key comes from SONIOX_API_KEY.

    Attributes:
        model: Which one recognises.
        language: What is spoken.
        speakers: Whether speakers are told apart; then an utterance ends where they change.
    """

    model: str = "stt-rt-v5"
    language: str = "zh"
    speakers: bool = False

    @property
    def spoken(self) -> str | None:
        """See :class:`RemoteOptions`."""
        return self.language


class Soniox(Dialect):
    """One conversation with a server of this kind."""

    name = "Soniox"

    def __init__(self, address: Address, options: SonioxOptions) -> None:
        super().__init__(address)
        self._options = options
        self._utterance = 0
        self._fixed: list[dict[str, Any]] = []
        """The final tokens of the utterance at hand."""

    def opening(self) -> Sequence[str]:
        """Tell the model, the audio and the language."""
        first = {
            "model": self._options.model,
            "audio_format": "pcm_s16le",
            "sample_rate": self.sample_rate,
            "num_channels": 1,
            "language_hints": [self._options.language],
            "enable_endpoint_detection": True,
            **({"enable_speaker_diarization": True} if self._options.speakers else {}),
        }
        return [msgspec.json.encode(first).decode()]

    def closing(self) -> Sequence[str]:
        """An empty message ends the audio."""
        return [""]

    def read(self, message: str | bytes) -> Iterable[Hypothesis]:
        """Tokens, and what ends an utterance."""
        said = read_object(message)
        if "error_code" in said:
            self.server_error = f"{said['error_code']}: {said.get('error_message', '')}"
            return ()
        tokens = said.get("tokens")
        if not isinstance(tokens, list):
            raise UnknownMessageError("expected tokens")
        found: list[Hypothesis] = []
        open_tokens: list[dict[str, Any]] = []
        for token in tokens:
            match token:
                case {"translation_status": str() as status} if status == _NONE_SPOKEN:
                    continue
                case {"text": str() as text, "is_final": True} if text in _ENDS:
                    found += self._end()
                case {"text": str(), "is_final": True}:
                    if self._fixed and self._fixed[-1].get("speaker") != token.get("speaker"):
                        found += self._end()
                    self._fixed.append(token)
                case {"text": str()}:
                    open_tokens.append(token)
                case _:
                    raise UnknownMessageError("expected the text of each token")
        if said.get("finished") is True:
            self.over = True
            return [*found, *self._end()]
        whole = [*self._fixed, *open_tokens]
        if whole:
            found.append(_hypothesis(str(self._utterance), whole, final=False))
        return found

    def _end(self) -> list[Hypothesis]:
        if not self._fixed:
            return []
        ended = _hypothesis(str(self._utterance), self._fixed, final=True)
        self._utterance, self._fixed = self._utterance + 1, []
        return [ended]


def _hypothesis(key: str, tokens: Sequence[dict[str, Any]], *, final: bool) -> Hypothesis:
    text = "".join(token["text"] for token in tokens)
    speaker = tokens[0].get("speaker")
    return Hypothesis(
        key,
        text,
        final,
        read_number(tokens[0].get("start_ms")),
        read_number(tokens[-1].get("end_ms")),
        None if speaker is None else str(speaker),
    )


def connect_soniox(where: str = DEFAULT_URL, **options: str) -> ServerTranscript:
    """Make the source ``soniox``."""
    given = read_options(SonioxOptions, "soniox", options)
    address = service_address(where, DEFAULT_URL, KEY_VARIABLE)
    return ServerTranscript(lambda: Soniox(address, given), given)
