"""Which of several replicas has a stream's session, as far as a balancer in front of them tells.

A balancer sees the opening handshake of a connection and nothing after it, so it cannot know of the
session that the client wants to go on with. What all of them can do is to set a cookie that names
the replica, as browsers return it. Programs have to do that themselves::

    handshake ──► balancer ──► replica b          Set-Cookie: cnerta_replica=b  is noted
    … the connection breaks …
    handshake, Cookie: cnerta_replica=b ──► balancer ──► replica b, which has the session
"""

from __future__ import annotations

from email.message import Message
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Final
from urllib.request import Request

from websockets.datastructures import Headers

__all__ = ["Affinity"]

_ENCRYPTED: Final = ("https", "wss")


class Affinity:
    """The cookies of one stream. They go back to where they came from, and nowhere else."""

    def __init__(self) -> None:
        self._jar = CookieJar(DefaultCookiePolicy(secure_protocols=_ENCRYPTED))

    def headers(self, url: str) -> dict[str, str]:
        """What the next handshake with an address is to say.

        Args:
            url: ``ws://…`` or ``wss://…``.
        """
        request = Request(url)
        self._jar.add_cookie_header(request)
        cookie = request.get_header("Cookie")
        return {} if cookie is None else {"Cookie": cookie}

    def note(self, url: str, answer: Headers) -> None:
        """A handshake was answered.

        Args:
            url: Of the server.
            answer: The headers that it sent.
        """
        self._jar.extract_cookies(_Response(answer), Request(url))  # type: ignore[arg-type]

    def forget(self) -> None:
        """Go on with any replica: the one that had the session is of no use."""
        self._jar.clear()


class _Response:
    """Headers as the cookie jar asks for them."""

    def __init__(self, headers: Headers) -> None:
        self._message = Message()
        for value in headers.get_all("Set-Cookie"):
            self._message["Set-Cookie"] = value

    def info(self) -> Message:
        """All that the jar reads."""
        return self._message
