"""Readings on request, through a session on the fake model."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from cnerta.models.runtime.readings import CharacterReading
from cnerta.streamer.wire.codec import encode
from cnerta.streamer.wire.messages import ErrorMessage, SessionStart, SessionUpdate

Drive = Callable[..., Any]


@pytest.fixture
def reading_model(model: Any) -> Any:
    """The fake model, which has heard zhang3 for every 长 and counts how often it was asked."""

    def read(text: str, frames: Any, tagged: Any) -> Any:
        model.read_calls.append(text)
        found = tuple(
            CharacterReading(i, (("zhang3", 0.75), ("chang2", 0.25)))
            for i, character in enumerate(text)
            if character == "长"
        )
        return replace(tagged, readings=found)

    model.bundle = replace(model.bundle, has_readings=True)
    model.read_calls = []
    model.read = read
    return model


def test_readings_come_with_the_final_in_the_clients_own_offsets(
    drive: Drive, kit: SimpleNamespace, reading_model: Any
) -> None:
    driver = drive(readings=True).audio(kit.speak("去长江大桥"))
    driver.transcript("去长江大桥", 1).run()
    assert reading_model.read_calls == [], "only a final is asked"
    final = driver.transcript("去，长江大桥", 2, final=True).run()[-1]
    (reading,) = final.readings
    assert (reading.start, reading.end, reading.text) == (2, 3, "长")
    assert (reading.reading, reading.confidence) == ("zhang3", 0.75)
    assert [(o.reading, o.confidence) for o in reading.alternatives] == [("chang2", 0.25)]


def test_utf16_offsets_count_surrogates(
    drive: Drive, kit: SimpleNamespace, reading_model: Any
) -> None:
    driver = drive(readings=True).audio(kit.speak("𠀀长江"))
    (reading,) = driver.transcript("𠀀长江", 1, final=True).run()[-1].readings
    assert (reading.start, reading.start_utf16, reading.end_utf16) == (1, 2, 3)


def test_nothing_is_computed_or_sent_unless_asked(
    drive: Drive, kit: SimpleNamespace, reading_model: Any
) -> None:
    driver = drive().audio(kit.speak("去长江"))
    final = driver.transcript("去长江", 1, final=True).run()[-1]
    assert final.audio_used
    assert "readings" not in json.loads(encode(final))
    assert reading_model.read_calls == []


def test_readings_can_be_asked_for_in_mid_stream(
    drive: Drive, kit: SimpleNamespace, reading_model: Any
) -> None:
    driver = drive().audio(kit.speak("去长江")).send(SessionUpdate(readings=True))
    assert len(driver.transcript("去长江", 1, final=True).run()[-1].readings) == 1
    driver.send(SessionUpdate(readings=False)).audio(kit.speak("去长江"))
    final = driver.transcript("去长江", 1, utterance="u2", final=True).run()[-1]
    assert "readings" not in json.loads(encode(final))


def test_without_audio_nothing_was_heard(drive: Drive, reading_model: Any) -> None:
    final = drive(readings=True).transcript("去长江", 1, final=True).run()[-1]
    assert not final.audio_used
    assert final.readings == []
    assert reading_model.read_calls == []


def test_a_model_that_cannot_tell_says_so(kit: SimpleNamespace, model: Any) -> None:
    driver = kit.Driver(model, SessionStart(readings=True))
    (error,) = [m for m in driver.drain() if isinstance(m, ErrorMessage)]
    assert (error.code, error.name) == (4400, "unsupported_readings")


def test_asking_it_in_mid_stream_is_an_error_too(drive: Drive) -> None:
    driver = drive().send(SessionUpdate(readings=True))
    (error,) = [m for m in driver.drain() if isinstance(m, ErrorMessage)]
    assert error.name == "unsupported_readings"


@pytest.mark.parametrize("has_readings", [True, False])
def test_ready_tells_whether_it_can(kit: SimpleNamespace, model: Any, has_readings: bool) -> None:
    model.bundle = replace(model.bundle, has_readings=has_readings)
    (ready,) = kit.Driver(model, SessionStart()).drain()
    assert ready.model.readings == has_readings


def test_a_failure_ends_this_session_only(
    drive: Drive, kit: SimpleNamespace, reading_model: Any
) -> None:
    def fail(text: str, frames: Any, tagged: Any) -> Any:
        raise ValueError(text)

    reading_model.read = fail
    broken, quiet = drive(readings=True), drive()
    for driver in (broken, quiet):
        driver.audio(kit.speak("他去长江")).transcript("他去长江", 1, final=True)
    work = [d.protocol.next_work("text", d.now) for d in (broken, quiet)]
    failed, answered = broken.engine.tag(work)
    assert isinstance(failed, ValueError)
    assert not isinstance(answered, Exception)
