"""Servers in processes of their own that are killed or stopped while a stream runs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace

from cnerta.streamer.wire.messages import ServerMessage, UtteranceFinal

from ..fake_model_server import FakeModelServer
from .test_reconnecting import Talk, Watcher, check, run


class PausingTalk(Talk):
    """Whoever speaks waits before the last utterance until the connection is lost.

    Else a busy machine may be done before its server is told to stop.
    """

    def __init__(self, kit: SimpleNamespace, count: int, watcher: Watcher):
        super().__init__(kit, count, timed=True)
        self._watcher = watcher
        self._last_begins_at = sum(map(len, self._audio[:-1]))

    async def blocks(self) -> AsyncIterator[bytes]:
        sent = 0
        async for block in super().blocks():
            while sent >= self._last_begins_at and "lost" not in self._watcher.states:
                await asyncio.sleep(0.01)
            yield block
            sent += len(block)


async def test_a_server_that_is_killed_is_replaced_by_another(kit: SimpleNamespace) -> None:
    talk, watcher = Talk(kit, 10, timed=False), Watcher()
    async with FakeModelServer() as one, FakeModelServer() as two:

        def kill(message: ServerMessage) -> None:
            if isinstance(message, UtteranceFinal) and message.utterance == "u4":
                one.kill()

        urls = [f"ws://127.0.0.1:{serving.port}" for serving in (one, two)]
        messages = await run(urls, talk, watcher=watcher, on_message=kill)
    finals = check(messages, talk)
    assert all(final.audio_used for final in finals)
    for number, final in enumerate(finals):
        assert abs(final.characters[0][0] - 800 * number) < 100
    assert "restarted" in watcher.states


async def test_finals_that_are_owed_are_answered_by_a_stop(kit: SimpleNamespace) -> None:
    watcher = Watcher()
    talk = PausingTalk(kit, 8, watcher)
    async with FakeModelServer(tags_for_s=0.05) as one, FakeModelServer() as two:
        stopping: list[asyncio.Task[int]] = []

        def stop(message: ServerMessage) -> None:
            if isinstance(message, UtteranceFinal) and message.utterance == "u1":
                stopping.append(asyncio.create_task(one.stop()))

        urls = [f"ws://127.0.0.1:{serving.port}" for serving in (one, two)]
        messages = await run(urls, talk, watcher=watcher, on_message=stop)
        (status,) = await asyncio.gather(*stopping)
    check(messages, talk)
    assert status == 0
    assert "1001 going_away" in one.log
    assert not set("他在北京") & set(one.log)


async def test_what_a_stop_leaves_behind_is_in_its_status(kit: SimpleNamespace) -> None:
    talk = Talk(kit, 8, timed=True)
    async with (
        FakeModelServer("--drain-s", "0.2", tags_for_s=2.0) as one,
        FakeModelServer() as two,
    ):
        urls = [f"ws://127.0.0.1:{serving.port}" for serving in (one, two)]
        running = asyncio.create_task(run(urls, talk))
        await asyncio.sleep(1.5)
        assert await one.stop() == 12
        check(await running, talk)
    assert "final answers were left behind" in one.log
