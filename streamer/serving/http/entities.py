"""Answers a request for the entities of one text: a session that is over when it is answered."""

from __future__ import annotations

import asyncio
import http
import math
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Final

import msgspec
from msgspec import UNSET

from cnerta.streamer.access.admission import Refusal
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
from cnerta.streamer.serving.http.request_door import Asked, RequestDoor, RequestLimits, Visit
from cnerta.streamer.serving.http_answers import JSON, Answer
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

__all__ = ["ENTITIES_LIMITS", "Entities"]

_STATUS: Final[dict[str, int]] = {"token": 401, "origin": 403, "address": 429, "quota": 429}
_BLOCK_BYTES: Final = 2**15
_BACKLOG_MS: Final = 2_000
_LOOK_S: Final = 0.01


ENTITIES_LIMITS: Final = RequestLimits(
    max_bytes=2**24, max_audio_ms=60_000, at_once=8, read_timeout_s=30.0, answer_timeout_s=30.0
)


@dataclass(frozen=True, slots=True)
class Entities:
    """Answers who comes through its door.

    Attributes:
        door: Of these requests.
        served: What answers.
        limits: Of a connection.
        new_connection: Makes the session's protocol.
    """

    door: RequestDoor
    served: ServedModel
    limits: ConnectionLimits
    new_connection: Callable[[ServedModel, ConnectionLimits, str], Awaitable[ServerProtocol]]

    async def answer(self, asked: Asked, batcher: Batcher) -> Answer:
        """Answer a request.

        Args:
            asked: The request.
            batcher: Brings work to the engine.
        """

        async def respond(visit: Visit) -> Answer:
            async with visit.turn():
                data = await visit.read()
                # Both take time that grows with what was sent.
                question = await asyncio.to_thread(read_question, asked.content_type, data)
                del data
                recording = await self._decode(question)
                if recording is not None:
                    visit.count_audio(recording)
                return await self._tag(question, recording, batcher)

        return await self.door.answer(asked, _Replies(), respond)

    async def _decode(self, question: Question) -> DecodedRecording | None:
        if question.audio is None:
            return None
        try:
            most_ms = self.door.limits.max_audio_ms
            return await asyncio.to_thread(decode_recording, question.audio, most_ms)
        except AudioFileError as error:
            raise BadRequestError(422, "invalid_audio", str(error)) from error

    async def _tag(
        self, question: Question, recording: DecodedRecording | None, batcher: Batcher
    ) -> Answer:
        wait_ms = self.door.limits.max_audio_ms + 1_000
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
            async with asyncio.timeout(self.door.limits.answer_timeout_s):
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
            mended=final.mended,
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
            apply_suggestions=asked.apply_suggestions,
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


class _Replies:
    def refused(self, refusal: Refusal) -> Answer:
        error = refusal.error
        status = _STATUS.get(refusal.reason, 503)
        answer = _error(status, error.name.wire_name, error.detail, error.retry_after_ms)
        if status == http.HTTPStatus.UNAUTHORIZED:
            return replace(answer, headers={**answer.headers, "WWW-Authenticate": "Bearer"})
        return answer

    def bad(self, error: BadRequestError) -> Answer:
        return _error(error.status, error.name, str(error))

    def busy(self) -> Answer:
        return _error(503, "try_again_later", "expected fewer requests at once", 1_000)


def _error(status: int, name: str, detail: str, wait_ms: int | None = None) -> Answer:
    headers = {} if wait_ms is None else {"Retry-After": str(math.ceil(wait_ms / 1_000))}
    body = msgspec.json.encode(EntitiesError(name=name, detail=detail))
    return Answer(http.HTTPStatus(status), body, JSON, headers)
