"""What the processes of one server tell each other, over channels of this machine."""

from __future__ import annotations

from typing import Literal

import msgspec

from cnerta.streamer.access.admission import Place

__all__ = [
    "Adopt",
    "Died",
    "Ended",
    "Fork",
    "HandOver",
    "Loaded",
    "Message",
    "Retire",
    "Setup",
    "Status",
    "Stop",
    "TakeOver",
]


class _Message(msgspec.Struct, frozen=True, tag=True):
    """One message."""


# --- the front and its nursery --------------------------------------------------------------------


class Setup(_Message, frozen=True):
    """To a nursery: what all processes of the server share.

    Attributes:
        folder: Where the ledger and the metrics lie.
        key: Signs the tokens with which sessions are resumed.
        size: How many processes share what is divided.
        front: The front's process.
    """

    folder: str
    key: bytes
    size: int
    front: int


class Loaded(_Message, frozen=True):
    """From a nursery: it is ready to fork.

    Attributes:
        bundle: Name of the model.
        device: What it runs on; empty: each worker finds that out by itself.
    """

    bundle: str
    device: str


class Fork(_Message, frozen=True):
    """To a nursery: another worker; with the worker's end of its channel.

    Attributes:
        name: No other worker has it, nor had.
        place: Number of its metrics; no other worker has it at the same time.
    """

    name: str
    place: int


class Died(_Message, frozen=True):
    """From a nursery: a worker has ended.

    Attributes:
        name: Which.
        status: Its exit status; a signal's number below zero.
    """

    name: str
    status: int


# --- the front and a worker -----------------------------------------------------------------------


class Status(_Message, frozen=True):
    """From a worker, ten times a second at most and once a second at least.

    Attributes:
        pid: Its process.
        taken: Connections that it was handed so far.
        open: Connections that are open, those without a handshake too.
        sessions: Sessions that it still has, with or without a connection.
        why_not_ready: Why it takes no session, if so.
        why_not_healthy: Why it is of no use, if so.
    """

    pid: int
    taken: int
    open: int
    sessions: int
    why_not_ready: str | None = None
    why_not_healthy: str | None = None


class Ended(_Message, frozen=True):
    """From a worker, its last word.

    Attributes:
        lost_finals: Answers to finals that it had to leave behind.
    """

    lost_finals: int


class Adopt(_Message, frozen=True):
    """To a worker: a connection that has just come; with its socket.

    Attributes:
        port: What it came to.
    """

    port: Literal["public", "operators"]


class HandOver(_Message, frozen=True):
    """From a worker: a connection whose session another one has.

    With its socket, and a file of the bytes that have come so far.

    Attributes:
        to: Name of that worker.
        remote: Address of the other end.
        place: What it was taken for.
    """

    to: str
    remote: str
    place: Place


class TakeOver(_Message, frozen=True):
    """To a worker: such a connection; with the same.

    Attributes:
        remote: Address of the other end.
        place: What it was taken for.
    """

    remote: str
    place: Place


class Retire(_Message, frozen=True):
    """To a worker: end when the sessions that are there have ended."""


class Stop(_Message, frozen=True):
    """To a worker: end, and send everybody away."""


_OfNurseries = Setup | Loaded | Fork | Died
_OfWorkers = Status | Ended | Adopt | HandOver | TakeOver | Retire | Stop
Message = _OfNurseries | _OfWorkers
