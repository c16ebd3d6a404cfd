"""Answers a request for the entities of one text: a session that is over when it is answered."""

from __future__ import annotations

import asyncio
import http
import math
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Final

import msgspec
from msgspec import UNSET
from websockets.http11 import Request

from cnerta.streamer.access.admission import Admission, Place, Refusal
from cnerta.streamer.apis.entities_request import (
    BadRequestError,
    EntitiesAnswer,
    EntitiesError,
    Question,
    read_question,
)
from cnerta.streamer.audio.recording_bytes import DecodedRecording, decode_recording
from cnerta.streamer.errors import AudioFileError
from cnerta.streamer.serving.batcher import Batcher
from cnerta.streamer.serving.hosted_session import HostedSession
from cnerta.streamer.serving.http.content import RequestContent
from cnerta.streamer.serving.http.reading import drain_content, read_content
from cnerta.streamer.serving.http_answers import JSON, Answer
from cnerta.streamer.serving.metrics import ServerMetrics
from cnerta.streamer.session.connection import ServedModel, ServerProtocol
from cnerta.streamer.session.limits import ConnectionLimits
from cnerta.streamer.wire.messages import (
    ErrorMessage,
    SessionFinish,
    SessionStart,
    Transcript,
    UtteranceFinal,
    WarningMessage,
)
from cnerta.streamer.wire.parts import AudioFormat

__all__ = ["EntitiesDoor", "EntitiesLimits"]

_STATUS: Final[dict[str, int]] = {"token": 401, "origin": 403, "address": 429, "quota": 429}
_BLOCK_BYTES: Final = 2**15
_BACKLOG_MS: Final = 2_000
_LOOK_S: Final = 0.01


@dataclass(frozen=True, slots=True)
class EntitiesLimits:
    """What one request may take.

    Attributes:
        max_bytes: Longest content.
        max_audio_ms: Longest recording.
        at_once: How many may have their content here at the same time.
        read_timeout_s: How long the content may take to come.
        answer_timeout_s: How long the answer may take.
    """

    max_bytes: int = 2**24
    max_audio_ms: int = 60_000
    at_once: int = 8
    read_timeout_s: float = 30.0
    answer_timeout_s: float = 30.0


@dataclass(slots=True)
class EntitiesDoor:
    """Answers.

    Attributes:
        admission: Who may ask.
        metrics: Are told.
        served: What answers.
        limits: Of a connection.
        new_connection: Makes the session's protocol.
        own_limits: Of a request.
    """

    admission: Admission
    metrics: ServerMetrics
    served: ServedModel
    limits: ConnectionLimits
    new_connection: Callable[[ServedModel, ConnectionLimits, str], Awaitable[ServerProtocol]]
    own_limits: EntitiesLimits = field(default_factory=EntitiesLimits)
    _busy: int = 0

    async def answer(
        self,
        request: Request,
        remote: str,
        content: RequestContent,
        permit: Callable[[], None],
        batcher: Batcher,
    ) -> Answer:
        """Answer a request.

        Args:
            request: Its head.
            remote: Its other end.
            content: What follows.
            permit: Tells a client that waits for it to send the content.
            batcher: Brings work to the engine.
        """
        entered = self.admission.enter(request, remote, _now())
        if isinstance(entered, Refusal):
            self.metrics.refused.labels(entered.reason).inc()
            answer = _refused(entered)
        else:
            self.metrics.admitted.inc()
            self.admission.start(entered)
            try:
                return await self._answer(request, entered, content, permit, batcher)
            except BadRequestError as error:
                answer = _error(error.status, error.name, str(error))
            finally:
                self.admission.finish(entered)
        await drain_content(content, self.own_limits.max_bytes)
        return answer

    async def _answer(
        self,
        request: Request,
        place: Place,
        content: RequestContent,
        permit: Callable[[], None],
        batcher: Batcher,
    ) -> Answer:
        if self._busy >= self.own_limits.at_once:
            return _error(503, "try_again_later", "expected fewer requests at once", 1_000)
        self._busy += 1
        try:
            permit()
            own = self.own_limits
            data = await read_content(content, own.max_bytes, own.read_timeout_s)
            self.admission.quotas.take(place.caller, _now(), size=len(data))
            types = request.headers.get_all("Content-Type")
            # Both take time that grows with what was sent.
            question = await asyncio.to_thread(read_question, types[0] if types else "", data)
            del data
            recording = await self._decode(question)
            if recording is not None:
                seconds = recording.duration_ms / 1_000
                self.metrics.audio.inc(seconds)
                self.admission.quotas.take(place.caller, _now(), audio_s=seconds)
            return await self._tag(question, recording, batcher)
        finally:
            self._busy -= 1

    async def _decode(self, question: Question) -> DecodedRecording | None:
        if question.audio is None:
            return None
        try:
            most_ms = self.own_limits.max_audio_ms
            return await asyncio.to_thread(decode_recording, question.audio, most_ms)
        except AudioFileError as error:
            raise BadRequestError(422, "invalid_audio", str(error)) from error

    async def _tag(
        self, question: Question, recording: DecodedRecording | None, batcher: Batcher
    ) -> Answer:
        wait_ms = self.own_limits.max_audio_ms + 1_000
        limits = replace(
            self.limits,
            start_timeout_s=None,
            idle_timeout_s=None,
            max_audio_ahead_ms=None,
            session=replace(self.limits.session, retained_ms=wait_ms, backlog_ms=wait_ms),
        )
        protocol = await self.new_connection(self.served, limits, secrets.token_hex(8))
        session = HostedSession(protocol, batcher)
        try:
            async with asyncio.timeout(self.own_limits.answer_timeout_s):
                await _send(session, question, recording)
                return await self._receive(session)
        except TimeoutError:
            return _error(503, "timeout", "expected an answer in time, got none", 1_000)
        finally:
            session.disconnect()

    async def _receive(self, session: HostedSession) -> Answer:
        warnings: list[str] = []
        final: UtteranceFinal | None = None
        while (message := await session.next_message()) is not None:
            if isinstance(message, ErrorMessage):
                status = 503 if message.retryable else 422
                wait_ms = 1_000 if message.retry_after_ms is UNSET else message.retry_after_ms
                return _error(
                    status, message.name, message.detail, wait_ms if status == 503 else None
                )
            if isinstance(message, WarningMessage):
                warnings.append(message.name)
            elif isinstance(message, UtteranceFinal):
                final = message
        if final is None:
            return _error(503, "internal", "expected an answer, got none", 1_000)
        answer = EntitiesAnswer(
            text=final.text,
            entities=final.entities,
            characters=final.characters,
            time_source=final.time_source,
            audio_used=final.audio_used,
            readings=[] if final.readings is UNSET else final.readings,
            warnings=warnings,
            model=self.served.message(),
        )
        return Answer(http.HTTPStatus.OK, msgspec.json.encode(answer), JSON)


async def _send(
    session: HostedSession, question: Question, recording: DecodedRecording | None
) -> None:
    asked = question.request
    session.receive_message(
        SessionStart(
            audio=AudioFormat() if recording is None else recording.audio_format,
            labels=asked.labels,
            nested=asked.nested,
            readings=asked.readings,
            glossary=asked.glossary,
            interim=False,
        )
    )
    samples = b"" if recording is None else recording.samples
    for start in range(0, len(samples), _BLOCK_BYTES):
        session.receive(samples[start : start + _BLOCK_BYTES])
        await asyncio.sleep(0)
        while session.protocol.backlog_ms > _BACKLOG_MS and not session.protocol.is_closed:
            await asyncio.sleep(_LOOK_S)
    session.receive_message(Transcript(utterance="u1", revision=1, final=True, text=asked.text))
    session.receive_message(SessionFinish())


def _refused(refusal: Refusal) -> Answer:
    error = refusal.error
    status = _STATUS.get(refusal.reason, 503)
    answer = _error(status, error.name.wire_name, error.detail, error.retry_after_ms)
    if status == http.HTTPStatus.UNAUTHORIZED:
        return replace(answer, headers={**answer.headers, "WWW-Authenticate": "Bearer"})
    return answer


def _error(status: int, name: str, detail: str, wait_ms: int | None = None) -> Answer:
    headers = {} if wait_ms is None else {"Retry-After": str(math.ceil(wait_ms / 1_000))}
    body = msgspec.json.encode(EntitiesError(name=name, detail=detail))
    return Answer(http.HTTPStatus(status), body, JSON, headers)


def _now() -> float:
    return asyncio.get_running_loop().time()
