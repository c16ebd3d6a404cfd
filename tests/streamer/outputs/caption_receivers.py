"""Receivers of captions that check what Zoom and YouTube check, by their published rules."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

from ...http_server import HttpServer, QuietHandler

_YOUTUBE_HEAD = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3})(?: (region:\w+#\w+))?")


class CaptionReceiver:
    """An HTTP server that takes each number once, in order, and shows what is new.

    Attributes:
        shown: The bodies, each once.
        refusals: What was refused, and why.
        faults: Statuses that are answered instead of the right one, one a request; the request is
            taken all the same if the status is below 0: its answer gets lost, so to speak.
        numbers: Of all requests.
    """

    secret: dict[str, str]

    def __init__(self, *, taken: int = 0) -> None:
        self.last = taken
        self.shown: list[str] = []
        self.numbers: list[int] = []
        self.refusals: list[str] = []
        self.faults: list[int] = []
        self.asks = 0
        receiver = self

        class Handler(QuietHandler):
            def post(self, body: bytes) -> None:
                status = receiver.take(self.path, self.headers, body)
                receiver.answer(self, status)

            def get(self) -> None:
                receiver.asked(self)

        self.server = HttpServer(Handler)
        query = "&".join(f"{name}={value}" for name, value in self.secret.items())
        self.url = f"{self.server.url}/closedcaption?{query}"

    def close(self) -> None:
        self.server.close()

    def answer(self, request: QuietHandler, status: int, text: str = "") -> None:
        request.answer(status, text.encode(), {"Content-Type": "text/plain"})

    def asked(self, request: QuietHandler) -> None:
        self.answer(request, 405)

    def take(self, path: str, headers: Any, body: bytes) -> int:
        """Status of the answer."""
        fault = self.faults.pop(0) if self.faults else 0
        given = {name: values[0] for name, values in parse_qs(urlsplit(path).query).items()}
        self.numbers.append(int(given.get("seq", -1)))
        if fault > 0:
            return fault
        problem = self.problem(given, headers, body)
        if problem:
            self.refusals.append(problem)
            return 403
        if self.numbers[-1] == self.last + 1:
            self.last += 1
            self.shown.append(body.decode())
        elif self.numbers[-1] != self.last:
            self.refusals.append(f"seq {self.numbers[-1]} after {self.last}")
            return 400
        return -fault or 200

    def problem(self, given: dict[str, str], headers: Any, body: bytes) -> str:
        """What is wrong with a request; empty if nothing is."""
        for name, value in self.secret.items():
            # As given: signed addresses are not to be written anew.
            if given.get(name) != parse_qs(f"{name}={value}")[name][0]:
                return f"{name} is not that of the address"
        if headers.get_content_type() != "text/plain":
            return f"content type {headers['Content-Type']}"
        if headers.get_content_charset("utf-8") != "utf-8":
            return "not UTF-8"
        try:
            body.decode("utf-8")
        except UnicodeDecodeError:
            return "not UTF-8"
        return "" if body.strip() else "no text"


class Zoom(CaptionReceiver):
    """https://support.zoom.com/hc/en/article?id=zm_kb&sysparm_article=KB0060368."""

    secret = {  # noqa: RUF012
        "id": "200610693",
        "ns": "GZHkEA%3D%3D",
        "expire": "86400",
        "sparams": "id%2Cns%2Cexpire",
        "signature": "nYtXJqRKCW",
    }

    def asked(self, request: QuietHandler) -> None:
        """The number of the last caption that was taken."""
        self.asks += 1
        is_right = urlsplit(request.path).path == "/closedcaption/seq"
        self.answer(request, 200 if is_right else 404, str(self.last))

    def problem(self, given: dict[str, str], headers: Any, body: bytes) -> str:
        if not re.fullmatch(r"[a-z]{2}-[A-Z]{2}", given.get("lang", "")):
            return "no lang such as en-US"
        return super().problem(given, headers, body)


class YouTube(CaptionReceiver):
    """https://support.google.com/youtube/answer/6077032."""

    secret = {"cid": "ab12-cd34-ef56"}  # noqa: RUF012
    newest = datetime.min

    def problem(self, given: dict[str, str], headers: Any, body: bytes) -> str:
        lines = body.decode().split("\n")
        if lines.pop() != "" or not lines or len(lines) % 2:
            return f"expected a line of time and a line of text for each caption, got {lines}"
        for head, text in zip(lines[::2], lines[1::2], strict=True):
            told = _YOUTUBE_HEAD.fullmatch(head)
            if told is None:
                return f"no time in {head!r}"
            moment = datetime.fromisoformat(told[1])
            now = datetime.now(UTC).replace(tzinfo=None)
            if not now - timedelta(seconds=60) < moment < now + timedelta(seconds=60):
                return f"{moment} is too far from {now}"
            if moment < self.newest:
                return f"{moment} is before {self.newest}"
            if not text.strip():
                return "no text"
            self.newest = moment
        return super().problem(given, headers, body)
