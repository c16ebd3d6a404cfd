"""A session that goes on with another connection: without sockets, threads or clock."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from cnerta.streamer.session.limits import ConnectionLimits
from cnerta.streamer.session.outgoing.resumption import ResumeTerms, lost_history
from cnerta.streamer.wire.errors import ErrorName, ProtocolError
from cnerta.streamer.wire.messages import (
    AudioAck,
    EntityUpsert,
    SessionFinish,
    SessionGoingAway,
    SessionReady,
    SessionStart,
    SessionSummary,
    Transcript,
    UtteranceFinal,
    WarningMessage,
)
from cnerta.streamer.wire.parts import AudioFormat, ResumeRequest

TERMS = ResumeTerms("secret", 60, "epoch")


def begin(
    kit: SimpleNamespace, model: Any, limits: ConnectionLimits | None = None, **start: Any
) -> Any:
    """A driver whose session can be resumed."""
    driver = kit.Driver(model, None, limits)
    driver.protocol.offer_resume(TERMS)
    driver.send(SessionStart(**start))
    return driver


def back(driver: Any, last_seq: int) -> list[Any]:
    """The connection breaks, and a new one comes."""
    driver.protocol.park()
    assert driver.protocol.next_message() is None
    driver.protocol.resume(last_seq, driver.now)
    return driver.run()


def events(messages: list[Any]) -> list[Any]:
    return [m for m in messages if hasattr(m, "seq")]


def test_the_offer_is_in_the_first_message(kit: SimpleNamespace, model: Any) -> None:
    (ready,) = begin(kit, model).drain()
    assert (ready.resume.token, ready.resume.ttl_s, ready.epoch) == ("secret", 60, "epoch")
    assert (ready.recovered, ready.audio_received_samples) == (False, 0)


@pytest.mark.parametrize("last_seq", range(5))
def test_what_was_missed_comes_again_with_the_same_numbers(
    kit: SimpleNamespace, model: Any, last_seq: int
) -> None:
    driver = begin(kit, model)
    for number in (1, 2):
        driver.transcript("他在北京", 1, utterance=f"u{number}", final=True)
    before = events(driver.run())
    assert [m.seq for m in before] == [1, 2, 3, 4]
    messages = back(driver, last_seq)
    assert isinstance(messages[0], SessionReady)
    assert messages[0].recovered
    assert messages[1:] == before[last_seq:]
    driver.transcript("他在北京", 1, utterance="u3", final=True)
    assert [m.seq for m in events(driver.run())] == [5, 6]


def test_finals_are_answered_while_nobody_is_there(kit: SimpleNamespace, model: Any) -> None:
    driver = begin(kit, model)
    driver.drain()
    driver.transcript("他在北京", 1, final=True)
    driver.protocol.park()
    assert driver.protocol.unsent_finals == ("u1",)
    assert driver.run() == []
    assert driver.protocol.unsent_finals == ("u1",)
    driver.protocol.resume(0, driver.now)
    assert [m.utterance for m in driver.run() if isinstance(m, UtteranceFinal)] == ["u1"]
    assert driver.protocol.unsent_finals == ()


def test_repeats_are_taken_without_a_word_once(kit: SimpleNamespace, model: Any) -> None:
    driver = begin(kit, model)
    driver.transcript("他在北京", 1, final=True, utterance="answered")
    driver.transcript("他在北", 4, utterance="open")
    driver.run()
    driver.transcript("他在上海", 2, final=True, utterance="owed")
    driver.protocol.park()
    driver.protocol.resume(driver.protocol._outbox.seq, driver.now)
    for _ in range(2):
        driver.transcript("他在北京", 1, final=True, utterance="answered")
        driver.transcript("他在上海", 2, final=True, utterance="owed")
        driver.transcript("他在北", 4, utterance="open")
        messages = driver.run()
        if _ == 0:
            assert [m.utterance for m in messages if isinstance(m, UtteranceFinal)] == ["owed"]
            assert not [m for m in messages if isinstance(m, WarningMessage)]
    names = [m.name for m in messages if isinstance(m, WarningMessage)]
    assert sorted(names) == ["revision_not_newer", "utterance_already_final"]
    assert not [m for m in messages if isinstance(m, UtteranceFinal)]
    # After another resume they may come once more.
    back(driver, driver.protocol._outbox.seq)
    driver.transcript("他在上海", 2, final=True, utterance="owed")
    assert driver.run() == []
    driver.transcript("他在上海", 3, final=True, utterance="owed")
    assert [m.name for m in driver.run()] == ["utterance_already_final"], "another one is no repeat"


def test_an_interim_that_waited_is_answered_when_it_comes_again(
    kit: SimpleNamespace, model: Any
) -> None:
    driver = begin(kit, model)
    driver.drain()
    driver.transcript("他在北京", 1)
    driver.protocol.park()
    assert driver.run() == []
    driver.protocol.resume(0, driver.now)
    driver.transcript("他在北京", 1)
    assert [m.entity.text for m in driver.run() if isinstance(m, EntityUpsert)] == ["北京"]


def test_audio_goes_on_at_the_sample(kit: SimpleNamespace, model: Any) -> None:
    rate = 44_100
    driver = begin(kit, model, audio=AudioFormat(sample_rate=rate, channels=2))
    whole = bytes(4 * rate)
    driver.protocol.receive(whole[: 4 * 1000 + 3], driver.now)
    messages = back(driver, 0)
    assert (messages[0].audio_received_samples, messages[0].audio_received_ms) == (1000, 22)
    driver.protocol.receive(whole[4 * 1000 :], driver.now)
    assert driver.protocol.session.received_samples == rate
    driver.send(SessionFinish())
    messages = driver.run()
    assert not [m for m in messages if isinstance(m, WarningMessage)]
    assert messages[-1].audio_ms == 1000


def test_samples_are_counted_over_a_change_of_the_format(kit: SimpleNamespace, model: Any) -> None:
    driver = begin(kit, model)
    driver.protocol.receive(bytes(200), driver.now)
    driver.protocol.session._audio.change(AudioFormat(sample_rate=8_000))
    driver.protocol.receive(bytes(200), driver.now)
    assert back(driver, 0)[0].audio_received_samples == 200


def test_the_summary_is_delivered_after_a_resume(kit: SimpleNamespace, model: Any) -> None:
    driver = begin(kit, model)
    driver.transcript("他在北京", 1, final=True).send(SessionFinish())
    assert isinstance(driver.run()[-1], SessionSummary)
    assert driver.protocol.close.code == 1000
    assert driver.protocol.is_resumable
    for _ in range(2):
        messages = back(driver, 1)
        assert [type(m) for m in messages] == [SessionReady, UtteranceFinal, SessionSummary]


def test_a_session_finishes_while_nobody_is_there(kit: SimpleNamespace, model: Any) -> None:
    driver = begin(kit, model)
    driver.drain()
    driver.transcript("他在北京", 1, final=True).send(SessionFinish())
    driver.protocol.park()
    assert driver.run() == []
    driver.protocol.resume(0, driver.now)
    # What the client sends again after its finish is no news.
    driver.transcript("他在北京", 1, final=True).send(SessionFinish())
    assert [type(m) for m in driver.run()] == [
        SessionReady,
        EntityUpsert,
        UtteranceFinal,
        SessionSummary,
    ]


def test_repeats_after_the_finish_are_taken_without_a_word(
    kit: SimpleNamespace, model: Any
) -> None:
    driver = begin(kit, model)
    driver.transcript("他在北京", 1, final=True).send(SessionFinish())
    driver.protocol.park()
    driver.protocol.resume(0, driver.now)
    driver.transcript("他在北京", 1, final=True).send(SessionFinish())
    assert not [m for m in driver.run() if isinstance(m, WarningMessage)]


def test_a_number_of_the_future_is_an_error(kit: SimpleNamespace, model: Any) -> None:
    driver = begin(kit, model)
    with pytest.raises(ProtocolError, match="expected last_seq of at most 0, got 1") as caught:
        driver.protocol.loss(1)
    assert caught.value.name is ErrorName.INVALID_LAST_SEQ


def test_what_is_no_longer_kept_is_told(kit: SimpleNamespace, model: Any) -> None:
    driver = begin(kit, model, ConnectionLimits(history_bytes=500))
    for number in range(5):
        driver.transcript("他在北京", 1, utterance=f"u{number}", final=True)
    driver.run()
    driver.transcript("他在北京", 1, utterance="owed", final=True)
    assert driver.protocol.loss(9) is None
    lost = driver.protocol.loss(2)
    assert lost == lost_history("history_too_short", events=7, utterances=("owed",))


def test_a_request_waits_for_its_owner_and_a_new_session_can_begin(
    kit: SimpleNamespace, model: Any
) -> None:
    driver = kit.Driver(model)
    driver.protocol.offer_resume(TERMS)
    driver.send(SessionStart(labels=["PER"], resume=ResumeRequest(token="other", last_seq=7)))
    assert driver.run() == []
    assert driver.protocol.resume_request == ResumeRequest(token="other", last_seq=7)
    driver.protocol.start_anew(lost_history("unknown_token"))
    assert driver.protocol.resume_request is None
    (ready,) = driver.run()
    assert (ready.recovered, ready.lost.reason, ready.lost.events) == (
        False,
        "unknown_token",
        None,
    )
    driver.transcript("他在北京", 1, final=True)
    assert [m.entities for m in driver.run()] == [[]], "the options are those of the request"


def test_a_new_session_that_cannot_begin_is_an_error(kit: SimpleNamespace, model: Any) -> None:
    driver = kit.Driver(model)
    driver.protocol.offer_resume(TERMS)
    driver.send(SessionStart(labels=["GPE"], resume=ResumeRequest(token="other", last_seq=7)))
    driver.protocol.start_anew(lost_history("unknown_token"))
    assert driver.run()[-1].name == "unknown_label"


def test_idleness_ends_the_connection_and_not_the_session(kit: SimpleNamespace, model: Any) -> None:
    driver = begin(kit, model, ConnectionLimits(idle_timeout_s=30))
    driver.drain()
    driver.wait(31)
    assert driver.protocol.parting.name is ErrorName.IDLE
    assert driver.protocol.close is None
    driver.transcript("他在北京", 1, final=True)
    assert driver.protocol.session.owed == (), "what comes late is not taken"
    driver.now += 1000
    (ready,) = back(driver, 0)
    assert ready.recovered
    assert driver.wait(29) == []
    assert driver.protocol.parting is None


def test_a_session_that_failed_cannot_go_on(kit: SimpleNamespace, model: Any) -> None:
    driver = begin(kit, model)
    driver.transcript("他在北京", 1, final=True)
    driver.protocol.park()
    model.poison = "北京"
    driver.run()
    assert not driver.protocol.is_resumable


def test_acknowledgements_of_the_old_connection_are_not_told(
    kit: SimpleNamespace, model: Any
) -> None:
    driver = begin(kit, model)
    driver.drain()
    driver.audio(kit.silence(2_000))
    assert driver.protocol.has_messages
    messages = back(driver, 0)
    assert not [m for m in messages if isinstance(m, AudioAck)]
    assert messages[0].audio_received_ms == 2_000


def test_what_came_to_wait_meanwhile_is_no_slow_reader(kit: SimpleNamespace, model: Any) -> None:
    driver = begin(kit, model, ConnectionLimits(waiting_bytes=5_000))
    driver.drain()
    for number in range(20):
        driver.send(Transcript(utterance=f"u{number}", revision=1, final=True, text="北京"))
    driver.protocol.park()
    driver.run()
    driver.protocol.resume(0, driver.now)
    assert len([m for m in driver.run() if isinstance(m, UtteranceFinal)]) == 20
    assert driver.protocol.close is None


def test_going_away_carries_the_token(kit: SimpleNamespace, model: Any) -> None:
    driver = begin(kit, model)
    driver.drain()
    driver.protocol.go_away("shutdown")
    going, error = driver.run()
    assert isinstance(going, SessionGoingAway)
    assert going.resume == TERMS.offer()
    assert error.code == 1001
    assert not driver.protocol.is_resumable
