"""A server that falls silent is told of soon, and left later."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

import pytest
from websockets.asyncio.server import ServerConnection

from cnerta.streamer.client import silence
from cnerta.streamer.client.connection import WebSocketConnection
from cnerta.streamer.client.connection_change import ConnectionChange
from cnerta.streamer.client.reconnecting import ReconnectOptions
from cnerta.streamer.client.silence import pinged_every_s, watch_silence

from ..fake_server import server
from ..fault_proxy import FaultProxy


class Line:
    """A connection on a clock of its own: `hears` says whether something came until then."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, hears: Callable[[float], bool]) -> None:
        self.now_s, self.heard, self.is_silent = 0.0, True, False
        self.told: list[tuple[float, bool]] = []
        self.aborted_at: float | None = None
        self.reads = True
        self.transport = self
        self._hears = hears
        monkeypatch.setattr(silence.asyncio, "sleep", self._sleep)

    def is_reading(self) -> bool:
        return self.reads

    def abort(self) -> None:
        self.aborted_at = self.now_s

    def tell(self, is_silent: bool, after_s: float) -> None:
        self.told.append((self.now_s, is_silent))

    async def _sleep(self, seconds: float) -> None:
        self.now_s = round(self.now_s + seconds, 6)
        if self.now_s > 60:
            raise asyncio.CancelledError
        self.heard = self.heard or self._hears(self.now_s)

    async def watch(self, silence_s: float | None) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await watch_silence(self, silence_s, self.tell)  # type: ignore[arg-type]


async def test_silence_is_told_within_two_seconds_and_ends_the_connection_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    line = Line(monkeypatch, lambda now_s: now_s <= 10.0)
    await line.watch(ReconnectOptions().silence_s)
    ((told_s, is_silent),) = line.told
    assert is_silent
    # A picture is drawn ten times a second.
    assert 1.0 < told_s - 10.0 <= 2.0 - 0.1
    assert line.is_silent
    assert line.aborted_at == pytest.approx(15.0, abs=0.2)


async def test_what_comes_again_is_told_and_silence_counts_from_then(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    line = Line(monkeypatch, lambda now_s: not 10.0 < now_s < 14.5)
    await line.watch(5.0)
    assert [is_silent for _, is_silent in line.told] == [True, False]
    assert line.told[1][0] == pytest.approx(14.5, abs=0.11)
    assert line.aborted_at is None


async def test_pongs_alone_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    every_ticks = round(10 * pinged_every_s(5.0))
    line = Line(monkeypatch, lambda now_s: round(10 * now_s) % every_ticks == 0)
    await line.watch(5.0)
    assert line.told == []
    assert line.aborted_at is None


async def test_whoever_does_not_read_has_not_listened(monkeypatch: pytest.MonkeyPatch) -> None:
    line = Line(monkeypatch, lambda now_s: False)
    line.reads = False
    await line.watch(5.0)
    assert line.told == []


async def test_without_a_bound_it_is_only_told(monkeypatch: pytest.MonkeyPatch) -> None:
    line = Line(monkeypatch, lambda now_s: now_s <= 1.0)
    await line.watch(None)
    assert [is_silent for _, is_silent in line.told] == [True]
    assert line.aborted_at is None


@pytest.mark.parametrize("silence_s", [None, 30.0])
async def test_a_frozen_server_is_told_of_and_its_return_too(silence_s: float | None) -> None:
    changes: asyncio.Queue[ConnectionChange] = asyncio.Queue()

    class Watcher:
        def on_connection(self, change: ConnectionChange) -> None:
            changes.put_nowait(change)

    async def waiting(connection: ServerConnection) -> None:
        await connection.wait_closed()

    async with (
        asyncio.timeout(60),
        server(waiting) as url,
        FaultProxy("127.0.0.1", int(url.rpartition(":")[2])) as proxy,
        await WebSocketConnection.open(
            f"ws://127.0.0.1:{proxy.port}", silence_s=silence_s, watcher=Watcher()
        ) as connection,
    ):
        proxy.stall("down")
        silent = await changes.get()
        assert str(silent) == f"no answer from {connection.shown} for 1.5 s"
        assert not silent.is_up
        proxy.go_on("down")
        heard = await changes.get()
        assert str(heard) == f"{connection.shown} answers again"
        assert heard.is_up


async def test_a_watcher_whose_reader_has_gone_does_not_end_the_watch() -> None:
    told: list[str] = []
    again = asyncio.Event()

    class Watcher:
        def on_connection(self, change: ConnectionChange) -> None:
            told.append(change.state)
            if change.state == "heard":
                again.set()
            raise BrokenPipeError

    async def waiting(connection: ServerConnection) -> None:
        await connection.wait_closed()

    async with (
        asyncio.timeout(60),
        server(waiting) as url,
        FaultProxy("127.0.0.1", int(url.rpartition(":")[2])) as proxy,
        await WebSocketConnection.open(
            f"ws://127.0.0.1:{proxy.port}", silence_s=30.0, watcher=Watcher()
        ),
    ):
        proxy.stall("down")
        while not told:
            await asyncio.sleep(0.05)
        proxy.go_on("down")
        await again.wait()
    assert told == ["silent", "heard"]
