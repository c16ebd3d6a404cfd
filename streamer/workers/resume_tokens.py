"""Tokens to resume a session with that say which worker has it.

``WORKER.SECRET.SEAL``: the seal shows that some worker of this server made it. So nobody can send
connections to a worker of his choice.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from typing import Final

__all__ = ["ResumeTokens"]

_SECRET_BYTES: Final = 24
_SEAL_DIGITS: Final = 16


class ResumeTokens:
    """Makes those of one worker and reads those of all."""

    def __init__(self, worker: str, key: bytes) -> None:
        """Begin.

        Args:
            worker: Its name, without a dot.
            key: Of all workers of a server.
        """
        self._worker = worker
        self._key = key

    def new(self) -> str:
        """A secret token for a session of this worker."""
        unsealed = f"{self._worker}.{secrets.token_urlsafe(_SECRET_BYTES)}"
        return f"{unsealed}.{self._seal(unsealed)}"

    def other_worker(self, token: str) -> str | None:
        """The other worker that made a token; None: this one, or none of this server."""
        unsealed, _, seal = token.rpartition(".")
        worker, dot, _ = unsealed.partition(".")
        if not dot or worker == self._worker:
            return None
        made = self._seal(unsealed)
        return worker if hmac.compare_digest(made.encode(), _encoded(seal)) else None

    def _seal(self, unsealed: str) -> str:
        made = hmac.new(self._key, _encoded(unsealed), hashlib.sha256)
        return made.hexdigest()[:_SEAL_DIGITS]


def _encoded(text: str) -> bytes:
    return text.encode(errors="surrogatepass")
