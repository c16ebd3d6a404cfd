"""Named entities in Mandarin speech while it is streamed.

Audio and its transcript go in, messages with entities come out::

    async with await LocalConnection.open() as connection:
        audio = AudioFile(Path("talk.wav"), paced=False)
        transcript = TimedTranscript.untimed("今天在南京市长江大桥", audio.duration_ms)
        async for message in stream(connection, audio, transcript):
            if isinstance(message, UtteranceFinal):
                print(message.text, [(entity.label, entity.text) for entity in message.entities])

`WebSocketConnection.open("ws://127.0.0.1:8765")` takes the place of `LocalConnection.open()` where
a server answers, `ReconnectingConnection.open([…])` where one may come and go, `Microphone` that of
`AudioFile`, and `make_transcript_source("sherpa-onnx")`, or a `TranscriptSource` of your own, that
of a transcript that is known.

Importing this package imports nothing else: each name is found when it is used first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cnerta.models.lazy import lazy_names

if TYPE_CHECKING:
    from cnerta.streamer.audio.microphone import Microphone
    from cnerta.streamer.audio.source import AudioFile, AudioSource
    from cnerta.streamer.client.connection import Connection, WebSocketConnection
    from cnerta.streamer.client.connection_change import ConnectionChange
    from cnerta.streamer.client.local import LocalConnection
    from cnerta.streamer.client.reconnecting import ReconnectingConnection, ReconnectOptions
    from cnerta.streamer.client.stream import StreamOptions, StreamWatcher, stream
    from cnerta.streamer.client.tagged_utterance import TaggedUtterance
    from cnerta.streamer.client.tagger import Tagger, load
    from cnerta.streamer.errors import (
        ClientError,
        ServerUnreachableError,
        SessionRefusedError,
        StreamLostError,
        Unanswered,
    )
    from cnerta.streamer.serving.server import Server, ServerOptions
    from cnerta.streamer.sources import (
        LineTranscript,
        LiveAudio,
        MonoAudio,
        Revision,
        TimedLine,
        TimedTranscript,
        TranscriptSource,
        make_transcript_source,
    )
    from cnerta.streamer.wire.messages import (
        ClientMessage,
        EntityRetract,
        EntityUpsert,
        ErrorMessage,
        ServerMessage,
        SessionReady,
        SessionSummary,
        Transcript,
        UtteranceFinal,
        WarningMessage,
    )
    from cnerta.streamer.wire.parts import AudioFormat, CharacterReading, Entity, GlossaryEntry

__all__ = [
    "AudioFile",
    "AudioFormat",
    "AudioSource",
    "CharacterReading",
    "ClientError",
    "ClientMessage",
    "Connection",
    "ConnectionChange",
    "Entity",
    "EntityRetract",
    "EntityUpsert",
    "ErrorMessage",
    "GlossaryEntry",
    "LineTranscript",
    "LiveAudio",
    "LocalConnection",
    "Microphone",
    "MonoAudio",
    "ReconnectOptions",
    "ReconnectingConnection",
    "Revision",
    "Server",
    "ServerMessage",
    "ServerOptions",
    "ServerUnreachableError",
    "SessionReady",
    "SessionRefusedError",
    "SessionSummary",
    "StreamLostError",
    "StreamOptions",
    "StreamWatcher",
    "TaggedUtterance",
    "Tagger",
    "TimedLine",
    "TimedTranscript",
    "Transcript",
    "TranscriptSource",
    "Unanswered",
    "UtteranceFinal",
    "WarningMessage",
    "WebSocketConnection",
    "load",
    "make_transcript_source",
    "stream",
]

_NAMES_OF_MODULES: Final = {
    "audio.microphone": ("Microphone",),
    "audio.source": (
        "AudioFile",
        "AudioSource",
    ),
    "client.connection": (
        "Connection",
        "WebSocketConnection",
    ),
    "client.connection_change": ("ConnectionChange",),
    "client.local": ("LocalConnection",),
    "client.reconnecting": (
        "ReconnectOptions",
        "ReconnectingConnection",
    ),
    "client.stream": (
        "StreamOptions",
        "StreamWatcher",
        "stream",
    ),
    "client.tagged_utterance": ("TaggedUtterance",),
    "client.tagger": (
        "Tagger",
        "load",
    ),
    "errors": (
        "ClientError",
        "ServerUnreachableError",
        "SessionRefusedError",
        "StreamLostError",
        "Unanswered",
    ),
    "serving.server": (
        "Server",
        "ServerOptions",
    ),
    "sources": (
        "LineTranscript",
        "LiveAudio",
        "MonoAudio",
        "Revision",
        "TimedLine",
        "TimedTranscript",
        "TranscriptSource",
        "make_transcript_source",
    ),
    "wire.messages": (
        "ClientMessage",
        "EntityRetract",
        "EntityUpsert",
        "ErrorMessage",
        "ServerMessage",
        "SessionReady",
        "SessionSummary",
        "Transcript",
        "UtteranceFinal",
        "WarningMessage",
    ),
    "wire.parts": (
        "AudioFormat",
        "CharacterReading",
        "Entity",
        "GlossaryEntry",
    ),
}
_MODULES: Final = {name: module for module, names in _NAMES_OF_MODULES.items() for name in names}


# Type checkers see the imports above, and that any other name is wrong.
if not TYPE_CHECKING:
    __getattr__ = lazy_names(__name__, _MODULES)


def __dir__() -> list[str]:
    return __all__
