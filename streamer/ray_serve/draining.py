"""When Ray drains a replica: it takes no new requests there, and waits for the end of all.

Streams do not end by themselves, so they have to be told. Ray tells a replica's own code of a drain
only when it is over; up to 2.60 there is no public sign of its beginning. What Ray itself keeps is
looked at, with nothing done where it is not there: then streams end with the replica, without a
word, and their clients go on elsewhere as after any fault.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["drain_sign"]


def drain_sign() -> Callable[[], bool] | None:
    """What tells whether the replica of this process is being drained; None: nothing does."""
    from ray._private import worker

    actors: dict[Any, Any] = getattr(worker.global_worker, "actors", {})
    for actor in actors.values():
        replica: Any = getattr(actor, "_replica_impl", None)
        if hasattr(replica, "_shutting_down"):
            return lambda: bool(replica._shutting_down)
    return None
