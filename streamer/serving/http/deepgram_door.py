"""Who connects as a client of Deepgram is refused as they expect: before the handshake, in JSON."""

from __future__ import annotations

import http
import math
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import msgspec
from websockets.http11 import Request

from cnerta.streamer.access.admission import Admission, Refusal
from cnerta.streamer.apis.deepgram_listen import DeepgramListener
from cnerta.streamer.apis.deepgram_query import LISTEN_PATH, BadQueryError, ListenQuery
from cnerta.streamer.apis.tongue import Tongue
from cnerta.streamer.serving.http_answers import JSON, Answer
from cnerta.streamer.serving.metrics import ServerMetrics

__all__ = [
    "DeepgramDoor",
    "is_listen",
    "make_tongue",
    "no_recogniser",
    "refused_request",
    "told_error",
]

_STATUS: Final[dict[str, tuple[http.HTTPStatus, str]]] = {
    "token": (http.HTTPStatus.UNAUTHORIZED, "INVALID_AUTH"),
    "origin": (http.HTTPStatus.FORBIDDEN, "FORBIDDEN"),
    "address": (http.HTTPStatus.TOO_MANY_REQUESTS, "TOO_MANY_REQUESTS"),
    "quota": (http.HTTPStatus.TOO_MANY_REQUESTS, "TOO_MANY_REQUESTS"),
}
_BUSY: Final = (http.HTTPStatus.SERVICE_UNAVAILABLE, "SERVICE_UNAVAILABLE")


def is_listen(request: Request) -> bool:
    """Whether a request is for Deepgram's live transcription."""
    return request.path.partition("?")[0] == LISTEN_PATH


def make_tongue(request: Request | None, request_id: str) -> Tongue | None:
    """What translates for a connection that was made; None: it speaks the protocol."""
    if request is None or not is_listen(request):
        return None
    query = ListenQuery.read(request.path)  # was read before, so it can be
    return DeepgramListener(query, request_id, datetime.now(UTC))


@dataclass(frozen=True, slots=True)
class DeepgramDoor:
    """Says why not.

    Attributes:
        admission: Who may come.
        metrics: Are told who may not.
        has_recogniser: Whether the server can listen to audio alone.
    """

    admission: Admission
    metrics: ServerMetrics
    has_recogniser: bool

    def refusal(self, request: Request, remote: str, request_id: str, now: float) -> Answer | None:
        """Why a connection is not made; None: it is.

        Args:
            request: Its opening handshake.
            remote: Its other end.
            request_id: What it is called.
            now: In seconds.
        """
        refused = self.admission.refusal(request, remote, now)
        if refused is not None:
            self.metrics.refused.labels(refused.reason).inc()
            return refused_request(refused, request_id)
        if not self.has_recogniser:
            return told_error(400, "Bad Request", no_recogniser(), request_id)
        try:
            ListenQuery.read(request.path)
        except BadQueryError as error:
            return told_error(400, "Bad Request", str(error), request_id)
        return None


def no_recogniser() -> str:
    """Why a server that can only read does not listen."""
    return "expected a server with a recogniser (cnerta-serve --source), got one without"


def refused_request(refusal: Refusal, request_id: str) -> Answer:
    """Tell who may not come, in their shape."""
    status, code = _STATUS.get(refusal.reason, _BUSY)
    wait_ms = refusal.error.retry_after_ms
    return told_error(status, code, refusal.error.detail, request_id, wait_ms)


def told_error(
    status: int, code: str, why: str, request_id: str, wait_ms: int | None = None
) -> Answer:
    """An error in their shape.

    Args:
        status: Of HTTP.
        code: Their word for it.
        why: "expected X, got Y".
        request_id: What the request is called.
        wait_ms: When trying again can help.
    """
    body = {"err_code": code, "err_msg": why, "request_id": request_id}
    headers = {"dg-request-id": request_id, "dg-error": why}
    if wait_ms is not None:
        headers["Retry-After"] = str(math.ceil(wait_ms / 1000))
    if status == http.HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Token"
    return Answer(http.HTTPStatus(status), msgspec.json.encode(body), JSON, headers)
