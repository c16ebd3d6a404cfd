"""Recognition services and newer servers, each by an exchange written down from its documents.

Nobody has spoken to the services themselves; `test_sdks` holds their own SDKs against the same
exchanges.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest

from cnerta.streamer.errors import RecogniserError, TranscriptError
from cnerta.streamer.sources import Revision, make_transcript_source
from cnerta.streamer.sources.remote.pauses import Pauses
from cnerta.streamer.sources.remote.service import service_address

from ..collect import collect
from . import exchanges
from .recorded_server import Recording, listening

FAST = "speed=1000,patience=2"
PATIENT = "speed=1000,patience=60"
SECONDS = np.linspace(-0.5, 0.5, 32_000, dtype=np.float32)  # two seconds


def told(revisions: Sequence[Revision]) -> list[tuple[str, str, bool]]:
    return [(r.utterance, r.text, r.final) for r in revisions]


def speech(*parts: tuple[float, bool]) -> np.ndarray:
    """So many seconds each of noise that is loud (speech) or not."""
    generator = np.random.default_rng(0)
    return np.concatenate(
        [
            generator.normal(0, 0.1 if loud else 0.001, int(16_000 * seconds)).astype(np.float32)
            for seconds, loud in parts
        ]
    )


# --- FunASR's newer server ------------------------------------------------------------------------


def sentence(text: str, start: int, end: int, **more: Any) -> dict[str, Any]:
    return {"text": text, "start": start, "end": end, **more}


def progress(
    sentences: Sequence[dict[str, Any]], partial: str = "", start: int = 0, *, final: bool = False
) -> dict[str, Any]:
    return {
        "sentences": list(sentences),
        "partial": partial,
        "partial_start_ms": start,
        "duration_ms": 2_000,
        "is_final": final,
    }


async def test_funasr_realtime() -> None:
    """Written from FunASR's page on its realtime server, and that server's source."""
    first = sentence("南京市长。", 120, 900, spk=0)
    second = sentence("江大桥。", 1_100, 1_900, spk=1)
    recording = Recording(
        answers=[
            (400, progress([], "南京", 120)),
            (700, progress([], "南京是长", 120)),
            (1_000, progress([first])),
            (1_400, progress([first], "江大", 1_100)),
        ],
        rest=[progress([first, second], final=True), {"event": "stopped"}],
        is_end=lambda message: message == "STOP",
        on_connect=[{"event": "started"}],
        closes=False,
    )
    async with listening(recording.serve_one) as (url, _):
        options = f"language=中文,hotwords=南京 江大桥,{PATIENT}"
        got = await collect(make_transcript_source(f"funasr-realtime:{url},{options}"), SECONDS)
    assert told(got) == [
        ("u1", "南京", False),
        ("u1", "南京是长", False),
        ("u1", "南京市长。", True),
        ("u2", "江大", False),
        ("u2", "江大桥。", True),
    ]
    assert [(r.start_ms, r.end_ms, r.speaker) for r in got if r.final] == [
        (120, 900, "0"),
        (1_100, 1_900, "1"),
    ]
    assert recording.texts == ["START", "LANGUAGE:中文", "HOTWORDS:南京,江大桥", "STOP"]


async def test_funasr_realtime_where_the_client_ends_sentences() -> None:
    """Written from the same documents: COMMIT is answered at once, and the list begins anew."""
    heard = speech((1.0, True), (0.5, False), (1.0, True), (0.2, False))
    recording = Recording(
        answers=[
            (1_600, progress([sentence("南京市长", 0, 1_300)], final=True)),
            (2_000, progress([], "江大", 1_500)),
        ],
        rest=[progress([sentence("江大桥", 1_500, 2_700)], final=True), {"event": "stopped"}],
        is_end=lambda message: message == "STOP",
        closes=False,
    )
    async with listening(recording.serve_one) as (url, _):
        options = f"endpoints=client,pause=0.3,{PATIENT}"
        got = await collect(make_transcript_source(f"funasr-realtime:{url},{options}"), heard)
    assert told(got) == [
        ("u1", "南京市长", True),
        ("u2", "江大", False),
        ("u2", "江大桥", True),
    ]
    assert recording.texts == ["START", "COMMIT", "STOP"]


async def test_an_error_of_funasr_is_told() -> None:
    """A server that was started otherwise does not take COMMIT, says so, and is left here."""
    complaint = {"event": "error", "error": "COMMIT requires --endpoint-mode client"}
    recording = Recording([(500, complaint)], [], lambda message: message == "STOP")
    async with listening(recording.serve_one) as (url, _):
        source = make_transcript_source(f"funasr-realtime:{url},retries=0,{FAST}")
        assert await collect(source, SECONDS) == []


# --- vLLM -----------------------------------------------------------------------------------------


async def test_vllm_realtime() -> None:
    """Written from vllm/entrypoints/openai/realtime: one text, started and ended by commits."""

    def delta(text: str) -> dict[str, str]:
        return {"type": "transcription.delta", "delta": text}

    recording = Recording(
        on_connect=[{"type": "session.created", "id": "sess-1", "created": 1}],
        answers=[(400, delta("南京")), (700, delta("市长")), (3_500, delta("江大"))],
        rest=[delta("桥"), {"type": "transcription.done", "text": "南京市长江大桥", "usage": None}],
        is_end=lambda message: json.loads(message).get("final") is True,
        audio_of=exchanges.openai_audio,
        closes=False,
    )
    async with listening(recording.serve_one) as (url, _):
        source = make_transcript_source(f"vllm-realtime:{url},model=m,speed=4,patience=60")
        got = await collect(source, np.zeros(64_000, np.float32))
    assert [r.text for r in got if r.final] == ["南京市长", "江大桥"]
    assert [json.loads(text) for text in recording.texts] == [
        {"type": "session.update", "model": "m"},
        {"type": "input_audio_buffer.commit"},
        {"type": "input_audio_buffer.commit", "final": True},
    ]
    assert len(recording.audio) == 2 * 64_000, "16 kHz of 16 bits"


# --- OpenAI, with turns that the client ends ------------------------------------------------------


async def test_openai_realtime_where_the_client_ends_turns() -> None:
    heard = speech((1.0, True), (0.5, False), (1.0, True))
    recording = exchanges.openai_client_turns()
    async with listening(recording.serve_one) as (url, _):
        options = f"model=gpt-live-transcribe,turns=client,pause=0.3,{PATIENT}"
        got = await collect(make_transcript_source(f"openai-realtime:{url},{options}"), heard)
    assert told(got) == [
        ("u1", "南京", False),
        ("u1", "南京市长", True),
        ("u2", "江大", False),
        ("u2", "江大桥", True),
    ]
    kinds = [json.loads(text)["type"] for text in recording.texts]
    assert kinds == ["session.update", *["input_audio_buffer.commit"] * 2]
    asked = json.loads(recording.texts[0])["session"]["audio"]["input"]
    assert asked["turn_detection"] is None
    assert asked["transcription"]["model"] == "gpt-live-transcribe"


# --- services -------------------------------------------------------------------------------------


async def test_soniox(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SONIOX_API_KEY", "a-key")
    recording = exchanges.soniox()
    async with listening(recording.serve_one) as (url, _):
        source = make_transcript_source(f"soniox:{url},speakers=true,{FAST}")
        got = await collect(source, SECONDS)
    assert told(got) == [
        ("u1", "南京是", False),
        ("u1", "南京市长", False),
        ("u1", "南京市长", True),
        ("u2", "你好", True),
        ("u3", "谢谢", False),
        ("u3", "谢谢再见", False),
        ("u3", "谢谢再见", True),
    ]
    assert [(r.start_ms, r.end_ms, r.speaker) for r in got if r.final] == [
        (100, 500, "1"),
        (900, 1_100, "1"),
        (1_200, 1_700, "2"),
    ]
    first = json.loads(recording.texts[0])
    assert first["audio_format"] == "pcm_s16le"
    assert first["language_hints"] == ["zh"]
    assert first["enable_speaker_diarization"] is True
    assert "api_key" not in first, "it goes with the request"
    assert recording.headers["Authorization"] == "Bearer a-key"


async def test_an_error_of_soniox_is_told() -> None:
    recording = Recording(
        [(300, {"error_code": 402, "error_message": "Organization balance exhausted."})],
        [],
        lambda message: message == "",
    )

    async with listening(recording.serve_one) as (url, _):
        source = make_transcript_source(f"soniox:{url},retries=0,{FAST}")
        assert await collect(source, SECONDS) == []


async def test_assemblyai(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASSEMBLYAI_API_KEY", "a-key")
    recording = exchanges.assemblyai()
    async with listening(recording.serve_one) as (url, _):
        source = make_transcript_source(f"assemblyai:{url}/v3/ws?vad_threshold=0.3,{FAST}")
        got = await collect(source, SECONDS)
    assert told(got) == [
        ("u1", "南京", False),
        ("u1", "南京是长", False),
        ("u1", "南京市长", True),
        ("u2", "江大", False),
        ("u2", "江大桥", True),
    ]
    assert [(r.start_ms, r.end_ms, r.speaker) for r in got if r.final] == [
        (0, 380, "A"),
        (1_000, 1_180, "B"),
    ]
    asked = {key: value for key, (value,) in parse_qs(urlsplit(recording.path).query).items()}
    assert asked == {
        "speech_model": "whisper-rt",
        "language_codes": '["zh"]',
        "vad_threshold": "0.3",
        "sample_rate": "16000",
        "encoding": "pcm_s16le",
    }
    assert recording.headers["Authorization"] == "a-key"


async def test_formatted_turns_of_assemblyai_are_final_when_they_are_formatted() -> None:
    """Written from the same page: with format_turns a turn ends twice."""

    def turn(text: str, *, formatted: bool) -> dict[str, Any]:
        return {
            "type": "Turn",
            "turn_order": 0,
            "turn_is_formatted": formatted,
            "end_of_turn": True,
            "transcript": text,
            "words": [],
        }

    recording = Recording(
        answers=[
            (300, turn("南京市长", formatted=False)),
            (600, turn("南京市长。", formatted=True)),
        ],
        rest=[{"type": "Termination"}],
        is_end=lambda message: "Terminate" in str(message),
    )
    async with listening(recording.serve_one) as (url, _):
        source = make_transcript_source(f"assemblyai:{url}/v3/ws?format_turns=true,{FAST}")
        got = await collect(source, SECONDS)
    assert told(got) == [("u1", "南京市长", False), ("u1", "南京市长。", True)]


async def test_speechmatics(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPEECHMATICS_API_KEY", "a-key")
    recording = exchanges.speechmatics()
    async with listening(partial(exchanges.serve_speechmatics, recording)) as (url, _):
        source = make_transcript_source(f"speechmatics:{url}/v2,speakers=true,{FAST}")
        got = await collect(source, SECONDS)
    assert told(got) == [
        ("u1", "南京", False),
        ("u1", "南京市长", False),
        ("u1", "南京市长", True),
        ("u2", "江大桥", False),
        ("u2", "江大桥", True),
    ]
    assert [(r.start_ms, r.end_ms, r.speaker) for r in got if r.final] == [
        (100, 800, "S1"),
        (1_200, 1_900, "S2"),
    ]
    first, last = (json.loads(text) for text in recording.texts)
    assert first["audio_format"] == {"type": "raw", "encoding": "pcm_s16le", "sample_rate": 16_000}
    assert first["transcription_config"]["language"] == "cmn"
    assert first["transcription_config"]["diarization"] == "speaker"
    assert last == {"message": "EndOfStream", "last_seq_no": 20}, "20 blocks of 100 ms"
    assert recording.headers["Authorization"] == "Bearer a-key"


async def test_gladia(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLADIA_API_KEY", "a-key")
    recording = exchanges.gladia()
    service = exchanges.GladiaService()
    with service.serving() as address:
        async with listening(recording.serve_one) as (url, _):
            service.session = f"{url}/v2/live?token=once"
            source = make_transcript_source(f"gladia:{address}/v2/live,pause=0.5,{FAST}")
            got = await collect(source, SECONDS)
    assert told(got) == [
        ("u1", "南京", False),
        ("u1", "南京市长", True),
        ("u2", "江大桥", True),
    ]
    assert [(r.start_ms, r.end_ms, r.channel) for r in got if r.final] == [
        (100, 600, 0),
        (1_200, 1_700, 0),
    ]
    assert service.keys == ["a-key"]
    (asked,) = service.asked
    assert (asked["encoding"], asked["bit_depth"], asked["sample_rate"]) == ("wav/pcm", 16, 16_000)
    assert asked["endpointing"] == 0.5
    assert recording.path == "/v2/live?token=once"


@pytest.mark.parametrize(
    ("status", "session", "complaint"),
    [
        (401, "", "HTTP status 401"),
        (503, "", "HTTP status 503"),
        (201, "", "without the url of a session"),
        (201, "http://example.org", "without the url of a session"),
    ],
)
async def test_a_session_of_gladia_that_is_not_given(
    status: int, session: str, complaint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GLADIA_API_KEY", "a-key")
    service = exchanges.GladiaService()
    service.status, service.session = status, session
    with service.serving() as address:
        source = make_transcript_source(f"gladia:{address}/v2/live,retries=0,{FAST}")
        with pytest.raises(RecogniserError, match=complaint) as caught:
            await collect(source, SECONDS)
    assert "a-key" not in str(caught.value)


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        ("gladia:ws://host", "expected an address such as https://api.gladia.io"),
        ("gladia:http://host/v2/live", "expected https:// for a recogniser that is sent a key"),
        ("speechmatics:ws://127.0.0.1,pause=3", "expected a pause above 0 and up to 2 s, got 3"),
        ("funasr-realtime:ws://127.0.0.1,pause=0", "expected a pause above 0 s, got 0"),
        ("soniox:http://host", "expected a recogniser's address such as wss://stt-rt.soniox.com"),
    ],
)
def test_what_is_no_source_is_refused(
    source: str, complaint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GLADIA_API_KEY", "hush")
    with pytest.raises(TranscriptError, match=complaint):
        make_transcript_source(source)


@pytest.mark.parametrize(
    ("given", "query"),
    [
        ("", "model=m&rate=16000"),
        ("?model=other", "model=other&rate=16000"),
        ("?rate=8000", "model=m&rate=16000"),
        ("?key=%E5%A4%A7%E6%A1%A5&key=%E4%BB%BB%E8%90%8D", None),
        ("?bare", "model=m&bare=&rate=16000"),
    ],
)
def test_what_an_address_asks_for(given: str, query: str | None) -> None:
    address = service_address(
        f"ws://127.0.0.1:1/v1{given}",
        "wss://service.example/v1",
        "NO_SUCH_KEY",
        asked={"model": "m"},
        audio={"rate": "16000"},
    )
    wanted = query or f"model=m&{given[1:]}&rate=16000"
    assert address.url == f"ws://127.0.0.1:1/v1?{wanted}"
    assert address.headers == {}


# --- pauses ---------------------------------------------------------------------------------------


def pauses_in(heard: np.ndarray, pause_s: float = 0.3) -> list[float]:
    """Where pauses are complete, in seconds."""
    pauses = Pauses(pause_s, 16_000)
    blocks = range(0, len(heard), 1_600)
    return [(at + 1_600) / 16_000 for at in blocks if pauses.ends_with(heard[at : at + 1_600])]


def test_a_pause_follows_speech() -> None:
    heard = speech((0.5, False), (1.0, True), (0.2, False), (0.5, True), (1.0, False), (0.1, True),
                   (1.0, False))  # fmt: skip
    assert pauses_in(heard) == [pytest.approx(2.5)], "0.2 s is too short, 0.1 s is no speech"
    assert pauses_in(np.zeros(32_000, np.float32)) == []


def test_a_steady_noise_is_no_speech_for_long() -> None:
    loud = 0.02 * np.random.default_rng(1).normal(size=16_000 * 9).astype(np.float32)
    assert pauses_in(loud) == [pytest.approx(2.3)], "only while nothing quieter was heard"
    loud[5 * 16_000 : 6 * 16_000] *= 10
    assert pauses_in(loud) == [pytest.approx(2.3), pytest.approx(6.3)]
