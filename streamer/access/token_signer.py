"""Signs tokens for one session, so that every server with the same secret knows them.

``CLAIMS.SEAL``: claims in JSON, and their HMAC (SHA-256), each in base64. Claims are no secret:
whoever has the token can read whose it is.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from cnerta.models.errors import ConfigError
from cnerta.streamer.access.callers import Caller

__all__ = ["TokenClaims", "TokenSigner"]

_PURPOSE: Final = b"cnerta token for one session, version 1\n"
"""Signed with the claims: what else is signed with the same secret is of no use here."""
_NONCE_BYTES: Final = 16
_SHORTEST_SECRET: Final = 32
_MOST_CHARACTERS: Final = 2_048


@dataclass(frozen=True, slots=True)
class TokenClaims:
    """What a token says.

    Attributes:
        caller: Whose session it opens.
        expires_at: Until when; seconds since 1970.
        nonce: What makes it another one than all others.
    """

    caller: Caller
    expires_at: float
    nonce: str


class TokenSigner:
    """Signs, and knows what is signed."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        """Take the secrets.

        Args:
            keys: The first of them signs, what any of them has signed is known.
        """
        assert keys, "expected a secret"
        self._keys = tuple(keys)

    @classmethod
    def read(cls, path: Path) -> TokenSigner:
        """Take the secrets of a file, one a line.

        Raises:
            ConfigError: It cannot be read, or a secret is too short.
        """
        try:
            keys = [line.strip() for line in path.read_bytes().splitlines() if line.strip()]
        except OSError as error:
            raise ConfigError(
                f"expected a secret at {path}, got: {error.strerror or error}"
            ) from error
        if not keys or min(map(len, keys)) < _SHORTEST_SECRET:
            raise ConfigError(
                f"expected secrets of at least {_SHORTEST_SECRET} characters in {path}, one a "
                f"line, got {'none' if not keys else 'a shorter one'}"
            )
        return cls(keys)

    def sign(self, caller: Caller, expires_at: float) -> str:
        """A new token.

        Args:
            caller: Whose session it opens.
            expires_at: Until when; seconds since 1970.
        """
        claims = TokenClaims(caller, expires_at, secrets.token_urlsafe(_NONCE_BYTES))
        body = _encoded(msgspec.json.encode(claims))
        return f"{body}.{_encoded(_seal(self._keys[0], body))}"

    def read_claims(self, token: str, unix_now: float) -> TokenClaims | None:
        """What a token says; None if it is not of this signer, or its time is over.

        Args:
            token: Whatever has come.
            unix_now: Seconds since 1970.
        """
        body, _, seal = token.rpartition(".")
        if len(token) > _MOST_CHARACTERS or not token.isascii():
            return None
        # Nothing is decoded that was not signed.
        if not any(hmac.compare_digest(_encoded(_seal(k, body)), seal) for k in self._keys):
            return None
        try:
            claims = msgspec.json.decode(_decoded(body), type=TokenClaims)
        except (binascii.Error, msgspec.DecodeError):  # signed by another version, perhaps
            return None
        return claims if unix_now < claims.expires_at else None


def _seal(key: bytes, body: str) -> bytes:
    return hmac.new(key, _PURPOSE + body.encode(), hashlib.sha256).digest()


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
