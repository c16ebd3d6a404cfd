"""Sessions that outlive their connections: who may take which one over, and for how long.

A session is known by the digest of its token and belongs to the user who opened it. As long as its
connection stands it is only known; when that breaks it is parked: the engine goes on with what it
owes, and its client has some time to come back. What is parked is bounded in number and bytes. Over
the bound the owner with the most parked bytes loses its oldest, so nobody's sessions are crowded
out by somebody else's.

No I/O; all methods are for the event loop's thread, and the time is an argument.
"""

from __future__ import annotations

import hashlib
import logging
import secrets
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final, Literal, Protocol

from cnerta.streamer.serving.flicker import FlickerWatch
from cnerta.streamer.serving.hosted_session import HostedSession
from cnerta.streamer.session.outgoing.resumption import ResumeTerms

__all__ = [
    "DropReason",
    "ParkedSession",
    "ParkingLot",
    "ParkingObserver",
    "ParkingOptions",
    "ResumeResult",
]

logger = logging.getLogger(__name__)

_TOKEN_BYTES: Final = 24
DropReason = Literal["expired", "no_room", "failed", "history_too_short", "shutdown"]
ResumeResult = Literal["recovered", "unknown_token", "history_too_short", "invalid_last_seq"]


@dataclass(frozen=True, slots=True)
class ParkingOptions:
    """How sessions wait for a client that comes back.

    Attributes:
        ttl_s: For how long; 0: no session can be resumed.
        most: How many may wait at once.
        most_bytes: What they may hold together, about.
    """

    ttl_s: int = 60
    most: int = 256
    most_bytes: int = 256 * 2**20


class ParkingObserver(Protocol):
    """Is told what becomes of sessions; for metrics."""

    def on_unparked(self, reason: DropReason, lost_finals: int) -> None:
        """A session was given up; so many answers to finals had not left."""
        ...


@dataclass(eq=False, slots=True)
class ParkedSession:
    """A session that may be resumed, whether it has a connection or is parked.

    Attributes:
        session: The session.
        identity: The user it belongs to.
        owner: Whose share of the room it takes.
        digest: Of its token; empty: it cannot be resumed.
        opened_by: Digest of the token for one session that it was opened with; empty: it was not.
        parked_at: When its connection broke, in seconds; None: it has one.
        held_bytes: What it holds, as of then.
        counted_audio_ms: Audio that is in the metrics.
        counted_drops: Dropped interims that are in the metrics.
        flicker: Follows what its client is shown.
    """

    session: HostedSession
    identity: str
    owner: str
    digest: bytes
    opened_by: bytes = b""
    parked_at: float | None = None
    held_bytes: int = 0
    counted_audio_ms: int = 0
    counted_drops: int = 0
    flicker: FlickerWatch = field(default_factory=FlickerWatch)


class ParkingLot:
    """All sessions of one server that can be resumed.

    Attributes:
        epoch: Names this server's run: no session outlives it.
    """

    def __init__(
        self,
        options: ParkingOptions,
        observer: ParkingObserver,
        new_token: Callable[[], str] | None = None,
        end_token: Callable[[bytes], None] = lambda opened_by: None,
    ) -> None:
        """Begin with none.

        Args:
            options: How sessions wait.
            observer: Is told what becomes of them.
            new_token: Makes secret tokens; None: plain ones.
            end_token: Is told of the token for one session whose session is over.
        """
        self._new_token = new_token or _plain_token
        self._end_token = end_token
        self.epoch = secrets.token_hex(8)
        self._options = options
        self._observer = observer
        self._known: dict[bytes, ParkedSession] = {}
        # Those without a connection, the oldest first.
        self._parked: dict[ParkedSession, None] = {}

    def __len__(self) -> int:
        """How many are parked."""
        return len(self._parked)

    def __iter__(self) -> Iterator[ParkedSession]:
        """Those that are parked, the oldest first."""
        return iter(tuple(self._parked))

    @property
    def held_bytes(self) -> int:
        """What the parked sessions hold together, about."""
        return sum(entry.held_bytes for entry in self._parked)

    def enter(
        self, session: HostedSession, identity: str, owner: str, *, may_resume: bool = True
    ) -> ParkedSession:
        """A session begins: give it a token, if sessions can be resumed here.

        Args:
            session: Of which nothing was received yet.
            identity: The user it belongs to; empty: whoever has the token.
            owner: Whose share of the room it takes, such as the user or the client's address.
            may_resume: Whether its client knows how to.
        """
        if not (self._options.ttl_s and may_resume):
            return ParkedSession(session, identity, owner, b"")
        token = self._new_token()
        session.protocol.offer_resume(ResumeTerms(token, self._options.ttl_s, self.epoch))
        entry = ParkedSession(session, identity, owner, _digest(token))
        self._known[entry.digest] = entry
        return entry

    def find(self, token: str, identity: str) -> ParkedSession | None:
        """The session of a token, if it is this user's and can go on."""
        # The digest is looked up, not the token: how long that takes tells nothing of any token.
        entry = self._known.get(_digest(token))
        if entry is None or not secrets.compare_digest(entry.identity.encode(), identity.encode()):
            return None
        return entry if entry.session.protocol.is_resumable else None

    def park(self, entry: ParkedSession, now: float) -> None:
        """A session's connection is gone; what cannot be resumed is given up."""
        if not entry.session.protocol.is_resumable:
            self.leave(entry)
            return
        entry.session.park()
        entry.parked_at, entry.held_bytes = now, entry.session.protocol.held_bytes
        self._parked[entry] = None
        while self._is_full:
            self._drop(self._victim(), "no_room")

    def unpark(self, entry: ParkedSession) -> None:
        """A session has a connection again."""
        entry.parked_at = None
        self._parked.pop(entry, None)

    def leave(self, entry: ParkedSession) -> None:
        """A session has ended, and nobody will ask for it again."""
        self._forget(entry)
        if entry.session.protocol.session is not None:  # else the token goes on without it
            self.reopen(entry, b"")
        entry.session.disconnect()

    def reopen(self, entry: ParkedSession, opened_by: bytes) -> None:
        """Another token for one session stands for a session; the one before is of no use more.

        Args:
            entry: The session.
            opened_by: Digest of the token; empty: there is none.
        """
        before, entry.opened_by = entry.opened_by, opened_by
        if before:
            self._end_token(before)

    def give_up(self, entry: ParkedSession, reason: DropReason) -> int:
        """End a session that may still owe something.

        Returns:
            How many answers to finals had not left.
        """
        return self._drop(entry, reason)

    def tick(self, now: float) -> None:
        """Let time pass: sessions that have waited too long, or have failed, are given up."""
        for entry in self:
            assert entry.parked_at is not None, "expected one that is parked"
            if not entry.session.protocol.is_resumable:
                self._drop(entry, "failed")
            elif now - entry.parked_at > self._options.ttl_s:
                self._drop(entry, "expired")

    @property
    def _is_full(self) -> bool:
        options = self._options
        return len(self._parked) > options.most or self.held_bytes > options.most_bytes

    def _victim(self) -> ParkedSession:
        """The oldest session of the owner who holds most."""
        held: Counter[str] = Counter()
        for entry in self._parked:
            held[entry.owner] += 1 + entry.held_bytes
        owner = held.most_common(1)[0][0]
        return next(entry for entry in self._parked if entry.owner == owner)

    def _drop(self, entry: ParkedSession, reason: DropReason) -> int:
        protocol = entry.session.protocol
        lost = len(protocol.unsent_finals)
        self.leave(entry)
        self._observer.on_unparked(reason, lost)
        logger.log(
            logging.WARNING if lost else logging.INFO,
            "session %s is given up (%s) with %d final answers that had not left",
            protocol.session_id,
            reason,
            lost,
            extra={
                "fields": {
                    "event": "session.given_up",
                    "session": protocol.session_id,
                    "reason": reason,
                    "lost_finals": lost,
                }
            },
        )
        return lost

    def _forget(self, entry: ParkedSession) -> None:
        self._parked.pop(entry, None)
        self._known.pop(entry.digest, None)


def _plain_token() -> str:
    return secrets.token_urlsafe(_TOKEN_BYTES)


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode(errors="surrogatepass")).digest()
