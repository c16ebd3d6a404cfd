"""A TCP proxy on loopback that does to connections what networks do.

Each connection gets a :class:`Fault` drawn for it: none, refused, slow, cut off in the middle of
whatever was under way, or silent in one direction while the other goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Literal, Self

__all__ = ["Direction", "Fault", "FaultKind", "FaultProxy"]

FaultKind = Literal["none", "refuse", "delay", "cut", "stall"]
Direction = Literal["up", "down"]
"""``up`` is from the client to the server."""

_CHUNK_BYTES: Final = 4_096


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens to one connection.

    Attributes:
        kind: ``refuse``: it is closed as soon as it is there. ``delay``: every chunk is late.
            ``cut``: both ends are reset. ``stall``: nothing more goes in one direction.
        direction: Where the bytes are counted, delayed or held.
        after_bytes: How many go through before it happens; frames do not matter.
        seconds: How late a chunk is, or how long a direction is silent.
    """

    kind: FaultKind = "none"
    direction: Direction = "up"
    after_bytes: int = 0
    seconds: float = 0.0


class FaultProxy:
    """Passes connections on to a server of this machine. Use as an asynchronous context manager.

    Attributes:
        port: Where it listens.
        happened: How often each kind of fault has come about.
    """

    def __init__(self, target_port: int, next_fault: Callable[[], Fault] = Fault) -> None:
        """Prepare to listen.

        Args:
            target_port: Of the server; it may be down.
            next_fault: Asked once for each connection.
        """
        self.port = 0
        self.happened: Counter[FaultKind] = Counter()
        self._target_port = target_port
        self._next_fault = next_fault
        self._server: asyncio.Server | None = None
        self._links: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        """Where a client connects to."""
        return f"ws://127.0.0.1:{self.port}"

    def cut_all(self) -> None:
        """Reset all connections that there are."""
        for link in self._links:
            link.cancel()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._server is not None, "it was entered"
        self._server.close()
        self.cut_all()
        await asyncio.gather(*self._links, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None, "streams are served in tasks"
        self._links.add(task)
        # Cancelled is how a link is cut; whoever serves streams would report it as a failure.
        with contextlib.suppress(asyncio.CancelledError):
            try:
                await self._link(reader, writer, self._next_fault())
            finally:
                self._links.discard(task)
                writer.transport.abort()

    async def _link(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, fault: Fault
    ) -> None:
        """Pass on what comes in both directions until one of them ends."""
        if fault.kind == "refuse":
            self.happened["refuse"] += 1
            return
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target_port)
        except OSError:
            return
        calm = Fault()
        is_up = fault.direction == "up"
        ways = [
            asyncio.create_task(self._pass_on(reader, far_writer, fault if is_up else calm)),
            asyncio.create_task(self._pass_on(far_reader, writer, calm if is_up else fault)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            await _flush(writer)
            await _flush(far_writer)
            far_writer.transport.abort()

    async def _pass_on(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, fault: Fault
    ) -> None:
        """One direction, until it ends or the fault ends it."""
        passed = 0
        with contextlib.suppress(OSError):
            while data := await reader.read(_CHUNK_BYTES):
                if fault.kind == "delay":
                    self.happened["delay"] += not passed
                    await asyncio.sleep(fault.seconds)
                elif fault.kind in ("cut", "stall") and passed + len(data) > fault.after_bytes:
                    first = data[: max(0, fault.after_bytes - passed)]
                    writer.write(first)
                    passed, data = passed + len(first), data[len(first) :]
                    self.happened[fault.kind] += 1
                    if fault.kind == "cut":
                        await writer.drain()
                        return
                    await asyncio.sleep(fault.seconds)
                    fault = Fault()
                writer.write(data)
                passed += len(data)
                await writer.drain()


async def _flush(writer: asyncio.StreamWriter) -> None:
    """What was passed on before the end still arrives."""
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(0.5):
            writer.transport.set_write_buffer_limits(0)
            await writer.drain()
