"""The proxy does what it says, or suites that use it prove nothing."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from .fault_proxy import Fault, FaultProxy


@contextlib.asynccontextmanager
async def echo() -> AsyncIterator[int]:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(1_000):
                writer.write(data)
                await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]


async def exchange(fault: Fault, data: bytes, *, wait_s: float = 5.0) -> tuple[bytes, bool]:
    """What comes back of what is sent, and whether the connection had ended by then."""
    received = b""
    async with echo() as port, FaultProxy(port, lambda: fault) as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        has_ended = False
        with contextlib.suppress(OSError, TimeoutError):
            writer.write(data)
            async with asyncio.timeout(wait_s):
                while len(received) < len(data) and not has_ended:
                    more = await reader.read(1_000)
                    received += more
                    has_ended = not more
        if len(received) < len(data) and not has_ended:
            has_ended = reader.exception() is not None
        writer.transport.abort()
        assert proxy.happened.total() == (fault.kind != "none")
    return received, has_ended


DATA = bytes(range(256)) * 40


@pytest.mark.parametrize("fault", [Fault(), Fault("delay", "up", seconds=0.01)])
async def test_all_bytes_come_through_in_order(fault: Fault) -> None:
    assert await exchange(fault, DATA) == (DATA, False)


@pytest.mark.parametrize("direction", ["up", "down"])
async def test_a_cut_comes_after_so_many_bytes_wherever_frames_end(direction: str) -> None:
    received, has_ended = await exchange(Fault("cut", direction, 5_003), DATA)  # type: ignore[arg-type]
    assert has_ended
    assert DATA.startswith(received)
    assert len(received) == 5_003 if direction == "down" else len(received) <= 5_003


async def test_a_refused_connection_ends_at_once() -> None:
    assert await exchange(Fault("refuse"), DATA) == (b"", True)


async def test_a_stall_holds_one_direction_and_keeps_the_connection() -> None:
    assert await exchange(Fault("stall", "down", 2_000, 60.0), DATA, wait_s=0.3) == (
        DATA[:2_000],
        False,
    )
    assert await exchange(Fault("stall", "up", 2_000, 0.1), DATA) == (DATA, False)


async def test_a_server_that_is_down_ends_the_connection() -> None:
    async with echo() as port:
        pass
    async with FaultProxy(port) as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        with contextlib.suppress(OSError):
            assert await reader.read() == b""
        writer.close()
