"""How long finals wait for the engine, apart from what their own client brings about."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from cnerta.streamer.session.final_waits import TakenWaits
from cnerta.streamer.session.limits import ConnectionLimits, SessionLimits

Drive = Callable[..., Any]


def started(drive: Drive, **limits: Any) -> Any:
    driver = drive(ConnectionLimits(session=SessionLimits(**limits)))
    driver.run()
    return driver


def test_from_its_coming_to_its_answer(drive: Drive) -> None:
    driver = started(drive)
    assert driver.protocol.take_final_waits(driver.now) == TakenWaits()
    driver.transcript("他在北京", 1, final=True)
    driver.now += 0.25
    assert driver.protocol.take_final_waits(driver.now) == TakenWaits((), 0.25)
    driver.now += 0.25
    driver.run()
    assert driver.protocol.take_final_waits(driver.now) == TakenWaits((0.5,), None)
    assert driver.protocol.take_final_waits(driver.now) == TakenWaits(), "told once"


def test_a_final_behind_others_of_its_client_does_not_wait_yet(drive: Drive) -> None:
    driver = started(drive)
    for n in range(3):
        driver.transcript("他在北京", 1, utterance=f"u{n}", final=True)
    for _ in range(3):
        driver.now += 0.1
        driver.take("text")
        driver.give("text")
    waits = driver.protocol.take_final_waits(driver.now)
    assert [round(wait, 6) for wait in waits.answered] == [0.1, 0.1, 0.1]


def test_what_a_budget_holds_back_does_not_wait_for_the_engine(drive: Drive) -> None:
    driver = started(drive, characters_per_s=1.0, character_burst=1)
    driver.transcript("他在北京", 1, utterance="u1", final=True)
    driver.transcript("她去上海", 1, utterance="u2", final=True)
    driver.run()
    driver.protocol.take_final_waits(driver.now)
    for _ in range(3):
        driver.now += 0.2
        assert driver.run() == []
    waits = driver.protocol.take_final_waits(driver.now)
    assert (waits.answered, waits.waiting) == ((), 0.0)


def test_who_is_ahead_of_real_time_waits_for_its_own_audio(
    drive: Drive, kit: SimpleNamespace
) -> None:
    driver = started(drive)
    driver.send(kit.silence(4_000)).transcript("他在北京", 1, final=True)
    driver.now += 0.2
    assert driver.protocol.take_final_waits(driver.now) == TakenWaits()
    driver.run()
    assert driver.protocol.take_final_waits(driver.now) == TakenWaits()
