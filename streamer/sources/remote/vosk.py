"""vosk-server's WebSocket: 16-bit audio in, ``partial`` and ``text`` out.

https://alphacephei.com/vosk/server and https://github.com/alphacep/vosk-server
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from cnerta.streamer.sources.options import read_options
from cnerta.streamer.sources.remote.client import RemoteOptions, ServerTranscript, check_url
from cnerta.streamer.sources.remote.dialect import (
    Address,
    Dialect,
    UnknownMessageError,
    read_object,
)
from cnerta.streamer.sources.utterances import Hypothesis

__all__ = ["Vosk", "connect_vosk"]

DEFAULT_URL: Final = "ws://127.0.0.1:2700"
# The server compares this text as it is.
END: Final = '{"eof" : 1}'


class Vosk(Dialect):
    """One conversation with a vosk-server."""

    name = "vosk-server"

    def __init__(self, address: Address) -> None:
        super().__init__(address)
        self._utterance = 0

    def opening(self) -> Sequence[str]:
        """Tell the rate, and that times of words are wanted."""
        return [f'{{"config": {{"sample_rate": {self.sample_rate}, "words": true}}}}']

    def closing(self) -> Sequence[str]:
        """Ask for the last result; the server closes after it."""
        return [END]

    def read(self, message: str | bytes) -> Iterable[Hypothesis]:
        """Every message of audio is answered: with a partial result, or a whole utterance."""
        said = read_object(message)
        if isinstance(said.get("partial"), str):
            return [Hypothesis(str(self._utterance), said["partial"], final=False)]
        alternatives = said.get("alternatives")
        if isinstance(alternatives, list) and alternatives and isinstance(alternatives[0], dict):
            said = alternatives[0]
        text = said.get("text")
        if not isinstance(text, str):
            raise UnknownMessageError("expected partial or text")
        start_ms = end_ms = None
        match said.get("result"):
            case [{"start": int() | float() as start}, *_] as words:
                start_ms, end_ms = 1_000.0 * start, 1_000.0 * float(words[-1].get("end", start))
        hypothesis = Hypothesis(str(self._utterance), text, True, start_ms, end_ms)
        self._utterance += 1
        return [hypothesis]


def connect_vosk(where: str = DEFAULT_URL, **options: str) -> ServerTranscript:
    """Make the source ``vosk``."""
    given = read_options(RemoteOptions, "vosk", options)
    address = Address(check_url(where, DEFAULT_URL))
    return ServerTranscript(lambda: Vosk(address), given)
