"""What the door counts: of one process, or of all that share its port.

A process that serves alone counts in its own memory (:class:`OwnLedger`). Several that share a port
count in one place (:class:`cnerta.streamer.access.shared_ledger.SharedLedger`), so that what an
address or a token may take holds for all of them together.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from contextlib import AbstractContextManager
from typing import Protocol

from cnerta.streamer.access.callers import Caller
from cnerta.streamer.access.quotas import Quotas
from cnerta.streamer.access.session_tokens import OwnTokenRecords, TokenRecords
from cnerta.streamer.wire.errors import ProtocolError

__all__ = ["CallerQuotas", "Ledger", "OwnLedger", "OwnTally", "Tally"]


class Tally(Protocol):
    """Counts by name."""

    def count(self, key: str) -> int:
        """How many there are of a name."""
        ...

    def add(self, key: str, by: int) -> None:
        """There are so many more, or fewer."""
        ...


class CallerQuotas(Protocol):
    """See :class:`cnerta.streamer.access.quotas.Quotas`, as for all that follows."""

    def open(self, caller: Caller, now: float) -> None:
        """A session of the caller begins."""
        ...

    def close(self, caller: Caller) -> None:
        """It ends."""
        ...

    def take(self, caller: Caller, now: float, *, audio_s: float = 0.0, size: int = 0) -> None:
        """The caller sent something."""
        ...

    def refusal(self, caller: Caller) -> ProtocolError | None:
        """Why the caller may not open one more session, if so."""
        ...

    def excess(self, caller: Caller, now: float) -> ProtocolError | None:
        """What of its hour the caller has used up, if so."""
        ...


class Ledger(Protocol):
    """Everything that is counted."""

    @property
    def places(self) -> Tally:
        """Connections that were taken; all have the name ``""``."""
        ...

    @property
    def addresses(self) -> Tally:
        """The same by the group of their address."""
        ...

    @property
    def waiting(self) -> Tally:
        """Those of them that have not started a session."""
        ...

    @property
    def quotas(self) -> CallerQuotas:
        """What callers have taken."""
        ...

    @property
    def token_records(self) -> TokenRecords:
        """Tokens for one session."""
        ...

    def exclusively(self) -> AbstractContextManager[None]:
        """As long as it lasts nobody else counts: for decisions that go by what is counted."""
        ...


class OwnTally:
    """Counts in this process."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    def count(self, key: str) -> int:
        """How many there are of a name."""
        return self._counts[key]

    def add(self, key: str, by: int) -> None:
        """There are so many more, or fewer."""
        self._counts[key] += by
        if not self._counts[key]:
            del self._counts[key]


class OwnLedger:
    """Counts in this process.

    Attributes:
        places: See :class:`Ledger`, as for all.
        addresses: By address.
        waiting: By address.
        quotas: By caller.
        token_records: Tokens for one session.
    """

    def __init__(self) -> None:
        self.places = OwnTally()
        self.addresses = OwnTally()
        self.waiting = OwnTally()
        self.quotas = Quotas()
        self.token_records = OwnTokenRecords()

    def exclusively(self) -> AbstractContextManager[None]:
        """Nobody else is there."""
        return contextlib.nullcontext()
