"""The translation for Deepgram's clients, without a server."""

from __future__ import annotations

import hashlib
import itertools
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnerta.streamer.apis.deepgram_listen import DeepgramListener
from cnerta.streamer.apis.deepgram_query import BadQueryError, ListenQuery
from cnerta.streamer.apis.deepgram_words import split_words, word_range
from cnerta.streamer.apis.tongue import FLUSH, Flushed, Reply
from cnerta.streamer.wire.errors import ErrorName, ProtocolError
from cnerta.streamer.wire.messages import (
    AudioAck,
    EntityRetract,
    EntityUpsert,
    Keepalive,
    RecognisedTranscript,
    ServerMessage,
    SessionFinish,
    SessionStart,
    SessionSummary,
    UtteranceFinal,
)
from cnerta.streamer.wire.parts import AudioFormat, Entity

from .test_wave_stream import SAMPLES, written

RAW = "encoding=linear16&sample_rate=16000"


def listener(query: str = RAW) -> DeepgramListener:
    created = datetime(2026, 11, 30, 12, tzinfo=UTC)
    return DeepgramListener(ListenQuery.read(f"/v1/listen?{query}"), "r-1", created)


def told(tongue: DeepgramListener, *messages: ServerMessage | Flushed | Reply) -> list[Any]:
    return [json.loads(text) for message in messages for text in tongue.tell(message)]


def entity(start: int, end: int, text: str, **fields: Any) -> Entity:
    values: dict[str, Any] = {
        "id": "u1-e1",
        "version": 1,
        "status": "final",
        "label": "LOC",
        "parent": None,
        "start_ms": 100 * start,
        "end_ms": 100 * end,
        "time_source": "alignment",
        "confidence": 0.9,
        "audio_used": True,
        **fields,
    }
    return Entity(start=start, end=end, start_utf16=start, end_utf16=end, text=text, **values)


def update(text: str, *, final: bool = False, **fields: Any) -> RecognisedTranscript:
    return RecognisedTranscript(utterance="u1", revision=1, final=final, text=text, **fields)


def final(text: str, entities: list[Entity] | None = None, **fields: Any) -> UtteranceFinal:
    values: dict[str, Any] = {
        "utterance": "u1",
        "characters": [(100 * i, 100 * i + 80) for i in range(len(text))],
        **fields,
    }
    return UtteranceFinal(
        seq=1,
        revision=2,
        text=text,
        entities=entities or [],
        time_source="alignment",
        audio_used=True,
        behind_live_ms=0,
        **values,
    )


# --- what they ask for ----------------------------------------------------------------------------


def test_what_is_asked_for_is_read_and_the_rest_passed_over() -> None:
    query = ListenQuery.read(
        "/v1/listen?model=nova-3&encoding=mulaw&sample_rate=8000&channels=2&interim_results=true"
        "&detect_entities=True&endpointing=false&utterance_end_ms=1000&vad_events=true"
        "&smart_format=true&language=zh&keyterm=a&keyterm=b&no_such_thing=1&diarize=true"
    )
    assert query == ListenQuery(
        audio_format=AudioFormat(encoding="mulaw", sample_rate=8_000, channels=2),
        interim=True,
        entities=True,
        endpointing=False,
        utterance_end_ms=1_000,
        vad_events=True,
        model="nova-3",
    )
    assert ListenQuery.read("/v1/listen").audio_format is None


@pytest.mark.parametrize(
    ("query", "why"),
    [
        ("encoding=opus&sample_rate=48000", "encoding linear16, linear32, mulaw, alaw"),
        ("encoding=linear16", "sample_rate beside encoding"),
        ("encoding=linear16&sample_rate=4000", "from 8000 to 48000"),
        ("encoding=linear16&sample_rate=16000&channels=9", "channels from 1 to 8"),
        ("channels=2&multichannel=true", "multichannel"),
        ("interim_results=maybe", "interim_results to be true or false"),
        ("utterance_end_ms=soon", "utterance_end_ms from"),
        ("redact=pii", "no redact"),
        ("callback=https%3A%2F%2Fexample.org", "no callback"),
    ],
)
def test_what_cannot_be_had_is_refused(query: str, why: str) -> None:
    with pytest.raises(BadQueryError, match=why):
        ListenQuery.read(f"/v1/listen?{query}")


# --- words ----------------------------------------------------------------------------------------


def test_words_have_their_times_and_the_marks_beside_them() -> None:
    text = "“他在 iPhone15，买了3.5 元。"
    times = [(10 * i, 10 * i + 9) for i in range(len(text))]
    words = split_words(text, times, 0, 0)
    assert [w.text for w in words] == ["他", "在", "iPhone15", "买", "了", "3.5", "元"]
    assert [w.written for w in words] == ["“他", "在", "iPhone15，", "买", "了", "3.5", "元。"]
    assert [(w.start_ms, w.end_ms) for w in words[:3]] == [(10, 19), (20, 29), (40, 119)]
    assert all(text[w.start : w.end] == w.text for w in words)


def test_without_times_of_characters_a_text_is_spread_over_its_time() -> None:
    words = split_words("北京", (), 1_000, 2_000)
    assert [(w.start_ms, w.end_ms) for w in words] == [(1_000, 1_500), (1_500, 2_000)]


@given(st.text("他在北京 ab,.。3é", max_size=20), st.integers(0, 20), st.integers(0, 20))
def test_words_are_in_order_and_ranges_lie_within_them(text: str, one: int, two: int) -> None:
    words = split_words(text, (), 0, 1_000)
    assert all(a.end <= b.start for a, b in itertools.pairwise(words))
    kept = "".join(w.text for w in words)
    assert [c for c in text if c.isalnum()] == [c for c in kept if c.isalnum()]
    start, end = min(one, two, len(text)), min(max(one, two), len(text))
    first, behind = word_range(words, start, end)
    assert 0 <= first <= behind <= len(words)
    assert all(w.start < end and start < w.end for w in words[first:behind])


# --- what they say --------------------------------------------------------------------------------


def test_a_connection_of_known_audio_is_a_session_at_once() -> None:
    (start,) = listener(RAW + "&interim_results=true&detect_entities=true").opening()
    assert start == SessionStart(audio=AudioFormat(), transcript="server", interim=True)
    (start,) = listener().opening()
    assert isinstance(start, SessionStart)
    assert not start.interim


def test_their_control_messages() -> None:
    tongue = listener()
    assert list(tongue.hear('{"type":"KeepAlive"}')) == [Keepalive()]
    assert list(tongue.hear('{"type":"Finalize","channel":null}')) == [FLUSH]
    assert list(tongue.hear('{"type":"CloseStream"}')) == [SessionFinish()]
    assert list(tongue.hear(b"")) == [SessionFinish()]
    (reply,) = tongue.hear('{"type":"Configure","keyterms":[]}')
    assert isinstance(reply, Reply)
    assert told(tongue, reply)[0]["type"] == "ConfigureFailure"


@pytest.mark.parametrize(
    ("sent", "name"),
    [
        ("no json", ErrorName.NOT_JSON),
        ("[]", ErrorName.NOT_JSON),
        ("\ud800", ErrorName.NOT_JSON),
        ("{}", ErrorName.UNKNOWN_TYPE),
        ('{"type":"Speak"}', ErrorName.UNKNOWN_TYPE),
    ],
)
def test_what_is_none_of_them_is_an_error_in_their_shape(sent: str, name: ErrorName) -> None:
    tongue = listener()
    with pytest.raises(ProtocolError) as caught:
        list(tongue.hear(sent))
    assert caught.value.name is name
    (error,) = told(tongue, caught.value.message())
    assert (error["type"], error["variant"]) == ("Error", name.wire_name)
    assert error["description"]
    closing = tongue.closing(caught.value.name.code, "x")
    assert (closing.code, closing.reason) == (1008, "DATA-0000")


def test_a_wav_file_says_itself_what_it_is() -> None:
    tongue = listener("interim_results=true")
    assert list(tongue.opening()) == []
    file = written("PCM_16", rate=8_000)
    assert list(tongue.hear(file[:30])) == []
    start, samples = tongue.hear(file[30:])
    assert isinstance(start, SessionStart)
    assert start.audio == AudioFormat(sample_rate=8_000)
    assert samples == SAMPLES.tobytes()
    (metadata,) = told(
        tongue, SessionSummary(utterances=0, entities=0, audio_ms=50, dropped_interims=0)
    )
    assert metadata["sha256"] == hashlib.sha256(file).hexdigest()
    assert metadata["duration"] == 0.05


@pytest.mark.parametrize(
    ("file", "name"),
    [
        (b"OggS", ErrorName.UNSUPPORTED_ENCODING),
        (written("PCM_16", rate=4_000), ErrorName.UNSUPPORTED_SAMPLE_RATE),
    ],
)
def test_audio_that_is_not_known_is_an_error(file: bytes, name: ErrorName) -> None:
    with pytest.raises(ProtocolError) as caught:
        list(listener("").hear(file))
    assert caught.value.name is name


def test_who_closes_without_having_said_anything_is_answered() -> None:
    start, finish = listener("").hear('{"type":"CloseStream"}')
    assert isinstance(start, SessionStart)
    assert finish == SessionFinish()
    assert list(listener("").hear('{"type":"Finalize"}')) == []


# --- what they are told ---------------------------------------------------------------------------


def test_a_final_answer_is_a_final_result_with_entities() -> None:
    tongue = listener(RAW + "&detect_entities=true")
    outer = entity(2, 6, "北京大学", id="u1-e1", label="ORG")
    inner = entity(2, 4, "北京", id="u1-e2", parent="u1-e1")
    (result,) = told(tongue, final("他在北京大学", [outer, inner]))
    assert (result["is_final"], result["speech_final"], result["from_finalize"]) == (
        True,
        True,
        False,
    )
    assert (result["start"], result["duration"]) == (0.0, 0.58)
    assert result["metadata"]["request_id"] == "r-1"
    (alternative,) = result["channel"]["alternatives"]
    assert alternative["transcript"] == "他在北京大学"
    assert [w["word"] for w in alternative["words"]] == list("他在北京大学")
    assert alternative["words"][2] == {
        "word": "北",
        "start": 0.2,
        "end": 0.28,
        "confidence": 1.0,
        "punctuated_word": "北",
    }
    found = [(e["label"], e["value"], e["start_word"], e["end_word"]) for e in result["entities"]]
    assert found == [("ORGANIZATION", "北京大学", 2, 6), ("LOCATION", "北京", 2, 4)]
    assert [(e["parent"], e["confidence"], e["start"]) for e in result["entities"]] == [
        (None, 0.9, 0.2),
        ("u1-e1", 0.9, 0.2),
    ]


def test_without_detect_entities_there_is_no_such_key_and_with_it_a_list() -> None:
    assert "entities" not in told(listener(), final("他", [entity(0, 1, "他")]))[0]
    assert told(listener(RAW + "&detect_entities=true"), final("他"))[0]["entities"] == []


def test_who_wants_no_interim_results_gets_none() -> None:
    assert told(listener(), update("他在", start_ms=0, end_ms=200)) == []


def test_interim_results_have_the_entities_that_still_fit_their_text() -> None:
    tongue = listener(RAW + "&interim_results=true&detect_entities=true")

    def upsert(found: Entity) -> EntityUpsert:
        return EntityUpsert(seq=1, utterance="u1", revision=1, entity=found, behind_live_ms=0)

    first, second, third, fourth = told(
        tongue,
        update("他在北京", start_ms=1_000, end_ms=1_800),
        upsert(entity(2, 4, "北京", status="tentative")),
        update("他在背景下", start_ms=1_000, end_ms=2_000),
        EntityRetract(
            seq=2, utterance="u1", revision=1, id="u1-e1", reason="text_changed", behind_live_ms=0
        ),
    )
    assert [r["is_final"] for r in (first, second, third, fourth)] == [False] * 4
    assert (first["start"], first["duration"], first["entities"]) == (1.0, 0.8, [])
    assert [(e["value"], e["status"]) for e in second["entities"]] == [("北京", "tentative")]
    assert third["entities"] == fourth["entities"] == []


def test_what_the_recogniser_says_last_is_told_once_by_the_answer() -> None:
    tongue = listener(RAW + "&interim_results=true")
    results = told(tongue, update("他", start_ms=0), update("他", final=True), final("他"))
    assert [r["is_final"] for r in results] == [False, True]


def test_a_flush_is_told_with_the_last_of_what_it_brought() -> None:
    tongue = listener()
    results = told(
        tongue,
        Flushed(("u1", "u2")),
        final("他", utterance="u1"),
        final("在", utterance="u2"),
        final("北京", utterance="u3"),
    )
    assert [r["from_finalize"] for r in results] == [False, True, False]


def test_a_flush_that_brought_nothing_is_told_at_once() -> None:
    (result,) = told(listener(), Flushed(()))
    assert (result["from_finalize"], result["is_final"]) == (True, True)
    assert result["channel"]["alternatives"][0]["transcript"] == ""
    (result,) = told(listener(), Flushed(("u1",)), final("", utterance="u1"))
    assert result["from_finalize"]


def test_the_end_of_an_utterance_is_told_when_it_was_quiet_for_long_enough() -> None:
    tongue = listener(RAW + "&utterance_end_ms=1000&interim_results=true")
    assert told(tongue, AudioAck(received_ms=5_000)) == []
    told(tongue, final("他在"))  # its last word ends at 180 ms
    assert told(tongue, AudioAck(received_ms=1_000)) == []
    told(tongue, RecognisedTranscript(utterance="u2", revision=1, final=False, text="北"))
    assert told(tongue, AudioAck(received_ms=2_000)) == []
    told(tongue, final("北", utterance="u2", characters=[(1_500, 1_700)]))
    (end,) = told(tongue, AudioAck(received_ms=3_000), AudioAck(received_ms=4_000))
    assert end == {"type": "UtteranceEnd", "channel": [0], "last_word_end": 1.7}


def test_who_wants_to_know_is_told_that_somebody_speaks() -> None:
    tongue = listener(RAW + "&vad_events=true")
    said = told(tongue, update("他", start_ms=1_200), update("他在", start_ms=1_200))
    assert said == [{"type": "SpeechStarted", "channel": [0], "timestamp": 1.2}]


def test_without_endpointing_nobody_is_told_of_pauses() -> None:
    (result,) = told(listener(RAW + "&endpointing=false"), final("他"))
    assert (result["is_final"], result["speech_final"]) == (True, False)


@pytest.mark.parametrize(
    ("code", "closing"),
    [(1000, 1000), (1001, 1001), (1011, 1011), (1013, 1013), (4408, 1011), (4429, 1008)],
)
def test_closes_are_those_of_their_table(code: int, closing: int) -> None:
    assert listener().closing(code, "finished").code == closing


def test_utterances_that_are_never_answered_are_not_kept_for_ever() -> None:
    tongue = listener(RAW + "&interim_results=true")
    for number in range(1_000):
        message = RecognisedTranscript(utterance=f"u{number}", revision=1, final=False, text="他")
        told(tongue, message)
    assert len(tongue._open) < 100
