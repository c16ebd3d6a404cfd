"""Text that is held back until it may be shown: what of it is released, and when."""

from __future__ import annotations

import itertools
from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from cnerta.streamer.session.limits import ConnectionLimits, SessionLimits
from cnerta.streamer.session.outgoing.held_text import EDGE_CHARACTERS
from cnerta.streamer.wire.codec import decode_server, encode
from cnerta.streamer.wire.messages import (
    CaptionUpdate,
    ErrorMessage,
    RecognisedTranscript,
    SessionStart,
    SessionUpdate,
    Transcript,
    UtteranceFinal,
)

from ..conftest import LEXICON, Driver, FakeModel

Drive = Callable[..., Driver]
HOLD = 2_000
LATE = 60_000
"""Nothing is stable by its age alone."""


def say(driver: Driver, text: str, revision: int, *, final: bool = False) -> list[str]:
    """Send a revision; the texts that may be shown after it."""
    driver.transcript(text, revision, final=final)
    while driver.step():
        pass
    return shown(driver)


def shown(driver: Driver) -> list[str]:
    return [m.text for m in driver.drain() if isinstance(m, CaptionUpdate)]


def wait(driver: Driver, seconds: float) -> list[str]:
    driver.now += seconds
    driver.protocol.tick(driver.now)
    return shown(driver)


def test_nobody_is_told_who_does_not_ask(drive: Drive) -> None:
    driver = drive()
    assert say(driver, "他在北京的家里", 1) == []
    assert say(driver, "他在北京的家里的", 2) == []
    assert wait(driver, 10) == []


def test_text_is_shown_once_names_in_it_would_have_been_seen(drive: Drive) -> None:
    driver = drive(hold_ms=HOLD, max_delay_ms=LATE)
    assert say(driver, "他在北京", 1) == [""]
    # Twice without a name: but those at the end may be the beginning of one.
    assert say(driver, "他在北京的", 2) == ["他"]
    (update,) = [m for m in driver.seen if isinstance(m, CaptionUpdate) and m.text]
    assert (update.held, update.revision, update.entities) == (4, 2, [])
    # Now the entity is stable, and goes out whole; what follows it is at the edge.
    assert say(driver, "他在北京的家", 3) == ["他在北京"]
    newest = [m for m in driver.seen if isinstance(m, CaptionUpdate)][-1]
    assert [(e.text, e.status) for e in newest.entities] == [("北京", "stable")]
    assert decode_server(encode(newest)) == newest


def test_a_character_is_held_for_so_long_at_most(drive: Drive) -> None:
    driver = drive(hold_ms=HOLD, max_delay_ms=LATE)
    say(driver, "他在", 1)
    assert wait(driver, 1.0) == []
    say(driver, "他在北京", 2)
    assert wait(driver, 0.99) == []
    assert wait(driver, 0.02) == ["他在"]
    assert wait(driver, 0.98) == []
    # The entity is tentative still: it is told as one, so that it can be hidden.
    assert wait(driver, 0.02) == ["他在北京"]
    newest = [m for m in driver.seen if isinstance(m, CaptionUpdate)][-1]
    assert [(e.text, e.status) for e in newest.entities] == [("北京", "tentative")]


def test_an_entity_is_never_shown_in_part(drive: Drive) -> None:
    driver = drive(hold_ms=HOLD, max_delay_ms=LATE)
    say(driver, "他在北京", 1)
    wait(driver, 2.1)
    assert say(driver, "他在北京大学", 2) == ["他在北京大学"]


def test_nothing_is_shown_that_has_no_answer(drive: Drive) -> None:
    driver = drive(hold_ms=0, max_delay_ms=LATE)
    driver.transcript("他在北京", 1)
    assert wait(driver, 1.0) == []
    while driver.step():
        pass
    assert shown(driver) == ["他在北京"]


def test_exchanged_characters_are_held_anew(drive: Drive) -> None:
    driver = drive(hold_ms=HOLD, max_delay_ms=LATE)
    say(driver, "他在背景的家里", 1)
    wait(driver, 2.1)
    assert say(driver, "他在北京的家里", 2) == ["他在"]
    assert say(driver, "他在北京的家里", 3) == ["他在北京的家里"]


def test_the_final_answer_lets_the_rest_go(drive: Drive) -> None:
    driver = drive(hold_ms=HOLD)
    say(driver, "他在北京", 1)
    assert say(driver, "他在北京大学", 2, final=True) == []
    assert driver.finals["u1"].text == "他在北京大学"
    assert wait(driver, 5) == []


def test_it_may_be_switched_on_and_off(drive: Drive) -> None:
    driver = drive()
    say(driver, "他在北京", 1)
    driver.send(SessionUpdate(hold_ms=0))
    assert say(driver, "他在北京的", 2) == ["他在北京的"]
    driver.send(SessionUpdate(hold_ms=None))
    assert say(driver, "他在北京的家", 3) == []


def test_an_utterance_that_is_forgotten_is_taken_off_the_screen() -> None:
    limits = ConnectionLimits(session=SessionLimits(open_utterances=1))
    driver = Driver(FakeModel(), SessionStart(hold_ms=0), limits)
    driver.drain()
    assert say(driver, "他在北京", 1) == ["他在北京"]
    driver.transcript("上海", 1, utterance="u2")
    while driver.step():
        pass
    told = [(m.utterance, m.text) for m in driver.drain() if isinstance(m, CaptionUpdate)]
    assert told == [("u1", ""), ("u2", "上海")]


def test_a_recogniser_of_the_server_tells_no_text_before_it_may_be_shown() -> None:
    driver = Driver(FakeModel())
    driver.protocol.offer_recognition()
    driver.send(SessionStart(transcript="server", hold_ms=HOLD))
    written = Transcript(utterance="s1", revision=1, final=False, text="他在北京")
    driver.protocol.recognised(written, driver.now)
    while driver.step():
        pass
    told = driver.drain()
    assert not [m for m in told if isinstance(m, RecognisedTranscript)]
    assert [m.text for m in told if isinstance(m, CaptionUpdate)] == [""]


def test_a_slow_reader_gets_the_newest_only(drive: Drive) -> None:
    driver = drive(hold_ms=0)
    for revision, text in enumerate(["他", "他在", "他在北", "他在北京"], 1):
        driver.transcript(text, revision)
        while driver.step():
            pass
    assert shown(driver) == ["他在北京"]


def test_what_it_may_be_is_checked(kit: object) -> None:
    driver = Driver(FakeModel())
    driver.send('{"type": "session.start", "hold_ms": 60001}').run()
    (error,) = driver.named(ErrorMessage, "invalid_message")
    assert "60000" in error.detail


TEXTS = st.lists(
    st.text("他在北京大学上海南市长江桥", min_size=1, max_size=12), min_size=1, max_size=7
)
WAITS = st.lists(st.sampled_from([0.0, 0.3, 0.9, 2.5]), min_size=7, max_size=7)


@given(texts=TEXTS, waits=WAITS, hold_ms=st.sampled_from([0, 500, 2_000]))
def test_what_is_guaranteed(texts: list[str], waits: list[float], hold_ms: int) -> None:
    driver = Driver(FakeModel(), SessionStart(hold_ms=hold_ms, max_delay_ms=LATE))
    shown = ""
    since: list[float] = []  # of each character of the newest text, as long as it only grows
    last = ""
    for number, (text, seconds) in enumerate(zip(texts, itertools.cycle(waits), strict=False), 1):
        kept = len(last) if text.startswith(last) else 0
        since = since[:kept] + [driver.now] * (len(text) - kept)
        last = text
        driver.transcript(text, number)
        while driver.step():
            pass
        driver.now += seconds
        driver.protocol.tick(driver.now)
        for message in driver.drain():
            assert not isinstance(message, UtteranceFinal)
            if not isinstance(message, CaptionUpdate):
                continue
            shown = message.text
            assert text.startswith(shown)
            assert message.held == len(text) - len(shown)
            hidden = {i for e in message.entities for i in range(e.start, e.end)}
            assert all(shown[e.start : e.end] == e.text for e in message.entities)
            # Whatever the answer found in the text that is shown is told with it.
            for word in LEXICON:
                for i in range(len(text)):
                    if text.startswith(word, i):
                        assert {j for j in range(i, i + len(word)) if j < len(shown)} <= hidden
            # What is shown is old enough, within something that is told, or away from the edge.
            for i in range(len(shown)):
                is_old = 1000 * (driver.now - since[i]) >= hold_ms
                assert is_old or i in hidden or kept == 0 or len(text) - i > EDGE_CHARACTERS
        for i, came in enumerate(since):
            if 1000 * (driver.now - came) >= hold_ms + 1:
                assert len(shown) > i, "expected what is old enough to be shown"
