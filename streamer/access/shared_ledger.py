"""What several processes count together: a small SQLite file on a file system in memory.

Every process has rows of its own, so what one held is forgotten when it dies, however it dies; sums
are of all. SQLite brings what is hard about that: locks that end with their process, and a file
that is whole at any time. A statement takes some ten microseconds, and there are a few for each
connection. What flows all the time, audio and bytes of callers with an hourly bound, is collected
and written twice a second.

Times are of the machine's monotonic clock, which all its processes share.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from cnerta.streamer.access.callers import Caller
from cnerta.streamer.access.quotas import hour_of, over_an_hour, too_many_sessions
from cnerta.streamer.access.session_tokens import TokenRecord
from cnerta.streamer.wire.errors import ProtocolError

__all__ = ["Member", "SharedLedger"]

logger = logging.getLogger(__name__)

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS counts (
    kind TEXT, name TEXT, member TEXT, n INTEGER, PRIMARY KEY (kind, name, member)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS hours (
    name TEXT, what TEXT, level REAL, at REAL, PRIMARY KEY (name, what)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS tokens (
    digest BLOB PRIMARY KEY, identity TEXT, caller BLOB, expires_at REAL, state TEXT, member TEXT
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS tokens_by_time ON tokens (expires_at);
CREATE INDEX IF NOT EXISTS tokens_by_state ON tokens (state, identity);
CREATE TABLE IF NOT EXISTS members (
    member TEXT PRIMARY KEY, pid INTEGER, at REAL, unready TEXT, unhealthy TEXT
) WITHOUT ROWID;
"""
_BUSY_S: Final = 0.25
"""How long a statement waits for another process, which takes microseconds unless it is stopped."""
_WRITE_S: Final = 0.5
_FORGET_S: Final = 7_200.0
_CLEANING_EVERY: Final = 64
_FRESH_S: Final = 5.0
_MOST_FLOWS: Final = 10_000
_AGAIN_S: Final = 60.0
"""For so long those may come back whose session was in a process that died."""


@dataclass(frozen=True, slots=True)
class Member:
    """What a process said of itself.

    Attributes:
        name: Its name.
        pid: Its number.
        why_not_ready: Why it takes no session, if so.
        why_not_healthy: Why it had better be started anew, if so.
    """

    name: str
    pid: int
    why_not_ready: str | None
    why_not_healthy: str | None


class SharedLedger:
    """What all processes count, as one of them sees it; of one thread.

    Attributes:
        member: Name of this process, which no other has, nor had.
        places: See :class:`cnerta.streamer.access.ledger.Ledger`, as for all.
        addresses: By address.
        waiting: By address.
        meetings: Those who came to meet others, by what brings them together.
        quotas: By caller.
        token_records: Tokens for one session.
    """

    def __init__(self, path: Path, member: str) -> None:
        """Open it, and make it where there is none.

        Args:
            path: Of the file; ``-wal`` and ``-shm`` lie beside it.
            member: Name of this process.
        """
        self.member = member
        self._database = sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None)
        # Nothing of it has to outlive the machine.
        self._database.execute("PRAGMA journal_mode = WAL")
        self._database.execute("PRAGMA synchronous = OFF")
        self._database.executescript(_SCHEMA)
        self.places = _Tally(self._database, "place", member)
        self.addresses = _Tally(self._database, "address", member)
        self.waiting = _Tally(self._database, "waiting", member)
        self.meetings = _Tally(self._database, "meeting", member)
        self.quotas = _Quotas(self._database, _Tally(self._database, "caller", member))
        self.token_records = _TokenRecords(self._database, member)

    @contextlib.contextmanager
    def exclusively(self) -> Iterator[None]:
        """No other process writes as long as it lasts.

        Where one does not end, nobody waits for it: then two may take the last place.
        """
        try:
            self._database.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            logger.warning("another process holds the ledger: counting goes on without waiting")
            yield
            return
        try:
            yield
        finally:
            self._database.execute("COMMIT")

    def publish(
        self, pid: int, why_not_ready: str | None, why_not_healthy: str | None, now: float
    ) -> None:
        """Say how this process is."""
        self._database.execute(
            "INSERT OR REPLACE INTO members VALUES (?, ?, ?, ?, ?)",
            (self.member, pid, now, why_not_ready, why_not_healthy),
        )

    def members(self, now: float) -> list[Member]:
        """The processes that said lately how they are."""
        found = self._database.execute(
            "SELECT member, pid, unready, unhealthy FROM members WHERE at > ? ORDER BY member",
            (now - _FRESH_S,),
        )
        return [Member(*row) for row in found]

    def forget(self, member: str, now: float) -> None:
        """A process is gone: so is what it held.

        Tokens whose sessions it had open one more each, as it was not their clients that ended
        them.
        """
        for table in ("counts", "members"):
            self._database.execute(f"DELETE FROM {table} WHERE member = ?", (member,))
        self._database.execute(
            "UPDATE tokens SET state = 'issued', member = NULL, expires_at = max(expires_at, ?) "
            "WHERE state = 'spent' AND member = ?",
            (now + _AGAIN_S, member),
        )

    def close(self) -> None:
        """Let go of the file."""
        self._database.close()


class _Tally:
    def __init__(self, database: sqlite3.Connection, kind: str, member: str) -> None:
        self._database, self._kind, self._member = database, kind, member

    def count(self, key: str) -> int:
        """How many there are of a name, in all processes."""
        (found,) = self._database.execute(
            "SELECT coalesce(sum(n), 0) FROM counts WHERE kind = ? AND name = ?", (self._kind, key)
        ).fetchone()
        return int(found)

    def holder(self, key: str) -> str | None:
        """A process that has some of a name."""
        found = self._database.execute(
            "SELECT member FROM counts WHERE kind = ? AND name = ? AND n > 0 LIMIT 1",
            (self._kind, key),
        ).fetchone()
        return None if found is None else str(found[0])

    def add(self, key: str, by: int) -> None:
        """There are so many more, or fewer, in this process."""
        row = (self._kind, key, self._member)
        self._database.execute(
            "INSERT INTO counts VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET n = n + excluded.n",
            (*row, by),
        )
        if by < 0:
            self._database.execute(
                "DELETE FROM counts WHERE kind = ? AND name = ? AND member = ? AND n <= 0", row
            )


@dataclass(slots=True)
class _Flow:
    """What a caller takes of one kind.

    Attributes:
        unwritten: What nobody else knows of yet.
        level: Of all processes, as of ``at``.
        at: In seconds.
    """

    unwritten: float = 0.0
    level: float = 0.0
    at: float = -_FORGET_S


class _Quotas:
    """See :class:`cnerta.streamer.access.quotas.Quotas`."""

    def __init__(self, database: sqlite3.Connection, sessions: _Tally) -> None:
        self._database = database
        self._sessions = sessions
        self._flows: dict[tuple[str, str], _Flow] = {}

    def open(self, caller: Caller, now: float) -> None:
        """A session of the caller begins."""
        self._sessions.add(caller.identity, 1)
        if not secrets.randbelow(_CLEANING_EVERY):
            self._database.execute("DELETE FROM hours WHERE at < ?", (now - _FORGET_S,))

    def close(self, caller: Caller) -> None:
        """It ends."""
        self._sessions.add(caller.identity, -1)

    def take(self, caller: Caller, now: float, *, audio_s: float = 0.0, size: int = 0) -> None:
        """The caller sent so much audio, and frames of so many bytes."""
        amounts = {"audio_s": audio_s, "megabytes": size / 1e6}
        for what, (_, capacity) in hour_of(caller.quota).items():
            flow = self._flows.setdefault((caller.identity, what), _Flow())
            flow.unwritten += amounts[what]
            self._write(caller.identity, what, capacity, now)

    def refusal(self, caller: Caller) -> ProtocolError | None:
        """Why the caller may not open one more session, if so."""
        most = caller.quota.sessions
        if most is None or self._sessions.count(caller.identity) < most:
            return None
        return too_many_sessions(most)

    def excess(self, caller: Caller, now: float) -> ProtocolError | None:
        """What of its hour the caller has used up, if so."""
        for what, (shown, capacity) in hour_of(caller.quota).items():
            level = self._write(caller.identity, what, capacity, now)
            over = over_an_hour(shown, level, capacity)
            if over is not None:
                return over
        return None

    def _write(self, identity: str, what: str, capacity: float, now: float) -> float:
        """Have the others know, from time to time. Returns the level of all."""
        flow = self._flows.setdefault((identity, what), _Flow())
        fallen = capacity * (now - flow.at) / 3_600
        if now - flow.at < _WRITE_S:
            return max(0.0, flow.level - fallen) + flow.unwritten
        (level,) = self._database.execute(
            "INSERT INTO hours VALUES (:name, :what, :amount, :now) ON CONFLICT DO UPDATE SET "
            "level = max(0, level - :capacity * (:now - at) / 3600) + :amount, at = :now "
            "RETURNING level",
            {
                "name": identity,
                "what": what,
                "amount": flow.unwritten,
                "now": now,
                "capacity": capacity,
            },
        ).fetchone()
        if len(self._flows) > _MOST_FLOWS:  # signed tokens can name any number of callers
            self._flows = {k: f for k, f in self._flows.items() if now - f.at < _WRITE_S}
        flow.unwritten, flow.level, flow.at = 0.0, level, now
        self._flows[identity, what] = flow
        return float(level)


class _TokenRecords:
    """See :class:`cnerta.streamer.access.session_tokens.TokenRecords`, as for all that follows."""

    def __init__(self, database: sqlite3.Connection, member: str) -> None:
        self._database, self._member = database, member

    def __len__(self) -> int:
        return self._count("1 = 1")

    def get(self, key: bytes) -> TokenRecord | None:
        """What is known of a token."""
        found = self._database.execute(
            "SELECT caller, expires_at, state FROM tokens WHERE digest = ?", (key,)
        ).fetchone()
        if found is None:
            return None
        caller, expires_at, state = found
        return TokenRecord(msgspec.json.decode(caller, type=Caller), expires_at, state)

    def put(self, key: bytes, record: TokenRecord) -> None:
        """This is known of a token now; if it is spent, its session is in this process."""
        self._database.execute(
            "INSERT OR REPLACE INTO tokens VALUES (?, ?, ?, ?, ?, ?)",
            (
                key,
                record.caller.identity,
                msgspec.json.encode(record.caller),
                record.expires_at,
                record.state,
                self._member if record.state == "spent" else None,
            ),
        )

    def remove(self, key: bytes) -> None:
        """Nothing is known of it any more."""
        self._database.execute("DELETE FROM tokens WHERE digest = ?", (key,))

    def forget_expired(self, now: float) -> None:
        """Those are gone that are not spent and whose time is over."""
        self._database.execute(
            "DELETE FROM tokens WHERE expires_at <= ? AND state <> 'spent'", (now,)
        )

    def count_issued(self, identity: str | None = None) -> int:
        """How many are issued, to one caller or to all."""
        if identity is None:
            return self._count("state = 'issued'")
        return self._count("state = 'issued' AND identity = ?", identity)

    def _count(self, condition: str, *values: Any) -> int:
        (found,) = self._database.execute(
            f"SELECT count(*) FROM tokens WHERE {condition}", values
        ).fetchone()
        return int(found)
