"""What a session says that it holds, and how it gives that up."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from cnerta.streamer.session.limits import ConnectionLimits, SessionLimits
from cnerta.streamer.wire.messages import (
    ErrorMessage,
    SessionStart,
    SessionUpdate,
    WarningMessage,
)
from cnerta.streamer.wire.parts import GlossaryEntry

Drive = Callable[..., Any]


def release(driver: Any, wanted: int) -> int:
    """What a session gives up when asked for so much, but for the warning about it."""
    before = held(driver)
    driver.protocol.release_memory(wanted, driver.now)
    return before - held(driver)


def held(driver: Any) -> int:
    """What a session holds, but for its messages."""
    return int(driver.protocol.held_bytes - driver.protocol.session.outbox.held_bytes)


@pytest.mark.parametrize(
    "what", ["audio that waits", "audio", "texts", "entities", "held", "names"]
)
def test_the_estimate_is_no_less_than_what_is_allocated(kit: SimpleNamespace, what: str) -> None:
    model = kit.FakeModel()
    second = kit.speak("在") * 6

    def fill() -> Any:
        driver = kit.Driver(model, SessionStart())
        driver.drain()
        if what == "audio that waits":
            for _ in range(20):
                driver.protocol.receive(second, driver.now)
        elif what == "audio":
            for _ in range(100):
                driver.audio(second)
        elif what == "texts":
            for number in range(100):
                driver.transcript("他在" * (number + 1), 1, utterance=f"u{number}", final=True)
        elif what == "held":
            driver.send(SessionUpdate(hold_ms=60_000))
            for number in range(40):
                driver.transcript("北京大学他" * 20, 1, utterance=f"u{number}").run()
        elif what == "entities":
            for number in range(40):
                driver.transcript("北京" * 40, 1, utterance=f"u{number}").run()
        else:
            names = [
                GlossaryEntry(text=f"{n:03d}北京上海".translate(DIGITS), label="PER")
                for n in range(300)
            ]
            driver.send(SessionUpdate(glossary=names))
            driver.run()
        driver.seen.clear()
        model.tag_calls.clear()
        model.hinted.clear()
        model.encode_batches.clear()
        return driver

    fill()
    gc.collect()
    tracemalloc.start()
    try:
        driver = fill()
        gc.collect()
        allocated = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert allocated <= driver.protocol.held_bytes <= 20 * allocated + 200_000


DIGITS = str.maketrans("0123456789", "零一二三四五六七八九")


@pytest.mark.parametrize("streaming", [True, False])
def test_the_oldest_audio_is_forgotten_first_and_finals_are_answered(
    kit: SimpleNamespace, streaming: bool
) -> None:
    driver = kit.Driver(kit.FakeModel(streaming=streaming), SessionStart(interim=False))
    driver.audio(kit.speak("在北京") + kit.silence(4_000)).run()
    driver.audio(kit.speak("去上海"))
    driver.transcript("去上海", 1, utterance="u2", final=True, start_ms=4_480, end_ms=4_960)
    frame = 4 * (2 + 4) if streaming else 4 * (640 + 4)
    given = release(driver, 80 * frame)
    assert 80 * frame <= given <= 90 * frame
    assert driver.run()
    assert driver.finals["u2"].audio_used, "newer audio is still there"
    driver.transcript("在北京", 1, utterance="u1", final=True, start_ms=0, end_ms=480).run()
    assert not driver.finals["u1"].audio_used
    assert [e.text for e in driver.finals["u1"].entities] == ["北京"]
    assert len(driver.named(WarningMessage, "memory_short")) == 1


def test_audio_that_waits_is_given_up_as_far_as_need_be(drive: Drive, kit: SimpleNamespace) -> None:
    driver = drive()
    for _ in range(40):
        driver.protocol.receive(kit.silence(1_000), driver.now)
    waiting = held(driver)
    driver.take("audio")
    assert 0.25 * waiting - 2_560 <= release(driver, waiting // 4) <= 0.25 * waiting + 2_560
    driver.give("audio")
    assert held(driver) < waiting
    driver.take("audio")
    assert release(driver, 10**9) > 0.3 * waiting
    driver.give("audio")
    driver.transcript("在北京", 1, final=True).run()
    assert [e.text for e in driver.finals["u1"].entities] == ["北京"]
    driver.audio(kit.speak("去上海")).transcript("去上海", 1, utterance="u2", final=True).run()
    final = driver.finals["u2"]
    assert final.audio_used
    start_ms = final.characters[0][0]
    assert abs(start_ms - 40_000) <= kit.FRAME_MS, "times are still those of the stream"


def test_utterances_without_a_final_follow_the_audio_and_finals_stay(drive: Drive) -> None:
    driver = drive()
    for number in range(8):
        driver.transcript("北京" * 40, 1, utterance=f"u{number}").run()
    driver.transcript("去上海", 2, utterance="u7", final=True)
    driver.seen.clear()
    release(driver, 10**9)
    driver.run()
    assert list(driver.finals) == ["u7"]
    assert driver.named(WarningMessage, "utterance_dropped")
    dropped = [m for m in driver.events if getattr(m, "reason", "") == "utterance_dropped"]
    retracted = {m.utterance for m in dropped}
    assert retracted == {f"u{n}" for n in range(7)}
    assert not driver.protocol.is_closed


def test_who_owes_too_much_to_be_helped_ends_by_name(kit: SimpleNamespace) -> None:
    limits = ConnectionLimits(session=SessionLimits(pending_finals=1_000))
    driver = kit.Driver(kit.FakeModel(), SessionStart(), limits)
    for number in range(120):
        driver.transcript("他" * 4_096, 1, utterance=f"u{number}", final=True)
    release(driver, 10**9)
    (error,) = [m for m in driver.drain() if isinstance(m, ErrorMessage)]
    assert error.name == "too_many_finals"

    driver = kit.Driver(kit.FakeModel(max_characters=4_096), SessionStart())
    for number in range(6):
        driver.transcript("北京" * 500, 1, utterance=f"u{number}", final=True)
        driver.now += 10
        while driver.step():
            pass
    assert driver.protocol.held_bytes > 2**20
    release(driver, 10**9)
    (error,) = [m for m in driver.drain() if isinstance(m, ErrorMessage)]
    assert error.name == "reader_too_slow"


def test_the_most_that_one_session_can_hold_is_what_the_documents_say(kit: SimpleNamespace) -> None:
    """Without an engine, so that nothing is worked off: docs/how-to/serve.md says 25 MB."""
    driver = kit.Driver(kit.FakeModel(), SessionStart())
    driver.protocol.receive(kit.silence(1_000), driver.now)
    for _ in range(200):
        driver.now += 1
        driver.protocol.receive(kit.silence(1_000), driver.now)
        if driver.protocol.is_closed:
            break
    number = 0
    while not driver.protocol.is_closed and number < 250:
        number += 1
        driver.transcript("他" * 4_096, 1, utterance=f"u{number}", final=True)
    assert not driver.protocol.is_closed
    glossary_and_messages = 3e6 + 4 * 2**20
    assert driver.protocol.held_bytes + glossary_and_messages < 25e6
