"""Nothing is left of sessions that are over, however they ended: objects are counted, not bytes.

Resident memory of a server over a day of audio is the matter of ``make soak``.
"""

from __future__ import annotations

import asyncio
import gc
from collections import Counter
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from cnerta.streamer.access.admission import AccessOptions
from cnerta.streamer.serving.batcher import Batcher
from cnerta.streamer.serving.parking import ParkingOptions
from cnerta.streamer.serving.server import Server, ServerOptions
from cnerta.streamer.wire.messages import (
    SessionFinish,
    SessionReady,
    SessionStart,
    Transcript,
    UtteranceFinal,
)
from cnerta.streamer.wire.parts import GlossaryEntry, ResumeRequest

from ..speaking_client import client
from .test_http import ask

ROUNDS = 8
_COUNTED = ("cnerta.", "websockets.", "_asyncio.")


def final(text: str) -> Transcript:
    return Transcript(utterance="u1", revision=2, final=True, text=text)


async def churn(server: Server, kit: SimpleNamespace) -> None:
    """Connections that end in every way there is."""
    interim = Transcript(utterance="u1", revision=1, final=False, text="他在")
    names = [GlossaryEntry(text="江大桥", label="PER")]
    async with client(server.port) as stream:  # in order
        start = SessionStart(glossary=names)
        await stream.send(start, kit.speak("他在北京"), interim, final("他在北京"))
        await stream.until(UtteranceFinal)
        await stream.send(SessionFinish())
        await stream.rest()
    async with client(server.port) as stream:  # with an error
        await stream.send(SessionStart(), kit.speak("他在"), interim, "{")
        await stream.rest()
    async with client(server.port) as stream:  # lost, and resumed
        await stream.send(SessionStart(), kit.speak("他在北京"), final("他在北京"))
        ready = await stream.until(SessionReady)
        await stream.until(UtteranceFinal)
        stream.vanish()
    async with client(server.port) as stream:
        resume = ResumeRequest(token=ready.resume.token, last_seq=0)
        await stream.send(SessionStart(resume=resume), SessionFinish())
        await stream.rest()
    async with client(server.port) as stream:  # lost for good
        await stream.send(SessionStart(), kit.speak("他在"), interim)
        await stream.until(SessionReady)
        stream.vanish()
    async with client(server.port) as stream:  # never begun
        stream.vanish()
    assert (await ask(server.port, "/readyz")).status == 200


async def until_over(server: Server) -> None:
    async with asyncio.timeout(20):
        while server.count_sessions or server.count_open:
            await asyncio.sleep(0.05)


def counted(*, collect: bool) -> Counter[str]:
    """Objects of ours, and of what connections and tasks are made of.

    Bare functions and tuples are not among them, since threads that come bring some along, nor are
    timers: those that were called off stay with the loop for a while, empty.

    Args:
        collect: Have the garbage collector find circles first; else of ours only.
    """
    for _ in range(3 * collect):
        gc.collect()
    kinds = Counter(f"{type(o).__module__}.{type(o).__qualname__}" for o in gc.get_objects())
    # The clients of these tests are in circles of their library.
    counted = _COUNTED if collect else ("cnerta.",)
    return Counter({kind: n for kind, n in kinds.items() if kind.startswith(counted)})


@pytest.fixture(params=["collector", "no collector"])
def collects(request: pytest.FixtureRequest) -> Iterator[bool]:
    """Without it, what is in a circle stays, for hours of audio on a live server."""
    if request.param == "no collector":
        gc.collect()
        gc.disable()
    yield gc.isenabled()
    gc.enable()


async def test_nothing_is_left_of_sessions_that_are_over(
    model: Any, kit: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, collects: bool
) -> None:
    # Nobody is refused because the machine is busy.
    monkeypatch.setattr(Batcher, "is_overloaded", False)
    access = AccessOptions(max_final_wait_ms=None)
    options = ServerOptions(access=access, parking=ParkingOptions(ttl_s=1))
    async with Server(model, options) as server:
        await server.start()
        for _ in range(3):  # what is made once is made
            await churn(server, kit)
        await until_over(server)
        before = counted(collect=collects)
        for _ in range(ROUNDS):
            await churn(server, kit)
        await until_over(server)
        grown = counted(collect=collects)
        grown.subtract(before)
    # Whatever stays of each session, or of each connection of one kind, is there so often.
    assert {kind: more for kind, more in grown.items() if more >= ROUNDS} == {}
