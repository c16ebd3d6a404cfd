"""The paths beside the stream: health, metrics, the protocol's description, short-lived tokens."""

from __future__ import annotations

import http
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import msgspec
from websockets.http11 import Request

from cnerta.streamer.access.admission import Admission
from cnerta.streamer.access.callers import Caller
from cnerta.streamer.apis.openapi import OPENAPI_PATH, openapi_document
from cnerta.streamer.page.static_files import page_files
from cnerta.streamer.serving.http_answers import JSON, Answer, Route, refused
from cnerta.streamer.serving.metrics import CONTENT_TYPE, ServerMetrics
from cnerta.streamer.wire.asyncapi import STREAM_PATH, asyncapi_document

__all__ = ["METRICS_PATH", "SESSIONS_PATH", "Pages"]

SESSIONS_PATH: Final = "/v1/sessions"
METRICS_PATH: Final = "/metrics"


@dataclass(frozen=True, slots=True)
class Pages:
    """Makes the answers.

    Attributes:
        admission: Who may ask, and whether there is room.
        metrics: What Prometheus is told.
        why_not_healthy: Why the process is of no use any more, if so.
        why_not_ready: Why no session is taken, if so.
        is_encrypted: Whether the server itself speaks TLS.
        now: The time, in seconds.
    """

    admission: Admission
    metrics: ServerMetrics
    why_not_healthy: Callable[[], str | None]
    why_not_ready: Callable[[], str | None]
    is_encrypted: bool
    now: Callable[[], float]

    def public(self, *, with_metrics: bool) -> Mapping[str, Mapping[str, Route]]:
        """Paths of the address that clients use."""
        document = msgspec.json.encode(asyncapi_document())
        requests = msgspec.json.encode(openapi_document())
        routes: dict[str, Mapping[str, Route]] = {
            "/healthz": {"GET": self._health},
            "/readyz": {"GET": self._readiness},
            "/asyncapi.json": {"GET": lambda _: Answer(body=document, content_type=JSON)},
            OPENAPI_PATH: {"GET": lambda _: Answer(body=requests, content_type=JSON)},
            SESSIONS_PATH: {"POST": self._new_session},
        }
        routes |= {path: {"GET": _page} for path in page_files().paths}
        if with_metrics:
            routes[METRICS_PATH] = {"GET": self._metrics_for_callers}
        return routes

    def operators(self) -> Mapping[str, Mapping[str, Route]]:
        """Paths of the address that only operators reach."""
        return {
            "/healthz": {"GET": self._health},
            "/readyz": {"GET": self._readiness},
            METRICS_PATH: {"GET": lambda _: self._metrics()},
        }

    def _health(self, request: Request) -> Answer:
        why_not = self.why_not_healthy()
        if why_not is not None:
            return refused(http.HTTPStatus.SERVICE_UNAVAILABLE, why_not)
        return Answer(body=b"ok\n")

    def _readiness(self, request: Request) -> Answer:
        why_not = self.why_not_ready()
        if why_not is not None:
            return refused(http.HTTPStatus.SERVICE_UNAVAILABLE, why_not)
        return Answer(body=b"ready\n")

    def _metrics(self) -> Answer:
        return Answer(body=self.metrics.exposition(), content_type=CONTENT_TYPE)

    def _metrics_for_callers(self, request: Request) -> Answer:
        caller = self._caller(request)
        return caller if isinstance(caller, Answer) else self._metrics()

    def _caller(self, request: Request) -> Caller | Answer:
        """Who asks: somebody with a token, where one is asked for; a short-lived one is none."""
        caller = self.admission.tokens.admit(request)
        if caller is None:
            why = "expected a valid token, got none"
            return refused(http.HTTPStatus.UNAUTHORIZED, why, WWW_Authenticate="Bearer")
        return caller

    def _new_session(self, request: Request) -> Answer:
        """A token for one session, with the address that it is for."""
        if not self.admission.may_come_from_there(request):
            why = "expected an origin that is allowed here, got another"
            return refused(http.HTTPStatus.FORBIDDEN, why)
        caller = self._caller(request)
        if isinstance(caller, Answer):
            return caller
        excess = self.admission.quotas.excess(caller, self.now())
        if excess is not None:
            seconds = math.ceil((excess.retry_after_ms or 0) / 1000)
            return refused(
                http.HTTPStatus.TOO_MANY_REQUESTS, excess.detail, Retry_After=str(seconds)
            )
        tokens = self.admission.session_tokens
        token = tokens.issue(caller, self.now())
        if token is None:
            why = "expected tokens that were issued to be used, got too many that were not"
            return refused(http.HTTPStatus.TOO_MANY_REQUESTS, why, Retry_After="1")
        scheme = "wss" if self._is_encrypted(request) else "ws"
        host = request.headers.get_all("Host")[0]
        made = {
            "url": f"{scheme}://{host}{STREAM_PATH}?token={token}",
            "token": token,
            "expires_in_s": tokens.ttl_s,
        }
        return Answer(http.HTTPStatus.CREATED, msgspec.json.encode(made), JSON)

    def _is_encrypted(self, request: Request) -> bool:
        # Whoever lies about it only misleads itself.
        sent = request.headers.get_all("X-Forwarded-Proto")
        return self.is_encrypted or sent == ["https"]


def _page(request: Request) -> Answer:
    """A file of the page."""
    known = ", ".join(request.headers.get_all("If-None-Match")) or None
    file = page_files().answer(request.path, known)
    return Answer(file.status, file.body, file.content_type, file.headers)
