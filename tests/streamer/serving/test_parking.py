"""Who may take which session over, and which one goes when there is no room."""

from __future__ import annotations

from typing import Any

import pytest

from cnerta.streamer.serving.batcher import Batcher
from cnerta.streamer.serving.engine import Engine
from cnerta.streamer.serving.hosted_session import HostedSession
from cnerta.streamer.serving.parking import ParkedSession, ParkingLot, ParkingOptions
from cnerta.streamer.session.connection import ServedModel, ServerProtocol
from cnerta.streamer.session.limits import ConnectionLimits
from cnerta.streamer.wire.messages import SessionReady, SessionStart, Transcript


class Observer:
    def __init__(self) -> None:
        self.given_up: list[tuple[str, int]] = []

    def on_unparked(self, reason: str, lost_finals: int) -> None:
        self.given_up.append((reason, lost_finals))


@pytest.fixture
async def batcher(model: Any) -> Any:
    batcher = Batcher(Engine(model))
    yield batcher
    await batcher.close()


class Garage:
    """A lot, and sessions for it."""

    def __init__(self, model: Any, batcher: Batcher, **options: Any) -> None:
        self.observer = Observer()
        self.lot = ParkingLot(ParkingOptions(**options), self.observer)
        self._served = ServedModel(model.bundle, model.device)
        self._batcher = batcher

    def enter(self, identity: str = "", owner: str = "") -> tuple[ParkedSession, str]:
        """A session that has begun, and its token."""
        protocol = ServerProtocol(self._served, ConnectionLimits(), "s", 0.0)
        entry = self.lot.enter(HostedSession(protocol, self._batcher), identity, owner)
        entry.session.receive_message(SessionStart())
        ready = protocol.next_message()
        assert isinstance(ready, SessionReady)
        return entry, "" if ready.resume is None else ready.resume.token


async def test_tokens_are_long_and_each_finds_its_session(model: Any, batcher: Batcher) -> None:
    garage = Garage(model, batcher)
    entries = [garage.enter() for _ in range(20)]
    assert len({token for _, token in entries}) == 20
    assert all(len(token) * 6 >= 128 for _, token in entries)
    for entry, token in entries:
        assert garage.lot.find(token, "") is entry
        assert garage.lot.find(token, "somebody") is None
        assert garage.lot.find(token[:-1], "") is None


async def test_the_oldest_of_whoever_holds_most_goes(model: Any, batcher: Batcher) -> None:
    garage = Garage(model, batcher, most=4)
    modest, _ = garage.enter(owner="modest")
    garage.lot.park(modest, 0.0)
    greedy = [garage.enter(owner="greedy")[0] for _ in range(5)]
    for number, entry in enumerate(greedy):
        garage.lot.park(entry, float(number))
    assert set(garage.lot) == {modest, *greedy[2:]}
    assert garage.observer.given_up == [("no_room", 0)] * 2


async def test_bytes_are_bounded_too(model: Any, batcher: Batcher) -> None:
    garage = Garage(model, batcher, most_bytes=400_000)
    entries = [garage.enter(owner=f"o{n}")[0] for n in range(3)]
    for entry in entries:
        entry.session.receive(bytes(2 * 16_000 * 4))  # 256 kB as it waits to be encoded
        garage.lot.park(entry, 0.0)
    assert len(garage.lot) == 1
    assert garage.lot.held_bytes <= 400_000


async def test_time_runs_for_those_without_a_connection_only(model: Any, batcher: Batcher) -> None:
    garage = Garage(model, batcher, ttl_s=60)
    (connected, one), (parked, two), (back, three) = (garage.enter() for _ in range(3))
    garage.lot.park(parked, 0.0)
    garage.lot.park(back, 0.0)
    garage.lot.unpark(back)
    parked.session.protocol.session.add_transcript(  # type: ignore[union-attr]
        Transcript(utterance="u", revision=1, final=True, text="北京"), 0.0
    )
    garage.lot.tick(60.0)
    assert garage.observer.given_up == []
    garage.lot.tick(60.1)
    assert garage.observer.given_up == [("expired", 1)]
    assert garage.lot.find(two, "") is None
    assert garage.lot.find(one, "") is connected
    assert garage.lot.find(three, "") is back


async def test_what_has_failed_is_given_up(model: Any, batcher: Batcher) -> None:
    garage = Garage(model, batcher)
    entry, token = garage.enter()
    garage.lot.park(entry, 0.0)
    entry.session.fail_internally()
    assert garage.lot.find(token, "") is None
    garage.lot.tick(1.0)
    assert garage.observer.given_up == [("failed", 0)]


async def test_what_cannot_be_resumed_is_not_parked(model: Any, batcher: Batcher) -> None:
    garage = Garage(model, batcher, ttl_s=0)
    entry, token = garage.enter()
    assert token == ""
    garage.lot.park(entry, 0.0)
    assert len(garage.lot) == 0
    assert garage.lot.find("", "") is None
    assert entry.session.protocol.is_closed
