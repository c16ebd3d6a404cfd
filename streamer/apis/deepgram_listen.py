"""A connection of Deepgram's live transcription, on a session whose text a recogniser writes.

Their clients find entities where they look for them: in ``entities`` of ``Results``. What the
recogniser calls an utterance is one ``Results`` with ``is_final`` and ``speech_final``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

import msgspec
from msgspec import UNSET

from cnerta.streamer.apis.deepgram_messages import (
    Alternative,
    Channel,
    ConfigureFailure,
    Error,
    Metadata,
    ModelInfo,
    Results,
    ResultsMetadata,
    SpeechStarted,
    UtteranceEnd,
)
from cnerta.streamer.apis.deepgram_query import ListenQuery
from cnerta.streamer.apis.deepgram_told import (
    SURE,
    model_info,
    model_uuid,
    seconds,
    told_entity,
    told_words,
)
from cnerta.streamer.apis.deepgram_words import Word, split_words
from cnerta.streamer.apis.tongue import FLUSH, Aside, Closing, Flushed, Heard, Reply, Tongue
from cnerta.streamer.apis.wave_stream import NotWaveError, WaveStream
from cnerta.streamer.wire.errors import ErrorName, ProtocolError
from cnerta.streamer.wire.messages import (
    AudioAck,
    EntityRetract,
    EntityUpsert,
    ErrorMessage,
    Keepalive,
    RecognisedTranscript,
    ServerMessage,
    SessionFinish,
    SessionReady,
    SessionStart,
    SessionSummary,
    UtteranceFinal,
)
from cnerta.streamer.wire.parts import (
    MAX_CHANNELS,
    MAX_SAMPLE_RATE,
    MIN_SAMPLE_RATE,
    AudioFormat,
    Entity,
)

__all__ = ["DeepgramListener"]

_MOST_OPEN: Final = 64
_UNREAD: Final = 1008
_NOTHING_CAME: Final = 1011
_OWN_CODES: Final = 4000


class _Control(msgspec.Struct):
    type: str = ""


@dataclass(slots=True)
class _Open:
    """An utterance without its final answer."""

    text: str = ""
    start_ms: int | None = None
    end_ms: int | None = None
    entities: dict[str, Entity] = field(default_factory=dict)


class DeepgramListener(Tongue):
    """Translates one connection."""

    def __init__(self, query: ListenQuery, request_id: str, created: datetime) -> None:
        """Begin.

        Args:
            query: What the client asks for.
            request_id: Name of the connection.
            created: When it began.
        """
        self._query = query
        self._request_id = request_id
        self._created = created
        self._format = query.audio_format
        self._wave = WaveStream() if query.audio_format is None else None
        self._digest = hashlib.sha256()
        self._model = ModelInfo(name="", version="", arch="cnerta")
        self._open: dict[str, _Open] = {}
        self._flushed: list[set[str]] = []
        self._last_word_ms: float | None = None

    # --- from the client --------------------------------------------------------------------------

    def opening(self) -> Iterable[Heard]:
        """The session begins, if the audio's format is known."""
        return () if self._format is None else (self._start(self._format),)

    def hear(self, frame: str | bytes) -> Iterable[Heard]:
        """Audio, or one of their control messages."""
        return self._audio(frame) if isinstance(frame, bytes) else self._control(frame)

    def _start(self, audio_format: AudioFormat) -> SessionStart:
        self._format = audio_format
        is_told = self._query.interim and self._query.entities
        return SessionStart(audio=audio_format, transcript="server", interim=is_told)

    def _audio(self, data: bytes) -> Iterator[Heard]:
        if not data:  # how clients used to say it
            yield from self._finish()
            return
        self._digest.update(data)
        if self._wave is not None:
            try:
                data = self._wave.add(data)
            except NotWaveError as error:
                detail = f"{error}; other audio needs encoding and sample_rate in the address"
                raise ProtocolError(ErrorName.UNSUPPORTED_ENCODING, detail) from error
            if self._format is None:
                if self._wave.audio_format is None:
                    return
                yield self._start(_checked(self._wave.audio_format))
        if data:
            yield data

    def _control(self, text: str) -> Iterable[Heard]:
        try:
            said = msgspec.json.decode(text, type=_Control)
        except (msgspec.MsgspecError, UnicodeEncodeError) as error:
            detail = "expected a JSON object with a type, got something else"
            raise ProtocolError(ErrorName.NOT_JSON, detail) from error
        match said.type:
            case "KeepAlive":
                return (Keepalive(),)
            case "Finalize":
                return () if self._format is None else (FLUSH,)
            case "CloseStream":
                return self._finish()
            case "Configure":
                refusal = ConfigureFailure(
                    request_id=self._request_id,
                    code="CONFIGURE_KEYTERMS_NOT_SUPPORTED",
                    description="expected options in the address, got others later",
                )
                return (Reply(msgspec.json.encode(refusal).decode()),)
            case kind:
                detail = f"expected KeepAlive, Finalize or CloseStream, got {kind[:32]!r}"
                raise ProtocolError(ErrorName.UNKNOWN_TYPE, detail)

    def _finish(self) -> Iterator[Heard]:
        if self._format is None:  # nothing was said at all
            yield self._start(AudioFormat())
        yield SessionFinish()

    # --- to the client ----------------------------------------------------------------------------

    def tell(self, message: ServerMessage | Aside) -> Iterable[str]:
        """Their messages for one of ours."""
        if isinstance(message, Reply):
            return [message.text]
        return [msgspec.json.encode(said).decode() for said in self._said(message)]

    def closing(self, code: int, reason: str) -> Closing:
        """Their codes: 1008 for what cannot be read or may not be, 1011 where nothing came."""
        if code == ErrorName.IDLE.code:
            return Closing(_NOTHING_CAME, "NET-0001")
        if code >= _OWN_CODES:
            return Closing(_UNREAD, "DATA-0000")
        return Closing(code, "NET-0000" if code == _NOTHING_CAME else reason)

    def _said(self, message: ServerMessage | Flushed) -> Iterator[msgspec.Struct]:
        match message:
            case SessionReady(model=model):
                self._model = model_info(model)
            case RecognisedTranscript(final=False):
                yield from self._interim(message)
            case EntityUpsert(utterance=utterance, entity=entity):
                self._of(utterance).entities[entity.id] = entity
                yield from self._so_far(utterance)
            case EntityRetract(utterance=utterance, id=name):
                self._of(utterance).entities.pop(name, None)
                yield from self._so_far(utterance)
            case UtteranceFinal():
                yield from self._final(message)
            case Flushed(owed=owed):
                if owed:
                    self._flushed.append(set(owed))
                else:
                    at_ms = self._last_word_ms or 0.0
                    yield self._results("", [], [], at_ms, at_ms, is_final=True, flushed=True)
            case AudioAck(received_ms=received_ms):
                yield from self._utterance_end(received_ms)
            case SessionSummary(audio_ms=audio_ms):
                yield self._metadata(audio_ms)
            case ErrorMessage(name=name, detail=detail):
                yield Error(description=detail, message=detail, variant=name)
            case _:
                pass

    def _of(self, utterance: str) -> _Open:
        while len(self._open) > _MOST_OPEN:
            del self._open[next(iter(self._open))]
        return self._open.setdefault(utterance, _Open())

    def _interim(self, message: RecognisedTranscript) -> Iterator[msgspec.Struct]:
        is_first = message.utterance not in self._open
        now = self._of(message.utterance)
        now.text, now.start_ms, now.end_ms = message.text, message.start_ms, message.end_ms
        if is_first and self._query.vad_events:
            yield SpeechStarted(channel=[0], timestamp=seconds(message.start_ms))
        yield from self._so_far(message.utterance)

    def _so_far(self, utterance: str) -> Iterator[msgspec.Struct]:
        """What is known of an utterance that goes on."""
        now = self._of(utterance)
        if not (self._query.interim and now.text):
            return
        start_ms = now.start_ms or 0
        end_ms = max(start_ms, start_ms if now.end_ms is None else now.end_ms)
        words = split_words(now.text, (), start_ms, end_ms)
        # The text may have changed under an entity: the next answer will say.
        entities = [e for e in now.entities.values() if now.text[e.start : e.end] == e.text]
        yield self._results(now.text, words, entities, start_ms, end_ms, is_final=False)

    def _final(self, message: UtteranceFinal) -> Iterator[msgspec.Struct]:
        before = self._open.pop(message.utterance, _Open())
        times = message.characters
        start_ms = times[0][0] if times else before.start_ms or 0
        end_ms = times[-1][1] if times else before.end_ms or start_ms
        words = split_words(message.text, times, start_ms, end_ms)
        is_flushed = self._is_last_of_flush(message.utterance)
        if words:
            self._last_word_ms = words[-1].end_ms
        if words or is_flushed:
            yield self._results(
                message.text,
                words,
                message.entities,
                start_ms,
                end_ms,
                is_final=True,
                flushed=is_flushed,
            )

    def _is_last_of_flush(self, utterance: str) -> bool:
        for owed in self._flushed:
            owed.discard(utterance)
        done = [owed for owed in self._flushed if not owed]
        self._flushed = [owed for owed in self._flushed if owed]
        return bool(done)

    def _utterance_end(self, received_ms: int) -> Iterator[msgspec.Struct]:
        wait_ms, last_ms = self._query.utterance_end_ms, self._last_word_ms
        if wait_ms is None or last_ms is None or received_ms - last_ms < wait_ms:
            return
        if any(utterance.text for utterance in self._open.values()):
            return
        self._last_word_ms = None
        yield UtteranceEnd(channel=[0], last_word_end=seconds(last_ms))

    def _results(
        self,
        text: str,
        words: list[Word],
        entities: list[Entity],
        start_ms: float,
        end_ms: float,
        *,
        is_final: bool,
        flushed: bool = False,
    ) -> Results:
        alternative = Alternative(
            transcript=text, confidence=SURE if text else 0.0, words=told_words(words)
        )
        found = [told_entity(entity, words) for entity in entities]
        return Results(
            channel_index=[0, 1],
            start=seconds(start_ms),
            duration=seconds(end_ms - start_ms),
            is_final=is_final,
            speech_final=is_final and self._query.endpointing,
            channel=Channel(alternatives=[alternative]),
            metadata=ResultsMetadata(
                request_id=self._request_id,
                model_info=self._model,
                model_uuid=model_uuid(self._model),
            ),
            from_finalize=flushed,
            entities=found if self._query.entities else UNSET,
        )

    def _metadata(self, audio_ms: int) -> Metadata:
        return Metadata(
            transaction_key="deprecated",
            request_id=self._request_id,
            sha256=self._digest.hexdigest(),
            created=self._created.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            duration=seconds(audio_ms),
            channels=1 if self._format is None else self._format.channels,
            models=[model_uuid(self._model)],
            model_info={model_uuid(self._model): self._model},
        )


def _checked(audio_format: AudioFormat) -> AudioFormat:
    """The format of a file, if it is one that can be taken.

    Raises:
        ProtocolError: It is not.
    """
    rate, channels = audio_format.sample_rate, audio_format.channels
    if not MIN_SAMPLE_RATE <= rate <= MAX_SAMPLE_RATE:
        detail = f"expected {MIN_SAMPLE_RATE} to {MAX_SAMPLE_RATE} Hz, got {rate}"
        raise ProtocolError(ErrorName.UNSUPPORTED_SAMPLE_RATE, detail)
    if not 1 <= channels <= MAX_CHANNELS:
        detail = f"expected 1 to {MAX_CHANNELS} channels, got {channels}"
        raise ProtocolError(ErrorName.UNSUPPORTED_CHANNELS, detail)
    return audio_format
