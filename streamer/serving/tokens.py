"""Who may open a session: those who know a token.

A token comes with the opening handshake, in one of three ways: ``Authorization: Bearer TOKEN``;
for browsers, which cannot set headers, the subprotocols ``cnerta.v1, bearer.TOKEN``; and
``?token=TOKEN`` where neither goes.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final
from urllib.parse import parse_qs, urlsplit

from websockets.http11 import Request

from cnerta.models.errors import ConfigError

__all__ = ["SUBPROTOCOL", "Tokens", "identity_of", "read_tokens"]

SUBPROTOCOL: Final = "cnerta.v1"
_BEARER: Final = "bearer."
_SHORTEST: Final = 16


class Tokens:
    """The tokens that are accepted; without any, everybody is."""

    def __init__(self, tokens: Iterable[str] = ()) -> None:
        self._tokens = tuple(token.encode() for token in tokens)

    def __bool__(self) -> bool:
        """Whether one is asked for."""
        return bool(self._tokens)

    def admit(self, request: Request | None) -> bool:
        """Whether whoever sent a handshake may open a session."""
        if not self._tokens:
            return True
        if request is None:
            return False
        # All are compared in full, so that the time taken tells nothing of any of them.
        matches = [
            hmac.compare_digest(sent.encode(errors="surrogateescape"), token)
            for sent in _sent(request)
            for token in self._tokens
        ]
        return any(matches)


def identity_of(request: Request | None) -> str:
    """Whoever sent a handshake that was admitted: a digest of its tokens, which is no secret."""
    sent = [] if request is None else sorted(_sent(request))
    return hashlib.sha256("\n".join(sent).encode(errors="surrogateescape")).hexdigest()


def read_tokens(path: Path) -> tuple[str, ...]:
    """Tokens from a file: one a line, blank lines and those that begin with ``#`` left out.

    Raises:
        ConfigError: It cannot be read, holds no token, or one that is too short to be secret.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no UTF-8 text"
        raise ConfigError(f"expected a file with tokens at {path}, got: {reason}") from error
    stripped = [line.strip() for line in lines]
    tokens = tuple(line for line in stripped if line and not line.startswith("#"))
    if not tokens:
        raise ConfigError(f"expected a token a line in {path}, got none")
    for number, line in enumerate(stripped, 1):
        if line in tokens and (len(line) < _SHORTEST or " " in line):
            raise ConfigError(
                f"expected a token of at least {_SHORTEST} characters without blanks in line "
                f"{number} of {path}, got {len(line)} characters"
            )
    return tokens


def _sent(request: Request) -> Iterator[str]:
    headers = request.headers
    for value in headers.get_all("Authorization"):
        scheme, _, token = value.partition(" ")
        if scheme.lower() == "bearer":
            yield token.strip()
    for value in headers.get_all("Sec-WebSocket-Protocol"):
        for offered in value.split(","):
            if offered.strip().startswith(_BEARER):
                yield offered.strip().removeprefix(_BEARER)
    yield from parse_qs(urlsplit(request.path).query).get("token", ())
