"""An address that takes POST requests, each repeated until it is taken.

Requests are made by the thread that calls: see `cnerta.streamer.outputs.delivery_queue` for one
that does so beside the session.
"""

from __future__ import annotations

import email.utils
import logging
import random
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlencode

import httpx2

from cnerta.streamer.errors import OutputError
from cnerta.streamer.wire.addresses import exposes_secret, is_loopback, parse_address, redact

__all__ = ["DEFAULT_POLICY", "HttpReceiver", "RetryPolicy", "is_temporary"]

log = logging.getLogger(__name__)

_USER_AGENT: Final = "cnerta-stream"


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How long to wait for a receiver, and how often.

    Attributes:
        timeout_s: For each step of a request.
        attempts: After so many a delivery is given up.
        first_pause_s: Before the second attempt; doubled before each further one.
        longest_pause_s: Upper bound of that, also of what the receiver asks for (Retry-After).
        queue: How many items may wait; then the oldest that is not needed most is lost.
        drain_s: How long to go on after the session has ended.
    """

    timeout_s: float = 5.0
    attempts: int = 8
    first_pause_s: float = 0.5
    longest_pause_s: float = 30.0
    queue: int = 1_000
    drain_s: float = 10.0


DEFAULT_POLICY: Final = RetryPolicy()


def is_temporary(status: int) -> bool:
    """Whether a request that was refused like this may be taken later, as HTTP has it."""
    return status >= 500 or status in (408, 425, 429)


class HttpReceiver:
    """Where requests go.

    Args:
        url: ``http://…`` or ``https://…``.
        name: What messages call it, with its article, such as ``a webhook``.
        content_type: Of the bodies.
        token: Sent as ``Authorization: Bearer …``, if there is one.
        password_hint: What to do instead of a password in the address.
        is_secret: Whether the address alone lets one send, so that it is a password itself.
        policy: How long to wait and how often to try.
        is_retryable: Whether a request that was refused with a status is sent again.

    Attributes:
        policy: As given.
        place: The receiver in messages: a path may be as secret as a password.

    Raises:
        OutputError: The URL is none, has a user in it, or would take a secret in clear text.
    """

    def __init__(
        self,
        url: str,
        *,
        name: str,
        content_type: str,
        token: str = "",
        password_hint: str = "",
        is_secret: bool = False,
        policy: RetryPolicy = DEFAULT_POLICY,
        is_retryable: Callable[[int], bool] = is_temporary,
    ) -> None:
        address = parse_address(url, ("http", "https"))
        if address is None or not (url.isascii() and url.isprintable()) or " " in url:
            raise OutputError(f"expected {name} such as https://host/path, got something else")
        if address.username is not None or address.password is not None:
            raise OutputError(f"expected {name} without a password in it, got one{password_hint}")
        self.place = f"{address.scheme}://{address.netloc}/…"
        if exposes_secret(address, sends_key=bool(token) or is_secret):
            raise OutputError(
                f"expected https:// for {name} that has a token or key, got {self.place}: it "
                "would cross the network in clear text"
            )
        self.policy = policy
        self._url = url.partition("#")[0]
        self._is_retryable = is_retryable
        self._stopped = threading.Event()
        headers = {"Content-Type": content_type, "User-Agent": _USER_AGENT}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        self._client = httpx2.Client(
            headers=headers,
            timeout=policy.timeout_s,
            # A redirected POST would arrive as a GET without its body: rather an error.
            follow_redirects=False,
            # A proxy set for the outside world cannot know this machine's own addresses.
            trust_env=not is_loopback(address.hostname or ""),
        )

    def deliver(self, body: bytes, parameters: Mapping[str, str] | None = None) -> bool:
        """Send until it is taken; whether it was.

        Args:
            body: The same at each attempt.
            parameters: Added to the query of the address; the same at each attempt.
        """
        policy = self.policy
        url = self._with(parameters or {})
        pause_s = policy.first_pause_s
        for attempt in range(1, policy.attempts + 1):
            refusal = self._post(url, body)
            if refusal is None:
                return True
            log.log(
                logging.DEBUG if 1 < attempt < policy.attempts else logging.WARNING,
                "expected %s to take what it is sent, got: %s (attempt %d of %d)",
                self.place,
                refusal.reason,
                attempt,
                policy.attempts,
            )
            if not refusal.is_retryable:
                return False
            # Not all clients at the same moment, where the receiver serves several.
            wait_s = max(pause_s * random.uniform(0.8, 1.2), refusal.retry_after_s)
            if attempt < policy.attempts and self._stopped.wait(
                min(wait_s, policy.longest_pause_s)
            ):
                return False
            pause_s *= 2
        return False

    def ask(self, below: str) -> str | None:
        """Get a text, once; None if there is no answer or another status than 200.

        Args:
            below: What is added to the path of the address, such as ``/seq``.
        """
        path, question_mark, query = self._url.partition("?")
        try:
            answer = self._client.get(f"{path}{below}{question_mark}{query}")
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            log.info("expected %s to answer, got: %s", self.place, redact(str(error)))
            return None
        return answer.text if answer.status_code == httpx2.codes.OK else None

    def stop(self) -> None:
        """Try nothing again any more."""
        self._stopped.set()

    def close(self) -> None:
        """Give up the connections."""
        self._client.close()

    def _with(self, parameters: Mapping[str, str]) -> str:
        if not parameters:
            return self._url
        return f"{self._url}{'&' if '?' in self._url else '?'}{urlencode(parameters)}"

    def _post(self, url: str, body: bytes) -> _Refusal | None:
        """Send one request; None if it was taken."""
        try:
            answer = self._client.post(url, content=body)
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            return _Refusal(redact(str(error)) or type(error).__name__, True)
        if answer.is_success:
            return None
        return _Refusal(
            f"{answer.status_code} {answer.reason_phrase}",
            self._is_retryable(answer.status_code),
            retry_after_s(answer.headers.get("Retry-After", ""), time.time()),
        )


@dataclass(frozen=True, slots=True)
class _Refusal:
    reason: str
    is_retryable: bool
    retry_after_s: float = 0.0


def retry_after_s(header: str, now_s: float) -> float:
    """How long a receiver asks to wait: 0 if it does not say, or says what is no time.

    Args:
        header: Value of ``Retry-After``: seconds, or a date (RFC 9110, section 10.2.3).
        now_s: Seconds since 1970.
    """
    header = header.strip()
    if header.isascii() and header.isdecimal():
        return float(header)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(header).timestamp() - now_s)
    except (ValueError, OverflowError):
        return 0.0
