"""Bad input, each with its named error; limits; and what time alone does."""

from __future__ import annotations

import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from cnerta.streamer.session.limits import ConnectionLimits
from cnerta.streamer.wire.codec import encode
from cnerta.streamer.wire.messages import (
    MAX_TEXT_CHARACTERS,
    ErrorMessage,
    Keepalive,
    SessionFinish,
    SessionStart,
    Transcript,
    UtteranceFinal,
    WarningMessage,
)
from cnerta.streamer.wire.parts import AudioFormat

Drive = Callable[..., Any]
START = encode(SessionStart()).decode()
FLOATS = encode(SessionStart(audio=AudioFormat(encoding="pcm_f32le"))).decode()


def transcript(**changes: Any) -> str:
    values = {"utterance": "u1", "revision": 1, "final": True, "text": "他在北京"}
    return json.dumps({"type": "transcript", **values, **changes})


BAD_INPUT = {
    "not JSON": ([START, "{"], 4400, "not_json"),
    "unknown type": ([START, '{"type":"hello"}'], 4400, "unknown_type"),
    "server's own type": ([START, '{"type":"audio.ack"}'], 4400, "unknown_type"),
    "unknown field": ([START, transcript(colour="red")], 4400, "unknown_field"),
    "wrong type of field": ([START, transcript(text=7)], 4400, "invalid_message"),
    "unknown version": (
        ['{"type":"session.start","version":2}'],
        4400,
        "unsupported_version",
    ),
    "unsupported encoding": (
        ['{"type":"session.start","audio":{"encoding":"opus"}}'],
        4400,
        "unsupported_encoding",
    ),
    "unsupported rate": (
        ['{"type":"session.start","audio":{"sample_rate":7999}}'],
        4400,
        "unsupported_sample_rate",
    ),
    "unsupported channels": (
        ['{"type":"session.start","audio":{"channels":9}}'],
        4400,
        "unsupported_channels",
    ),
    "unsupported rate in an update": (
        [START, '{"type":"session.update","audio":{"sample_rate":192000}}'],
        4400,
        "unsupported_sample_rate",
    ),
    "unknown label": (['{"type":"session.start","labels":["GPE"]}'], 4400, "unknown_label"),
    "unknown label in an update": (
        [START, '{"type":"session.update","labels":["GPE"]}'],
        4400,
        "unknown_label",
    ),
    "binary before start": ([b"\0\0"], 4400, "not_started"),
    "transcript before start": ([transcript()], 4400, "not_started"),
    "finish before start": ([encode(SessionFinish()).decode()], 4400, "not_started"),
    "second start": ([START, START], 4400, "already_started"),
    "resume of an unknown session": (
        ['{"type":"session.start","resume":{"token":"x","last_seq":0}}'],
        4404,
        "unknown_session",
    ),
    "end before start": ([START, transcript(start_ms=200, end_ms=100)], 4400, "invalid_times"),
    "text of 10,000 characters": ([START, transcript(text="北" * 10_000)], 4400, "text_too_long"),
    "sample that is no number": (
        [FLOATS, np.array([0, np.nan], "<f4").tobytes()],
        4400,
        "audio_not_finite",
    ),
    "infinite sample": ([FLOATS, np.array([np.inf], "<f4").tobytes()], 4400, "audio_not_finite"),
    "frame too large": ([START, bytes(2**20 + 1)], 4413, "frame_too_large"),
    "text frame too large": ([START, '"' + "京" * 2**19 + '"'], 4413, "frame_too_large"),
    "audio too fast": ([START, *[bytes(2**20)] * 2], 4429, "audio_too_fast"),
}


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input_is_a_named_error(kit: SimpleNamespace, model: Any, case: str) -> None:
    frames, code, name = BAD_INPUT[case]
    driver = kit.Driver(model)
    for frame in frames:
        assert driver.protocol.close is None, "only the last frame is the bad one"
        driver.protocol.receive(frame, driver.now)
    error = driver.run()[-1]
    assert isinstance(error, ErrorMessage)
    assert (error.code, error.name) == (code, name)
    assert error.detail.startswith("expected ")
    assert driver.protocol.close.code == code
    # Whatever follows, nothing more is said.
    driver.send(transcript()).send(b"\0")
    assert driver.wait(100) == []


ODD_BUT_FINE = {
    "empty text": "",
    "not Chinese": "Hello wörld, مرحبا Привет 😀",
    "control characters": "\x00\x07\x1b[31m\r\n\t\u202e\ufeff",
    "combining marks": "e\u0301\u0323" * 20,
    "private and unassigned": "\ue000\U0010ffff\u0378",
    "longest text": "北京" * (MAX_TEXT_CHARACTERS // 2),
}


@pytest.mark.parametrize("case", ODD_BUT_FINE)
def test_odd_text_is_answered(drive: Drive, kit: SimpleNamespace, case: str) -> None:
    driver = drive().audio(kit.speak("他在北京"))
    driver.transcript(ODD_BUT_FINE[case], 1, utterance="odd").run()
    driver.transcript(ODD_BUT_FINE[case], 2, utterance="odd", final=True).run()
    assert driver.finals["odd"].text == ODD_BUT_FINE[case]
    driver.audio(kit.speak("她去上海"))
    driver.transcript("她去上海", 1, utterance="next", final=True).run()
    assert driver.finals["next"].audio_used


def test_odd_byte_counts_are_put_together(drive: Drive, kit: SimpleNamespace) -> None:
    driver = drive().audio(kit.speak("他在北京"), frame_bytes=333)
    assert driver.transcript("他在北京", 1, final=True).run()[-1].audio_used
    driver.send(b"\1").send(SessionFinish()).run()
    assert [w.name for w in driver.seen if isinstance(w, WarningMessage)] == [
        "partial_sample_dropped"
    ]


def test_empty_binary_frames_are_nothing(drive: Drive) -> None:
    driver = drive().send(b"").send(b"")
    assert driver.run() == []
    assert driver.protocol.close is None


def test_audio_without_a_transcript_ends_in_order(drive: Drive, kit: SimpleNamespace) -> None:
    driver = drive().audio(kit.speak("他在北京")).send(SessionFinish())
    summary = driver.run()[-1]
    assert (summary.utterances, summary.audio_ms) == (0, 640)


def test_silence_on_the_connection_ends_it(drive: Drive, kit: SimpleNamespace) -> None:
    driver = drive(ConnectionLimits(idle_timeout_s=30))
    driver.wait(29)
    driver.send(Keepalive()).wait(29)
    driver.audio(kit.silence(20)).wait(29)
    assert driver.protocol.close is None
    error = driver.wait(31)[-1]
    assert (error.code, error.name, error.retryable) == (4408, "idle", True)


def test_a_connection_that_never_starts_is_idle_too(kit: SimpleNamespace, model: Any) -> None:
    driver = kit.Driver(model, None, ConnectionLimits(start_timeout_s=None, idle_timeout_s=30))
    assert driver.wait(31)[-1].name == "idle"


def test_keepalives_do_not_take_the_place_of_a_start(kit: SimpleNamespace, model: Any) -> None:
    driver = kit.Driver(model, None, ConnectionLimits(start_timeout_s=10))
    for _ in range(4):
        assert driver.send(Keepalive()).wait(2.4) == []
    error = driver.send(Keepalive()).wait(0.5)[-1]
    assert error.name == "idle"
    assert "session.start within 10 s" in error.detail


def test_no_idle_end_while_answers_are_owed(drive: Drive) -> None:
    driver = drive().transcript("他在北京", 1, final=True).send(SessionFinish())
    driver.now += 100
    driver.protocol.tick(driver.now)
    assert "u1" in {m.utterance for m in driver.run() if isinstance(m, UtteranceFinal)}


def test_audio_ahead_of_real_time_is_warned_of_once(drive: Drive, kit: SimpleNamespace) -> None:
    driver = drive()
    for _ in range(12):
        driver.audio(kit.silence(1000), pace=False)
    driver.drain()
    assert len(driver.named(WarningMessage, "audio_ahead_of_realtime")) == 1
    assert driver.protocol.close is None
    # A pause does not buy the right to flood.
    driver.wait(20)
    for _ in range(61):
        driver.audio(kit.silence(1000), pace=False)
    assert driver.protocol.close.code == 4429


def test_without_a_bound_audio_may_come_as_fast_as_it_likes(
    drive: Drive, kit: SimpleNamespace
) -> None:
    driver = drive(ConnectionLimits(max_audio_ahead_ms=None))
    for _ in range(100):
        driver.audio(kit.silence(1000), pace=False)
    assert driver.protocol.close is None


def test_a_reader_that_does_not_read_is_cut_off_at_the_bound(drive: Drive) -> None:
    driver = drive(ConnectionLimits(waiting_bytes=200_000))
    number = 0
    while driver.protocol.close is None:
        number += 1
        assert number < 1000, "expected a bound"
        driver.send(
            Transcript(utterance=f"u{number}", revision=1, final=True, text="他在北京大学" * 10)
        )
        while driver.step():
            pass
    assert number > 5
    (error,) = driver.drain()
    assert (error.code, error.name) == (4429, "reader_too_slow")


def test_a_slow_reader_gets_every_final_and_numbers_without_gaps(drive: Drive) -> None:
    driver = drive(ConnectionLimits(waiting_bytes=100_000))
    for number in range(20):
        for revision in range(5):
            driver.transcript("他在北京大学"[: 2 + revision], revision, utterance=f"u{number}")
            while driver.step():
                pass
        driver.transcript("他在北京大学", 9, utterance=f"u{number}", final=True)
        while driver.step():
            pass
    driver.drain()
    assert len(driver.finals) == 20
    assert [m.seq for m in driver.events] == list(range(1, len(driver.events) + 1))


def test_an_engine_failure_ends_the_session_with_its_error(drive: Drive) -> None:
    driver = drive()
    driver.model.poison = "北京"
    driver.transcript("他在北京", 1, final=True)
    error = driver.run()[-1]
    assert (error.code, error.name, error.retryable) == (1011, "internal", True)
    assert "北京" not in error.detail
