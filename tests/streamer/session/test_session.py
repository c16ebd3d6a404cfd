"""What a session does, step by step, on the fake model of conftest."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from cnerta.streamer.session.limits import ConnectionLimits, SessionLimits
from cnerta.streamer.wire.messages import (
    AudioAck,
    EntityRetract,
    EntityUpsert,
    ErrorMessage,
    SessionFinish,
    SessionGoingAway,
    SessionReady,
    SessionStart,
    SessionSummary,
    SessionUpdate,
    Transcript,
    UtteranceFinal,
    WarningMessage,
)
from cnerta.streamer.wire.parts import AudioFormat, ResumeRequest

Drive = Callable[..., Any]


def upserts(messages: list[Any]) -> list[Any]:
    return [m.entity for m in messages if isinstance(m, EntityUpsert)]


def retractions(messages: list[Any]) -> list[tuple[str, str]]:
    return [(m.id, m.reason) for m in messages if isinstance(m, EntityRetract)]


# --- entities while the speaker is still talking --------------------------------------------------


def test_an_entity_is_told_while_it_grows_and_settles(drive: Drive, kit: SimpleNamespace) -> None:
    driver = drive().audio(kit.silence(640) + kit.speak("他在北京"))
    (city,) = upserts(driver.transcript("他在北京", 1).run())
    assert (city.id, city.version, city.status) == ("u1-e1", 1, "tentative")
    assert (city.label, city.text, city.start, city.end) == ("LOC", "北京", 2, 4)
    assert (city.start_ms, city.end_ms, city.time_source) == (938, 1240, "alignment")
    assert city.audio_used

    driver.audio(kit.speak("大学。"))
    university, inner = upserts(driver.transcript("他在北京大学", 2).run())
    assert (university.text, university.label, university.parent) == ("北京大学", "ORG", None)
    assert (inner.id, inner.version, inner.parent) == ("u1-e1", 2, university.id)
    assert inner.status == "stable", "two revisions agree and text follows"

    messages = driver.transcript("他在北京大学", 3, final=True).run()
    assert {e.status for e in upserts(messages)} == {"final"}
    final = messages[-1]
    assert isinstance(final, UtteranceFinal)
    assert final.entities == upserts(messages)
    assert final.audio_used
    assert final.characters[2:4] == [(938, 1058), (1098, 1218)]
    assert [m.seq for m in driver.events] == list(range(1, len(driver.events) + 1))


def test_nothing_is_said_when_nothing_changes(drive: Drive, kit: SimpleNamespace) -> None:
    driver = drive(max_delay_ms=60_000).audio(kit.speak("在北京"))
    driver.transcript("在北京", 1).run()
    assert upserts(driver.transcript("在北京", 2).run()) == []
    driver.model.confidence = 0.88
    assert upserts(driver.transcript("在北京", 3).run()) == []
    driver.model.confidence = 0.5
    (changed,) = upserts(driver.transcript("在北京", 4).run())
    assert (changed.version, changed.confidence) == (2, 0.5)


def test_a_relabelled_entity_keeps_its_id(drive: Drive) -> None:
    driver = drive()
    (before,) = upserts(driver.transcript("上海", 1).run())
    driver.model.lexicon["上海"] = "ORG"
    (after,) = upserts(driver.transcript("上海", 2).run())
    assert (after.id, after.version, after.label) == (before.id, 2, "ORG")


def test_text_in_front_moves_an_entity_and_keeps_its_id(drive: Drive) -> None:
    driver = drive()
    (before,) = upserts(driver.transcript("去上海", 1).run())
    messages = driver.transcript("张三明天去上海", 2).run()
    moved = next(e for e in upserts(messages) if e.text == "上海")
    assert (moved.id, moved.version, moved.start, moved.end) == (before.id, 2, 5, 7)
    assert retractions(messages) == []


@pytest.mark.parametrize(
    ("change", "text", "reason"),
    [
        ({}, "去广州", "text_changed"),
        ({}, "去", "text_changed"),
        ({"上海": None}, "去上海", "withdrawn"),
        ({"上海": None, "去上海来玩": "ORG"}, "去上海来玩", None),
        ({"上海": None, "海来": "LOC", "上": "PER"}, "去上海来", None),
        ({"上海": None, "海来往": "LOC"}, "去上海来往", "superseded"),
    ],
)
def test_a_retraction_names_its_reason(
    drive: Drive, change: dict[str, str | None], text: str, reason: str | None
) -> None:
    driver = drive()
    (before,) = upserts(driver.transcript("去上海", 1).run())
    for word, label in change.items():
        driver.model.lexicon.pop(word, None)
        if label is not None:
            driver.model.lexicon[word] = label
    expected = [] if reason is None else [(before.id, reason)]
    assert retractions(driver.transcript(text, 2).run()) == expected


def test_options_can_change_in_mid_stream(drive: Drive) -> None:
    driver = drive()
    driver.transcript("张三在北京大学", 1).run()
    driver.send(SessionUpdate(labels=["PER"]))
    messages = driver.transcript("张三在北京大学", 2).run()
    assert {reason for _, reason in retractions(messages)} == {"filtered"}
    assert {e.label for e in driver_known(kit_fold(driver), "u1")} == {"PER"}
    driver.send(SessionUpdate(labels=None, nested=False))
    driver.transcript("张三在北京大学", 3).run()
    assert {e.text for e in driver_known(kit_fold(driver), "u1")} == {"张三", "北京大学"}
    driver.send(SessionUpdate(interim=False))
    assert driver.transcript("张三在北京大学去上海", 4).run() == []
    final = driver.transcript("张三在北京大学去上海", 5, final=True).run()[-1]
    assert {e.text for e in final.entities} == {"张三", "北京大学", "上海"}


def kit_fold(driver: Any) -> dict[str, dict[str, Any]]:
    known: dict[str, dict[str, Any]] = {}
    for message in driver.events:
        if isinstance(message, EntityUpsert):
            known.setdefault(message.utterance, {})[message.entity.id] = message.entity
        elif isinstance(message, EntityRetract):
            del known[message.utterance][message.id]
    return known


def driver_known(known: dict[str, dict[str, Any]], utterance: str) -> list[Any]:
    return list(known[utterance].values())


def test_only_outermost_entities_without_nesting(drive: Drive) -> None:
    final = drive(nested=False).transcript("他在北京大学", 1, final=True).run()[-1]
    assert [(e.text, e.parent) for e in final.entities] == [("北京大学", None)]


def test_the_parent_is_one_that_was_sent(drive: Drive) -> None:
    final = drive(labels=["LOC"]).transcript("他在北京大学", 1, final=True).run()[-1]
    assert [(e.text, e.parent) for e in final.entities] == [("北京", None)]


def test_without_interims_there_are_only_finals(drive: Drive) -> None:
    driver = drive(interim=False)
    assert driver.transcript("他在北京", 1).run() == []
    assert driver.model.tag_calls == []
    (final,) = driver.transcript("他在北京", 2, final=True).run()
    (entity,) = final.entities
    assert (entity.version, entity.status) == (1, "final")


def test_an_interim_answered_after_interims_were_switched_off_leaves_no_trace(
    drive: Drive,
) -> None:
    driver = drive().transcript("他在北京", 1)
    assert driver.take("text")
    driver.send(SessionUpdate(interim=False)).give("text")
    assert driver.run() == []
    driver.send(SessionUpdate(interim=True)).transcript("他在北京", 2).run()
    assert [e.text for e in driver_known(kit_fold(driver), "u1")] == ["北京"]


def test_what_was_shown_before_interims_were_switched_off_is_followed_to_the_end(
    drive: Drive,
) -> None:
    driver = drive(labels=["LOC"]).transcript("他在北京大学", 1)
    driver.run()
    driver.send(SessionUpdate(interim=False, labels=None))
    final = driver.transcript("他在北京大学", 2, final=True).run()[-1]
    shown = {e.id: e for e in driver_known(kit_fold(driver), "u1")}
    assert shown == {e.id: e for e in final.entities}
    assert len(shown) == 2


def test_an_unchanged_entity_becomes_stable_in_time(drive: Drive) -> None:
    driver = drive(max_delay_ms=500)
    driver.transcript("他在北京", 1).run()
    assert driver.wait(0.4) == []
    (message,) = driver.wait(0.2)
    assert (message.entity.status, message.entity.version) == ("stable", 2)
    assert message.behind_live_ms == 600
    assert driver.wait(10) == []


def test_a_settled_entity_that_changes_after_all_stays_settled(drive: Drive) -> None:
    driver = drive(max_delay_ms=500)
    driver.transcript("他在上海", 1).run()
    driver.wait(0.6)
    driver.model.lexicon["上海"] = "ORG"
    (changed,) = upserts(driver.transcript("他在上海", 2).run())
    assert (changed.version, changed.label, changed.status) == (3, "ORG", "stable")


def test_offsets_are_the_clients_own(drive: Drive) -> None:
    text = "𠀀，他在 北京\u200b大学！"
    final = drive().transcript(text, 1, final=True).run()[-1]
    outer = final.entities[0]
    assert final.text == text
    assert text[outer.start : outer.end] == outer.text == "北京\u200b大学"
    utf16 = text.encode("utf-16-le")
    assert utf16[2 * outer.start_utf16 : 2 * outer.end_utf16].decode("utf-16-le") == outer.text


# --- which audio belongs to which text ------------------------------------------------------------


def test_audio_beyond_the_text_is_left_for_the_next_utterance(
    drive: Drive, kit: SimpleNamespace
) -> None:
    driver = drive().audio(kit.speak("他在北京") + kit.silence(320) + kit.speak("她去上海"))
    driver.transcript("他在北京", 1, utterance="a", final=True)
    driver.transcript("她去上海", 1, utterance="b", final=True).run()
    first, second = driver.finals["a"], driver.finals["b"]
    assert first.audio_used
    assert second.audio_used
    assert first.characters[-1][1] == 4 * kit.CHARACTER_MS - kit.FRAME_MS
    assert second.characters[0][0] == 4 * kit.CHARACTER_MS + 320
    windows = [frames for _, frames in driver.model.tag_calls]
    assert windows == [40, 40 - 16]


def test_times_choose_the_audio(drive: Drive, kit: SimpleNamespace) -> None:
    driver = drive().audio(kit.speak("他在北京") + kit.speak("她去上海"))
    # Out of order: the later utterance is final first.
    driver.transcript("她去上海", 1, utterance="b", final=True, start_ms=640, end_ms=1280)
    driver.transcript("他在北京", 1, utterance="a", final=True, start_ms=0, end_ms=640).run()
    assert driver.finals["b"].audio_used
    assert driver.finals["b"].characters[0][0] == 640
    assert driver.finals["a"].audio_used
    assert driver.finals["a"].characters[-1] == (458, 578)
    assert all(frames <= 16 + 5 for _, frames in driver.model.tag_calls), "slack is 200 ms"


def test_without_audio_the_text_answers_alone(drive: Drive) -> None:
    final = drive().transcript("他在北京", 1, final=True).run()[-1]
    assert [e.text for e in final.entities] == ["北京"]
    assert (final.audio_used, final.time_source, final.characters) == (False, "none", [])
    assert final.entities[0].start_ms is None


def test_audio_that_does_not_fit_is_not_used(drive: Drive, kit: SimpleNamespace) -> None:
    driver = drive().audio(kit.speak("今天天气很好"))
    final = driver.transcript("他在北京", 1, final=True, start_ms=100, end_ms=500).run()[-1]
    assert [call for call in driver.model.tag_calls if call[1] == 0] == [("他在北京", 0)]
    assert not final.audio_used
    assert not final.entities[0].audio_used
    assert final.time_source == "transcript"
    assert final.characters == [(100, 200), (200, 300), (300, 400), (400, 500)]
    # The misfit does not spoil what follows.
    driver.audio(kit.speak("她去上海"))
    assert driver.transcript("她去上海", 1, utterance="u2", final=True).run()[-1].audio_used


@pytest.mark.parametrize("spoken", ["他在北京", "今天天气"])
def test_a_model_that_cannot_align_listens_without_judging(
    kit: SimpleNamespace, spoken: str
) -> None:
    driver = kit.Driver(kit.FakeModel(audio_use="unaligned"), SessionStart())
    driver.audio(kit.speak(spoken))
    final = driver.transcript("他在北京", 1, final=True, start_ms=0, end_ms=640).run()[-1]
    assert driver.model.tag_calls == [("他在北京", 16)]
    assert final.audio_used
    assert [e.text for e in final.entities] == ["北京"]
    assert final.time_source == "transcript"
    assert final.characters == [(0, 160), (160, 320), (320, 480), (480, 640)]
    # The next utterance begins where this one ended by the transcript.
    driver.audio(kit.speak("她去上海"))
    later = driver.transcript("她去上海", 1, utterance="u2", final=True).run()[-1]
    assert driver.model.tag_calls[1:] == [("她去上海", 16)]
    assert (later.audio_used, later.time_source, later.characters) == (True, "none", [])


def test_a_model_of_text_alone_is_given_no_audio(kit: SimpleNamespace) -> None:
    driver = kit.Driver(kit.FakeModel(audio_use="none"), SessionStart()).audio(
        kit.speak("他在北京")
    )
    final = driver.transcript("他在北京", 1, final=True, start_ms=0, end_ms=640).run()[-1]
    assert driver.model.tag_calls == [("他在北京", 0)]
    assert [e.text for e in final.entities] == ["北京"]
    assert (final.audio_used, final.time_source) == (False, "transcript")


def test_an_interim_that_does_not_fit_is_answered_from_text(
    drive: Drive, kit: SimpleNamespace
) -> None:
    driver = drive().audio(kit.speak("今天天气很好") + kit.silence(640))
    (entity,) = upserts(driver.transcript("在北京", 1).run())
    assert not entity.audio_used


def test_late_audio_is_not_waited_for(drive: Drive, kit: SimpleNamespace) -> None:
    driver = drive().audio(kit.speak("他"))
    final = driver.transcript("他在北京", 1, final=True, start_ms=0, end_ms=640).run()[-1]
    assert not final.audio_used


def test_a_very_late_transcript_with_times_still_finds_its_audio(
    drive: Drive, kit: SimpleNamespace
) -> None:
    driver = drive().audio(kit.speak("他在北京") + kit.silence(1000) + kit.speak("她去上海"))
    driver.transcript("她去上海", 1, utterance="b", final=True).run()
    driver.audio(kit.silence(5000))
    driver.transcript("他在北京", 1, utterance="a", final=True, start_ms=0, end_ms=640).run()
    assert driver.finals["a"].audio_used
    driver.audio(kit.silence(20_000) + kit.speak("在上海"))
    driver.transcript("在上海", 1, utterance="d", final=True).run()
    driver.audio(kit.silence(1000))
    driver.transcript("他在北京", 1, utterance="c", final=True, start_ms=0, end_ms=640).run()
    assert not driver.finals["c"].audio_used, "that audio is forgotten by now"


def test_an_empty_final_takes_no_audio(drive: Drive, kit: SimpleNamespace) -> None:
    driver = drive().audio(kit.speak("他在北京"))
    empty = driver.transcript("", 1, utterance="noise", final=True).run()[-1]
    assert (empty.entities, empty.characters, empty.audio_used) == ([], [], False)
    assert driver.transcript("他在北京", 1, final=True).run()[-1].audio_used


def test_times_are_right_at_minute_ten_whatever_the_frames(
    drive: Drive, kit: SimpleNamespace
) -> None:
    rate = 44_100
    driver = drive(audio=AudioFormat(sample_rate=rate))
    limits_quiet = kit.silence(10_000, sample_rate=rate)
    for _ in range(60):
        driver.audio(limits_quiet, frame_bytes=88_201)
        driver.now += 10
    driver.audio(kit.speak("在北京", sample_rate=rate) + kit.silence(500, sample_rate=rate))
    final = driver.transcript("在北京", 1, final=True).run()[-1]
    assert final.audio_used
    starts = np.array([start for start, _ in final.characters])
    np.testing.assert_allclose(starts, 600_000 + np.arange(3) * kit.CHARACTER_MS, atol=40)


# --- every sample once ----------------------------------------------------------------------------


@pytest.mark.parametrize("revisions", [1, 20])
def test_every_sample_is_encoded_once_however_many_revisions_come(
    drive: Drive, kit: SimpleNamespace, revisions: int
) -> None:
    driver = drive()
    text = "他在北京大学张三"
    for number in range(1, revisions + 1):
        heard = text[: len(text) * number // revisions]
        before = text[: len(text) * (number - 1) // revisions]
        driver.audio(kit.speak(heard[len(before) :]))
        driver.transcript(heard, number).run()
    driver.transcript(text, revisions + 1, final=True).run()
    driver.send(SessionFinish()).run()
    assert driver.model.encoded_samples == len(kit.speak(text)) // 2
    assert driver.finals["u1"].audio_used
    assert {batch for batch, _ in driver.model.encode_batches} == {1}
    assert max(frames for _, frames in driver.model.encode_batches) == 8


def test_a_final_has_the_audio_before_it_encoded_as_a_short_chunk(
    drive: Drive, kit: SimpleNamespace
) -> None:
    driver = drive().audio(kit.speak("北京"))  # 8 frames: one chunk
    driver.audio(kit.speak("他") + bytes(100))  # 4 frames and a bit
    assert driver.model.encode_batches == [(1, 8)]
    driver.transcript("北京他", 1, final=True).run()
    assert driver.model.encode_batches == [(1, 8), (1, 4)]
    assert driver.finals["u1"].audio_used
    assert driver.finals["u1"].behind_live_ms <= 40


def test_audio_after_a_final_is_not_its_own_even_if_encoded_first(
    drive: Drive, kit: SimpleNamespace
) -> None:
    driver = drive().audio(kit.speak("他在北京"))
    driver.transcript("他在北京", 1, final=True)
    driver.protocol.receive(kit.speak("她去上海"), driver.now)
    while driver.take("audio"):
        driver.give("audio")
    driver.run()
    assert driver.model.tag_calls == [("他在北京", 16)]


def test_an_interim_hears_the_audio_that_came_before_it(drive: Drive, kit: SimpleNamespace) -> None:
    driver = drive()
    driver.protocol.receive(kit.speak("他在北京"), driver.now)
    (entity,) = upserts(driver.transcript("他在北京", 1).run())
    assert entity.audio_used


# --- order, repetition, bounds --------------------------------------------------------------------


def test_an_older_revision_is_dropped_with_a_warning(drive: Drive) -> None:
    driver = drive()
    driver.transcript("他在北京", 5).run()
    (warning,) = driver.transcript("他在上海", 5).run()
    assert (warning.name, "above 5" in warning.detail) == ("revision_not_newer", True)
    (warning,) = driver.transcript("他在上海", 4).run()
    assert warning.name == "revision_not_newer"
    assert [c[0] for c in driver.model.tag_calls] == ["他在北京"]


def test_a_final_is_answered_whatever_its_revision(drive: Drive) -> None:
    driver = drive()
    driver.transcript("他在北京", 5).run()
    driver.transcript("他在上海", 2, final=True).run()
    assert [e.text for e in driver.finals["u1"].entities] == ["上海"]
    assert driver.finals["u1"].revision == 2
    assert len(driver.named(WarningMessage, "revision_not_newer")) == 1


def test_nothing_follows_a_final(drive: Drive) -> None:
    driver = drive()
    driver.transcript("他在北京", 1, final=True).transcript("他在上海", 2, final=True)
    driver.run()
    driver.transcript("他在上海", 3).run()
    driver.transcript("他在上海", 4, final=True).run()
    assert len([m for m in driver.seen if isinstance(m, UtteranceFinal)]) == 1
    assert len(driver.named(WarningMessage, "utterance_already_final")) == 3
    assert driver.protocol.close is None


def test_overtaken_interims_never_run_and_are_counted(drive: Drive) -> None:
    driver = drive()
    for revision in range(1, 8):
        driver.transcript("他在北京"[: 1 + revision // 2], revision)
    driver.run()
    driver.send(SessionFinish()).run()
    assert [c[0] for c in driver.model.tag_calls] == ["他在北京"]
    assert driver.seen[-1] == SessionSummary(
        utterances=0, entities=0, audio_ms=0, dropped_interims=6
    )


def test_an_interim_that_waited_too_long_is_dropped_with_a_warning(drive: Drive) -> None:
    driver = drive().transcript("他在北京", 1)
    driver.now += 3
    assert driver.run() == [], "to ask for work changes nothing"
    (warning,) = driver.wait(0)
    assert warning.name == "interims_dropped"
    assert driver.model.tag_calls == []


def test_a_dropped_interim_does_not_hold_up_the_end(drive: Drive) -> None:
    driver = drive().transcript("他在北京", 1).send(SessionFinish())
    assert isinstance(driver.wait(3)[-1], SessionSummary)


def test_an_old_final_is_answered(drive: Drive) -> None:
    driver = drive().transcript("他在北京", 1, final=True)
    driver.now += 300
    assert driver.run()[-1].behind_live_ms == 300_000


def test_unfinished_utterances_are_bounded(drive: Drive) -> None:
    driver = drive(ConnectionLimits(session=SessionLimits(open_utterances=3)))
    for number in range(5):
        driver.transcript("他在北京", 1, utterance=f"u{number}").run()
    assert [m.reason for m in driver.events if isinstance(m, EntityRetract)] == [
        "utterance_dropped",
        "utterance_dropped",
    ]
    assert len(driver.named(WarningMessage, "utterance_dropped")) == 2
    ids = [m.entity.id for m in driver.events if isinstance(m, EntityUpsert)]
    driver.transcript("他在北京", 2, utterance="u0", final=True).run()
    assert driver.finals["u0"].entities[0].id not in ids, "a retracted id is not used again"


def test_unanswered_finals_are_bounded_by_an_error(drive: Drive) -> None:
    driver = drive(ConnectionLimits(session=SessionLimits(pending_finals=3)))
    for number in range(4):
        driver.transcript("他在北京", 1, utterance=f"u{number}", final=True)
    (error,) = [m for m in driver.drain() if isinstance(m, ErrorMessage)]
    assert (error.code, error.name, error.retryable) == (4429, "too_many_finals", True)


def test_an_utterance_without_end_is_bounded_with_one_warning(
    drive: Drive, kit: SimpleNamespace
) -> None:
    driver = drive(ConnectionLimits(session=SessionLimits(retained_ms=4000)))
    for second in range(1, 12):
        driver.audio(kit.silence(1000))
        driver.transcript("他在北京" + "去" * second, second).run()
    assert len(driver.named(WarningMessage, "utterance_too_long")) == 1
    assert max(frames for _, frames in driver.model.tag_calls) == 100
    driver.audio(kit.speak("在上海"))
    final = driver.transcript("在上海", 99, final=True).run()[-1]
    assert final.audio_used


def test_silence_without_a_transcript_is_bounded_without_a_warning(
    drive: Drive, kit: SimpleNamespace
) -> None:
    driver = drive(ConnectionLimits(session=SessionLimits(retained_ms=4000)))
    driver.audio(kit.silence(20_000)).drain()
    assert {type(m) for m in driver.seen} == {AudioAck}
    driver.audio(kit.speak("在上海"))
    assert driver.transcript("在上海", 1, final=True).run()[-1].audio_used
    assert driver.model.tag_calls[-1][1] == 12 + 15, "the speech, and a little silence before it"


def test_an_utterance_after_long_silence_is_not_too_long(
    drive: Drive, kit: SimpleNamespace
) -> None:
    driver = drive(ConnectionLimits(session=SessionLimits(retained_ms=4000)))
    driver.audio(kit.silence(20_000)).drain()
    for second in range(1, 4):
        driver.audio(kit.silence(1000)).transcript("他在北京"[: 1 + second], second).run()
    assert not driver.named(WarningMessage, "utterance_too_long")


def test_an_utterance_too_long_is_told_even_if_no_interim_was_answered(
    drive: Drive, kit: SimpleNamespace
) -> None:
    driver = drive(ConnectionLimits(session=SessionLimits(retained_ms=4000)))
    driver.send(SessionUpdate(interim=False))
    driver.transcript("他", 1).audio(kit.silence(6_000))
    driver.transcript("他在北京", 2, final=True).run()
    assert len(driver.named(WarningMessage, "utterance_too_long")) == 1


def test_a_backlog_is_skipped_rather_than_kept(drive: Drive, kit: SimpleNamespace) -> None:
    driver = drive(ConnectionLimits(session=SessionLimits(backlog_ms=2000)))
    driver.protocol.receive(kit.silence(3000) + kit.speak("他在北京"), driver.now)
    driver.transcript("他在北京", 1, final=True).run()
    assert len(driver.named(WarningMessage, "audio_skipped")) == 1
    assert driver.model.encoded_samples < 16 * 3640
    assert driver.finals["u1"].audio_used, "the newer half is still heard"
    assert driver.finals["u1"].characters[0][0] == 3000


def test_text_longer_than_the_model_takes_is_answered_in_pieces(
    kit: SimpleNamespace,
) -> None:
    driver = kit.Driver(kit.FakeModel(max_characters=10), SessionStart())
    text = "去" * 8 + "上海" + "去" * 8 + "上海"
    final = driver.transcript(text, 1, final=True).run()[-1]
    assert [(e.start, e.text) for e in final.entities] == [(8, "上海"), (18, "上海")]
    assert not final.audio_used
    assert len(driver.named(WarningMessage, "text_beyond_model")) == 1


# --- opening, finishing, leaving ------------------------------------------------------------------


def test_ready_tells_the_model_and_the_limits(kit: SimpleNamespace, model: Any) -> None:
    (ready,) = kit.Driver(model, SessionStart()).drain()
    assert isinstance(ready, SessionReady)
    assert ready.model.labels == ["LOC", "ORG", "PER"]
    assert ready.model.device == "fake"
    assert ready.limits.max_frame_bytes == 2**20
    assert ready.resume is None


def test_finish_answers_all_that_waits_then_sums_up(drive: Drive, kit: SimpleNamespace) -> None:
    driver = drive()
    driver.protocol.receive(kit.speak("他在北京"), driver.now)
    driver.transcript("他在北京", 1, utterance="a", final=True)
    driver.transcript("她去上海", 1, utterance="b")
    driver.send(SessionFinish())
    assert driver.protocol.close is None
    messages = driver.run()
    assert [e.text for e in upserts(messages)] == ["北京", "上海"]
    assert messages[-1] == SessionSummary(
        utterances=1, entities=1, audio_ms=640, dropped_interims=0
    )
    assert driver.protocol.close is not None
    assert driver.protocol.close.code == 1000


def test_what_comes_after_finish_is_ignored_with_a_warning(drive: Drive) -> None:
    driver = drive().transcript("他在北京", 1, final=True).send(SessionFinish())
    driver.transcript("他在上海", 1, utterance="late", final=True).send(b"\0\0")
    driver.run()
    assert len(driver.named(WarningMessage, "after_finish")) == 1
    assert list(driver.finals) == ["u1"]


def test_going_away_answers_finals_first(drive: Drive) -> None:
    driver = drive().transcript("他在北京", 1, final=True)
    driver.protocol.go_away("shutdown")
    assert driver.protocol.close is None
    kinds = [type(m) for m in driver.run()]
    assert kinds == [SessionGoingAway, EntityUpsert, UtteranceFinal, ErrorMessage]
    assert driver.seen[-1].code == driver.protocol.close.code == 1001


def test_resuming_is_refused_for_now(kit: SimpleNamespace, model: Any) -> None:
    driver = kit.Driver(model, SessionStart(resume=ResumeRequest(token="t", last_seq=3)))
    (error,) = driver.drain()
    assert (error.code, error.name) == (4404, "unknown_session")


def test_received_audio_is_acknowledged(drive: Drive, kit: SimpleNamespace) -> None:
    driver = drive()
    for _ in range(7):
        driver.audio(kit.silence(500)).drain()
    acks = [m.received_ms for m in driver.seen if isinstance(m, AudioAck)]
    assert acks == [1000, 2000, 3000]


def test_the_audio_format_can_change_in_mid_stream(drive: Drive, kit: SimpleNamespace) -> None:
    driver = drive().audio(kit.speak("他在") + b"\1")
    driver.send(SessionUpdate(audio=AudioFormat(sample_rate=48_000)))
    assert len([m for m in driver.drain() if isinstance(m, WarningMessage)]) == 1
    driver.audio(kit.speak("北京", sample_rate=48_000) + kit.silence(400, sample_rate=48_000))
    final = driver.transcript("他在北京", 1, final=True).run()[-1]
    assert final.audio_used
    assert final.characters[2][0] == 298


def test_how_far_behind_live_counts_unheard_audio(drive: Drive, kit: SimpleNamespace) -> None:
    driver = drive().audio(kit.speak("在北京") + kit.silence(200))  # 17 frames, 16 encoded
    driver.transcript("在北京", 1)
    driver.now += 0.025
    (message,) = [m for m in driver.run() if isinstance(m, EntityUpsert)]
    assert message.entity.audio_used
    assert message.behind_live_ms == 25 + 40


def test_a_transcript_needs_no_confident_order_of_utterances(drive: Drive) -> None:
    driver = drive()
    for revision in range(1, 4):
        for utterance in ("a", "b", "c"):
            driver.send(
                Transcript(
                    utterance=utterance, revision=revision, final=revision == 3, text="他在北京"
                )
            )
    driver.run()
    assert set(driver.finals) == {"a", "b", "c"}


def test_a_session_that_nobody_knows_is_gone_at_once(kit: SimpleNamespace, model: Any) -> None:
    """Its audio does not wait for the garbage collector to find a cycle."""
    driver = kit.Driver(model, SessionStart())
    driver.audio(kit.speak("他在北京"))
    driver.transcript("他在北京", 1, final=True).run()
    session = weakref.ref(driver.protocol.session)
    gc.collect()
    gc.disable()
    try:
        del driver
        assert session() is None
    finally:
        gc.enable()
