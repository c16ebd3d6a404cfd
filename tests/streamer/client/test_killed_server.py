"""Servers in processes of their own that are killed or stopped while a stream runs."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

from cnerta.streamer.wire.messages import ServerMessage, UtteranceFinal

from ..fake_model_server import FakeModelServer
from .test_reconnecting import Talk, Watcher, check, run


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
    talk, watcher = Talk(kit, 8, timed=True), Watcher()
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
