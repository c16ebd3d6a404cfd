"""What fails in the engine: only that request ends, and every final is answered or named."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cnerta.streamer.serving import engine as engine_module
from cnerta.streamer.session.work import CompileWork, NormaliseWork
from cnerta.streamer.wire.messages import (
    ErrorMessage,
    SessionFinish,
    SessionStart,
    SessionSummary,
    SessionUpdate,
    WarningMessage,
)
from cnerta.streamer.wire.parts import GlossaryEntry

Drive = Callable[..., Any]


class Faults:
    """Has a model's calls fail: those that ``fails`` says, or those that stand in ``plan``."""

    def __init__(self, model: Any) -> None:
        self.tag: Callable[[list[str], list[Any]], bool] = lambda texts, frames: False
        self.encode: Callable[[Any], bool] = lambda samples: False
        self.count = 0
        plain_tag, plain_encode = model.tag, model.encode
        plain_utterances = model.encode_utterances

        def tag(texts: Any, frames: Any, hints: Any = ()) -> Any:
            self.check(self.tag(texts, frames))
            return plain_tag(texts, frames, hints)

        def encode(samples: Any, states: Any) -> Any:
            self.check(self.encode(samples))
            return plain_encode(samples, states)

        def encode_utterances(utterances: Any) -> Any:
            self.check(self.encode(utterances))
            return plain_utterances(utterances)

        model.tag, model.encode, model.encode_utterances = tag, encode, encode_utterances

    def check(self, fails: bool) -> None:
        if fails:
            self.count += 1
            raise ValueError("a graph that fails")


@pytest.fixture
def faults(model: Any) -> Faults:
    return Faults(model)


def once(condition: bool = True) -> Callable[..., bool]:
    """Fails the first time."""
    left = [condition]
    return lambda *_: left.pop() if left else False


def warned(driver: Any) -> list[str]:
    return [m.name for m in driver.seen if isinstance(m, WarningMessage)]


def test_a_failed_interim_is_dropped_and_told_once(drive: Drive, faults: Faults) -> None:
    driver = drive()
    faults.tag = lambda texts, frames: "毒" in texts[0]
    for revision, text in enumerate(["毒", "毒北京", "毒上海"], 1):
        driver.transcript(text, revision).run()
    assert warned(driver) == ["answer_failed"]
    driver.transcript("在上海", 4).run()
    driver.transcript("在上海", 5, final=True).run()
    assert [e.text for e in driver.finals["u1"].entities] == ["上海"]
    driver.send(SessionFinish()).run()
    (summary,) = [m for m in driver.seen if isinstance(m, SessionSummary)]
    assert (summary.dropped_interims, summary.utterances) == (3, 1)


def test_a_failed_final_is_tried_once_more_alone(
    drive: Drive, kit: SimpleNamespace, faults: Faults
) -> None:
    driver = drive()
    driver.audio(kit.speak("在北京"))
    faults.tag = once()
    driver.transcript("在北京", 1, final=True)
    driver.take("audio")
    driver.give("audio")
    assert driver.take("text")
    assert not driver._away["text"].is_alone
    driver.give("text")
    assert driver.take("text")
    assert driver._away["text"].is_alone
    driver.run()
    assert driver.finals["u1"].audio_used
    assert warned(driver) == []


def test_a_final_that_fails_twice_is_answered_from_text_alone(
    drive: Drive, kit: SimpleNamespace, faults: Faults
) -> None:
    driver = drive()
    driver.audio(kit.speak("在北京"))
    faults.tag = lambda texts, frames: len(frames[0]) > 0
    driver.transcript("在北京", 1, final=True).run()
    final = driver.finals["u1"]
    assert [e.text for e in final.entities] == ["北京"]
    assert not final.audio_used
    assert warned(driver) == ["answer_failed"]
    assert faults.count == 2
    faults.tag = once(False)
    driver.audio(kit.speak("去上海")).transcript("去上海", 1, utterance="u2", final=True).run()
    assert driver.finals["u2"].audio_used, "the next one is as if nothing had been"


@pytest.mark.parametrize(("spoken", "tries"), [("毒北京", 3), ("", 2)])
def test_a_final_that_cannot_be_answered_at_all_ends_the_session_by_name(
    drive: Drive, kit: SimpleNamespace, faults: Faults, spoken: str, tries: int
) -> None:
    driver = drive()
    driver.audio(kit.speak(spoken))
    faults.tag = lambda texts, frames: "毒" in texts[0]
    driver.transcript("毒北京", 1, final=True).run()
    (error,) = [m for m in driver.seen if isinstance(m, ErrorMessage)]
    assert (error.code, error.name) == (1011, "internal")
    assert driver.protocol.close.code == 1011
    assert faults.count == tries


def test_a_failed_piece_of_a_long_text_is_tried_once_more(
    kit: SimpleNamespace,
) -> None:
    model = kit.FakeModel(max_characters=4)
    faults = Faults(model)
    driver = kit.Driver(model, SessionStart())
    failed: list[str] = []

    def fails(texts: list[str], frames: Any) -> bool:
        if texts[0] in failed or texts[0] != "去上海的":
            return False
        failed.append(texts[0])
        return True

    faults.tag = fails
    driver.transcript("他在北京去上海的张三", 1, final=True).run()
    assert faults.count == 1
    assert [e.text for e in driver.finals["u1"].entities] == ["北京", "上海", "张三"]


def test_the_audio_of_a_failed_chunk_is_missing_and_no_other(
    drive: Drive, kit: SimpleNamespace, faults: Faults
) -> None:
    driver = drive()
    driver.audio(kit.speak("他在北京"))
    driver.transcript("他在北京", 1, utterance="u1", final=True).run()
    faults.encode = lambda samples: True
    driver.audio(kit.speak("他在上海"))
    driver.transcript("他在上海", 1, utterance="u2", final=True).run()
    faults.encode = lambda samples: False
    driver.audio(kit.speak("张三李四"))
    driver.transcript("张三李四", 1, utterance="u3", final=True).run()
    used = {name: final.audio_used for name, final in driver.finals.items()}
    assert used == {"u1": True, "u2": False, "u3": True}
    assert [e.text for e in driver.finals["u2"].entities] == ["上海"]
    lost = driver.named(WarningMessage, "audio_lost")
    assert 1 <= len(lost) <= faults.count
    last = driver.finals["u3"].characters[0][0]
    assert abs(last - 8 * kit.CHARACTER_MS) <= kit.FRAME_MS, "no frame is counted twice or left out"
    assert not driver.protocol.is_closed


def test_audio_that_is_lost_for_long_is_told_ever_more_rarely(
    drive: Drive, kit: SimpleNamespace, faults: Faults
) -> None:
    driver = drive()
    faults.encode = lambda samples: True
    for _ in range(60):
        driver.audio(kit.silence(1000)).drain()
    assert faults.count > 100
    assert len(driver.named(WarningMessage, "audio_lost")) < 10


@pytest.mark.parametrize(("failures", "audio_used"), [(1, True), (2, False)])
def test_a_whole_utterance_that_cannot_be_encoded_is_answered_from_text(
    kit: SimpleNamespace, failures: int, audio_used: bool
) -> None:
    model = kit.FakeModel(streaming=False)
    faults = Faults(model)
    driver = kit.Driver(model, SessionStart(interim=False))
    faults.encode = lambda utterances: faults.count < failures
    driver.audio(kit.speak("在北京")).transcript("在北京", 1, final=True).run()
    final = driver.finals["u1"]
    assert ([e.text for e in final.entities], final.audio_used) == (["北京"], audio_used)
    assert len(driver.named(WarningMessage, "audio_lost")) == failures - 1
    driver.audio(kit.speak("去上海")).transcript("去上海", 1, utterance="u2", final=True).run()
    assert driver.finals["u2"].audio_used


def test_a_failed_interim_encoding_leaves_text_alone(kit: SimpleNamespace) -> None:
    model = kit.FakeModel(streaming=False)
    faults = Faults(model)
    driver = kit.Driver(model, SessionStart())
    faults.encode = once()
    driver.audio(kit.speak("在北京")).transcript("在北京", 1).run()
    assert faults.count == 1
    assert [m.entity.audio_used for m in driver.events] == [False]


def test_a_text_that_cannot_be_normalised_at_once_is_tried_again(
    drive: Drive, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, fails = engine_module.prepare, [True]

    def prepare(work: Any) -> Any:
        if isinstance(work, NormaliseWork) and fails and fails.pop():
            return MemoryError()
        return plain(work)

    monkeypatch.setattr(engine_module, "prepare", prepare)
    driver = drive()
    driver.transcript("他在北京" + "的" * 300, 1, final=True).run()
    assert [e.text for e in driver.finals["u1"].entities] == ["北京"]


def test_a_glossary_that_fails_inside_is_not_used_and_told(
    drive: Drive, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = engine_module.prepare

    def prepare(work: Any) -> Any:
        return MemoryError() if isinstance(work, CompileWork) else plain(work)

    monkeypatch.setattr(engine_module, "prepare", prepare)
    driver = drive()
    driver.send(SessionUpdate(glossary=[GlossaryEntry(text="尚海", label="PER")]))
    driver.transcript("去上海", 1, final=True).run()
    assert [e.label for e in driver.finals["u1"].entities] == ["LOC"]
    assert warned(driver) == ["answer_failed"]


steps = st.lists(
    st.tuples(st.sampled_from(["在北京", "去上海", "张三"]), st.booleans(), st.booleans()),
    min_size=1,
    max_size=6,
)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps, st.lists(st.booleans(), max_size=40), st.booleans())
def test_every_final_is_answered_once_or_the_session_ends_by_name(
    kit: SimpleNamespace, said: list[tuple[str, bool, bool]], plan: list[bool], streaming: bool
) -> None:
    model = kit.FakeModel(streaming=streaming)
    faults = Faults(model)
    outcomes = iter(plan)
    faults.tag = faults.encode = lambda *_: next(outcomes, False)
    driver = kit.Driver(model, SessionStart())
    sent = []
    for number, (text, is_spoken, is_final) in enumerate(said):
        if is_spoken:
            driver.audio(kit.speak(text))
        driver.transcript(text, 1, utterance=f"u{number}").run()
        if is_final and not driver.protocol.is_closed:
            driver.transcript(text, 2, utterance=f"u{number}", final=True)
            sent.append(f"u{number}")
        driver.run()
    driver.send(SessionFinish()).run()
    finals = [m.utterance for m in driver.events if m.__struct_config__.tag == "utterance.final"]
    errors = [m.code for m in driver.seen if isinstance(m, ErrorMessage)]
    assert len(finals) == len(set(finals))
    if errors:
        assert errors == [1011]
        assert finals == sent[: len(finals)], "those before the one that could not be answered"
        assert len(sent) - len(finals) == 1
        assert faults.count >= 2
    else:
        assert finals == sent
        assert driver.protocol.close.code == 1000
