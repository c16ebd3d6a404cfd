"""All sessions together hold what they may: the largest give up first, and no final is lost."""

from __future__ import annotations

import asyncio
import json
import urllib.error
import urllib.request
from types import SimpleNamespace
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from websockets.asyncio.client import connect

from cnerta.streamer.serving.memory_budget import MemoryBudget, excesses
from cnerta.streamer.serving.server import Server, ServerOptions

amounts = st.lists(st.integers(0, 10**9), max_size=20)


@given(amounts, st.integers(0, 10**10))
def test_those_that_hold_most_give_up_what_is_beyond_one_level(held: list[int], limit: int) -> None:
    given_up = excesses(held, limit)
    left = [h - g for h, g in zip(held, given_up, strict=True)]
    assert all(0 <= g <= h for h, g in zip(held, given_up, strict=True))
    assert sum(left) <= limit
    level = max((own for own, g in zip(left, given_up, strict=True) if g), default=None)
    if level is None:
        assert sum(held) <= limit
    else:
        assert all(own <= level for own in left), "nobody keeps more than those that gave up"
        assert limit - sum(left) < len(held), "no more is given up than need be"


class Holder:
    """Holds a number."""

    def __init__(self, held: int) -> None:
        self.held_bytes = held

    def release_memory(self, wanted_bytes: int) -> None:
        self.held_bytes -= wanted_bytes


def test_new_sessions_are_refused_before_anybody_loses_something() -> None:
    budget = MemoryBudget(1_000)
    small, large = Holder(100), Holder(700)
    budget.balance([small, large])
    assert not budget.is_short
    large.held_bytes = 880
    budget.balance([small, large])
    assert budget.is_short
    assert budget.released == 0
    large.held_bytes = 2_000
    budget.balance([small, large])
    assert (small.held_bytes, large.held_bytes, budget.released) == (100, 900, 1)


def status_of(port: int, path: str) -> tuple[int, str]:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"http://127.0.0.1:{port}{path}", timeout=10) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


async def test_sessions_together_stay_within_the_budget_and_finals_are_answered(
    model: Any, kit: SimpleNamespace
) -> None:
    """An engine that encodes nothing for a while, and clients that send a minute at once."""
    held = asyncio.Event()
    plain, loop = model.encode, asyncio.get_running_loop()

    def encode(samples: Any, states: Any) -> Any:
        asyncio.run_coroutine_threadsafe(held.wait(), loop).result(30)
        return plain(samples, states)

    model.encode = encode
    most = 0
    async with Server(model, ServerOptions(memory_mb=8)) as server:
        await server.start()
        url = f"ws://127.0.0.1:{server.port}/v1/stream"
        second = np.full(16_000, 1000, "<i2").tobytes()

        async def stream() -> list[dict[str, Any]]:
            async with connect(url, proxy=None) as socket:
                await socket.send('{"type":"session.start","version":1}')
                for _ in range(50):
                    await socket.send(second)
                final = {"utterance": "u", "revision": 1, "final": True, "text": "在北京"}
                await socket.send(json.dumps({"type": "transcript", **final}))
                await socket.send('{"type":"session.finish"}')
                return [json.loads(message) async for message in socket]

        streams = [asyncio.create_task(stream()) for _ in range(6)]
        async with asyncio.timeout(60):
            while not server._memory.released:
                await asyncio.sleep(0.02)
            for _ in range(10):
                await asyncio.sleep(0.05)
                most = max(most, server._memory.held_bytes)
        assert most <= 8_000_000 + 1_000_000, "what came in a tenth of a second is beyond, no more"
        assert await asyncio.to_thread(status_of, server.port, "/readyz") == (503, "memory\n")
        async with connect(url, proxy=None) as refused:
            error = json.loads(await refused.recv())
            assert (error["code"], error["name"]) == (1013, "try_again_later")
        held.set()
        async with asyncio.timeout(60):
            answers = await asyncio.gather(*streams)
        for messages in answers:
            finals = [m for m in messages if m["type"] == "utterance.final"]
            assert [[e["text"] for e in m["entities"]] for m in finals] == [["北京"]]
            assert messages[-1]["type"] == "session.summary"
        warnings = [[m.get("name") for m in messages] for messages in answers]
        assert any("memory_short" in names for names in warnings)
        _, metrics = await asyncio.to_thread(status_of, server.port, "/metrics")
        assert "cnerta_sessions_held_bytes " in metrics
