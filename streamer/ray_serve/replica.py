"""What runs in each replica: a model, a server of its own, and the door that Ray leads to."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Final

from cnerta.streamer.ray_serve.asgi import Receive, Scope, Send
from cnerta.streamer.ray_serve.draining import drain_sign
from cnerta.streamer.ray_serve.ingress import Ingress
from cnerta.streamer.ray_serve.mirror import Mirror
from cnerta.streamer.serving.server import Server

__all__ = ["Door", "Hosted", "OpenServer", "Replica"]

logger = logging.getLogger(__name__)

_LOOK_S: Final = 0.1
_METRICS_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Hosted:
    """A server that a replica runs.

    Attributes:
        server: Not started.
        host: Where clients come.
        read_anew: Takes tokens as they are now.
    """

    server: Server
    host: str
    read_anew: Callable[[], None]


OpenServer = Callable[[Mapping[str, Any]], AbstractContextManager[Hosted]]
"""Makes a server of options, as long as the context lasts. A function of a module: its name is what
replicas get."""


class Replica:
    """One of them. Ray calls all methods, in the event loop of the replica's own code."""

    # Ray awaits it: the event loop is there.
    async def __init__(  # type: ignore[misc]
        self, open_server: OpenServer, options: Mapping[str, Any]
    ) -> None:
        """Load the model and serve.

        Args:
            open_server: Makes the server.
            options: Of it.
        """
        self._stack = contextlib.ExitStack()
        self._hosted = self._stack.enter_context(open_server(options))
        self._ingress = Ingress(self._hosted.server, self._hosted.host)
        await self._ingress.start()
        self._tasks = [
            asyncio.create_task(self._watch()),
            asyncio.create_task(self._tell_metrics()),
        ]

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve what Ray passes on."""
        await self._ingress(scope, receive, send)

    async def check_health(self) -> None:
        """Have Ray replace this replica if it is of no use any more.

        Raises:
            RuntimeError: It is not.
        """
        why_not = self._hosted.server.why_not_healthy()
        if why_not is not None and not self._ingress.is_stopping:
            raise RuntimeError(f"expected a server that works, got: {why_not}")

    async def reconfigure(self, user_config: Any) -> None:
        """Read tokens anew: whatever changes in the configuration of replicas asks for that."""
        self._hosted.read_anew()

    async def __del__(self) -> None:
        """All that is owed is given by now, or there was no sign of the drain."""
        for task in self._tasks:
            task.cancel()
        await self._ingress.stop()
        self._stack.close()

    async def _watch(self) -> None:
        """Send streams elsewhere when Ray begins to drain this replica."""
        is_draining = drain_sign()
        if is_draining is None:
            logger.warning(
                "this version of Ray does not tell of a drain: streams end with their replica, "
                "and go on elsewhere"
            )
            return
        while not is_draining():
            await asyncio.sleep(_LOOK_S)
        await self._ingress.stop()

    async def _tell_metrics(self) -> None:
        from ray.serve import metrics

        mirror = Mirror(self._hosted.server.metrics.families, metrics)
        while True:
            mirror.tell()
            await asyncio.sleep(_METRICS_S)


class Door:
    """The ASGI application that Ray is given: whichever replica runs it answers."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] == "lifespan":
            await _live(receive, send)
            return
        from ray import serve

        await serve.get_replica_context().servable_object.serve(scope, receive, send)


async def _live(receive: Receive, send: Send) -> None:
    """A replica starts and stops by itself: there is nothing to do beside saying so."""
    while (await receive())["type"] == "lifespan.startup":
        await send({"type": "lifespan.startup.complete"})
    await send({"type": "lifespan.shutdown.complete"})
