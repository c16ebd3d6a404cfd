"""Answers a client that asks to go on with a session that had another connection."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Final

from cnerta.streamer.serving.client import Client
from cnerta.streamer.serving.parking import ParkingLot, ResumeResult
from cnerta.streamer.session.outgoing.resumption import lost_history
from cnerta.streamer.wire.errors import ErrorName, ProtocolError

__all__ = ["answer_resume_request"]

_SUPERSEDED: Final = ProtocolError(
    ErrorName.SUPERSEDED, "expected one connection for a session, got a newer one"
)


def answer_resume_request(
    client: Client,
    clients: Collection[Client],
    lot: ParkingLot,
    on_result: Callable[[ResumeResult], None],
) -> None:
    """Give a client the session that it asks for, or a new one; nothing if it asks for none.

    Args:
        client: Whoever may ask.
        clients: All that are connected.
        lot: Where the sessions are known.
        on_result: Is told what became of it.
    """
    request = client.session.protocol.resume_request
    if request is None:
        return
    entry = lot.find(request.token, client.entry.identity)
    if entry is None:
        client.session.start_anew(lost_history("unknown_token"))
        on_result("unknown_token")
        return
    try:
        lost = entry.session.protocol.loss(request.last_seq)
    except ProtocolError as error:
        client.session.fail(error)
        on_result("invalid_last_seq")
        return
    before = next((c for c in clients if c.entry is entry and not c.is_superseded), None)
    if before is not None:
        before.dismiss(_SUPERSEDED)
    if lost is not None:
        lot.give_up(entry, "history_too_short")
        client.session.start_anew(lost)
        on_result("history_too_short")
        return
    lot.unpark(entry)
    lot.leave(client.entry)
    client.take_over(entry)
    entry.session.resume(request.last_seq)
    on_result("recovered")
