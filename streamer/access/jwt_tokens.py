"""Tokens that somebody else signs: JSON Web Tokens, checked with the signer's key.

A token says who its caller is (``sub``), until when it is valid (``exp``), and may say what the
caller may take (``cnerta``: the keys of :class:`cnerta.streamer.access.callers.Quota`)::

    {"sub": "captions", "exp": 1893456000, "cnerta": {"sessions": 20}}
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any, Final

import msgspec

from cnerta.models.errors import ConfigError
from cnerta.streamer.access.callers import Caller
from cnerta.streamer.access.token_file import QuotaKeys

__all__ = ["JwtVerifier"]

_WITH_SECRET: Final = ("HS256", "HS384", "HS512")
_WITH_PUBLIC_KEY: Final = ("RS256", "PS256", "ES256", "ES384", "EdDSA")
_SHORTEST_SECRET_BYTES: Final = 32
_PLAIN_NAME: Final = re.compile(r"[\w.@:+/-]{1,64}", re.ASCII)


class JwtVerifier:
    """Knows the tokens of one signer."""

    def __init__(self, key: bytes, *, is_secret: bool, audience: str | None = None) -> None:
        """Take the key.

        Args:
            key: The shared secret, or the public key (PEM).
            is_secret: Which. A public key is never taken for a secret, nor the other way round.
            audience: What tokens have to be for (``aud``); None: they must not say.

        Raises:
            ConfigError: The key is none, or PyJWT is not installed.
        """
        try:
            import jwt
        except ImportError as error:
            raise ConfigError("expected pip install cnerta-stream[jwt], got no PyJWT") from error
        self._jwt = jwt
        self._algorithms = _WITH_SECRET if is_secret else _WITH_PUBLIC_KEY
        self._audience = audience
        self._key: Any = key
        if is_secret:
            if len(key) < _SHORTEST_SECRET_BYTES or b"-----BEGIN" in key:
                raise ConfigError(
                    f"expected a secret of at least {_SHORTEST_SECRET_BYTES} bytes, got "
                    f"{len(key)}, or a key in PEM"
                )
            return
        try:
            from cryptography.hazmat.primitives.serialization import load_pem_public_key

            self._key = load_pem_public_key(key)
        except (ImportError, ValueError) as error:
            raise ConfigError("expected a public key (PEM), got none") from error

    @classmethod
    def read(cls, path: Path, *, is_secret: bool, audience: str | None = None) -> JwtVerifier:
        """Take the key from a file; a secret without the line's end.

        Raises:
            ConfigError: It cannot be read, or is none.
        """
        try:
            key = path.read_bytes()
        except OSError as error:
            raise ConfigError(
                f"expected a key at {path}, got: {error.strerror or error}"
            ) from error
        return cls(key.strip() if is_secret else key, is_secret=is_secret, audience=audience)

    def caller(self, token: str) -> Caller | None:
        """Whose token it is; None if it is none of this signer's, or not valid now."""
        if token.count(".") != 2:
            return None
        try:
            claims = self._jwt.decode(
                token,
                self._key,
                algorithms=list(self._algorithms),
                audience=self._audience,
                options={"require": ["exp", "sub"]},
            )
            limits = msgspec.convert(claims.get("cnerta", {}), QuotaKeys)
        except (self._jwt.InvalidTokenError, msgspec.ValidationError, ValueError):
            return None
        return Caller(_identity(claims["sub"]), limits.quota())


def _identity(subject: str) -> str:
    """A name that can stand in a log: as it is, or a digest of it."""
    if _PLAIN_NAME.fullmatch(subject):
        return f"jwt:{subject}"
    return f"jwt-{hashlib.sha256(subject.encode(errors='surrogateescape')).hexdigest()[:12]}"
