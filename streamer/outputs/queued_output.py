"""What all outputs have in common that send from a queue: its beginning, and its end."""

from __future__ import annotations

from types import TracebackType
from typing import Generic, Self, TypeVar

from cnerta.streamer.outputs.delivery_queue import DeliveryQueue
from cnerta.streamer.outputs.presenter import PresenterBase

__all__ = ["QueuedOutput"]

Item = TypeVar("Item")


class QueuedOutput(PresenterBase, Generic[Item]):
    """A `Presenter` whose queue sends as long as it is entered; a base.

    Args:
        queue: What it sends from.
    """

    def __init__(self, queue: DeliveryQueue[Item]) -> None:
        self._queue = queue

    async def drain(self) -> None:
        """Go on sending until nothing waits, but not for ever.

        Raises:
            OutputError: Something was lost.
        """
        await self._queue.drain()

    def __enter__(self) -> Self:
        self._queue.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._queue.stop()
