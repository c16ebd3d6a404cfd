"""Who may open a session: those who know a token.

A token comes with the opening handshake, in one of three ways: ``Authorization: Bearer TOKEN``;
for browsers, which cannot set headers, the subprotocols ``cnerta.v1, bearer.TOKEN``; and
``?token=TOKEN`` where neither goes. As clients of Deepgram send it, it may also come as
``Authorization: Token TOKEN`` and as the subprotocols ``token, TOKEN``. Where tokens lie is the
matter of :mod:`cnerta.streamer.access.token_file`.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qs, urlsplit

from websockets.http11 import Request

from cnerta.streamer.access.callers import ANYBODY, Caller

if TYPE_CHECKING:
    from cnerta.streamer.access.jwt_tokens import JwtVerifier

__all__ = ["SCHEMES", "SUBPROTOCOL", "KnownToken", "Tokens", "digest", "sent_tokens"]

SUBPROTOCOL: Final = "cnerta.v1"
SCHEMES: Final = ("bearer", "token")
"""How a token is announced: as standards do, and as Deepgram does."""
_BEARER: Final = "bearer."
_IDENTITY_DIGITS: Final = 12


@dataclass(frozen=True, slots=True)
class KnownToken:
    """A token that is accepted.

    Attributes:
        digest: Of the token; see :func:`digest`. The token itself is not kept.
        caller: Whose it is.
    """

    digest: bytes
    caller: Caller

    @classmethod
    def unnamed(cls, token: str) -> KnownToken:
        """One without a name and limits: its caller is called by its digest."""
        made = digest(token)
        return cls(made, Caller(f"token-{made.hex()[:_IDENTITY_DIGITS]}"))


class Tokens:
    """The tokens that are accepted; without any, everybody is."""

    def __init__(
        self, tokens: Iterable[str | KnownToken] = (), signed: JwtVerifier | None = None
    ) -> None:
        """Accept some.

        Args:
            tokens: Those that are known.
            signed: Knows those that somebody else signs.
        """
        self._signed = signed
        self._tokens = tuple(KnownToken.unnamed(t) if isinstance(t, str) else t for t in tokens)

    def __bool__(self) -> bool:
        """Whether one is asked for."""
        return bool(self._tokens) or self._signed is not None

    def admit(self, request: Request | None) -> Caller | None:
        """Who sent a request; None if nobody that is known."""
        if not self:
            return ANYBODY
        found: Caller | None = None
        for sent in () if request is None else sent_tokens(request):
            made = digest(sent)
            # All are compared in full, so that the time taken tells nothing of any of them.
            for known in self._tokens:
                if hmac.compare_digest(made, known.digest):
                    found = found or known.caller
            if self._signed is not None:
                found = found or self._signed.caller(sent)
        return found


def digest(token: str) -> bytes:
    """What is kept and compared in a token's place."""
    return hashlib.sha256(token.encode(errors="surrogateescape")).digest()


def sent_tokens(request: Request) -> Iterator[str]:
    """All tokens that came with a request."""
    headers = request.headers
    for value in headers.get_all("Authorization"):
        scheme, _, token = value.partition(" ")
        if scheme.lower() in SCHEMES:
            yield token.strip()
    offered = [
        name.strip()
        for value in headers.get_all("Sec-WebSocket-Protocol")
        for name in value.split(",")
    ]
    if len(offered) == 2 and offered[0].lower() in SCHEMES:
        yield offered[1]
    for name in offered:
        if name.startswith(_BEARER):
            yield name.removeprefix(_BEARER)
    yield from parse_qs(urlsplit(request.path).query).get("token", ())
