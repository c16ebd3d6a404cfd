"""What is kept to be sent again, and in which order it is."""

from __future__ import annotations

from typing import Any

import pytest

from cnerta.streamer.client.sent_log import SentLog
from cnerta.streamer.wire.messages import SessionFinish, Transcript
from cnerta.streamer.wire.parts import AudioFormat

RATE = 16_000
MS = 2 * RATE // 1_000  # bytes


def final(utterance: str, **times: int) -> Transcript:
    return Transcript(utterance=utterance, revision=9, final=True, text="好", **times)


def interim(utterance: str, revision: int) -> Transcript:
    return Transcript(utterance=utterance, revision=revision, final=False, text="好")


def audio(first: int, count: int) -> bytes:
    """Samples that tell where they belong. ``first`` and ``count`` in milliseconds."""
    return b"".join(
        (n % 30_000).to_bytes(2, "little") for n in range(16 * first, 16 * (first + count))
    )


def drain(log: SentLog, max_bytes: int = 10**6) -> list[Any]:
    sent: list[Any] = []
    while (item := log.next(max_bytes)) is not None:
        if isinstance(item, bytes) and sent and isinstance(sent[-1], bytes):
            sent[-1] += item
        else:
            sent.append(item)
    return sent


def test_things_are_sent_in_the_order_they_came() -> None:
    log = SentLog(AudioFormat())
    log.add_audio(audio(0, 100))
    log.add_transcript(final("a"))
    log.add_audio(audio(100, 50))
    log.add_transcript(final("b"))
    log.add_finish()
    assert drain(log, 333) == [
        audio(0, 100),
        final("a"),
        audio(100, 50),
        final("b"),
        SessionFinish(),
    ]
    assert (log.unsent_bytes, log.audio_ms, log.unanswered) == (0, 150, ("a", "b"))


def test_pieces_are_whole_samples() -> None:
    log = SentLog(AudioFormat(encoding="pcm_f32le", channels=3))
    log.add_audio(bytes(12 * 10))
    sizes = []
    while (piece := log.next(40)) is not None:
        assert isinstance(piece, bytes)
        sizes.append(len(piece))
    assert sizes == [36, 36, 36, 12]


def test_of_an_utterance_the_newest_is_sent_again_and_of_the_answered_none() -> None:
    log = SentLog(AudioFormat())
    log.add_transcript(interim("a", 1))
    log.add_transcript(interim("a", 2))
    log.add_transcript(final("b"))
    log.add_transcript(interim("b", 10))  # nothing comes after a final
    assert drain(log) == [interim("a", 2), final("b")]
    log.add_transcript(interim("a", 3))
    log.answered("b", None)
    log.add_transcript(final("b"))
    log.answered("unheard of", None)
    assert drain(log) == [interim("a", 3)]
    log.resume(0)
    assert drain(log) == [interim("a", 3)]
    assert log.unanswered == ()
    assert log.open_utterances == 1


def test_a_session_that_goes_on_gets_what_it_lacks() -> None:
    log = SentLog(AudioFormat())
    log.add_audio(audio(0, 100))
    log.add_transcript(final("a"))
    log.add_audio(audio(100, 100))
    log.add_transcript(final("b"))
    drain(log)
    log.resume(16 * 130)
    assert drain(log) == [final("a"), audio(130, 70), final("b")]
    log.resume(16 * 200)
    assert drain(log) == [final("a"), final("b")]
    with pytest.raises(ValueError, match=r"expected at most 6400 bytes of audio, got 6402"):
        log.resume(16 * 200 + 1)


def test_a_new_session_gets_the_audio_after_the_last_answer() -> None:
    log = SentLog(AudioFormat())
    for number in range(10):
        log.add_audio(audio(100 * number, 100))
        log.add_transcript(final(f"u{number}"))
    drain(log)
    log.answered("u0", 95)
    log.answered("u1", 187)
    assert log.start_again() == (16 * 187, 187)
    items = drain(log)
    assert items[0] == audio(187, 113)
    assert items[1] == final("u2")
    assert len(items) == 2 * 8


def test_an_answer_without_audio_takes_all_that_came_before_its_transcript() -> None:
    log = SentLog(AudioFormat())
    log.add_audio(audio(0, 100))
    log.add_transcript(final("a"))
    log.add_audio(audio(100, 100))
    drain(log)
    log.answered("a", None)
    assert log.start_again() == (16 * 100, 100)
    assert drain(log) == [audio(100, 100)]


def test_an_answer_without_audio_takes_no_more_than_its_times() -> None:
    log = SentLog(AudioFormat())
    log.add_audio(audio(0, 100))
    log.add_transcript(final("a", start_ms=0, end_ms=40))
    log.add_transcript(final("of the future", start_ms=500, end_ms=900))
    drain(log)
    log.answered("a", None)
    log.answered("of the future", None)
    assert log.start_again() == (16 * 40, 40)


def test_a_late_utterance_with_times_keeps_its_audio() -> None:
    log = SentLog(AudioFormat())
    log.add_audio(audio(0, 1_000))
    log.add_transcript(final("late", start_ms=400, end_ms=500))
    log.add_transcript(final("early"))
    drain(log)
    log.answered("early", 900)
    assert log.start_again() == (16 * 200, 200), "give or take what a server gives or takes"
    log.answered("late", 480)
    assert log.start_again() == (16 * 900, 900)


@pytest.mark.parametrize(("rate", "step"), [(44_100, 441), (22_050, 441), (48_000, 48), (8_000, 8)])
def test_a_new_session_begins_at_a_whole_millisecond(rate: int, step: int) -> None:
    log = SentLog(AudioFormat(sample_rate=rate))
    log.add_audio(bytes(2 * (rate + 7)))
    log.add_transcript(final("a"))
    drain(log)
    log.answered("a", 517)
    samples, milliseconds = log.start_again()
    assert samples % step == 0
    assert samples * 1_000 == milliseconds * rate
    assert 0 <= 517 - milliseconds <= 20
    # Without any audio that is kept it begins where there will be some.
    empty = SentLog(AudioFormat(sample_rate=rate))
    empty.add_audio(bytes(2 * (rate + 7)))
    empty.add_transcript(final("a"))
    drain(empty)
    empty.answered("a", None)
    empty.answered("a", None)
    empty.add_transcript(final("b"))
    drain(empty)
    samples, milliseconds = empty.start_again()
    assert samples * 1_000 == milliseconds * rate
    empty.add_audio(bytes(2 * rate))
    assert sum(len(i) for i in drain(empty) if isinstance(i, bytes)) == 2 * (2 * rate + 7 - samples)


def test_audio_is_bounded_and_what_is_missing_is_silence() -> None:
    log = SentLog(AudioFormat(), keep_ms=1_000)
    for number in range(50):
        log.add_audio(audio(100 * number, 100))
        drain(log)
    assert log._kept_bytes <= 1_000 * MS
    log.resume(16 * 3_900)
    assert drain(log) == [bytes(100 * MS) + audio(4_000, 1_000)]
    assert log.start_again() == (16 * 4_000, 4_000)
    alaw = SentLog(AudioFormat(encoding="alaw"), keep_ms=1_000)
    alaw.add_audio(bytes(16_000))
    drain(alaw)
    alaw.add_audio(bytes(16_000))
    drain(alaw)
    alaw.resume(15_990)
    assert drain(alaw) == [b"\xd5" * 10 + bytes(16_000)]


def test_audio_that_was_not_sent_is_never_forgotten() -> None:
    log = SentLog(AudioFormat(), keep_ms=1_000)
    for number in range(50):
        log.add_audio(audio(100 * number, 100))
    assert drain(log) == [audio(0, 5_000)]


def test_utterances_without_an_end_are_bounded() -> None:
    log = SentLog(AudioFormat(), most_open=3)
    log.add_transcript(final("final"))
    for number in range(9):
        log.add_transcript(interim(f"u{number}", 1))
    assert drain(log) == [final("final"), *(interim(f"u{n}", 1) for n in (6, 7, 8))]
    assert len(log._items) == 4
