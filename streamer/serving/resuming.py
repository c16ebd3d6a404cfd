"""Answers a client that asks to go on with a session that had another connection."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Final

from cnerta.streamer.serving.client import Client
from cnerta.streamer.serving.parking import ParkedSession, ParkingLot, ResumeResult
from cnerta.streamer.session.outgoing.resumption import lost_history
from cnerta.streamer.wire.errors import ErrorName, ProtocolError

__all__ = ["answer_resume_request"]

_SUPERSEDED: Final = ProtocolError(
    ErrorName.SUPERSEDED, "expected one connection for a session, got a newer one"
)
_NOT_ITS_OWN: Final = ProtocolError(
    ErrorName.NOT_AUTHORISED,
    "expected the session that this token has opened, which is over, got another",
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
    if not _may_have(client, entry):
        client.session.fail(_NOT_ITS_OWN)
        on_result("unknown_token")
        return
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
    opened_by = client.entry.opened_by or entry.opened_by
    if lost is not None:
        _name_opener(lot, entry, client.entry, opened_by)
        lot.give_up(entry, "history_too_short")
        client.session.start_anew(lost)
        on_result("history_too_short")
        return
    lot.unpark(entry)
    _name_opener(lot, client.entry, entry, opened_by)
    lot.leave(client.entry)
    client.take_over(entry)
    entry.session.resume(request.last_seq)
    on_result("recovered")


def _may_have(client: Client, entry: ParkedSession | None) -> bool:
    """Whether a client may have a session, as far as its token for one session is concerned."""
    place = client.account.place
    if place is None or place.token is None or not place.comes_back:
        return True
    return entry is not None and entry.opened_by == place.token.key


def _name_opener(
    lot: ParkingLot, left: ParkedSession, kept: ParkedSession, opened_by: bytes
) -> None:
    """Of two sessions one goes on: the newest token for one session stands for it alone."""
    if left.opened_by == opened_by:
        left.opened_by = b""
    if kept.opened_by != opened_by:
        lot.reopen(kept, opened_by)
