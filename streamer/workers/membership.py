"""A worker's view of all workers; see :class:`cnerta.streamer.serving.sharing.group.Group`."""

from __future__ import annotations

import hashlib
import os
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from cnerta.streamer.access.shared_ledger import Member, SharedLedger
from cnerta.streamer.serving.sharing.handed import Handed
from cnerta.streamer.workers.channel import Channel
from cnerta.streamer.workers.messages import HandOver, Setup
from cnerta.streamer.workers.resume_tokens import ResumeTokens

__all__ = ["LEDGER_FILE", "METRICS_FOLDER", "Membership", "read_opening"]

LEDGER_FILE: Final = "ledger"
METRICS_FOLDER: Final = "metrics"


class Membership:
    """See the module.

    Attributes:
        name: Of this worker.
        size: How many share what is divided.
        ledger: Where all of them count.
        metrics_folder: Where all of them keep their metrics.
    """

    def __init__(self, name: str, setup: Setup, front: Channel, watchers: Sequence[int]) -> None:
        """Join.

        Args:
            name: Of this worker.
            setup: What all of them share.
            front: Takes what goes to the others.
            watchers: Processes that are no workers.
        """
        folder = Path(setup.folder)
        self.name = name
        self.size = setup.size
        self.ledger = SharedLedger(folder / LEDGER_FILE, name)
        self.metrics_folder = folder / METRICS_FOLDER
        self._front = front
        self._tokens = ResumeTokens(name, setup.key)
        self._watchers = watchers
        self._members: list[Member] = []

    def process_ids(self) -> Sequence[int]:
        """The processes of all of them, and those that watch over them."""
        return [*(member.pid for member in self._members), *self._watchers]

    def new_token(self) -> str:
        """A token to resume a session of this worker with."""
        return self._tokens.new()

    def has_session_of(self, token: str) -> str | None:
        """The other worker that made a token."""
        return self._tokens.other_worker(token)

    def hand_over(self, to: str, client: socket.socket, handed: Handed) -> bool:
        """Give a connection to another worker, by way of the front."""
        opening = os.memfd_create("opening") if hasattr(os, "memfd_create") else _unnamed_file()
        try:
            _write_all(opening, handed.opening)
            message = HandOver(to, handed.remote, handed.place)
            return self._front.send(message, [client.fileno(), opening])
        finally:
            os.close(opening)

    def meet(self, key: str, *, is_here: bool) -> str | None:
        """A page, or an overlay of it, has come; the first of them decides where they meet."""
        name = _digest(key)
        with self.ledger.exclusively():
            other = None if is_here else self.ledger.meetings.holder(name)
            if other is not None and other != self.name:
                return other
            self.ledger.meetings.add(name, 1)
        return None

    def part(self, key: str) -> None:
        """One of those is gone that have met here."""
        self.ledger.meetings.add(_digest(key), -1)

    def look_around(
        self, why_not_ready: str | None, why_not_healthy: str | None, now: float
    ) -> None:
        """Say how this worker is, and see how the others are."""
        self.ledger.publish(os.getpid(), why_not_ready, why_not_healthy, now)
        self._members = self.ledger.members(now)

    def why_not_ready(self, own: str | None) -> str | None:
        """Why none of them takes a session, if so."""
        if own == "full":  # which is counted for all
            return own
        others = [m.why_not_ready for m in self._members if m.name != self.name]
        return None if None in others else own

    def why_not_healthy(self, own: str | None) -> str | None:
        """Why all of them had better be started anew, if so."""
        others = [m.why_not_healthy for m in self._members if m.name != self.name]
        return None if None in others else own


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode(errors="surrogatepass")).hexdigest()


def read_opening(descriptor: int) -> bytes:
    """What another worker has written."""
    with open(descriptor, "rb") as file:
        file.seek(0)
        return file.read()


def _unnamed_file() -> int:
    import tempfile

    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
