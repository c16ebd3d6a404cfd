"""What becomes of the connection to a server while a stream runs, for whoever shows it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

__all__ = ["ConnectionChange", "ConnectionState", "ConnectionWatcher"]

ConnectionState = Literal["silent", "heard", "lost", "waiting", "resumed", "restarted"]


@dataclass(frozen=True, slots=True)
class ConnectionChange:
    """Something happened to the connection.

    Attributes:
        state: ``silent``: nothing comes from the server, not even an answer to a ping; it may be
            over soon. ``heard``: it is. ``lost``: the connection broke, or the server was silent
            for too long. ``waiting``: an attempt failed, the next follows in ``retry_in_s``.
            ``resumed``: the session goes on where it was. ``restarted``: a new session goes on with
            what had no answer.
        server: Where, without secrets.
        detail: Why, or what follows.
        retry_in_s: How long until the next attempt, in seconds.
        is_recorded: Whether the server records the session that goes on.
    """

    state: ConnectionState
    server: str
    detail: str = ""
    retry_in_s: float = 0.0
    is_recorded: bool = False

    @property
    def is_up(self) -> bool:
        """Whether there is a session that answers."""
        return self.state in ("heard", "resumed", "restarted")

    def __str__(self) -> str:
        match self.state:
            case "silent":
                return f"no answer from {self.server} {self.detail}"
            case "heard":
                return f"{self.server} answers again"
            case "lost":
                return f"connection lost: {self.detail}"
            case "waiting":
                return f"no connection: {self.detail}; next attempt in {self.retry_in_s:.1f} s"
            case "resumed":
                return f"connected to {self.server} again: {self.detail}"
            case "restarted":
                return f"a new session at {self.server}: {self.detail}"


class ConnectionWatcher(Protocol):
    """Is told what becomes of a connection."""

    def on_connection(self, change: ConnectionChange) -> None:
        """Something happened to it."""
        ...
