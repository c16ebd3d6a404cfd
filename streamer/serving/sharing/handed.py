"""A connection that one process hands to another: what has come, and who it is."""

from __future__ import annotations

from dataclasses import dataclass

from cnerta.streamer.access.admission import Place

__all__ = ["Handed"]


@dataclass(frozen=True, slots=True)
class Handed:
    """What the other process has to know, beside the socket.

    Attributes:
        opening: Every byte that has come so far, from the request's first on. The request was
            answered already.
        remote: Address of the other end.
        place: What it was taken for there.
    """

    opening: bytes
    remote: str
    place: Place
