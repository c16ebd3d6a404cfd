"""Streams through the real HAProxy and nginx, to two servers of which one ends in each way.

What is asserted is what an application may rely on: every final once and in order, whatever becomes
of the servers; and that whoever comes back to a server that is there finds its session.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import httpx2
import pytest
from websockets.asyncio.client import connect

from cnerta.streamer.client import connection
from cnerta.streamer.client.reconnecting import ReconnectingConnection, ReconnectOptions
from cnerta.streamer.errors import ServerUnreachableError
from cnerta.streamer.wire.messages import ServerMessage, UtteranceFinal

from ..balancers import BALANCERS, balancer, free_port, program_of
from ..fake_model_server import FakeModelServer
from ..fault_proxy import FaultProxy
from .test_reconnecting import Talk, Watcher, check, run

STREAMS = 6
PATIENT = ReconnectOptions(give_up_s=120.0, silence_s=5.0, first_pause_s=0.05, longest_pause_s=0.5)
QUICK = ReconnectOptions(give_up_s=120.0, silence_s=1.0, first_pause_s=0.05, longest_pause_s=0.5)

PATIENTLY = ("--max-final-wait-ms", "0")
"""On a machine that is busy with other tests servers would say that they are overloaded."""

pytestmark = [
    pytest.mark.parametrize(
        "name",
        [
            pytest.param(
                name,
                marks=pytest.mark.skipif(
                    program_of(name) is None, reason=f"Debian's package {name} has it"
                ),
            )
            for name in BALANCERS
        ],
    )
]


@dataclass
class Site:
    """A balancer and what is behind it."""

    name: str
    port: int
    replicas: list[FakeModelServer]

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    async def get(self, path: str) -> httpx2.Response:
        async with httpx2.AsyncClient(trust_env=False, timeout=20) as caller:
            return await caller.get(f"http://127.0.0.1:{self.port}{path}")


@contextlib.asynccontextmanager
async def site(name: str, folder: Path, *options: str, **slow: float) -> AsyncIterator[Site]:
    async with contextlib.AsyncExitStack() as stack:
        replicas = [
            await stack.enter_async_context(FakeModelServer(*PATIENTLY, *options, **slow))
            for _ in range(2)
        ]
        ports = [replica.port for replica in replicas]
        port = await stack.enter_async_context(balancer(name, ports, folder))
        yield Site(name, port, replicas)


async def sessions_of(replica: FakeModelServer) -> int:
    async with httpx2.AsyncClient(trust_env=False, timeout=20) as caller:
        text = (await caller.get(f"http://127.0.0.1:{replica.port}/metrics")).text
    lines = text.splitlines()
    return next(int(float(line.split()[1])) for line in lines if line[:16] == "cnerta_sessions ")


def after(utterance: str, act: Callable[[], None]) -> Callable[[ServerMessage], None]:
    """Do something when an utterance is answered."""
    is_done = False

    def on_message(message: ServerMessage) -> None:
        nonlocal is_done
        if isinstance(message, UtteranceFinal) and message.utterance == utterance and not is_done:
            is_done = True
            act()

    return on_message


class LongTalk(Talk):
    """One whose last two utterances are not spoken before all has happened."""

    def __init__(self, kit: SimpleNamespace, count: int, all_has_happened: asyncio.Event) -> None:
        super().__init__(kit, count, timed=False)
        self._all_has_happened = all_has_happened

    async def blocks(self) -> AsyncIterator[bytes]:
        left = 20 * (len(self.texts) - 2)
        async for block in super().blocks():
            if not left:
                await self._all_has_happened.wait()
            left -= 1
            yield block


@dataclass
class Crowd:
    """Streams that run at the same time; the first one tells when to act."""

    talks: list[Talk]
    watchers: list[Watcher]

    @classmethod
    def of(cls, kit: SimpleNamespace, happened: asyncio.Event | None = None) -> Crowd:
        talks = [
            Talk(kit, 8, timed=False) if happened is None else LongTalk(kit, 8, happened)
            for _ in range(STREAMS)
        ]
        return cls(talks, [Watcher() for _ in talks])

    async def run(
        self,
        url: str,
        on_message: Callable[[ServerMessage], None],
        options: ReconnectOptions = PATIENT,
    ) -> None:
        """Every final once, in order, of each."""
        runs = [
            run([url], talk, options=options, watcher=watcher, on_message=told, limit_s=200)
            for talk, watcher, told in zip(
                self.talks,
                self.watchers,
                [on_message, *[lambda message: None] * (STREAMS - 1)],
                strict=True,
            )
        ]
        for talk, messages in zip(self.talks, await asyncio.gather(*runs), strict=True):
            check(messages, talk)

    @property
    def states(self) -> list[list[str]]:
        return [watcher.states for watcher in self.watchers]


async def test_whoever_comes_back_finds_the_session_where_it_is(
    name: str, kit: SimpleNamespace, tmp_path: Path
) -> None:
    # By chance all would be led back to the right one of two once in 2 ** 12 runs.
    async with site(name, tmp_path) as there, contextlib.AsyncExitStack() as stack:
        talks, watchers, runs = [], [], []
        for _ in range(STREAMS):
            proxy = await stack.enter_async_context(FaultProxy("127.0.0.1", there.port))
            talk, watcher = Talk(kit, 8, timed=False), Watcher()

            def cut(message: ServerMessage, proxy: FaultProxy = proxy) -> None:
                if isinstance(message, UtteranceFinal) and message.utterance in ("u1", "u4"):
                    proxy.cut()

            url = f"ws://127.0.0.1:{proxy.port}"
            runs.append(run([url], talk, options=PATIENT, watcher=watcher, on_message=cut))
            talks.append(talk)
            watchers.append(watcher)
        for talk, messages in zip(talks, await asyncio.gather(*runs), strict=True):
            check(messages, talk)
    for watcher in watchers:
        assert watcher.states.count("resumed") == 2
        assert "restarted" not in watcher.states


async def test_a_server_that_is_stopped_owes_nothing_and_the_other_goes_on(
    name: str, kit: SimpleNamespace, tmp_path: Path
) -> None:
    async with site(name, tmp_path, tags_for_s=0.05) as there:
        one, stopping, stopped = there.replicas[0], list[asyncio.Task[int]](), asyncio.Event()
        crowd = Crowd.of(kit, stopped)

        def stop() -> None:
            stopping.append(asyncio.create_task(one.stop()))
            stopping[0].add_done_callback(lambda _: stopped.set())

        await crowd.run(there.url, after("u2", stop))
        assert await stopping[0] == 0
        assert "1001 going_away" in one.log
    moved = [states for states in crowd.states if "restarted" in states]
    assert 0 < len(moved) < STREAMS, "only those that were there go elsewhere"


async def test_a_server_that_is_killed_and_one_that_comes_back(
    name: str, kit: SimpleNamespace, tmp_path: Path
) -> None:
    async with site(name, tmp_path) as there, contextlib.AsyncExitStack() as stack:
        one, two = there.replicas
        changing, changed = list[asyncio.Task[None]](), asyncio.Event()

        async def change_places() -> None:
            one.kill()
            await one.ended()
            again = FakeModelServer("--port", str(one.port), *PATIENTLY)
            await stack.enter_async_context(again)
            # Seen by a health check; nginx tries it after 2 s.
            await asyncio.sleep(2.5)
            two.kill()
            changed.set()

        crowd = Crowd.of(kit, changed)
        await crowd.run(
            there.url,
            after("u2", lambda: changing.append(asyncio.create_task(change_places()))),
        )
        await asyncio.gather(*changing)
    assert all("restarted" in states for states in crowd.states)


async def test_a_server_that_hangs_is_left(
    name: str, kit: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "OPEN_TIMEOUT_S", 4.0)
    async with site(name, tmp_path) as there:
        one, frozen = there.replicas[0], asyncio.Event()
        crowd = Crowd.of(kit, frozen)

        def freeze() -> None:
            one.freeze()
            frozen.set()

        await crowd.run(there.url, after("u2", freeze), QUICK)
    moved = [states for states in crowd.states if "restarted" in states]
    assert 0 < len(moved) <= STREAMS


async def test_sessions_are_spread(name: str, tmp_path: Path) -> None:
    async with site(name, tmp_path) as there, contextlib.AsyncExitStack() as stack:
        for _ in range(8):
            opened = await ReconnectingConnection.open([there.url], options=PATIENT)
            await stack.enter_async_context(opened)
        assert [await sessions_of(replica) for replica in there.replicas] == [4, 4]
        # What is for the operator stays inside.
        assert (await there.get("/metrics")).status_code == 403
        assert (await there.get("/readyz")).status_code == 200
        assert (await there.get("/asyncapi.json")).status_code == 200


async def test_a_page_meets_its_overlays(name: str, tmp_path: Path) -> None:
    async with site(name, tmp_path) as there:
        for number in range(6):
            url = f"{there.url}/v1/overlay?key=0123456789abcdef-{number}"
            async with (
                connect(url, proxy=None) as shown,
                connect(f"{url}&show=1", proxy=None) as page,
                asyncio.timeout(20),
            ):
                await page.send(f"南京 {number}")
                assert await shown.recv() == f"南京 {number}"


async def test_nobody_is_there(name: str, tmp_path: Path) -> None:
    async with balancer(name, [free_port(), free_port()], tmp_path) as port:
        with pytest.raises(ServerUnreachableError, match=r"50[23]") as caught:
            await ReconnectingConnection.open([f"ws://127.0.0.1:{port}"], options=PATIENT)
    assert caught.value.retryable


async def test_a_server_that_is_full_gets_nobody(name: str, tmp_path: Path) -> None:
    if name == "nginx":
        pytest.skip("nginx does not ask its servers whether they are ready")
    async with site(name, tmp_path) as there, contextlib.AsyncExitStack() as stack:
        one, two = there.replicas
        full = FakeModelServer("--port", str(one.port), "--max-sessions", "1")
        one.kill()
        await one.ended()
        await stack.enter_async_context(full)
        direct = await ReconnectingConnection.open([f"ws://127.0.0.1:{full.port}"], options=PATIENT)
        await stack.enter_async_context(direct)
        await asyncio.sleep(3)  # three health checks
        for _ in range(4):
            opened = await ReconnectingConnection.open([there.url], options=PATIENT)
            await stack.enter_async_context(opened)
        assert await sessions_of(two) == 4
        two.kill()
        await two.ended()
        await asyncio.sleep(3)
        assert (await there.get("/readyz")).status_code == 503
        refused = await there.get("/v1/stream")
        assert (refused.status_code, refused.headers["Retry-After"]) == (503, "2")
