"""The door of a request that is a whole session: who may ask, how much, and how many at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

from websockets.http11 import Request

from cnerta.streamer.access.admission import Admission, Place, Refusal
from cnerta.streamer.apis.entities_request import BadRequestError
from cnerta.streamer.audio.recording_bytes import DecodedRecording
from cnerta.streamer.serving.http.content import RequestContent
from cnerta.streamer.serving.http.reading import drain_content, read_content
from cnerta.streamer.serving.http_answers import Answer
from cnerta.streamer.serving.metrics import ServerMetrics

__all__ = ["Asked", "Replies", "RequestDoor", "RequestLimits", "Visit"]


@dataclass(frozen=True, slots=True)
class RequestLimits:
    """What one request may take.

    Attributes:
        max_bytes: Longest content.
        max_audio_ms: Longest recording.
        at_once: How many may have their content here at the same time.
        read_timeout_s: How long the content may take to come.
        answer_timeout_s: How long the answer may take.
    """

    max_bytes: int
    max_audio_ms: int
    at_once: int
    read_timeout_s: float
    answer_timeout_s: float


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that came.

    Attributes:
        request: Its head.
        remote: Its other end.
        content: What follows.
        permit: Tells a client that waits for it to send the content.
    """

    request: Request
    remote: str
    content: RequestContent
    permit: Callable[[], None]

    @property
    def content_type(self) -> str:
        """What the content is said to be, as it was written; empty: nothing is said."""
        types = self.request.headers.get_all("Content-Type")
        return types[0] if types else ""


class Replies(Protocol):
    """How those who come through a door are told that they get nothing."""

    def refused(self, refusal: Refusal) -> Answer:
        """Who may not come."""

    def bad(self, error: BadRequestError) -> Answer:
        """Whose request is wrong."""

    def busy(self) -> Answer:
        """Who comes while as many are here as may be."""


class _BusyError(Exception):
    pass


@dataclass(slots=True)
class RequestDoor:
    """Lets requests in, counts them, and sees that each gives its place back.

    Attributes:
        admission: Who may ask.
        metrics: Are told.
        limits: Of a request.
    """

    admission: Admission
    metrics: ServerMetrics
    limits: RequestLimits
    _busy: int = 0

    async def answer(
        self, asked: Asked, replies: Replies, respond: Callable[[Visit], Awaitable[Answer]]
    ) -> Answer:
        """Answer a request.

        Args:
            asked: The request.
            replies: How it is refused.
            respond: Answers who was let in.
        """
        entered = self.admission.enter(asked.request, asked.remote, _now())
        if isinstance(entered, Refusal):
            self.metrics.refused.labels(entered.reason).inc()
            answer = replies.refused(entered)
        else:
            self.metrics.admitted.inc()
            self.admission.start(entered)
            try:
                return await respond(Visit(self, asked, entered))
            except BadRequestError as error:
                answer = replies.bad(error)
            except _BusyError:
                answer = replies.busy()
            finally:
                self.admission.finish(entered)
        await drain_content(asked.content, self.limits.max_bytes)
        return answer


@dataclass(frozen=True, slots=True)
class Visit:
    """What somebody who was let in may do."""

    _door: RequestDoor
    _asked: Asked
    _place: Place

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Be one of those who may have their content here at the same time."""
        if self._door._busy >= self._door.limits.at_once:
            raise _BusyError
        self._door._busy += 1
        try:
            yield
        finally:
            self._door._busy -= 1

    async def read(self) -> bytes:
        """Read the content.

        Raises:
            BadRequestError: It is too large, too slow, or broke off.
        """
        limits = self._door.limits
        self._asked.permit()
        data = await read_content(self._asked.content, limits.max_bytes, limits.read_timeout_s)
        self._door.admission.quotas.take(self._place.caller, _now(), size=len(data))
        return data

    def count_audio(self, recording: DecodedRecording) -> None:
        """Put a recording on the account of who sent it."""
        seconds = recording.duration_ms / 1_000
        self._door.metrics.audio.inc(seconds)
        self._door.admission.quotas.take(self._place.caller, _now(), audio_s=seconds)


def _now() -> float:
    return asyncio.get_running_loop().time()
