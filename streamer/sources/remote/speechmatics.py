"""Speechmatics' real-time transcription.

https://docs.speechmatics.com/api-ref/realtime-transcription-websocket: audio may be sent once the
server says that it has started. What is in ``AddTranscript`` will not change,
``AddPartialTranscript`` has what follows it, and ``EndOfUtterance`` says that the speaker has
paused.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt

from cnerta.streamer.errors import TranscriptError
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

__all__ = ["Speechmatics", "SpeechmaticsOptions", "connect_speechmatics"]

DEFAULT_URL: Final = "wss://eu.rt.speechmatics.com/v2"
KEY_VARIABLE: Final = "SPEECHMATICS_API_KEY"
LONGEST_PAUSE_S: Final = 2.0
_UNKNOWN_SPEAKER: Final = "UU"


class SpeechmaticsOptions(RemoteOptions, frozen=True, kw_only=True):
    """Options of the source ``speechmatics``; the key comes from SPEECHMATICS_API_KEY.

    Attributes:
        model: Which one recognises: enhanced or standard.
        language: What is spoken; Mandarin is cmn.
        speakers: Whether speakers are told apart.
        pause: So many seconds of quiet end an utterance.
        delay: Longest time until text is final, in seconds.
    """

    model: str = "enhanced"
    language: str = "cmn"
    speakers: bool = False
    pause: float = 0.7
    delay: float = 2.0

    @property
    def spoken(self) -> str | None:
        """See :class:`RemoteOptions`."""
        return "zh" if self.language == "cmn" else self.language


class Speechmatics(Dialect):
    """One conversation with a server of this kind."""

    name = "Speechmatics"

    def __init__(self, address: Address, options: SpeechmaticsOptions) -> None:
        super().__init__(address)
        self.is_ready = False
        self._options = options
        self._sent = 0
        self._utterance = 0
        self._fixed = ""
        self._start_ms: float | None = None
        self._end_ms: float | None = None
        self._words_of: Counter[str] = Counter()

    def opening(self) -> Sequence[str]:
        """Tell the audio and the language."""
        options = self._options
        wanted = {
            "language": options.language,
            "model": options.model,
            "enable_partials": True,
            "max_delay": options.delay,
            "conversation_config": {"end_of_utterance_silence_trigger": options.pause},
            **({"diarization": "speaker"} if options.speakers else {}),
        }
        first = {
            "message": "StartRecognition",
            "audio_format": {
                "type": "raw",
                "encoding": "pcm_s16le",
                "sample_rate": self.sample_rate,
            },
            "transcription_config": wanted,
        }
        return [msgspec.json.encode(first).decode()]

    def audio(self, samples: npt.NDArray[np.float32]) -> str | bytes:
        """16-bit samples; messages are counted."""
        self._sent += 1
        return super().audio(samples)

    def closing(self) -> Sequence[str]:
        """Tell that there is no more, and how many messages there were."""
        return [f'{{"message": "EndOfStream", "last_seq_no": {self._sent}}}']

    def read(self, message: str | bytes) -> Iterable[Hypothesis]:
        """Text that is final or not, and what ends an utterance."""
        said = read_object(message)
        match said:
            case {"message": "RecognitionStarted"}:
                self.is_ready = True
            case {"message": "AddTranscript", "metadata": {"transcript": str() as text}}:
                self._note(said, text)
                self._fixed = self._join(text)
                self._words_of += Counter(_speakers(said))
                return self._now(self._fixed, self._words_of)
            case {"message": "AddPartialTranscript", "metadata": {"transcript": str() as text}}:
                self._note(said, text)
                return self._now(self._join(text), self._words_of + Counter(_speakers(said)))
            case {"message": "EndOfUtterance"}:
                return self._end()
            case {"message": "EndOfTranscript"}:
                self.over = True
                return self._end()
            case {"message": "Error"}:
                self.server_error = f"{said.get('type')}: {said.get('reason')}"
            case {"message": str()}:
                pass  # AudioAdded, Info, Warning, and whatever it learns to say
            case _:
                raise UnknownMessageError("expected a message")
        return ()

    def _join(self, text: str) -> str:
        # Words of other scripts have spaces between them, also over the seam.
        return f"{self._fixed} {text}".strip()

    def _note(self, said: dict[str, Any], text: str) -> None:
        match said["metadata"]:
            case {"start_time": int() | float() as start, "end_time": int() | float() as end} if (
                text.strip()
            ):
                self._start_ms = 1_000.0 * start if self._start_ms is None else self._start_ms
                self._end_ms = 1_000.0 * end

    def _now(self, text: str, words_of: Counter[str]) -> list[Hypothesis]:
        if not text:
            return []
        speaker = main_speaker(words_of)
        key = str(self._utterance)
        return [Hypothesis(key, text, False, self._start_ms, self._end_ms, speaker)]

    def _end(self) -> list[Hypothesis]:
        if not self._fixed:
            return []
        ended = Hypothesis(
            str(self._utterance),
            self._fixed,
            True,
            self._start_ms,
            self._end_ms,
            main_speaker(self._words_of),
        )
        self._utterance, self._fixed, self._words_of = self._utterance + 1, "", Counter()
        self._start_ms = self._end_ms = None
        return [ended]


def _speakers(said: dict[str, Any]) -> list[str]:
    """Who said each word, where that is told."""
    found: list[str] = []
    for result in said.get("results") or ():
        match result:
            case {"type": "word", "alternatives": [{"speaker": str() as speaker}, *_]} if (
                speaker != _UNKNOWN_SPEAKER
            ):
                found.append(speaker)
    return found


def connect_speechmatics(where: str = DEFAULT_URL, **options: str) -> ServerTranscript:
    """Make the source ``speechmatics``."""
    given = read_options(SpeechmaticsOptions, "speechmatics", options)
    if not 0 < given.pause <= LONGEST_PAUSE_S:
        raise TranscriptError(
            f"expected a pause above 0 and up to {LONGEST_PAUSE_S:g} s, got {given.pause:g}"
        )
    address = service_address(where, DEFAULT_URL, KEY_VARIABLE)
    return ServerTranscript(lambda: Speechmatics(address, given), given)
