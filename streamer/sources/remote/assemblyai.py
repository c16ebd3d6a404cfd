"""AssemblyAI's streaming transcription, version 3.

https://www.assemblyai.com/docs/streaming/message-sequence: an utterance is a turn, told again with
every message until ``end_of_turn``. Where turns are formatted (``format_turns=true`` in the
address), the formatted one is the last.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

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

__all__ = ["AssemblyAi", "AssemblyAiOptions", "connect_assemblyai"]

DEFAULT_URL: Final = "wss://streaming.assemblyai.com/v3/ws"
KEY_VARIABLE: Final = "ASSEMBLYAI_API_KEY"


class AssemblyAiOptions(RemoteOptions, frozen=True, kw_only=True):
    """Options of the source ``assemblyai``; the key comes from ASSEMBLYAI_API_KEY.

    Attributes:
        model: Which one recognises; it must know the language.
        language: What is spoken.
        speakers: Whether speakers are told apart.
    """

    model: str = "whisper-rt"
    language: str = "zh"
    speakers: bool = False

    @property
    def spoken(self) -> str | None:
        """See :class:`RemoteOptions`."""
        return self.language


class AssemblyAi(Dialect):
    """One conversation with a server of this kind.

    Args:
        address: Where it is.
        is_formatted: Whether each turn is told once more, formatted, after its end.
    """

    name = "AssemblyAI"

    def __init__(self, address: Address, *, is_formatted: bool = False) -> None:
        super().__init__(address)
        self._is_formatted = is_formatted

    def closing(self) -> Sequence[str]:
        """Ask for the rest."""
        return ['{"type": "Terminate"}']

    def read(self, message: str | bytes) -> Iterable[Hypothesis]:
        """Turns."""
        said = read_object(message)
        match said:
            case {"type": "Turn", "turn_order": int() as number, "transcript": str()}:
                return [self._turn(number, said)]
            case {"type": "Termination"}:
                self.over = True
                return ()
            case {"type": "Error", "error": error}:
                self.server_error = str(error)
                return ()
            case {"type": str()}:
                return ()  # Begin, SpeechStarted, and whatever it learns to say
        raise UnknownMessageError("expected a type")

    def _turn(self, number: int, said: dict[str, Any]) -> Hypothesis:
        words = [word for word in said.get("words") or () if isinstance(word, dict)]
        # The transcript has what will not change; words that still may follow it.
        open_words = [str(w.get("text", "")) for w in words if w.get("word_is_final") is False]
        text = " ".join([said["transcript"], *open_words])
        is_last = said.get("turn_is_formatted") is True or not self._is_formatted
        speaker = said.get("speaker_label")
        return Hypothesis(
            str(number),
            text,
            said.get("end_of_turn") is True and is_last,
            read_number(words[0].get("start")) if words else None,
            read_number(words[-1].get("end")) if words else None,
            str(speaker) if speaker else None,
        )


def connect_assemblyai(where: str = DEFAULT_URL, **options: str) -> ServerTranscript:
    """Make the source ``assemblyai``."""
    given = read_options(AssemblyAiOptions, "assemblyai", options)
    address = service_address(
        where,
        DEFAULT_URL,
        KEY_VARIABLE,
        scheme="",
        asked={
            "speech_model": given.model,
            "language_codes": f'["{given.language}"]',
            **({"speaker_labels": "true"} if given.speakers else {}),
        },
        audio={"sample_rate": str(AssemblyAi.sample_rate), "encoding": "pcm_s16le"},
    )
    query = dict(parse_qsl(urlsplit(address.url).query))
    is_formatted = query.get("format_turns", "").lower() == "true"
    return ServerTranscript(lambda: AssemblyAi(address, is_formatted=is_formatted), given)
