"""Which audio a session takes for which text: skewed clocks, overlaps, order and lateness."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cnerta.streamer.session.limits import ConnectionLimits, SessionLimits
from cnerta.streamer.wire.messages import EntityUpsert, SessionStart, WarningMessage

Drive = Callable[..., Any]

SENTENCES = ("他在北京", "她去上海", "李四来了", "张三在家", "去南京市", "在长江大桥")
PAUSE_MS = 1_000


class Conversation:
    """Sentences spoken one after the other, each sent as final with times off by a constant."""

    def __init__(self, driver: Any, kit: SimpleNamespace) -> None:
        self.driver = driver
        self.kit = kit
        self.count = 0
        self.at_ms = 0
        self.spoken: dict[str, tuple[int, int]] = {}

    def pause(self, milliseconds: int) -> None:
        self.driver.audio(self.kit.silence(milliseconds))
        self.at_ms += milliseconds

    def say(self, skew_ms: int, *, final: bool = True, padding_ms: int = 0) -> Any:
        """One sentence and a pause; the final that came of it."""
        text = SENTENCES[self.count % len(SENTENCES)]
        utterance = f"u{self.count}"
        self.count += 1
        start_ms, end_ms = self.at_ms, self.at_ms + len(text) * self.kit.CHARACTER_MS
        self.driver.audio(self.kit.speak(text))
        self.at_ms = end_ms
        self.spoken[utterance] = (start_ms, end_ms)
        self.pause(PAUSE_MS)
        self.driver.transcript(
            text,
            1,
            utterance=utterance,
            final=final,
            start_ms=max(0, start_ms - padding_ms + skew_ms),
            end_ms=max(0, end_ms + padding_ms + skew_ms),
        ).run()
        return self.driver.finals.get(utterance)

    def is_right(self, final: Any) -> bool:
        """Whether every character was found where it was spoken, to less than half of it."""
        start_ms, _ = self.spoken[final.utterance]
        return bool(final.audio_used) and all(
            abs(found_ms - start_ms - i * self.kit.CHARACTER_MS) < self.kit.CHARACTER_MS / 2
            for i, (found_ms, _) in enumerate(final.characters)
        )

    @property
    def warnings(self) -> list[str]:
        named = self.driver.named(WarningMessage, "transcript_clock_skew")
        return [warning.detail for warning in named]


@pytest.fixture
def conversation(drive: Drive, kit: SimpleNamespace) -> Conversation:
    talk = Conversation(drive(), kit)
    talk.pause(6_000)
    return talk


# --- a transcript whose clock is off --------------------------------------------------------------


@pytest.mark.parametrize("skew_ms", [-5_000, -3_000, -700, 700, 3_000, 5_000])
def test_a_constant_skew_is_measured_corrected_and_told_once(
    conversation: Conversation, skew_ms: int
) -> None:
    finals = [conversation.say(skew_ms) for _ in range(8)]
    assert all(map(conversation.is_right, finals))
    (detail,) = conversation.warnings
    direction = "late" if skew_ms > 0 else "early"
    assert f"too {direction}" in detail
    offset_ms = int(detail.split(": ")[1].split(" ")[0])
    assert abs(offset_ms + skew_ms) <= 100


def test_a_corrected_skew_costs_nothing_more(conversation: Conversation) -> None:
    for _ in range(3):
        conversation.say(2_000)
    before = len(conversation.driver.model.tag_calls)
    for _ in range(5):
        conversation.say(2_000)
    calls = conversation.driver.model.tag_calls[before:]
    assert len(calls) == 5
    assert all(frames <= 20 + 10 for _, frames in calls), "the speech and the slack"


def test_interims_are_heard_with_the_corrected_times(conversation: Conversation) -> None:
    for _ in range(3):
        conversation.say(-3_000)
    conversation.say(-3_000, final=False)
    (*_, last) = [m for m in conversation.driver.events if isinstance(m, EntityUpsert)]
    assert last.utterance == "u3"
    assert last.entity.audio_used


def test_times_from_the_transcript_are_corrected_too(conversation: Conversation) -> None:
    for _ in range(3):
        conversation.say(-3_000)
    conversation.driver.model.bundle.__dict__["audio_fit_bound"] = 1.0  # nothing fits any more
    final = conversation.say(-3_000)
    assert final.time_source == "transcript"
    start_ms, end_ms = conversation.spoken[final.utterance]
    assert abs(final.characters[0][0] - start_ms) <= 100
    assert abs(final.characters[-1][1] - end_ms) <= 100


@pytest.mark.parametrize("skew_ms", [-150, 0, 150])
def test_a_skew_within_the_slack_changes_nothing(conversation: Conversation, skew_ms: int) -> None:
    finals = [conversation.say(skew_ms, padding_ms=60) for _ in range(8)]
    assert all(map(conversation.is_right, finals))
    assert conversation.warnings == []
    assert len(conversation.driver.model.tag_calls) == 8


def test_one_odd_utterance_is_found_and_changes_nothing(conversation: Conversation) -> None:
    for skew_ms in (0, 0, 0, 2_500, 0, 0, -1_800, 0):
        assert conversation.is_right(conversation.say(skew_ms))
    assert conversation.warnings == []


def test_a_clock_that_jumps_is_measured_again(conversation: Conversation) -> None:
    for skew_ms in (3_000, -1_500, 0):
        for _ in range(6):
            assert conversation.is_right(conversation.say(skew_ms))
    assert len(conversation.warnings) == 3
    assert len(conversation.driver.model.tag_calls) == 18 + 3 * 3, "three are looked for twice"


def test_a_recogniser_that_begins_to_count_again_is_followed(conversation: Conversation) -> None:
    for _ in range(3):
        conversation.say(0)
    conversation.pause(50_000)
    skew_ms = -conversation.at_ms
    assert all(conversation.is_right(conversation.say(skew_ms)) for _ in range(6))
    assert len(conversation.warnings) == 1


def test_text_that_was_not_spoken_measures_nothing(conversation: Conversation) -> None:
    for number in range(6):
        conversation.pause(2_000)
        final = conversation.driver.transcript(
            "李四", 1, utterance=f"x{number}", final=True, start_ms=100, end_ms=900
        ).run()[-1]
        assert not final.audio_used
    assert conversation.warnings == []
    assert conversation.is_right(conversation.say(0))


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(-5_000, 5_000), st.lists(st.integers(0, 300), min_size=6, max_size=6))
def test_any_constant_skew_leaves_every_final_right(
    kit: SimpleNamespace, skew_ms: int, paddings: list[int]
) -> None:
    driver = kit.Driver(kit.FakeModel(), SessionStart())
    driver.drain()
    talk = Conversation(driver, kit)
    talk.pause(6_000)
    for padding_ms in paddings:
        assert talk.is_right(talk.say(skew_ms, padding_ms=padding_ms))
    assert len(talk.warnings) <= 1
    assert bool(talk.warnings) or abs(skew_ms) < 1_000


# --- silence around speech ------------------------------------------------------------------------


def test_long_silence_before_and_after_is_not_listened_to(
    drive: Drive, kit: SimpleNamespace
) -> None:
    driver = drive().audio(kit.silence(20_000) + kit.speak("他在北京") + kit.silence(10_000))
    final = driver.transcript("他在北京", 1, final=True).run()[-1]
    assert final.audio_used
    assert abs(final.characters[0][0] - 20_000) < kit.CHARACTER_MS / 2
    ((_, frames),) = driver.model.tag_calls
    assert frames <= 16 + 2 * 15
    assert final.behind_live_ms <= 40, "the silence was heard all the same"


def test_silence_between_utterances_is_left_to_nobody(drive: Drive, kit: SimpleNamespace) -> None:
    driver = drive().audio(kit.speak("他在北京") + kit.silence(8_000) + kit.speak("她去上海"))
    driver.audio(kit.silence(8_000))
    driver.transcript("他在北京", 1, utterance="a", final=True)
    driver.transcript("她去上海", 1, utterance="b", final=True).run()
    assert abs(driver.finals["a"].characters[0][0]) < kit.CHARACTER_MS / 2
    assert abs(driver.finals["b"].characters[0][0] - 8_640) < kit.CHARACTER_MS / 2
    assert driver.model.tag_calls[-1][1] <= 16 + 2 * 15


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.integers(333, 40_000), min_size=1, max_size=8),
    st.lists(st.integers(0, 120), min_size=4, max_size=4),
    st.booleans(),
)
def test_finals_do_not_depend_on_how_the_audio_is_cut(
    kit: SimpleNamespace, cuts: list[int], pauses: list[int], timed: bool
) -> None:
    """The same audio in other frames gives the same answers, sample for sample."""

    def answers(sizes: list[int]) -> list[Any]:
        driver = kit.Driver(kit.FakeModel(), SessionStart())
        at = 0
        for number, (text, pause) in enumerate(zip(SENTENCES, pauses, strict=False)):
            pcm = kit.silence(40 * pause) + kit.speak(text) + kit.silence(1_000)
            position = count = 0
            while position < len(pcm):
                size = sizes[count % len(sizes)]
                driver.audio(pcm[position : position + size], frame_bytes=size)
                position, count = position + size, count + 1
            start_ms = at + 40 * pause
            at += len(pcm) // 32
            times = {"start_ms": start_ms, "end_ms": at - 1_000} if timed else {}
            driver.transcript(text, 1, utterance=f"u{number}", final=True, **times).run()
        return [
            (final.utterance, final.entities, final.characters, final.audio_used)
            for final in driver.finals.values()
        ]

    assert answers(cuts) == answers([1_280])


# --- overlapping, out of order, early and late ----------------------------------------------------


def test_utterances_whose_times_overlap_are_both_heard(drive: Drive, kit: SimpleNamespace) -> None:
    driver = drive().audio(kit.speak("他在北京") + kit.speak("她去上海") + kit.silence(400))
    driver.transcript("他在北京", 1, utterance="a", final=True, start_ms=0, end_ms=1_000)
    driver.transcript("她去上海", 1, utterance="b", final=True, start_ms=300, end_ms=1_300).run()
    assert abs(driver.finals["a"].characters[0][0]) < kit.CHARACTER_MS / 2
    assert abs(driver.finals["b"].characters[0][0] - 640) < kit.CHARACTER_MS / 2
    assert driver.finals["a"].audio_used
    assert driver.finals["b"].audio_used


def test_the_same_audio_may_be_transcribed_twice_with_times(
    drive: Drive, kit: SimpleNamespace
) -> None:
    driver = drive().audio(kit.speak("他在北京") + kit.silence(400))
    for utterance in ("a", "b"):
        driver.transcript("他在北京", 1, utterance=utterance, final=True, start_ms=0, end_ms=640)
    driver.run()
    assert driver.finals["a"].characters == driver.finals["b"].characters


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.permutations(range(5)), st.booleans())
def test_finals_with_times_may_come_in_any_order(
    kit: SimpleNamespace, order: list[int], at_once: bool
) -> None:
    driver = kit.Driver(kit.FakeModel(), SessionStart())
    spans: list[tuple[str, int, int]] = []
    at = 0
    for text in SENTENCES[:5]:
        driver.audio(kit.speak(text) + kit.silence(600))
        end = at + len(text) * kit.CHARACTER_MS
        spans.append((text, at, end))
        at = end + 600
    for number in order:
        text, start_ms, end_ms = spans[number]
        driver.transcript(
            text, 1, utterance=f"u{number}", final=True, start_ms=start_ms, end_ms=end_ms
        )
        if not at_once:
            driver.run()
    driver.run()
    for number, (_, start_ms, _) in enumerate(spans):
        final = driver.finals[f"u{number}"]
        assert final.audio_used
        assert abs(final.characters[0][0] - start_ms) < kit.CHARACTER_MS / 2
    assert not driver.named(WarningMessage, "transcript_clock_skew")


def test_without_times_the_order_of_the_finals_is_the_order_of_speech(
    drive: Drive, kit: SimpleNamespace
) -> None:
    driver = drive().audio(kit.speak("他在北京") + kit.silence(400) + kit.speak("她去上海"))
    driver.audio(kit.silence(400))
    driver.transcript("她去上海", 1, utterance="b", final=True)
    driver.transcript("他在北京", 1, utterance="a", final=True).run()
    assert driver.finals["b"].audio_used
    assert not driver.finals["a"].audio_used, "its audio lies before what b has claimed"
    assert [e.text for e in driver.finals["a"].entities] == ["北京"]


def test_a_final_before_an_answered_one_gives_nothing_back(
    drive: Drive, kit: SimpleNamespace
) -> None:
    driver = drive().audio(kit.speak("他在北京") + kit.silence(400) + kit.speak("她去上海"))
    driver.audio(kit.silence(400))
    driver.transcript("她去上海", 1, utterance="b", final=True).run()
    driver.transcript("他在北京", 1, utterance="a", final=True, start_ms=0, end_ms=640).run()
    assert driver.finals["a"].audio_used
    driver.transcript("她去上海", 1, utterance="c", final=True).run()
    assert not driver.finals["c"].audio_used, "b has claimed it, and a does not free it"


def test_audio_that_has_not_come_is_not_waited_for_and_nobody_elses_is_taken(
    drive: Drive, kit: SimpleNamespace
) -> None:
    driver = drive().audio(kit.speak("他在北京") + kit.silence(400))
    early = driver.transcript(
        "她去上海", 1, utterance="early", final=True, start_ms=5_000, end_ms=5_640
    ).run()[-1]
    assert early.utterance == "early"
    assert not early.audio_used
    assert early.time_source == "transcript"
    assert driver.transcript("他在北京", 1, final=True).run()[-1].audio_used


def test_forgotten_audio_leaves_the_text(drive: Drive, kit: SimpleNamespace) -> None:
    limits = ConnectionLimits(session=SessionLimits(retained_ms=4_000, late_ms=1_000))
    driver = drive(limits).audio(kit.speak("他在北京") + kit.silence(10_000))
    for utterance, times in (("timed", {"start_ms": 0, "end_ms": 640}), ("untimed", {})):
        final = driver.transcript("他在北京", 1, utterance=utterance, final=True, **times).run()[-1]
        assert final.utterance == utterance
        assert not final.audio_used
        assert [e.text for e in final.entities] == ["北京"]
    driver.audio(kit.speak("她去上海") + kit.silence(200))
    assert driver.transcript("她去上海", 1, utterance="next", final=True).run()[-1].audio_used


def test_what_is_kept_of_an_endless_utterance_is_bounded(
    drive: Drive, kit: SimpleNamespace
) -> None:
    driver = drive(ConnectionLimits(session=SessionLimits(retained_ms=4_000)))
    driver.transcript("他", 1).run()
    sizes = set()
    for _ in range(30):
        driver.audio(kit.silence(1_000)).drain()
        kept = driver.protocol.session._audio
        sizes.add(kept.end - kept.first)
    assert max(sizes) == 100
    assert len(driver.named(WarningMessage, "utterance_too_long")) == 1
