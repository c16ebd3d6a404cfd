"""Short-lived tokens that open one session each, for those who must not know a long-lived one.

A web site's own server, which knows a long-lived token, asks for one and hands it to its page. They
live in this process only: unguessable, until they are used or expire, in a bounded number.
"""

from __future__ import annotations

import secrets
from collections import Counter, OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from cnerta.streamer.access.callers import Caller
from cnerta.streamer.access.tokens import digest

__all__ = ["SESSION_PREFIX", "SessionTokens"]

SESSION_PREFIX: Final = "session-"


@dataclass(frozen=True, slots=True)
class _Issued:
    caller: Caller
    expires_at: float


class SessionTokens:
    """Those that were issued and not used yet. Times in seconds.

    Attributes:
        ttl_s: How long one may be used.
    """

    def __init__(self, ttl_s: float = 60.0, most: int = 10_000, most_of_one: int = 1_000) -> None:
        """Begin with none.

        Args:
            ttl_s: How long one may be used.
            most: Of all callers together.
            most_of_one: Of one caller.
        """
        self.ttl_s = ttl_s
        self._most = most
        self._most_of_one = most_of_one
        self._issued: OrderedDict[bytes, _Issued] = OrderedDict()
        self._counts: Counter[str] = Counter()

    def issue(self, caller: Caller, now: float) -> str | None:
        """A new one for one session of the caller; None if too many were not used yet."""
        self._forget_expired(now)
        if len(self._issued) >= self._most or self._counts[caller.identity] >= self._most_of_one:
            return None
        token = SESSION_PREFIX + secrets.token_urlsafe(32)
        self._issued[digest(token)] = _Issued(caller, now + self.ttl_s)
        self._counts[caller.identity] += 1
        return token

    def find(self, sent: Iterable[str], now: float) -> tuple[str, Caller] | None:
        """The first valid one of the tokens that came, and whose session it opens."""
        self._forget_expired(now)
        for token in sent:
            # Looked up by its digest: how long that takes tells nothing of those that are valid.
            issued = self._issued.get(digest(token))
            if issued is not None:
                return token, issued.caller
        return None

    def use(self, token: str) -> None:
        """It has opened its session and is worth nothing from now on."""
        self._forget(digest(token))

    def _forget_expired(self, now: float) -> None:
        # All live equally long, so the oldest expire first.
        while self._issued and next(iter(self._issued.values())).expires_at <= now:
            self._forget(next(iter(self._issued)))

    def _forget(self, key: bytes) -> None:
        issued = self._issued.pop(key, None)
        if issued is None:
            return
        self._counts[issued.caller.identity] -= 1
        if not self._counts[issued.caller.identity]:
            del self._counts[issued.caller.identity]
