"""Short-lived tokens that open one session each, for those who must not know a long-lived one.

A web site's own server, which knows a long-lived token, asks for one and hands it to its page::

    issued ──opens a session──► spent ──the session is over──► over
       ▲                          │
       └──no session came of it───┘

A spent token opens nothing any more. Whoever has it may come back to the session that it has
opened, as long as that is there, and to no other.

Without a signer tokens are unguessable, and known to the server that made them. With one they say
themselves whose they are and until when, so every server with the same key takes them; which of
them are spent is known to those that share records.
"""

from __future__ import annotations

import secrets
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Final, Literal, Protocol

from cnerta.streamer.access.callers import Caller
from cnerta.streamer.access.token_signer import TokenSigner
from cnerta.streamer.access.tokens import digest

__all__ = [
    "SESSION_PREFIX",
    "OwnTokenRecords",
    "SessionToken",
    "SessionTokens",
    "TokenRecord",
    "TokenRecords",
]

SESSION_PREFIX: Final = "session-"
_MOST_SIGNED: Final = 2**16
"""So many signed tokens are remembered at most that are spent, or were lately."""


@dataclass(frozen=True, slots=True)
class TokenRecord:
    """What is known of one token.

    Attributes:
        caller: Whose session it opens.
        expires_at: In seconds; does not count as long as it is spent.
        state: See the module.
    """

    caller: Caller
    expires_at: float
    state: Literal["issued", "spent", "over"] = "issued"


class TokenRecords(Protocol):
    """Where tokens are known, by their digests: how long a look-up takes tells nothing of them."""

    def __len__(self) -> int:
        """How many are known."""
        ...

    def get(self, key: bytes) -> TokenRecord | None:
        """What is known of a token."""
        ...

    def put(self, key: bytes, record: TokenRecord) -> None:
        """This is known of a token now; if it is spent, its session is in this process."""
        ...

    def remove(self, key: bytes) -> None:
        """Nothing is known of it any more."""
        ...

    def forget_expired(self, now: float) -> None:
        """Those are gone that are not spent and whose time is over, perhaps not at once."""
        ...

    def count_issued(self, identity: str | None = None) -> int:
        """How many are issued, to one caller or to all."""
        ...


@dataclass(frozen=True, slots=True)
class SessionToken:
    """A valid one that has come.

    Attributes:
        key: Its digest.
        caller: Whose session it opens.
        expires_at: In seconds.
        is_spent: Whether it has, so that it is good for coming back to that session only.
    """

    key: bytes
    caller: Caller
    expires_at: float
    is_spent: bool


class SessionTokens:
    """Issues them and knows them again. Times are in seconds.

    Attributes:
        ttl_s: How long one may be used.
        signer: Signs them; None: nobody does.
    """

    def __init__(
        self,
        records: TokenRecords,
        ttl_s: float = 60.0,
        signer: TokenSigner | None = None,
        *,
        most: int = 10_000,
        most_of_one: int = 1_000,
        unix_now: Callable[[], float] = time.time,
    ) -> None:
        """Begin.

        Args:
            records: Where they are known.
            ttl_s: How long one may be used.
            signer: Signs them; None: nobody does.
            most: Without a signer: that are not used yet, of all callers together.
            most_of_one: The same of one caller.
            unix_now: Tells the time that several machines share.
        """
        self.ttl_s = ttl_s
        self.signer = signer
        self._records = records
        self._most = most
        self._most_of_one = most_of_one
        self._unix_now = unix_now

    def issue(self, caller: Caller, now: float) -> str | None:
        """A new one for one session of the caller; None if too many were not used yet."""
        if self.signer is not None:
            return SESSION_PREFIX + self.signer.sign(caller, self._unix_now() + self.ttl_s)
        records = self._records
        records.forget_expired(now)
        if (
            records.count_issued() >= self._most
            or records.count_issued(caller.identity) >= self._most_of_one
        ):
            return None
        token = SESSION_PREFIX + secrets.token_urlsafe(32)
        records.put(digest(token), TokenRecord(caller, now + self.ttl_s))
        return token

    def find(self, sent: Iterable[str], now: float) -> SessionToken | None:
        """The first valid one of the tokens that came."""
        for token in sent:
            if not token.startswith(SESSION_PREFIX):
                continue
            key = digest(token)
            record = self._records.get(key) or self._signed(token, now)
            if record is not None and (found := _usable(key, record, now)) is not None:
                return found
        return None

    def again(self, token: SessionToken, now: float) -> SessionToken | None:
        """The same as it is now: another process may have used it since."""
        record = self._records.get(token.key)
        if record is not None:
            return _usable(token.key, record, now)
        return None if self.signer is None or token.is_spent else token

    def spend(self, token: SessionToken, now: float) -> SessionToken:
        """It opens a session in this process."""
        self._records.forget_expired(now)
        record = TokenRecord(token.caller, token.expires_at, "spent")
        self._records.put(token.key, record)
        return replace(token, is_spent=True)

    def give_back(self, token: SessionToken) -> None:
        """No session came of it."""
        record = self._records.get(token.key)
        if record is not None and record.state == "spent":
            self._records.put(token.key, replace(record, state="issued"))

    def end(self, key: bytes) -> None:
        """The session is over that it has opened."""
        record = self._records.get(key)
        if record is None:
            return
        if self.signer is None:
            self._records.remove(key)
        else:  # without a record it would be valid again
            self._records.put(key, replace(record, state="over"))

    def _signed(self, token: str, now: float) -> TokenRecord | None:
        """What a token says of itself, if it is signed, and new."""
        if self.signer is None:
            return None
        unix_now = self._unix_now()
        claims = self.signer.read_claims(token.removeprefix(SESSION_PREFIX), unix_now)
        if claims is None or len(self._records) >= _MOST_SIGNED:
            return None
        return TokenRecord(claims.caller, now + claims.expires_at - unix_now)


def _usable(key: bytes, record: TokenRecord, now: float) -> SessionToken | None:
    is_spent = record.state == "spent"
    if record.state == "over" or (record.expires_at <= now and not is_spent):
        return None
    return SessionToken(key, record.caller, record.expires_at, is_spent)


class OwnTokenRecords:
    """Tokens that this process alone knows."""

    def __init__(self) -> None:
        self._records: dict[bytes, TokenRecord] = {}
        # Those that are not spent, about in the order of their ends.
        self._ending: OrderedDict[bytes, None] = OrderedDict()
        self._issued: Counter[str] = Counter()

    def __len__(self) -> int:
        """See :class:`TokenRecords`, as for all that follows."""
        return len(self._records)

    def get(self, key: bytes) -> TokenRecord | None:
        """What is known of a token."""
        return self._records.get(key)

    def put(self, key: bytes, record: TokenRecord) -> None:
        """This is known of a token now."""
        self.remove(key)
        self._records[key] = record
        if record.state != "spent":
            self._ending[key] = None
        if record.state == "issued":
            self._issued[record.caller.identity] += 1

    def remove(self, key: bytes) -> None:
        """Nothing is known of it any more."""
        record = self._records.pop(key, None)
        if record is None:
            return
        self._ending.pop(key, None)
        if record.state == "issued":
            self._issued[record.caller.identity] -= 1
            if not self._issued[record.caller.identity]:
                del self._issued[record.caller.identity]

    def forget_expired(self, now: float) -> None:
        """Those are gone whose time is over, and before which there is none with more."""
        while self._ending:
            key = next(iter(self._ending))
            if self._records[key].expires_at > now:
                return
            self.remove(key)

    def count_issued(self, identity: str | None = None) -> int:
        """How many are issued, to one caller or to all."""
        return self._issued.total() if identity is None else self._issued[identity]
