"""What the server answers over plain HTTP, without sockets: a request in, an answer out.

Paths are listed with what answers them for each method. What follows from that is the same for all:
404 for other paths, 405 with ``Allow`` for other methods, HEAD as GET without the content, OPTIONS,
and the headers that let listed web pages of other origins read an answer (CORS).
"""

from __future__ import annotations

import http
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from websockets.datastructures import Headers
from websockets.http11 import Request, Response

from cnerta.streamer.serving.http_headers import SECURITY_HEADERS

__all__ = ["JSON", "TEXT", "Answer", "HttpAnswers", "Route", "refused"]

TEXT: Final = "text/plain; charset=utf-8"
JSON: Final = "application/json"
_CORS_SECONDS: Final = 600


@dataclass(frozen=True, slots=True)
class Answer:
    """What is sent back.

    Attributes:
        status: Of HTTP.
        body: Its content.
        content_type: What that is.
        headers: More of them.
    """

    status: http.HTTPStatus = http.HTTPStatus.OK
    body: bytes = b""
    content_type: str = TEXT
    headers: Mapping[str, str] = field(default_factory=dict)

    def response(self, *, is_head: bool = False) -> Response:
        """For the transport, which closes the connection after it."""
        headers = Headers(
            {
                "Connection": "close",
                "Content-Length": str(len(self.body)),
                "Content-Type": self.content_type,
                **SECURITY_HEADERS,
                **self.headers,
            }
        )
        body = b"" if is_head else self.body
        return Response(self.status.value, self.status.phrase, headers, body)


Route = Callable[[Request], Answer]


def refused(status: http.HTTPStatus, why: str, **headers: str) -> Answer:
    """An answer that says why there is no other; ``Retry_After`` becomes ``Retry-After``."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(status, f"{why}\n".encode(), headers=named)


@dataclass(frozen=True, slots=True)
class HttpAnswers:
    """Answers requests.

    Attributes:
        routes: What answers, by path and method.
        is_own_host: Whether a request names this server.
        may_come_from_there: Whether a request is of no web page, or of one that may ask.
        passed_on: Paths that are not answered here if they are asked with GET.
        with_content: Those that are not if they are asked with POST.
    """

    routes: Mapping[str, Mapping[str, Route]]
    is_own_host: Callable[[Request], bool]
    may_come_from_there: Callable[[Request], bool]
    passed_on: Sequence[str] = ()
    with_content: Sequence[str] = ()

    def answer(self, request: Request) -> Response | None:
        """The answer; None for what is passed on."""
        if not self.is_own_host(request):
            why = "expected a host name of this server, got another"
            return refused(http.HTTPStatus.MISDIRECTED_REQUEST, why).response()
        path = request.path.partition("?")[0]
        if path in self.passed_on and request.method == "GET":
            return None
        if path in self.with_content and request.method == "POST":
            return None
        is_head = request.method == "HEAD"
        return self.allowed_to_read(request, self._find(request, path)).response(is_head=is_head)

    def _find(self, request: Request, path: str) -> Answer:
        methods = self.routes.get(path)
        asked = {"GET": self.passed_on, "POST": self.with_content}
        methods = {how: _nothing for how, paths in asked.items() if path in paths} or methods
        if methods is None:
            return refused(http.HTTPStatus.NOT_FOUND, "not found")
        allowed = {*methods, "OPTIONS", *(["HEAD"] if "GET" in methods else [])}
        allow = ", ".join(sorted(allowed))
        if request.method == "OPTIONS":
            return Answer(http.HTTPStatus.NO_CONTENT, headers={"Allow": allow})
        route = methods.get("GET" if request.method == "HEAD" else request.method)
        if route is None:
            why = f"expected {allow}, got another method"
            return refused(http.HTTPStatus.METHOD_NOT_ALLOWED, why, Allow=allow)
        return route(request)

    def _headers_for(self, request: Request) -> str:
        has_content = request.path.partition("?")[0] in self.with_content
        return "Authorization, Content-Type" if has_content else "Authorization"

    def allowed_to_read(self, request: Request, answer: Answer) -> Answer:
        """Tell a browser that a page of another origin may read the answer, if it may."""
        origins = request.headers.get_all("Origin")
        if len(origins) != 1 or not self.may_come_from_there(request):
            return answer
        headers = {
            **answer.headers,
            "Access-Control-Allow-Origin": origins[0],
            "Cross-Origin-Resource-Policy": "cross-origin",
            "Vary": "Origin",
        }
        if request.method == "OPTIONS":
            headers |= {
                "Access-Control-Allow-Headers": self._headers_for(request),
                "Access-Control-Allow-Methods": answer.headers.get("Allow", ""),
                "Access-Control-Max-Age": str(_CORS_SECONDS),
            }
        return replace(answer, headers=headers)


def _nothing(request: Request) -> Answer:
    return refused(http.HTTPStatus.UPGRADE_REQUIRED, "expected a WebSocket", Upgrade="websocket")
