"""What an ASGI application is given and gives back, as far as this room has to know.

See https://asgi.readthedocs.io: a scope says what is asked, messages go both ways.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from typing import Any, Final
from urllib.parse import quote

__all__ = ["Message", "Receive", "Scope", "Send", "headers_of", "host_of", "peer_of", "target_of"]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_OF_ONE_HOP: Final = frozenset(
    {
        b"connection",
        b"expect",
        b"host",
        b"keep-alive",
        b"sec-websocket-extensions",
        b"sec-websocket-key",
        b"sec-websocket-protocol",
        b"sec-websocket-version",
        b"upgrade",
    }
)
"""Headers that the next connection says anew."""
_FORWARDED_PROTO: Final = b"x-forwarded-proto"
_HOST: Final = re.compile(rb"[A-Za-z0-9._-]+(:\d{1,5})?|\[[0-9A-Fa-f:.]+\](:\d{1,5})?")


def headers_of(scope: Scope) -> Iterator[tuple[bytes, bytes]]:
    """The headers of a request that go on with it, as they came, in order."""
    names = set()
    for name, value in scope["headers"]:
        names.add(name)
        if name not in _OF_ONE_HOP:
            yield name, value
    if _FORWARDED_PROTO not in names and scope.get("scheme") in ("https", "wss"):
        yield _FORWARDED_PROTO, b"https"


def host_of(scope: Scope) -> bytes | None:
    """What a request names as its host; None unless that is one, with or without a port."""
    sent = [value for name, value in scope["headers"] if name == b"host"]
    return sent[0] if len(sent) == 1 and _HOST.fullmatch(sent[0]) else None


def peer_of(scope: Scope) -> str:
    """Address of whoever asks, a proxy's perhaps; empty where nobody knows."""
    client = scope.get("client")
    return str(client[0]) if client else ""


def target_of(scope: Scope) -> str:
    """Path and query, below the application's own path."""
    raw: bytes = scope.get("raw_path") or quote(scope["path"]).encode()
    path = raw.decode("ascii").removeprefix(scope.get("root_path", ""))
    query = scope.get("query_string", b"").decode("ascii")
    return f"{path or '/'}?{query}" if query else path or "/"
