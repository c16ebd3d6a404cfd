"""What one client sends costs the others little: long texts, many texts, names all alike."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from cnerta.models.runtime.vocabulary import Vocabulary
from cnerta.streamer.session import session as session_module
from cnerta.streamer.session.held_memory import glossary_bytes
from cnerta.streamer.session.limits import ConnectionLimits, SessionLimits
from cnerta.streamer.session.names import glossary as glossary_module
from cnerta.streamer.session.names.glossary import Glossary, GlossaryName
from cnerta.streamer.session.text_budget import TextBudget
from cnerta.streamer.session.work import CompileWork, NormaliseWork, TagWork
from cnerta.streamer.wire.messages import SessionUpdate
from cnerta.streamer.wire.parts import GlossaryEntry

Drive = Callable[..., Any]


def test_a_long_text_is_normalised_beside_the_tagger(
    drive: Drive, monkeypatch: pytest.MonkeyPatch
) -> None:
    normalised: list[int] = []
    normalise = session_module.normalise

    def counted(text: str) -> Any:
        normalised.append(len(text))
        return normalise(text)

    monkeypatch.setattr(session_module, "normalise", counted)
    driver = drive().transcript("他，" * 200, 1, final=True)
    assert normalised == [], "not where it comes in"
    assert driver.protocol.next_work("text", driver.now) is None
    work = driver.protocol.next_work("preparation", driver.now)
    assert work == NormaliseWork("他，" * 200)
    assert driver.protocol.next_work("preparation", driver.now) is None, "it is not back yet"
    driver.protocol.work_done(work, driver.engine.run(work), driver.now)
    driver.run()
    assert driver.finals["u1"].text == "他，" * 200
    driver.transcript("他在北京", 1, utterance="u2", final=True).run()
    assert normalised == [4], "short ones are"


def test_others_get_their_turn_between_the_pieces_of_a_long_text(kit: SimpleNamespace) -> None:
    model = kit.FakeModel(max_characters=300)
    driver = kit.Driver(model, kit.start())
    driver.transcript("他在北京" * 150, 1, final=True)
    lengths = []
    assert driver.take("preparation")
    driver.give("preparation")
    while (work := driver.protocol.next_work("text", driver.now)) is not None:
        if isinstance(work, TagWork):
            lengths.append(len(work.text))
        driver.protocol.work_done(work, driver.engine.run(work), driver.now)
    driver.drain()
    assert lengths == [128] * 4 + [88]
    found = driver.finals["u1"].entities
    assert [(e.start, e.text) for e in found if e.label == "LOC"][-1] == (598, "北京")
    assert len(found) == 150


def test_a_newer_interim_takes_the_place_of_a_long_one_that_is_half_done(
    kit: SimpleNamespace,
) -> None:
    driver = kit.Driver(kit.FakeModel(max_characters=100), kit.start())
    driver.transcript("他" * 250, 1)
    assert driver.take("text")
    driver.transcript("在北京", 2)
    driver.give("text")
    driver.run()
    assert [text for text, _ in driver.model.tag_calls] == ["他" * 100, "在北京"]
    assert driver.protocol.session.dropped_interims == 1


def test_a_glossary_is_compiled_beside_the_tagger_and_texts_wait_for_it(drive: Drive) -> None:
    driver = drive()
    driver.send(SessionUpdate(glossary=[GlossaryEntry(text="尚海", label="PER")]))
    driver.transcript("去上海", 1, final=True)
    assert driver.protocol.next_work("text", driver.now) is None
    work = driver.protocol.next_work("preparation", driver.now)
    assert isinstance(work, CompileWork)
    assert driver.protocol.next_work("text", driver.now) is None
    driver.protocol.work_done(work, driver.engine.run(work), driver.now)
    driver.run()
    assert {e.label for e in driver.finals["u1"].entities} == {"LOC", "PER"}


READINGS = {c: [f"{chr(97 + i)}a1"] for i, c in enumerate("一二三四五六七八九十")}


def compared(glossary: Glossary, text: str, monkeypatch: pytest.MonkeyPatch) -> int:
    count = 0
    compare = Glossary._compare

    def counting(self: Glossary, piece: str, pattern: Any) -> Any:
        nonlocal count
        count += 1
        return compare(self, piece, pattern)

    with monkeypatch.context() as patched:
        patched.setattr(Glossary, "_compare", counting)
        glossary.find(text)
    return count


def test_names_that_begin_alike_cost_no_more_than_one(monkeypatch: pytest.MonkeyPatch) -> None:
    vocabulary = Vocabulary.build(READINGS, READINGS)
    prefix = "一二三四五六七" * 9
    alike = [GlossaryName(prefix + a + b, "PER") for a in "八九十" for b in "八九十"]
    text = (prefix + "一") * 60
    assert compared(Glossary(alike, vocabulary), text, monkeypatch) == 0
    text += prefix + "九十"
    assert compared(Glossary(alike, vocabulary), text, monkeypatch) <= 3
    (match,) = Glossary(alike, vocabulary).find(text)
    assert match.name.text == prefix + "九十"


def test_names_that_fit_everywhere_cost_in_proportion_to_the_text(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    vocabulary = Vocabulary.build(READINGS, READINGS)
    names = [GlossaryName("一" * n, label) for n in range(1, 65) for label in ("PER", "LOC", "ORG")]
    glossary = Glossary(names, vocabulary)
    for length in (512, 4_096):
        count = compared(glossary, "一" * length, monkeypatch)
        bound = (
            glossary_module._LEAST_COMPARISONS + glossary_module._COMPARISONS_A_CHARACTER * length
        )
        assert count <= bound


def test_a_budget_lets_bursts_through_and_then_flows() -> None:
    budget = TextBudget(characters_per_s=100, capacity=1_000)
    budget.charge(999, now=0.0)
    assert budget.allows(now=0.0)
    budget.charge(1_501, now=0.0)
    assert not budget.allows(now=15.0)
    assert budget.allows(now=15.1)
    unbounded = TextBudget(characters_per_s=None, capacity=1)
    unbounded.charge(10**9, now=0.0)
    assert unbounded.allows(now=0.0)


def test_interims_never_keep_a_final_waiting(kit: SimpleNamespace) -> None:
    driver = kit.Driver(kit.FakeModel(max_characters=100), kit.start())
    for revision in range(10):
        driver.transcript("他" * 4_000, revision).run()
    assert driver.protocol.session.dropped_interims > 0
    driver.transcript("在北京", 1, utterance="u2", final=True).run()
    assert "u2" in driver.finals


def test_a_long_interim_that_is_written_anew_is_not_normalised_each_time(
    kit: SimpleNamespace,
) -> None:
    limits = SessionLimits(characters_per_s=100.0, character_burst=1_000)
    driver = kit.Driver(
        kit.FakeModel(max_characters=100),
        kit.start(),
        ConnectionLimits(session=limits, idle_timeout_s=None),
    )
    normalised = 0
    for revision in range(40):
        driver.transcript("他" * 4_000, revision)
        if driver.take("preparation"):
            normalised += 1
            driver.give("preparation")
    assert normalised == 1, "4,000 characters take all of a budget of 500"


def test_what_a_glossary_holds_is_not_worked_out_again(monkeypatch: pytest.MonkeyPatch) -> None:
    glossary = Glossary([GlossaryName("一二三", "PER")] * 2, Vocabulary.build(READINGS, READINGS))
    held = glossary_bytes(glossary)

    def refuse(text: str) -> Any:
        raise AssertionError("expected no normalisation on the loop")

    monkeypatch.setattr(glossary_module, "normalise", refuse)
    assert glossary_bytes(glossary) == held > 0
    assert glossary.characters == 6


def test_who_sends_more_text_than_anyone_speaks_is_answered_later_and_completely(
    drive: Drive,
) -> None:
    limits = SessionLimits(characters_per_s=100.0, character_burst=400)
    driver = drive(ConnectionLimits(session=limits, idle_timeout_s=None))
    for n in range(40):
        driver.transcript("他在北京" * 10, 1, utterance=f"u{n}", final=True)
    driver.run()
    at_once = len(driver.finals)
    assert 10 <= at_once <= 11
    driver.wait(5.0)
    assert at_once + 10 <= len(driver.finals) < 40
    for _ in range(40):
        driver.wait(1.0)
    assert len(driver.finals) == 40
