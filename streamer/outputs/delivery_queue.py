"""A queue that a thread of its own sends from, so that a slow receiver never holds up the session.

A server may hold a request for as long as it likes, so requests are made beside the event loop; the
queue is bounded.
"""

from __future__ import annotations

import asyncio
import collections
import logging
import threading
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from cnerta.streamer.errors import OutputError
from cnerta.streamer.outputs.http_receiver import HttpReceiver

__all__ = ["DeliveryQueue"]

log = logging.getLogger(__name__)

Item = TypeVar("Item")


class DeliveryQueue(Generic[Item]):
    """Sends what is put into it, in order, as much at once as waits.

    Args:
        receiver: Where it goes.
        send: Is given what goes out together, in the queue's thread; whether that was taken.
        what: What the items are, in messages.
        at_once: How many items may go out together.
        is_needed: Whether an item is kept for longer than others when too many wait.
    """

    def __init__(
        self,
        receiver: HttpReceiver,
        send: Callable[[Sequence[Item]], bool],
        *,
        what: str,
        at_once: int,
        is_needed: Callable[[Item], bool] = lambda _: True,
    ) -> None:
        self._receiver = receiver
        self._send = send
        self._what = what
        self._at_once = at_once
        self._is_needed = is_needed
        self._waiting: collections.deque[Item] = collections.deque()
        self._news = threading.Condition()
        self._ending = False
        self._on_the_way = 0
        self.lost = 0
        """Items that never arrived."""
        self._thread = threading.Thread(target=self._run, name="delivery", daemon=True)

    def start(self) -> None:
        """Begin to send."""
        self._thread.start()

    def put(self, item: Item) -> None:
        """Have an item sent."""
        with self._news:
            self._waiting.append(item)
            if len(self._waiting) > self._receiver.policy.queue:
                self._lose_one()
            self._news.notify()

    async def drain(self) -> None:
        """Go on sending until nothing waits, but not for ever.

        Raises:
            OutputError: Something was lost.
        """
        with self._news:
            self._ending = True
            self._news.notify()
        await asyncio.to_thread(self._thread.join, self._receiver.policy.drain_s)
        with self._news:
            lost = self.lost + len(self._waiting) + self._on_the_way
        if lost:
            raise OutputError(
                f"expected {self._receiver.place} to take every {self._what}, got {lost} left over"
            )

    def stop(self) -> None:
        """Send nothing any more."""
        self._receiver.stop()
        with self._news:
            self._ending = True
            self._waiting.clear()
            self._news.notify()

    def _lose_one(self) -> None:
        if not self.lost:
            log.warning("%s does not keep up: %ss are lost", self._receiver.place, self._what)
        self.lost += 1
        for index, item in enumerate(self._waiting):
            if not self._is_needed(item):
                del self._waiting[index]
                return
        self._waiting.popleft()

    def _run(self) -> None:
        try:
            while items := self._next_items():
                delivered = self._send(items)
                with self._news:
                    self._on_the_way = 0
                    if not delivered:
                        self.lost += len(items)
        finally:
            self._receiver.close()

    def _next_items(self) -> list[Item]:
        """Wait for items; none at the end."""
        with self._news:
            while not self._waiting and not self._ending:
                self._news.wait()
            count = min(len(self._waiting), self._at_once)
            self._on_the_way = count
            return [self._waiting.popleft() for _ in range(count)]
