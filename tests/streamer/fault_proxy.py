"""A TCP proxy on this machine that does to a connection what networks do.

For tests of what survives it::

    async with FaultProxy("127.0.0.1", server.port) as proxy:
        url = f"ws://127.0.0.1:{proxy.port}"
        proxy.cut_after(5_000, "down")     # the newest connection, in the middle of a frame
        proxy.stall("up")                  # what a client sends goes nowhere, and nobody is told
        proxy.target = "127.0.0.1", other  # new connections go elsewhere
        proxy.cut()                        # all connections, with a reset

"up" is from the client to the server, "down" the way back. It knows nothing of WebSocket: it
counts bytes, so a cut falls wherever it falls. Nothing here depends on the clock but ``delay_s``.
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from socket import SO_LINGER, SOL_SOCKET
from types import TracebackType
from typing import Literal, Self

__all__ = ["Direction", "FaultProxy", "Link"]

Direction = Literal["up", "down"]
_PIECE_BYTES = 4_096
_RESET = struct.pack("ii", 1, 0)  # lingers for no time: what is unsent is thrown away


@dataclass(eq=False)
class _Way:
    """One direction of a connection.

    Attributes:
        passed: Bytes that went through.
        left: Bytes that may still go through before the connection is cut; None: any.
        delay_s: How long each piece is held.
        goes: Whether anything goes through.
        dropped: Bytes that were swallowed without a word.
        swallows: Whether what comes is read and thrown away.
    """

    passed: int = 0
    left: int | None = None
    delay_s: float = 0.0
    goes: asyncio.Event = field(default_factory=asyncio.Event)
    dropped: int = 0
    swallows: bool = False


class Link:
    """One connection through the proxy."""

    def __init__(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self.ways: dict[Direction, _Way] = {"up": _Way(), "down": _Way()}
        for way in self.ways.values():
            way.goes.set()
        self.is_cut = False
        self._writers: dict[Direction, asyncio.StreamWriter] = {"up": server, "down": client}

    def passed(self, direction: Direction) -> int:
        """Bytes that went through."""
        return self.ways[direction].passed

    def cut(self) -> None:
        """Reset both halves, as when a machine dies: what is on the way is lost."""
        self.is_cut = True
        for writer in self._writers.values():
            sock = writer.get_extra_info("socket")
            if sock is not None:
                with contextlib.suppress(OSError):
                    sock.setsockopt(SOL_SOCKET, SO_LINGER, _RESET)
            writer.transport.abort()
        for way in self.ways.values():
            way.goes.set()

    async def pump(self, direction: Direction, reader: asyncio.StreamReader) -> None:
        """Pass on what comes until an end comes, or the cut."""
        way, writer = self.ways[direction], self._writers[direction]
        with contextlib.suppress(OSError):
            while data := await reader.read(_PIECE_BYTES):
                if way.delay_s:
                    await asyncio.sleep(way.delay_s)
                await way.goes.wait()
                if self.is_cut:
                    return
                if way.swallows:
                    way.dropped += len(data)
                    continue
                if way.left is not None and len(data) >= way.left:
                    writer.write(data[: way.left])
                    way.passed += way.left
                    # What was let through arrives: a reset would take it back.
                    with contextlib.suppress(OSError):
                        await writer.drain()
                    await asyncio.sleep(0.01)
                    self.cut()
                    return
                way.passed += len(data)
                way.left = None if way.left is None else way.left - len(data)
                writer.write(data)
                await writer.drain()
            if writer.can_write_eof():
                writer.write_eof()


class FaultProxy:
    """Listens on a free port and passes on to a target; use as a context manager.

    Attributes:
        port: What is listened on.
        target: Where new connections go.
        refuses: Whether new connections are cut at once.
        links: Those that stand, the oldest first.
        opened: How many there have been.
    """

    def __init__(self, host: str, port: int) -> None:
        self.port = 0
        self.target = host, port
        self.refuses = False
        self.links: list[Link] = []
        self.opened = 0
        self._defaults: dict[Direction, float] = {"up": 0.0, "down": 0.0}
        self._next_cut: tuple[int, Direction] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._listener: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self._listener = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._listener.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._listener is not None
        self._listener.close()
        self.cut()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def newest(self) -> Link:
        """The connection that came last."""
        return self.links[-1]

    def cut(self) -> None:
        """Cut all connections."""
        for link in tuple(self.links):
            link.cut()

    def cut_after(self, count: int, direction: Direction) -> None:
        """Cut the newest connection after so many more bytes, wherever in a frame that is."""
        self.newest.ways[direction].left = count

    def cut_next_after(self, count: int, direction: Direction) -> None:
        """Cut the next connection that comes after so many bytes, the handshake among them."""
        self._next_cut = count, direction

    def delay(self, seconds: float, direction: Direction) -> None:
        """Hold every piece for so long, in connections that stand and that come."""
        self._defaults[direction] = seconds
        for way in self._ways(direction):
            way.delay_s = seconds

    def stall(self, direction: Direction) -> None:
        """Let nothing through in one direction, in the connections that stand."""
        for way in self._ways(direction):
            way.goes.clear()

    def go_on(self, direction: Direction) -> None:
        """Let through what was stalled."""
        for way in self._ways(direction):
            way.goes.set()

    def swallow(self, direction: Direction) -> None:
        """Throw away what comes from now on in one direction: the stream has a hole."""
        for way in self._ways(direction):
            way.swallows = True

    def _ways(self, direction: Direction) -> Iterator[_Way]:
        return (link.ways[direction] for link in self.links)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None, "called in a task"
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self.opened += 1
        if self.refuses:
            writer.transport.abort()
            return
        try:
            from_server, to_server = await asyncio.open_connection(*self.target)
        except OSError:
            writer.transport.abort()
            return
        link = Link(writer, to_server)
        for direction, seconds in self._defaults.items():
            link.ways[direction].delay_s = seconds
        if self._next_cut is not None:
            count, direction = self._next_cut
            link.ways[direction].left, self._next_cut = count, None
        self.links.append(link)
        try:
            await asyncio.gather(link.pump("up", reader), link.pump("down", from_server))
        except asyncio.CancelledError:
            pass  # The proxy ends; asyncio would log it as an error of this callback.
        finally:
            self.links.remove(link)
            for half in (writer, to_server):
                half.transport.abort()
