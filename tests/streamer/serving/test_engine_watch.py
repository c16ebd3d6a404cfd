"""An engine that works no longer is noticed, and said."""

from __future__ import annotations

import asyncio
import json
import threading
import urllib.error
import urllib.request
from typing import Any

import pytest
from websockets.asyncio.client import connect

from cnerta.models.errors import BundleError
from cnerta.streamer.serving.batcher import Batcher, BatchHungError
from cnerta.streamer.serving.engine import Engine
from cnerta.streamer.serving.engine_watch import EngineWatch
from cnerta.streamer.serving.server import Server, ServerOptions


class Checks:
    """Self-tests with given outcomes, then ones that pass."""

    def __init__(self, *outcomes: bool) -> None:
        self._outcomes = iter(outcomes)
        self.ended = 0
        self.told: list[bool] = []

    async def check(self) -> None:
        if not next(self._outcomes, True):
            raise BundleError("expected the golden answers, got others")

    def on_unfit(self) -> None:
        self.ended += 1

    def on_self_test(self, *, passed: bool) -> None:
        self.told.append(passed)


async def test_a_test_that_fails_is_repeated_before_it_is_believed() -> None:
    checks = Checks(False, True, False, False, False, True)
    watch = EngineWatch(checks.check, checks.on_unfit, checks)
    fit = []
    for _ in range(4):
        await watch.test()
        fit.append(watch.is_fit)
    assert fit == [True, False, False, True]
    assert checks.told == fit
    assert checks.ended == 1, "sessions are ended when it turns unfit, not again and again"


async def test_it_runs_by_itself_and_more_often_while_unfit() -> None:
    checks = Checks(False, False)
    watch = EngineWatch(checks.check, checks.on_unfit, checks, every_s=0.01, retry_s=0.01)
    task = asyncio.create_task(watch.run())
    async with asyncio.timeout(60):
        while len(checks.told) < 3:
            await asyncio.sleep(0.005)
    task.cancel()
    assert checks.told[:3] == [False, True, True]


async def test_a_self_test_that_hangs_fails(model: Any) -> None:
    release = threading.Event()
    model.check = lambda: release.wait(10)
    batcher = Batcher(Engine(model), timeout_s=0.05)
    with pytest.raises(BatchHungError):
        await batcher.check()
    model.check = lambda: None
    await batcher.check()
    assert batcher.hanging == 1
    release.set()
    await batcher.close()


def ready(port: int) -> tuple[int, str]:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"http://127.0.0.1:{port}/readyz", timeout=10) as response:
            return response.status, response.read().decode().strip()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode().strip()


async def test_an_unfit_engine_ends_sessions_by_name_and_takes_none(model: Any) -> None:
    broken = threading.Event()

    def check() -> None:
        if broken.is_set():
            raise BundleError("expected the golden answers, got others")

    model.check = check
    async with Server(model, ServerOptions(self_test_s=0.05)) as server:
        await server.start()
        url = f"ws://127.0.0.1:{server.port}/v1/stream"
        async with connect(url, proxy=None) as stream:
            await stream.send('{"type":"session.start","version":1}')
            assert json.loads(await stream.recv())["type"] == "session.ready"
            assert await asyncio.to_thread(ready, server.port) == (200, "ready")
            broken.set()
            async with asyncio.timeout(60):
                error = json.loads(await stream.recv())
                await stream.wait_closed()
            assert (error["name"], stream.close_code) == ("internal", 1011)
        assert await asyncio.to_thread(ready, server.port) == (503, "unfit")
        async with connect(url, proxy=None) as stream:
            error = json.loads(await stream.recv())
            assert (error["name"], error["retryable"]) == ("try_again_later", True)
        metrics = server.metrics.exposition().decode()
        assert 'cnerta_self_tests_total{outcome="failed"} ' in metrics
