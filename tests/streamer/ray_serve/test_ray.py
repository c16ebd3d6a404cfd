"""The application on a real Ray cluster of this machine: replicas killed, drained, told new tokens.

What is asserted is what an application may rely on: every final once and in order, whatever becomes
of the replicas.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx2
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from cnerta.streamer.ray_serve.cluster import alone

# Ray looks at its variables when it is imported. On a busy machine it takes its time to start.
os.environ |= {**alone(), "RAY_raylet_start_wait_time_s": "200"}
pytest.importorskip("ray.serve", reason="make test-integrations installs ray")

from cnerta.streamer.access.tokens import SUBPROTOCOL
from cnerta.streamer.client.reconnecting import ReconnectOptions
from cnerta.streamer.wire.messages import (
    ErrorMessage,
    ServerMessage,
    SessionGoingAway,
    SessionReady,
    SessionStart,
    UtteranceFinal,
)

from ..balancers import free_port
from ..client.test_reconnecting import Talk, Watcher, check, run
from ..speaking_client import client
from .cluster import Deployed, deployed, ray

STREAMS = 6
PATIENT = ReconnectOptions(give_up_s=120.0, silence_s=10.0, first_pause_s=0.1, longest_pause_s=1.0)
TOKEN, OTHER = "a-token-of-sixteen-or-more", "one-more-token-of-that-length"

pytestmark = [
    pytest.mark.timeout(600),
    # Sockets and threads of Ray's own.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


class LongTalk(Talk):
    """One whose last two utterances are not spoken before all has happened."""

    def __init__(self, kit: SimpleNamespace, happened: asyncio.Event) -> None:
        super().__init__(kit, 8, timed=False, pace_s=0.02)
        self._happened = happened

    async def blocks(self) -> AsyncIterator[bytes]:
        left = 20 * (len(self.texts) - 2)
        async for block in super().blocks():
            if not left:
                await self._happened.wait()
            left -= 1
            yield block


class Crowd:
    """Streams that run at the same time; something happens when the first has an answer."""

    def __init__(self, kit: SimpleNamespace, act: Callable[[], Any]) -> None:
        self._happened = asyncio.Event()
        self._act = act
        self._acting: asyncio.Task[None] | None = None
        self.talks = [LongTalk(kit, self._happened) for _ in range(STREAMS)]
        self.watchers = [Watcher() for _ in self.talks]
        self.seen: list[list[ServerMessage]] = [[] for _ in self.talks]

    async def run(self, url: str) -> None:
        """Every final once, in order, of each."""
        runs = [
            run(
                [url],
                talk,
                options=PATIENT,
                watcher=watcher,
                on_message=self._on_message if number == 0 else lambda message: None,
                limit_s=300,
            )
            for number, (talk, watcher) in enumerate(zip(self.talks, self.watchers, strict=True))
        ]
        self.seen = await asyncio.gather(*runs)
        assert self._acting is not None
        await self._acting
        for messages, talk in zip(self.seen, self.talks, strict=True):
            check(messages, talk)

    @property
    def moved(self) -> int:
        """How many went to another replica."""
        return sum("restarted" in watcher.states for watcher in self.watchers)

    @property
    def partings(self) -> set[str]:
        """With what words connections ended."""
        changes = [change for watcher in self.watchers for change in watcher.changes]
        return {change.detail for change in changes if change.state == "lost"}

    def _on_message(self, message: ServerMessage) -> None:
        if isinstance(message, UtteranceFinal) and message.utterance == "u2":
            self._acting = asyncio.create_task(self._let_it_happen())

    async def _let_it_happen(self) -> None:
        await self._act()
        self._happened.set()


async def is_taken(port: int, token: str) -> bool:
    async with client(port, token=token) as stream:
        await stream.send(SessionStart())
        message = await stream.receive()
        assert isinstance(message, SessionReady | ErrorMessage)
        return isinstance(message, SessionReady)


async def test_replicas_of_a_cluster(kit: SimpleNamespace, tmp_path: Path) -> None:
    tokens = tmp_path / "tokens.txt"
    tokens.write_text(f"{TOKEN}\n", encoding="utf-8")
    args = {"token_file": str(tokens)}
    async with deployed(args, num_replicas=2) as there:
        assert len(there.replicas()) == 2
        await tokens_hold(there)
        await metrics_are_among_those_of_ray()
        await tokens_are_read_anew(there, tokens)


async def tokens_hold(there: Deployed) -> None:
    """Through Ray as at our own server, and closes and subprotocols with them."""
    async with client(there.port, token="no-token-of-anybody") as stream:
        await stream.send(SessionStart())
        assert (await stream.until(ErrorMessage)).name == "not_authorised"
        await stream.rest()
        assert stream.socket.close_code == 4401
    assert await is_taken(there.port, TOKEN)
    async with connect(
        f"ws://127.0.0.1:{there.port}/v1/stream",
        proxy=None,
        subprotocols=[SUBPROTOCOL, f"bearer.{TOKEN}"],  # type: ignore[list-item]
    ) as socket:
        assert socket.subprotocol == SUBPROTOCOL
    async with httpx2.AsyncClient(trust_env=False, timeout=20) as caller:
        url = f"http://127.0.0.1:{there.port}"
        assert (await caller.get(f"{url}/readyz")).text == "ready\n"
        assert (await caller.get(f"{url}/metrics")).status_code == 401
        asked = await caller.post(
            f"{url}/v1/entities",
            json={"text": "他在北京"},
            headers={"Authorization": f"Bearer {TOKEN}"},
        )
        assert [e["text"] for e in asked.json()["entities"]] == ["北京"]
    with pytest.raises(InvalidStatus) as refused:
        await connect(f"ws://127.0.0.1:{there.port}/v1/listen", proxy=None)
    assert refused.value.response.status_code == 401


async def metrics_are_among_those_of_ray() -> None:
    """Of each node, for each replica."""
    (node,) = ray.nodes()
    url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    async with httpx2.AsyncClient(trust_env=False, timeout=20) as caller, asyncio.timeout(60):
        while True:
            text = (await caller.get(url)).text
            found = re.findall(r'^ray_cnerta_sessions\{.*replica="(\w+)"', text, re.MULTILINE)
            refused = re.findall(
                r'^ray_cnerta_refused_total\{.*reason="token".*\} (\S+)$', text, re.MULTILINE
            )
            if len(set(found)) == 2 and sum(map(float, refused)) >= 1:
                return
            await asyncio.sleep(1)


async def tokens_are_read_anew(there: Deployed, tokens: Path) -> None:
    """With another ``user_config``, by replicas as they run."""
    before = there.replicas()
    tokens.write_text(f"{OTHER}\n", encoding="utf-8")
    await there.change(user_config={"tokens": 2})
    assert there.replicas() == before
    async with asyncio.timeout(60):
        while not await is_taken(there.port, OTHER) or await is_taken(there.port, TOKEN):
            await asyncio.sleep(0.5)


async def test_a_replica_that_is_killed_under_load(kit: SimpleNamespace) -> None:
    async with deployed({"insecure": True}, num_replicas=2) as there:
        before = there.replicas()

        async def kill() -> None:
            there.kill(before[0])

        crowd = Crowd(kit, kill)
        await crowd.run(f"ws://127.0.0.1:{there.port}")
        assert 0 < crowd.moved < STREAMS, "only those that were there go elsewhere"
        await there.until(lambda: len(there.replicas()) == 2 and before[0] not in there.replicas())


async def test_fewer_replicas_are_left_in_order(kit: SimpleNamespace) -> None:
    async with deployed({"insecure": True}, num_replicas=2) as there:

        async def leave() -> None:
            await there.change(num_replicas=1)
            await there.until(lambda: len(there.replicas()) == 1)

        crowd = Crowd(kit, leave)
        await crowd.run(f"ws://127.0.0.1:{there.port}")
        assert 0 < crowd.moved < STREAMS, "only those that were there go elsewhere"
        assert crowd.partings
        assert all("going_away" in words for words in crowd.partings), crowd.partings


async def test_replicas_come_and_go_with_the_streams(kit: SimpleNamespace) -> None:
    quick = {
        "min_replicas": 1,
        "max_replicas": 2,
        "target_ongoing_requests": 2,
        "upscale_delay_s": 0,
        "downscale_delay_s": 2,
        "look_back_period_s": 1,
    }
    async with deployed({"insecure": True}, autoscaling_config=quick) as there:
        assert len(there.replicas()) == 1

        async def wait_for_another() -> None:
            await there.until(lambda: len(there.replicas()) == 2)

        crowd = Crowd(kit, wait_for_another)
        await crowd.run(f"ws://127.0.0.1:{there.port}")
        assert not crowd.moved
        async with client(there.port) as stays:
            await stays.send(SessionStart())
            await stays.until(SessionReady)
            await there.until(lambda: len(there.replicas()) == 1)


@pytest.mark.parametrize("ingress", ["proxies", "haproxy"])
async def test_the_command(kit: SimpleNamespace, ingress: str) -> None:
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "cnerta.streamer.commands.serve", "--ray", "--ray-replicas", "2",
        "--port", str(port), "--max-final-wait-ms", "0", "--insecure", "--drain-s", "5",
        stderr=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.DEVNULL,
        env={**os.environ, "RAY_SERVE_ENABLE_HA_PROXY": str(int(ingress == "haproxy"))},
    )  # fmt: skip
    assert process.stderr is not None
    lines: list[str] = []
    try:
        async with asyncio.timeout(120):
            while not lines or "listening on" not in lines[-1]:
                lines.append((await process.stderr.readline()).decode())
                assert lines[-1], f"the command ended: {lines}"
        reading = asyncio.create_task(process.stderr.read())
        assert re.search(r"Ray Serve, 2 replicas of at most 512 sessions", lines[-1])
        talk = Talk(kit, 4, timed=False)
        check(await run([f"ws://127.0.0.1:{port}"], talk, options=PATIENT, limit_s=120), talk)
        async with client(port) as stream:
            await stream.send(SessionStart())
            await stream.until(SessionReady)
            process.send_signal(signal.SIGTERM)
            # It is told, and is not only cut off.
            await stream.until(SessionGoingAway)
            await stream.rest()
            assert stream.socket.close_code == 1001
        async with asyncio.timeout(120):
            assert await process.wait() == 0
        await reading
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
            await process.wait()
