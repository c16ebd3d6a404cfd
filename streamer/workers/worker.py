"""What runs in a worker: a server that is given its connections, and says how it is."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Final

from cnerta.streamer.serving.server import Server
from cnerta.streamer.serving.sharing.handed import Handed
from cnerta.streamer.workers.channel import Channel, Files
from cnerta.streamer.workers.membership import Membership, read_opening
from cnerta.streamer.workers.messages import Adopt, Ended, Message, Retire, Status, Stop, TakeOver

__all__ = ["WorkerLoop"]

logger = logging.getLogger(__name__)

_TURN_S: Final = 0.1
_TURNS_A_SECOND: Final = 10


class WorkerLoop:
    """Runs a server as a worker."""

    def __init__(
        self, server: Server, membership: Membership, front: Channel, host: str, folder: Path
    ) -> None:
        """Begin; nothing runs yet.

        Args:
            server: Serves; of that membership.
            membership: What it knows of the others.
            front: Gives it connections.
            host: Where that listens.
            folder: Of this worker's own, for sockets.
        """
        self._server = server
        self._membership = membership
        self._front = front
        self._host = host
        self._folder = folder
        self._taken = 0
        self._is_retiring = self._is_front_gone = False
        self._stop = asyncio.Event()
        self._adopting: set[asyncio.Task[None]] = set()

    async def run(self, before_stop: Callable[[], Callable[[], None]]) -> None:
        """Serve until told to stop, or until nobody is left to serve.

        Args:
            before_stop: Is called when the stop begins; what it returns, when that is over.
        """
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._stop.set)
        await self._server.start_behind(self._host, self._folder)
        self._front.follow(self._on_message, self._on_front_gone)
        telling = asyncio.create_task(self._tell())
        await self._stop.wait()
        is_over = before_stop()
        try:
            await self._server.stop()
        finally:
            is_over()
        telling.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await telling
        self._front.send(Ended(self._server.lost_finals))
        if self._is_front_gone:
            # Nobody else is left to do it.
            shutil.rmtree(self._folder.parent, ignore_errors=True)

    async def _tell(self) -> None:
        """Say how it is, when that changes and now and then."""
        loop, server = asyncio.get_running_loop(), self._server
        said: Status | None = None
        turn = 0
        while True:
            status = Status(
                os.getpid(),
                self._taken,
                server.count_open + len(self._adopting),
                server.count_sessions,
                server.why_not_ready(),
                server.why_not_healthy(),
            )
            is_due = turn % _TURNS_A_SECOND == 0
            if is_due or (said is not None and status.why_not_ready != said.why_not_ready):
                self._membership.look_around(
                    status.why_not_ready, status.why_not_healthy, loop.time()
                )
            if is_due or status != said:
                self._front.send(status)
                said = status
            if self._is_retiring and not server.count_sessions and not self._adopting:
                self._stop.set()
            turn += 1
            await asyncio.sleep(_TURN_S)

    def _on_message(self, message: Message, files: Files) -> None:
        match message:
            case Adopt(port):
                client = socket.socket(fileno=files[0])
                self._taken += 1
                self._adopt(client, None, for_operators=port == "operators")
            case TakeOver(remote, place):
                client = socket.socket(fileno=files[0])
                handed = Handed(read_opening(files[1]), remote, place)
                self._adopt(client, handed, for_operators=False)
            case Retire():
                self._is_retiring = True
            case Stop():
                self._stop.set()
            case _:
                logger.error("expected a message to a worker, got %s", type(message).__name__)

    def _adopt(self, client: socket.socket, handed: Handed | None, *, for_operators: bool) -> None:
        task = asyncio.create_task(self._server.adopt(client, handed, for_operators=for_operators))
        self._adopting.add(task)
        task.add_done_callback(self._adopting.discard)

    def _on_front_gone(self) -> None:
        logger.error("the process that takes connections is gone: this one ends, too")
        self._is_front_gone = True
        self._stop.set()
