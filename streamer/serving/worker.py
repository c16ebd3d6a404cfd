"""A thread that does one thing after the other, and that nobody has to wait for."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

__all__ = ["Worker"]

_R = TypeVar("_R")


@dataclass(frozen=True, slots=True)
class _Task(Generic[_R]):
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[_R]
    run: Callable[[], _R]

    def finish(self, outcome: _R | BaseException) -> None:
        """Hand the outcome over, unless it was given up."""
        if self.future.done():
            return
        if isinstance(outcome, BaseException):
            self.future.set_exception(outcome)
        else:
            self.future.set_result(outcome)


class Worker:
    """A thread with a queue.

    Unlike a thread of ``concurrent.futures`` it does not keep the process alive: a graph that never
    returns can be given up.
    """

    def __init__(self, name: str) -> None:
        self._tasks: queue.SimpleQueue[_Task[Any] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def submit(self, run: Callable[[], _R]) -> asyncio.Future[_R]:
        """Have something done; the future is of the running event loop."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[_R] = loop.create_future()
        self._tasks.put(_Task(loop, future, run))
        return future

    def stop(self) -> None:
        """End after what was submitted; does not wait."""
        self._tasks.put(None)

    def join(self, timeout_s: float) -> bool:
        """Wait for the end. Returns whether it came."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    @property
    def is_alive(self) -> bool:
        """Whether the thread runs, or hangs."""
        return self._thread.is_alive()

    def _run(self) -> None:
        while (task := self._tasks.get()) is not None:
            outcome: Any
            try:
                outcome = task.run()
            except BaseException as error:  # whatever it is, who waits must learn of it
                outcome = error
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
                task.loop.call_soon_threadsafe(task.finish, outcome)
