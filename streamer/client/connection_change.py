"""What becomes of the connection to a server while a stream runs, for whoever shows it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

__all__ = ["ConnectionChange", "ConnectionState", "ConnectionWatcher"]

ConnectionState = Literal["lost", "waiting", "resumed", "restarted"]


@dataclass(frozen=True, slots=True)
class ConnectionChange:
    """Something happened to the connection.

    Attributes:
        state: ``lost``: it broke, or the server is silent. ``waiting``: an attempt failed, the next
            follows in ``retry_in_s``. ``resumed``: the session goes on where it was.
            ``restarted``: a new session goes on with what had no answer.
        server: Where, without secrets.
        detail: Why, or what follows.
        retry_in_s: How long until the next attempt, in seconds.
    """

    state: ConnectionState
    server: str
    detail: str = ""
    retry_in_s: float = 0.0

    @property
    def is_up(self) -> bool:
        """Whether there is a session."""
        return self.state in ("resumed", "restarted")

    def __str__(self) -> str:
        match self.state:
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
