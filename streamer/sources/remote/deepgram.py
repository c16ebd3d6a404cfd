"""Deepgram's live transcription, and servers that speak as it does.

https://developers.deepgram.com/reference/speech-to-text/listen-streaming: text comes in pieces.
What is ``is_final`` will not change; with ``speech_final`` the speaker has paused, which ends the
utterance. With ``diarize=true`` words have speakers, and an utterance is of whoever said most of
it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final

from cnerta.streamer.sources.options import read_options
from cnerta.streamer.sources.remote.client import RemoteOptions, ServerTranscript
from cnerta.streamer.sources.remote.dialect import (
    Address,
    Dialect,
    UnknownMessageError,
    main_speaker,
    read_object,
)
from cnerta.streamer.sources.remote.service import service_address
from cnerta.streamer.sources.utterances import Hypothesis

__all__ = ["Deepgram", "DeepgramOptions", "connect_deepgram"]

DEFAULT_URL: Final = "wss://api.deepgram.com/v1/listen"
KEY_VARIABLE: Final = "DEEPGRAM_API_KEY"


class DeepgramOptions(RemoteOptions, frozen=True, kw_only=True):
    """Options of the source ``deepgram``; the key comes from DEEPGRAM_API_KEY.

    Attributes:
        model: Which one recognises; the server's own choice if empty.
        language: What is spoken.
    """

    model: str = ""
    language: str = "zh-CN"

    @property
    def spoken(self) -> str | None:
        """See :class:`RemoteOptions`."""
        return self.language


class Deepgram(Dialect):
    """One conversation with a server of this kind."""

    name = "Deepgram"

    def __init__(self, address: Address) -> None:
        super().__init__(address)
        self._utterance = 0
        self._fixed = ""
        self._start_ms: float | None = None
        self._words_of: Counter[str] = Counter()
        """How many words of the fixed text each speaker said, where speakers are told apart."""

    def closing(self) -> Sequence[str]:
        """Ask for the rest."""
        return ['{"type": "CloseStream"}']

    def read(self, message: str | bytes) -> Iterable[Hypothesis]:
        """Pieces of text, and what ends an utterance."""
        said = read_object(message)
        match said:
            case {"type": "Results"}:
                return self._results(said)
            case {"type": "UtteranceEnd"}:
                return self._end(None)
            case {"type": "Metadata"}:
                # Sent at the end, after everything else.
                self.over = True
                return self._end(None)
            case {"type": "Error"} | {"err_code": _}:
                parts = (said.get(key) for key in ("description", "message", "err_msg", "reason"))
                self.server_error = ": ".join(str(part) for part in parts if part)
                return ()
            case {"type": str()}:
                return ()  # SpeechStarted, and whatever it learns to say
        raise UnknownMessageError("expected a type")

    def _results(self, said: dict[str, object]) -> Iterable[Hypothesis]:
        speakers: list[str] = []
        match said.get("channel"):
            case {"alternatives": [{"transcript": str() as text, **rest}, *_]}:
                speakers = _speakers(rest.get("words"))
            case _:
                raise UnknownMessageError("expected channel.alternatives[0].transcript")
        end_ms = None
        match said:
            case {"start": int() | float() as start, "duration": int() | float() as duration}:
                end_ms = 1_000.0 * (start + duration)
                if text and self._start_ms is None:
                    self._start_ms = 1_000.0 * start
        # Words of other scripts have spaces between them, also over the seam.
        seam = " " if self._fixed and text else ""
        whole = self._fixed + seam + text
        heard = self._words_of + Counter(speakers)
        if said.get("is_final") is True:
            self._fixed, self._words_of = whole, heard
        if said.get("speech_final") is True:
            return self._end(end_ms)
        hypothesis = Hypothesis(
            str(self._utterance), whole, False, self._start_ms, end_ms, main_speaker(heard)
        )
        return [hypothesis]

    def _end(self, end_ms: float | None) -> Iterable[Hypothesis]:
        hypothesis = Hypothesis(
            str(self._utterance),
            self._fixed,
            True,
            self._start_ms,
            end_ms,
            main_speaker(self._words_of),
        )
        self._utterance, self._fixed, self._start_ms = self._utterance + 1, "", None
        self._words_of = Counter()
        return [hypothesis]


def _speakers(words: object) -> list[str]:
    """Who said each word; with ``diarize=true`` each has a number."""
    if not isinstance(words, list):
        return []
    return [
        str(speaker)
        for word in words
        if isinstance(word, dict) and isinstance(speaker := word.get("speaker"), int)
    ]


def connect_deepgram(where: str = DEFAULT_URL, **options: str) -> ServerTranscript:
    """Make the source ``deepgram``."""
    given = read_options(DeepgramOptions, "deepgram", options)
    address = service_address(
        where,
        DEFAULT_URL,
        KEY_VARIABLE,
        scheme="Token ",
        asked={
            "language": given.language,
            "interim_results": "true",
            **({"model": given.model} if given.model else {}),
        },
        audio={
            "encoding": "linear16",
            "sample_rate": str(Deepgram.sample_rate),
            "channels": "1",
        },
    )
    return ServerTranscript(lambda: Deepgram(address), given)
