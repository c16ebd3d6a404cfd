"""Events to whoever wants them: HTTP POST requests that never hold up the session.

What has come since the last request goes out together, as one JSON object::

    {"session": "…", "delivery": 7, "lost": 0, "events": [{"type": "utterance.final", …}, …]}

A delivery is repeated with the same number until it is answered with 2xx (which is why a receiver
passes over a number that it has seen), or refused for good, or tried too often; ``lost`` counts the
events that never arrived.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from cnerta.streamer.outputs.delivery_queue import DeliveryQueue
from cnerta.streamer.outputs.http_receiver import DEFAULT_POLICY, HttpReceiver, RetryPolicy
from cnerta.streamer.outputs.queued_output import QueuedOutput
from cnerta.streamer.wire.codec import encode
from cnerta.streamer.wire.messages import (
    EntityRetract,
    EntityUpsert,
    ServerMessage,
    SessionReady,
    SessionSummary,
    UtteranceFinal,
)

__all__ = ["TOKEN_VARIABLE", "Webhook"]

TOKEN_VARIABLE: Final = "CNERTA_WEBHOOK_TOKEN"
EVENTS_PER_DELIVERY: Final = 100

Event = EntityUpsert | EntityRetract | UtteranceFinal | SessionSummary


class Webhook(QueuedOutput[Event]):
    """A `Presenter` that sends entity events, finals and the summary to a URL.

    Args:
        url: ``http://…`` or ``https://…``.
        token: Sent as ``Authorization: Bearer …``, if there is one.
        policy: How long to wait and how often to try.

    Raises:
        OutputError: The URL is none, has a user in it, or would take a token in clear text.
    """

    def __init__(self, url: str, *, token: str = "", policy: RetryPolicy = DEFAULT_POLICY) -> None:
        self._receiver = HttpReceiver(
            url,
            name="a webhook",
            content_type="application/json",
            token=token,
            password_hint=f": set {TOKEN_VARIABLE}",
            policy=policy,
        )
        queue: DeliveryQueue[Event] = DeliveryQueue(
            self._receiver,
            self._send,
            what="event",
            at_once=EVENTS_PER_DELIVERY,
            is_needed=lambda event: not isinstance(event, EntityUpsert | EntityRetract),
        )
        super().__init__(queue)
        self._session = ""
        self._deliveries = 0

    def on_message(self, message: ServerMessage) -> None:
        """Have the event sent."""
        match message:
            case SessionReady():
                self._session = message.session
            case EntityUpsert() | EntityRetract() | UtteranceFinal() | SessionSummary():
                self._queue.put(message)
            case _:
                pass

    def _send(self, events: Sequence[Event]) -> bool:
        self._deliveries += 1
        body = _Delivery(
            session=self._session,
            delivery=self._deliveries,
            lost=self._queue.lost,
            events=[msgspec.Raw(encode(event)) for event in events],
        )
        return self._receiver.deliver(msgspec.json.encode(body))


class _Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """Body of a request."""

    session: str
    delivery: int
    lost: int
    events: list[msgspec.Raw]
