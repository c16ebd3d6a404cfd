"""Whose work a batch takes: finals first, but none waits for ever behind them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Any

from cnerta.streamer.serving.batcher import Batcher
from cnerta.streamer.session.work import Lane, NormaliseWork, Work


class Session:
    """A session with so much to prepare; its work says whose it is."""

    def __init__(self, name: str, kind: str, pieces: int = 1) -> None:
        self.name, self.kind, self.left = name, kind, pieces
        self.done = 0

    @property
    def is_urgent(self) -> bool:
        return self.kind == "urgent"

    def is_overdue(self, now: float) -> bool:
        return self.kind == "overdue"

    def lanes(self) -> Sequence[Lane]:
        return ("preparation",) if self.left else ()

    def next_work(self, lane: Lane, now: float) -> Work | None:
        if lane != "preparation" or not self.left:
            return None
        self.left -= 1
        return NormaliseWork(self.name)

    def work_done(self, work: Work, result: Any, now: float) -> None:
        self.done += 1

    def fail_internally(self) -> None:
        raise AssertionError("expected no failure")


class Engine:
    """Remembers the batches, and holds the first back until all sessions are there."""

    def __init__(self) -> None:
        self.batches: deque[list[str]] = deque()

    def prepare(self, work: Sequence[NormaliseWork]) -> list[Any]:
        self.batches.append([item.text for item in work])
        return [item.run() for item in work]

    encode = tag = prepare


async def batches_of(sessions: Sequence[Session], most: int) -> list[list[str]]:
    """The batches that are made when all sessions have work at the same time."""
    engine: Any = Engine()
    batcher = Batcher(engine, max_batch=most)
    first = Session("first", "other")
    batcher.notify(first)
    for session in sessions:
        batcher._note(session, 0.0)
    async with asyncio.timeout(20):
        while not all(session.done and not session.left for session in [first, *sessions]):
            await asyncio.sleep(0.001)
    await batcher.close()
    return list(engine.batches)[1:]


def some(kind: str, count: int, pieces: int = 1) -> list[Session]:
    return [Session(f"{kind}{number}", kind, pieces) for number in range(count)]


async def test_finals_come_first_and_the_others_as_they_came() -> None:
    sessions = [*some("other", 3), *some("urgent", 3)]
    found = await batches_of(sessions, most=4)
    assert found == [["urgent0", "urgent1", "urgent2", "other0"], ["other1", "other2"]]


async def test_every_fourth_place_is_for_who_is_overdue() -> None:
    sessions = [*some("other", 1), *some("overdue", 3), *some("urgent", 9)]
    found = await batches_of(sessions, most=8)
    assert found[0] == [
        "urgent0", "urgent1", "urgent2", "overdue0", "urgent3", "urgent4", "urgent5", "overdue1",
    ]  # fmt: skip
    assert found[1] == ["urgent6", "urgent7", "urgent8", "overdue2", "other0"]


async def test_without_finals_who_is_overdue_comes_first() -> None:
    found = await batches_of([*some("other", 2), *some("overdue", 2)], most=4)
    assert found == [["overdue0", "overdue1", "other0", "other1"]]


async def test_finals_without_end_do_not_starve_one_that_is_overdue() -> None:
    late = some("overdue", 1)
    found = await batches_of([*some("urgent", 20, pieces=10), *late], most=4)
    assert "overdue0" in found[0]
