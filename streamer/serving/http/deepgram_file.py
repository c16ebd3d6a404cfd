"""Answers ``POST /v1/listen``: a whole file, whose speech the server's recogniser writes.

It is a session like that of a live client, which gets its audio as fast as the recogniser and the
engine take it. The answer is that of Deepgram's prerecorded transcription.
"""

from __future__ import annotations

import asyncio
import hashlib
import http
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final

import msgspec

from cnerta.streamer.access.admission import Refusal
from cnerta.streamer.apis.deepgram_file import HeardFile, file_answer
from cnerta.streamer.apis.deepgram_query import BadQueryError, ListenQuery
from cnerta.streamer.apis.deepgram_told import model_info
from cnerta.streamer.apis.entities_request import JSON_TYPE, BadRequestError
from cnerta.streamer.audio.recording_bytes import DecodedRecording, decode_recording
from cnerta.streamer.errors import AudioFileError
from cnerta.streamer.serving.batcher import Batcher
from cnerta.streamer.serving.hosted_session import HostedSession
from cnerta.streamer.serving.http.deepgram_door import no_recogniser, refused_request, told_error
from cnerta.streamer.serving.http.request_door import Asked, RequestDoor, RequestLimits, Visit
from cnerta.streamer.serving.http_answers import JSON, Answer
from cnerta.streamer.serving.recognition import Recogniser
from cnerta.streamer.session.connection import ServedModel, ServerProtocol
from cnerta.streamer.session.limits import ConnectionLimits
from cnerta.streamer.wire.messages import (
    ErrorMessage,
    SessionFinish,
    SessionStart,
    UtteranceFinal,
)

__all__ = ["FILE_LIMITS", "DeepgramFiles"]

_BLOCK_MS: Final = 50
"""Short: sources have a number of blocks that wait for them, and all of them count at the end."""
_AHEAD_MS: Final = 4_000
"""So much audio waits for the recogniser and the engine at most, about."""
_LOOK_S: Final = 0.01
_RETRY_MS: Final = 1_000


FILE_LIMITS: Final = RequestLimits(
    max_bytes=2**25, max_audio_ms=600_000, at_once=2, read_timeout_s=60.0, answer_timeout_s=300.0
)


@dataclass(frozen=True, slots=True)
class DeepgramFiles:
    """Answers who comes through its door.

    Attributes:
        door: Of these requests.
        served: What answers.
        limits: Of a connection.
        new_connection: Makes the session's protocol.
        recogniser: Writes what is said; None: the server has none.
    """

    door: RequestDoor
    served: ServedModel
    limits: ConnectionLimits
    new_connection: Callable[[ServedModel, ConnectionLimits, str], Awaitable[ServerProtocol]]
    recogniser: Recogniser | None

    async def answer(self, asked: Asked, batcher: Batcher) -> Answer:
        """Answer a request.

        Args:
            asked: The request.
            batcher: Brings work to the engine.
        """
        request_id = str(uuid.uuid4())

        async def respond(visit: Visit) -> Answer:
            recogniser, query = self._understand(asked)
            async with visit.turn():
                created = datetime.now(UTC)
                data = await visit.read()
                # Both take time that grows with what was sent.
                digest = await asyncio.to_thread(hashlib.sha256, data)
                recording = await self._decode(data, query)
                del data
                visit.count_audio(recording)
                heard = HeardFile(
                    request_id=request_id,
                    created=created,
                    sha256=digest.hexdigest(),
                    duration_ms=recording.duration_ms,
                    channels=recording.audio_format.channels,
                    model=model_info(self.served.message()),
                    utterances=(),
                )
                return await self._listen(heard, recording, query, batcher, recogniser)

        return await self.door.answer(asked, _Replies(request_id), respond)

    def _understand(self, asked: Asked) -> tuple[Recogniser, ListenQuery]:
        """What is asked for; an error if it cannot be had."""
        if self.recogniser is None:
            raise BadRequestError(400, "Bad Request", no_recogniser())
        try:
            query = ListenQuery.read(asked.request.path)
        except BadQueryError as error:
            raise BadRequestError(400, "Bad Request", str(error)) from error
        if query.multichannel:
            detail = "expected channels that are heard as one, got multichannel=true"
            raise BadRequestError(400, "Bad Request", detail)
        if asked.content_type.partition(";")[0].strip().lower() == JSON_TYPE:
            detail = "expected audio as the content, got JSON: nothing is fetched from an address"
            raise BadRequestError(400, "Bad Request", detail)
        return self.recogniser, query

    async def _decode(self, data: bytes, query: ListenQuery) -> DecodedRecording:
        most_ms = self.door.limits.max_audio_ms
        if query.audio_format is None:
            try:
                return await asyncio.to_thread(decode_recording, data, most_ms)
            except AudioFileError as error:
                raise BadRequestError(400, "Bad Request", str(error)) from error
        raw = DecodedRecording(query.audio_format, data)
        if not data:
            raise BadRequestError(400, "Bad Request", "expected samples, got none")
        if raw.duration_ms > most_ms:
            detail = f"expected at most {most_ms / 1_000:g} s of audio, got more"
            raise BadRequestError(400, "Bad Request", detail)
        return raw

    async def _listen(
        self,
        heard: HeardFile,
        recording: DecodedRecording,
        query: ListenQuery,
        batcher: Batcher,
        recogniser: Recogniser,
    ) -> Answer:
        limits = replace(
            self.limits, start_timeout_s=None, idle_timeout_s=None, max_audio_ahead_ms=None
        )
        protocol = await self.new_connection(self.served, limits, heard.request_id)
        session = HostedSession(protocol, batcher, recogniser, paced=False)
        sending = asyncio.create_task(_send(session, recording))
        try:
            async with asyncio.timeout(self.door.limits.answer_timeout_s):
                finals: list[UtteranceFinal] = []
                while (message := await session.next_message()) is not None:
                    if isinstance(message, ErrorMessage):
                        return _failure(message, heard.request_id)
                    if isinstance(message, UtteranceFinal):
                        finals.append(message)
                await sending
        except TimeoutError:
            detail = "expected an answer in time, got none"
            return told_error(503, "SERVICE_UNAVAILABLE", detail, heard.request_id, _RETRY_MS)
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
            session.disconnect()
        answer = file_answer(replace(heard, utterances=tuple(finals)), query)
        headers = {"dg-request-id": heard.request_id}
        return Answer(http.HTTPStatus.OK, msgspec.json.encode(answer), JSON, headers)


async def _send(session: HostedSession, recording: DecodedRecording) -> None:
    session.receive_message(
        SessionStart(audio=recording.audio_format, transcript="server", interim=False)
    )
    audio_format = recording.audio_format
    block = audio_format.frame_bytes * audio_format.sample_rate * _BLOCK_MS // 1_000
    for start in range(0, len(recording.samples), block):
        session.receive(recording.samples[start : start + block])
        await asyncio.sleep(0)
        while not session.protocol.is_closed and session.behind_ms > _AHEAD_MS:
            await asyncio.sleep(_LOOK_S)
    session.receive_message(SessionFinish())


@dataclass(frozen=True, slots=True)
class _Replies:
    request_id: str

    def refused(self, refusal: Refusal) -> Answer:
        return refused_request(refusal, self.request_id)

    def bad(self, error: BadRequestError) -> Answer:
        return told_error(error.status, error.name, str(error), self.request_id)

    def busy(self) -> Answer:
        detail = "expected fewer files at once"
        return told_error(503, "SERVICE_UNAVAILABLE", detail, self.request_id, _RETRY_MS)


def _failure(message: ErrorMessage, request_id: str) -> Answer:
    if message.retryable:
        return told_error(503, "SERVICE_UNAVAILABLE", message.detail, request_id, _RETRY_MS)
    return told_error(400, "Bad Request", message.detail, request_id)
