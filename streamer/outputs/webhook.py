"""Events to whoever wants them: HTTP POST requests that never hold up the session.

What has come since the last request goes out together, as one JSON object::

    {"session": "…", "delivery": 7, "lost": 0, "events": [{"type": "utterance.final", …}, …]}

A delivery is repeated with the same number until it is answered with 2xx (which is why a receiver
passes over a number that it has seen), or refused for good, or tried too often; ``lost`` counts the
events that never arrived. Requests are made by a thread of their own, since a
server may hold one for as long as it likes; the queue is bounded.
"""

from __future__ import annotations

import asyncio
import collections
import logging
import random
import threading
import urllib.error
import urllib.request
from dataclasses import dataclass
from http.client import HTTPException
from types import TracebackType
from typing import IO, Any, Final, Self

import msgspec

from cnerta.streamer.errors import OutputError
from cnerta.streamer.outputs.presenter import PresenterBase
from cnerta.streamer.wire.addresses import exposes_secret, is_loopback, parse_address, redact
from cnerta.streamer.wire.codec import encode
from cnerta.streamer.wire.messages import (
    EntityRetract,
    EntityUpsert,
    ServerMessage,
    SessionReady,
    SessionSummary,
    UtteranceFinal,
)

__all__ = ["TOKEN_VARIABLE", "RetryPolicy", "Webhook"]

log = logging.getLogger(__name__)

TOKEN_VARIABLE: Final = "CNERTA_WEBHOOK_TOKEN"
EVENTS_PER_DELIVERY: Final = 100

Event = EntityUpsert | EntityRetract | UtteranceFinal | SessionSummary


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How long to wait for a receiver, and how often.

    Attributes:
        timeout_s: For each step of a request.
        attempts: After so many a delivery is given up.
        first_pause_s: Before the second attempt; doubled before each further one.
        longest_pause_s: Upper bound of that, also of what the receiver asks for (Retry-After).
        queue: How many events may wait; then the oldest that is not final is lost.
        drain_s: How long to go on after the session has ended.
    """

    timeout_s: float = 5.0
    attempts: int = 8
    first_pause_s: float = 0.5
    longest_pause_s: float = 30.0
    queue: int = 1_000
    drain_s: float = 10.0


DEFAULT_POLICY: Final = RetryPolicy()


class Webhook(PresenterBase):
    """A `Presenter` that sends entity events, finals and the summary to a URL.

    Args:
        url: ``http://…`` or ``https://…``.
        token: Sent as ``Authorization: Bearer …``, if there is one.
        policy: How long to wait and how often to try.

    Raises:
        OutputError: The URL is none, has a user in it, or would take a token in clear text.
    """

    def __init__(self, url: str, *, token: str = "", policy: RetryPolicy = DEFAULT_POLICY) -> None:
        address = parse_address(url, ("http", "https"))
        if address is None or not (url.isascii() and url.isprintable()) or " " in url:
            raise OutputError("expected a webhook such as https://host/path, got something else")
        if address.username is not None or address.password is not None:
            raise OutputError(
                f"expected a webhook without a password in it, got one: set {TOKEN_VARIABLE}"
            )
        # For messages: a path may be as secret as a password.
        self._place = f"{address.scheme}://{address.netloc}/…"
        if exposes_secret(address, sends_key=bool(token)):
            raise OutputError(
                f"expected https:// for a webhook that is sent a token, got {self._place}: it "
                "would cross the network in clear text"
            )
        self._url = url
        self._headers = {"Content-Type": "application/json", "User-Agent": "cnerta-stream"}
        if token:
            self._headers["Authorization"] = f"Bearer {token}"
        handlers: list[Any] = [_NoRedirect()]
        if is_loopback(address.hostname or ""):
            handlers.append(urllib.request.ProxyHandler({}))
        self._opener = urllib.request.build_opener(*handlers)
        self._policy = policy
        self._session = ""
        self._waiting: collections.deque[Event] = collections.deque()
        self._news = threading.Condition()
        self._ending = False
        self._stopped = threading.Event()
        self._lost = self._on_the_way = 0
        self._thread = threading.Thread(target=self._run, name="webhook", daemon=True)

    def on_message(self, message: ServerMessage) -> None:
        """Have the event sent."""
        match message:
            case SessionReady():
                self._session = message.session
            case EntityUpsert() | EntityRetract() | UtteranceFinal() | SessionSummary():
                with self._news:
                    self._waiting.append(message)
                    if len(self._waiting) > self._policy.queue:
                        self._lose_one()
                    self._news.notify()
            case _:
                pass

    def _lose_one(self) -> None:
        if not self._lost:
            log.warning("%s does not keep up: events are lost", self._place)
        self._lost += 1
        for index, event in enumerate(self._waiting):
            if isinstance(event, EntityUpsert | EntityRetract):
                del self._waiting[index]
                return
        self._waiting.popleft()

    async def drain(self) -> None:
        """Go on sending until nothing waits, but not for ever.

        Raises:
            OutputError: Events were lost.
        """
        with self._news:
            self._ending = True
            self._news.notify()
        await asyncio.to_thread(self._thread.join, self._policy.drain_s)
        with self._news:
            lost = self._lost + len(self._waiting) + self._on_the_way
        if lost:
            raise OutputError(f"expected {self._place} to take every event, got {lost} left over")

    def _run(self) -> None:
        delivery = 0
        while events := self._next_events():
            delivery += 1
            body = _Delivery(
                session=self._session,
                delivery=delivery,
                lost=self._lost,
                events=[msgspec.Raw(encode(event)) for event in events],
            )
            delivered = self._deliver(msgspec.json.encode(body))
            with self._news:
                self._on_the_way = 0
                if not delivered:
                    self._lost += len(events)

    def _next_events(self) -> list[Event]:
        """Wait for events; none at the end."""
        with self._news:
            while not self._waiting and not self._ending:
                self._news.wait()
            count = min(len(self._waiting), EVENTS_PER_DELIVERY)
            self._on_the_way = count
            return [self._waiting.popleft() for _ in range(count)]

    def _deliver(self, body: bytes) -> bool:
        """Send until it is taken; whether it was."""
        policy = self._policy
        pause_s = policy.first_pause_s
        for attempt in range(1, policy.attempts + 1):
            refusal = self._post(body)
            if refusal is None:
                return True
            log.log(
                logging.DEBUG if 1 < attempt < policy.attempts else logging.WARNING,
                "expected %s to take events, got: %s (attempt %d of %d)",
                self._place,
                refusal.reason,
                attempt,
                policy.attempts,
            )
            if not refusal.retryable:
                return False
            # Not all clients at the same moment, where the receiver serves several.
            wait_s = max(pause_s * random.uniform(0.8, 1.2), refusal.retry_after_s)
            if attempt < policy.attempts and self._stopped.wait(
                min(wait_s, policy.longest_pause_s)
            ):
                return False
            pause_s *= 2
        return False

    def _post(self, body: bytes) -> _Refusal | None:
        """Send one request; None if it was taken."""
        request = urllib.request.Request(self._url, body, self._headers, method="POST")
        try:
            with self._opener.open(request, timeout=self._policy.timeout_s):
                return None
        except urllib.error.HTTPError as error:
            with error:
                retryable = error.code >= 500 or error.code in (408, 425, 429)
                wanted = error.headers.get("Retry-After", "")
                after_s = float(wanted) if wanted.isdecimal() else 0.0
                return _Refusal(f"{error.code} {error.reason}", retryable, after_s)
        except urllib.error.URLError as error:
            return _Refusal(redact(str(error.reason)), True)
        except (OSError, HTTPException) as error:
            return _Refusal(redact(str(error)) or type(error).__name__, True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stopped.set()
        with self._news:
            self._ending = True
            self._waiting.clear()
            self._news.notify()


class _Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """Body of a request."""

    session: str
    delivery: int
    lost: int
    events: list[msgspec.Raw]


@dataclass(frozen=True, slots=True)
class _Refusal:
    reason: str
    retryable: bool
    retry_after_s: float = 0.0


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirected POST would arrive as a GET without its body: rather an error."""

    def redirect_request(
        self, req: Any, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> None:
        """Follow none."""
