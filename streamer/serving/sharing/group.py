"""What a server is told that shares its port with others, each in a process of its own."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from cnerta.streamer.access.ledger import Ledger
from cnerta.streamer.serving.sharing.handed import Handed

__all__ = ["Group"]


class Group(Protocol):
    """All servers of one port, as one of them sees them."""

    @property
    def size(self) -> int:
        """How many share what is divided: memory, places for parked sessions."""
        ...

    @property
    def ledger(self) -> Ledger:
        """Where all of them count."""
        ...

    @property
    def metrics_folder(self) -> Path:
        """Where all of them keep their metrics."""
        ...

    def process_ids(self) -> Sequence[int]:
        """The processes of all of them, and those that watch over them."""
        ...

    def new_token(self) -> str:
        """A token to resume a session of this server with."""
        ...

    def has_session_of(self, token: str) -> str | None:
        """The other server that made a token; None: this one, or none."""
        ...

    def hand_over(self, to: str, client: socket.socket, handed: Handed) -> bool:
        """Give a connection to another server. Returns whether that can be tried."""
        ...

    def meet(self, key: str, *, is_here: bool) -> str | None:
        """A page, or an overlay of it, has come.

        Args:
            key: What brings them together.
            is_here: Another server has said that the others are here.

        Returns:
            The other server where they are; None: here, and :meth:`part` has to follow.
        """
        ...

    def part(self, key: str) -> None:
        """One of those is gone that have met here."""
        ...

    def why_not_ready(self, own: str | None) -> str | None:
        """Why none of them takes a session, if so.

        Args:
            own: Why this one does not.
        """
        ...

    def why_not_healthy(self, own: str | None) -> str | None:
        """Why all of them had better be started anew, if so."""
        ...
