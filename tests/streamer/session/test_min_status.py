"""Clients that want to hear only of what will hardly change."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnerta.streamer.wire.messages import (
    EntityRetract,
    EntityUpsert,
    SessionStart,
    SessionUpdate,
    UtteranceFinal,
)

from ..conftest import Driver, FakeModel

Drive = Callable[..., Driver]
LATE = 60_000
"""Nothing is stable by its age alone."""


def told(driver: Driver) -> list[tuple[str, str, str | None, int]]:
    """What each event of the last step says: text, status, parent, version."""
    found: list[tuple[str, str, str | None, int]] = []
    for event in driver.drain():
        if isinstance(event, EntityUpsert):
            entity = event.entity
            found.append((entity.text, entity.status, entity.parent, entity.version))
        elif isinstance(event, EntityRetract):
            found.append((event.id, "retracted", event.reason, 0))
    return found


def say(driver: Driver, text: str, revision: int, *, final: bool = False) -> Any:
    driver.transcript(text, revision, final=final)
    while driver.step():
        pass
    return told(driver)


def test_an_entity_is_told_when_it_is_stable(drive: Drive) -> None:
    driver = drive(min_status="stable", max_delay_ms=LATE)
    assert say(driver, "他在北京", 1) == []
    assert say(driver, "他在北京的", 2) == [("北京", "stable", None, 1)]
    assert say(driver, "他在北京的家", 3) == []
    assert say(driver, "他在北京的家", 4, final=True) == [("北京", "final", None, 2)]


def test_an_entity_is_told_when_it_has_held_for_long(drive: Drive) -> None:
    driver = drive(min_status="stable", max_delay_ms=500)
    assert say(driver, "他在北京", 1) == []
    driver.now += 0.6
    driver.protocol.tick(driver.now)
    assert told(driver) == [("北京", "stable", None, 1)]


def test_what_was_never_told_is_not_retracted(drive: Drive, model: FakeModel) -> None:
    driver = drive(min_status="stable", max_delay_ms=LATE)
    assert say(driver, "他在北京", 1) == []
    assert say(driver, "他在北海", 2) == []
    assert say(driver, "他在北海", 3, final=True) == []


def test_what_was_told_is_retracted(drive: Drive) -> None:
    driver = drive(min_status="stable", max_delay_ms=LATE)
    say(driver, "他在北京", 1)
    assert say(driver, "他在北京的", 2) != []
    ((_, what, reason, _),) = say(driver, "他在东京的", 3)
    assert (what, reason) == ("retracted", "text_changed")


def test_the_final_answer_is_complete(drive: Drive) -> None:
    driver = drive(min_status="stable", max_delay_ms=LATE)
    say(driver, "他在北京", 1)
    driver.transcript("他在北京和上海", 2, final=True).run()
    assert [entity.text for entity in driver.finals["u1"].entities] == ["北京", "上海"]


def test_an_inner_entity_names_the_outer_one_when_that_is_told(drive: Drive) -> None:
    driver = drive(min_status="stable", max_delay_ms=LATE)
    say(driver, "他在北京", 1)
    assert say(driver, "他在北京大", 2) == [("北京", "stable", None, 1)]
    # The outer one is there, but tentative.
    say(driver, "他在北京大学", 3)
    driver.transcript("他在北京大学的", 4)
    while driver.step():
        pass
    events = [event.entity for event in driver.drain() if isinstance(event, EntityUpsert)]
    outer, inner = events
    assert (outer.text, outer.status) == ("北京大学", "stable")
    assert (inner.text, inner.parent) == ("北京", outer.id)


@pytest.mark.parametrize("wanted", ["tentative", "stable"])
def test_it_may_be_changed_in_mid_stream(drive: Drive, wanted: str) -> None:
    before = "stable" if wanted == "tentative" else "tentative"
    driver = drive(min_status=before, max_delay_ms=LATE)
    driver.send(SessionUpdate(min_status=wanted))  # type: ignore[arg-type]
    assert bool(say(driver, "他在北京", 1)) == (wanted == "tentative")


def test_what_waited_is_told_once_it_may_be(drive: Drive) -> None:
    driver = drive(min_status="stable", max_delay_ms=LATE)
    assert say(driver, "他在北京", 1) == []
    driver.send(SessionUpdate(min_status="tentative"))
    assert say(driver, "他在北京", 2) == [("北京", "tentative", None, 1)]


TEXTS = st.lists(st.text("他在北京大学南市长江桥", min_size=1, max_size=10), min_size=1, max_size=6)


@given(texts=TEXTS, waits=st.lists(st.sampled_from([0.0, 0.4, 0.8]), min_size=6, max_size=6))
def test_nothing_unknown_is_ever_named(texts: list[str], waits: list[float]) -> None:
    driver = Driver(FakeModel(), SessionStart(min_status="stable"))
    known: dict[str, int] = {}
    sequence: list[int] = []
    for number, (text, wait) in enumerate(zip(texts, itertools.cycle(waits), strict=False), 1):
        driver.transcript(text, number, final=number == len(texts))
        while driver.step():
            pass
        driver.now += wait
        driver.protocol.tick(driver.now)
        for event in driver.drain():
            match event:
                case EntityUpsert(seq=seq, entity=entity):
                    sequence.append(seq)
                    assert entity.status != "tentative"
                    assert entity.parent is None or entity.parent in known
                    assert entity.version > known.get(entity.id, 0)
                    known[entity.id] = entity.version
                case EntityRetract(seq=seq):
                    sequence.append(seq)
                    del known[event.id]
                case UtteranceFinal(seq=seq):
                    sequence.append(seq)
                    assert {entity.id for entity in event.entities} == known.keys()
    assert sequence == list(range(1, len(sequence) + 1))
