"""Interims that wait for audio which the engine does not get to: for half a second at most."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from cnerta.streamer.session.work import TagWork

Make = Callable[..., Any]


def behind(drive: Make, kit: SimpleNamespace, **start: Any) -> Any:
    """A session that has received speech of which nothing was encoded, and a revision of it."""
    driver = drive(**start)
    driver.protocol.receive(kit.speak("他在北京"), driver.now)
    driver.now += 0.1
    return driver.transcript("他在北京", 1)


def text_work(driver: Any) -> TagWork | None:
    found = driver.protocol.next_work("text", driver.now)
    assert found is None or isinstance(found, TagWork)
    return found


def test_an_interim_waits_for_its_audio_and_then_goes_without(
    drive: Make, kit: SimpleNamespace
) -> None:
    driver = behind(drive, kit)
    assert text_work(driver) is None
    assert not driver.protocol.is_overdue(driver.now)
    driver.now += 0.51
    assert driver.protocol.is_overdue(driver.now)
    work = text_work(driver)
    assert work is not None
    assert (work.text, work.has_audio) == ("他在北京", False)
    driver.protocol.work_done(work, driver.engine.run(work), driver.now)
    (upsert,) = driver.drain()
    assert upsert.entity.text == "北京"
    assert upsert.behind_live_ms == 510


def test_newer_revisions_do_not_start_the_wait_anew(drive: Make, kit: SimpleNamespace) -> None:
    driver = behind(drive, kit)
    for revision in (2, 3):
        driver.now += 0.3
        driver.transcript("他在北京", revision)
    work = text_work(driver)
    assert work is not None, "0.6 s after the first of them"
    driver.protocol.work_done(work, driver.engine.run(work), driver.now)


def test_only_the_first_answer_goes_without_audio(drive: Make, kit: SimpleNamespace) -> None:
    driver = behind(drive, kit)
    driver.now += 0.51
    work = text_work(driver)
    driver.protocol.work_done(work, driver.engine.run(work), driver.now)
    driver.transcript("他在北京大学", 2)
    driver.now += 1.0
    assert not driver.protocol.is_overdue(driver.now)
    assert text_work(driver) is None
    # Another utterance has its own.
    driver.transcript("她去上海", 1, utterance="u2")
    driver.now += 0.51
    assert driver.protocol.is_overdue(driver.now)
    work = text_work(driver)
    assert work is not None
    assert (work.text, work.has_audio) == ("她去上海", False)


def test_what_is_encoded_in_time_is_answered_with_its_audio(
    drive: Make, kit: SimpleNamespace
) -> None:
    driver = behind(drive, kit)
    while driver.take("audio"):
        driver.give("audio")
    driver.now += 0.51
    work = text_work(driver)
    assert work is not None
    assert work.has_audio


def test_a_final_waits_for_its_audio_however_long(drive: Make, kit: SimpleNamespace) -> None:
    driver = behind(drive, kit)
    driver.transcript("他在北京", 2, final=True)
    driver.now += 10.0
    assert not driver.protocol.is_overdue(driver.now), "it is urgent, which is more"
    assert text_work(driver) is None
    driver.run()
    assert driver.finals["u1"].audio_used


@pytest.mark.parametrize("what", ["no interims", "park"])
def test_what_nobody_waits_for_is_not_overdue(drive: Make, kit: SimpleNamespace, what: str) -> None:
    driver = behind(drive, kit)
    if what == "park":
        driver.protocol.session.park()
    else:
        driver.send('{"type": "session.update", "interim": false}')
    driver.now += 1.0
    assert not driver.protocol.is_overdue(driver.now)
    assert text_work(driver) is None
