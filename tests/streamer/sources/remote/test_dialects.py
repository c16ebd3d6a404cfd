"""Each kind of server, by an exchange written down from its published protocol.

Except for sherpa-onnx, whose real server runs where it is installed, none of the exchanges was
recorded from a server. They are served by a real WebSocket server in this process.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import shutil
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest

from cnerta.streamer.errors import TranscriptError
from cnerta.streamer.sources import make_transcript_source

from ..collect import collect, finals
from ..tone_recogniser import tones, write_tone_model
from . import exchanges
from .recorded_server import Recording, listening

# As fast as it goes: a recording has no pace.
FAST = "speed=1000,patience=2"
SECONDS = np.linspace(-0.5, 0.5, 32_000, dtype=np.float32)  # two seconds


async def test_vosk() -> None:
    """Written from the protocol in vosk-server's websocket/asr_server.py and clients."""
    recording = Recording(
        answers=[
            (300, {"partial": ""}),
            (600, {"partial": "南京"}),
            (900, {"partial": "南京 市长"}),
            (1_200, {
                "result": [
                    {"conf": 1.0, "start": 0.12, "end": 0.54, "word": "南京"},
                    {"conf": 0.9, "start": 0.54, "end": 1.08, "word": "市长"},
                ],
                "text": "南京 市长",
            }),
            (1_500, {"partial": "江 大桥"}),
        ],
        rest=[{"text": "江 大桥"}],
        is_end=lambda message: message == '{"eof" : 1}',
    )  # fmt: skip
    async with listening(recording.serve_one) as (url, _):
        got = await collect(make_transcript_source(f"vosk:{url},{FAST}"), SECONDS)
    assert [(r.utterance, r.text, r.final) for r in got] == [
        ("u1", "南京", False),
        ("u1", "南京市长", False),
        ("u1", "南京市长", True),
        ("u2", "江大桥", False),
        ("u2", "江大桥", True),
    ]
    assert (got[2].start_ms, got[2].end_ms) == (120, 1_080)
    assert json.loads(recording.texts[0]) == {"config": {"sample_rate": 16_000, "words": True}}
    heard = np.frombuffer(recording.audio, "<i2") / 32_768
    np.testing.assert_allclose(heard, SECONDS, atol=1e-4)


@pytest.mark.parametrize("python_server", [False, True])
async def test_funasr_with_two_passes(python_server: bool) -> None:
    """Written from FunASR's runtime/docs/websocket_protocol.md.

    Its two servers differ in is_final: that in C++ sets it at the end, that in Python until then.
    """

    def said(mode: str, text: str, *, last: bool = False) -> dict[str, object]:
        return {
            "mode": f"2pass-{mode}",
            "text": text,
            "wav_name": "cnerta-stream",
            "is_final": last != python_server,
        }

    recording = Recording(
        answers=[
            (600, said("online", "南京")),
            (900, said("online", "是长")),
            (1_200, said("offline", "南京市长，")),
            (1_500, said("online", "江大")),
        ],
        rest=[said("online", "桥"), said("offline", "江大桥。", last=True)],
        is_end=lambda message: json.loads(message).get("is_speaking") is False,
        closes=False,
    )
    async with listening(recording.serve_one, subprotocols=["binary"]) as (url, _):
        source = make_transcript_source(f"funasr:{url},speed=1000,patience=60")
        got = await collect(source, SECONDS)
    assert [(r.utterance, r.text, r.final) for r in got] == [
        ("u1", "南京", False),
        ("u1", "南京是长", False),
        ("u1", "南京市长，", True),
        ("u2", "江大", False),
        ("u2", "江大桥", False),
        ("u2", "江大桥。", True),
    ]
    first = json.loads(recording.texts[0])
    assert (first["mode"], first["audio_fs"], first["is_speaking"]) == ("2pass", 16_000, True)
    assert first["chunk_size"] == [5, 10, 5]


async def test_funasr_tells_of_the_end_apart() -> None:
    """Written from the source of its Python server of 1.4: is_final is of every second pass."""

    def second(text: str) -> dict[str, object]:
        return {
            "mode": "2pass-offline",
            "spk_name": "unknown",
            "spk_score": 0.0,
            "text": text,
            "wav_name": "cnerta-stream",
            "is_final": True,
        }

    recording = Recording(
        answers=[(600, {"mode": "2pass-online", "text": "南京", "is_final": False})],
        # The first sentence is still being recognised when the audio ends.
        rest=[
            second("南京市长，"),
            second("江大桥。"),
            {"mode": "2pass", "is_final": True, "is_end": True},
        ],
        is_end=lambda message: json.loads(message).get("is_end") is True,
        closes=False,
    )
    async with listening(recording.serve_one) as (url, _):
        source = make_transcript_source(f"funasr:{url},speed=1000,patience=60")
        got = await collect(source, SECONDS)
    assert finals(got) == ["南京市长，", "江大桥。"]
    assert json.loads(recording.texts[-1]) == {"is_speaking": False, "is_end": True}


async def test_funasr_without_a_second_pass_ends_an_utterance_in_a_pause() -> None:
    """Written from the same protocol: in mode online nothing says where a sentence ends."""

    def said(text: str) -> dict[str, object]:
        return {"mode": "online", "text": text, "wav_name": "cnerta-stream", "is_final": False}

    recording = Recording(
        answers=[(300, said("南京")), (600, said("市长")), (3_500, said("江大桥"))],
        rest=[{**said("了"), "is_final": True}],
        is_end=lambda message: json.loads(message).get("is_speaking") is False,
        closes=False,
    )
    async with listening(recording.serve_one) as (url, _):
        source = make_transcript_source(f"funasr:{url},mode=online,speed=4,patience=60")
        got = await collect(source, np.zeros(64_000, np.float32))
    assert finals(got) == ["南京市长", "江大桥了"]


async def test_deepgram(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEEPGRAM_API_KEY", "a-key")
    recording = exchanges.deepgram()
    async with listening(recording.serve_one) as (url, _):
        source = make_transcript_source(f"deepgram:{url}/v1/listen?language=zh,{FAST},model=nova-2")
        got = await collect(source, SECONDS)
    assert [(r.utterance, r.text, r.final) for r in got] == [
        ("u1", "南京市", False),
        ("u1", "南京市长", False),
        ("u1", "南京市长江大", False),
        ("u1", "南京市长江大桥", True),
        ("u2", "到北京", False),
        ("u2", "到北京", True),
    ]
    assert (got[3].start_ms, got[3].end_ms) == (100, 1_000)
    asked = {key: value for key, (value,) in parse_qs(urlsplit(recording.path).query).items()}
    assert asked == {
        "language": "zh",
        "interim_results": "true",
        "model": "nova-2",
        "encoding": "linear16",
        "sample_rate": "16000",
        "channels": "1",
    }
    assert recording.headers["Authorization"] == "Token a-key"


async def test_an_utterance_of_deepgram_is_of_whoever_said_most_of_it() -> None:
    """Written from the same reference: with diarize=true each word has a number."""

    def results(text: str, speakers: list[int], final: bool, ends: bool) -> dict[str, object]:
        words = [{"word": c, "speaker": s} for c, s in zip(text, speakers, strict=True)]
        return {
            "type": "Results",
            "is_final": final,
            "speech_final": ends,
            "channel": {"alternatives": [{"transcript": text, "words": words}]},
        }

    recording = Recording(
        answers=[
            (300, results("南京", [0, 0], False, False)),
            (600, results("南京市", [0, 0, 1], True, False)),
            (900, results("长江大桥", [1, 1, 1, 1], True, True)),
            (1_200, results("好", [0], True, True)),
        ],
        rest=[{"type": "Metadata", "duration": 2.0}],
        is_end=lambda message: json.loads(message)["type"] == "CloseStream",
    )
    async with listening(recording.serve_one) as (url, _):
        source = make_transcript_source(f"deepgram:{url}/v1/listen?diarize=true,{FAST}")
        got = await collect(source, SECONDS)
    assert [(r.text, r.speaker, r.final) for r in got] == [
        ("南京", "0", False),
        ("南京市", "0", False),
        ("南京市长江大桥", "1", True),
        ("好", "0", True),
    ]


async def test_openai_realtime(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "a-key")
    recording = exchanges.openai_server_turns()
    async with listening(recording.serve_one) as (url, _):
        source = make_transcript_source(f"openai-realtime:{url},speed=1000,patience=60")
        got = await collect(source, SECONDS)
    assert [(r.utterance, r.text, r.final) for r in got] == [
        ("u1", "南京市", False),
        ("u1", "南京市长", False),
        ("u1", "南京市长。", True),
        ("u2", "江大桥", False),
        ("u2", "江大桥。", True),
    ]
    assert (got[2].start_ms, got[2].end_ms) == (120, 880)
    assert abs(len(recording.audio) - 2 * 2 * 24_000) < 1_000, "24 kHz of 16 bits"
    session = json.loads(recording.texts[0])["session"]
    assert session["type"] == "transcription"
    assert session["audio"]["input"]["format"] == {"type": "audio/pcm", "rate": 24_000}
    assert session["audio"]["input"]["transcription"]["language"] == "zh"
    assert recording.headers["Authorization"] == "Bearer a-key"


async def test_openai_realtime_with_nothing_left_to_commit() -> None:
    """That is no failure."""
    recording = exchanges.openai_nothing_to_commit()
    async with listening(recording.serve_one) as (url, _):
        source = make_transcript_source(f"openai-realtime:{url},speed=1000,patience=60")
        assert await collect(source, SECONDS) == []


@pytest.mark.parametrize(
    "name", ["assemblyai", "deepgram", "gladia", "openai-realtime", "soniox", "speechmatics"]
)
def test_the_public_services_need_a_key(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("ASSEMBLYAI", "DEEPGRAM", "GLADIA", "OPENAI", "SONIOX", "SPEECHMATICS"):
        monkeypatch.delenv(f"{variable}_API_KEY", raising=False)
    with pytest.raises(TranscriptError, match=r"expected a key for [a-z.-]*.*_API_KEY, got none"):
        make_transcript_source(name)


async def test_json_by_paths() -> None:
    """A made-up server of the kind the paths are for."""

    def said(text: str, done: bool, begin: float, end: float) -> dict[str, object]:
        return {"result": {"best": [{"t": text}], "type": "end" if done else "mid",
                           "from": begin, "to": end}}  # fmt: skip

    recording = Recording(
        answers=[
            (200, {"status": "ready"}),
            (500, said("南京", False, 0.1, 0.5)),
            (1_000, said("南京市长", True, 0.1, 0.9)),
        ],
        rest=[said("江大桥", True, 1.2, 1.9), {"bye": True}],
        is_end=lambda message: message == '{"stop":1,"really":true}',
        audio_of=lambda message: (
            base64.b64decode(json.loads(message)["data"]) if "data" in str(message) else None
        ),
        bytes_per_ms=32.0,  # 8 kHz of 32 bits
        closes=False,
    )
    options = (
        "text=result.best.0.t,final=result.type:end,start=result.from,end=result.to,unit=s,rate=8000,"
        'encoding=pcm_f32le,first={"hello":1,"lang":"zh"},last={"stop":1,"really":true},'
        'wrap={"data":"AUDIO"},done=bye,speed=1000,patience=60'
    )
    async with listening(recording.serve_one) as (url, _):
        got = await collect(make_transcript_source(f"json:{url}/asr,{options}"), SECONDS)
    assert [(r.text, r.final, r.start_ms, r.end_ms) for r in got] == [
        ("南京", False, 100, 500),
        ("南京市长", True, 100, 900),
        ("江大桥", True, 1_200, 1_900),
    ]
    assert json.loads(recording.texts[0]) == {"hello": 1, "lang": "zh"}
    assert abs(len(recording.audio) - 4 * 16_000) < 400


async def test_json_with_speakers_and_channels() -> None:
    """A made-up server that tells speakers apart."""
    recording = Recording(
        answers=[
            (200, {"text": "你好", "who": {"id": 3}, "track": 1, "final": True}),
            (400, {"text": "好", "who": {}, "track": True, "final": True}),
            (600, {"text": "再见", "who": {"id": "王" * 99}, "track": 256, "final": True}),
        ],
        rest=[],
        is_end=lambda message: message == "bye",
    )
    options = f"speaker=who.id,channel=track,last=bye,{FAST}"
    async with listening(recording.serve_one) as (url, _):
        got = await collect(make_transcript_source(f"json:{url},{options}"), SECONDS)
    assert [(r.speaker, r.channel) for r in got] == [("3", 1), (None, None), ("王" * 64, None)]


async def test_json_with_pieces_and_named_utterances() -> None:
    """A made-up server whose utterances overlap and come piece by piece."""
    recording = Recording(
        answers=[
            (200, {"id": 7, "text": "南"}),
            (400, {"id": 8, "text": "好"}),
            (600, {"id": 7, "text": "京"}),
            (800, {"id": 8, "text": "的", "final": True}),
        ],
        rest=[{"id": 7, "text": "市", "final": True}],
        is_end=lambda message: message == "bye",
    )
    options = f"utterance=id,pieces=true,last=bye,{FAST}"
    async with listening(recording.serve_one) as (url, _):
        got = await collect(make_transcript_source(f"json:{url},{options}"), SECONDS)
    assert [(r.utterance, r.text, r.final) for r in got] == [
        ("u1", "南", False),
        ("u2", "好", False),
        ("u1", "南京", False),
        ("u2", "好的", True),
        ("u1", "南京市", True),
    ]


@pytest.mark.parametrize(
    ("named", "complaint"),
    [
        ("json", "options that json takes, got: missing a required argument: 'where'"),
        ("json:http://host", "expected a recogniser's address such as ws://.*, got 'http://host'"),
        ("vosk:ws://", "expected a recogniser's address"),
        ("json:ws://h,rate=1", "expected a rate of 8000 to 48000 Hz .* got 1 Hz and 100 ms"),
        ("json:ws://h,wrap={}", "expected AUDIO in wrap"),
        ("json:ws://h,text=a,unit=min", "options of json: Invalid enum value 'min'"),
        ("funasr:ws://h,mode=offline", "options of funasr: Invalid enum value 'offline'"),
        ("vosk:ws://h,retries=x", "options of vosk: Expected `int`"),
    ],
)
def test_options_that_make_no_sense(named: str, complaint: str) -> None:
    with pytest.raises(TranscriptError, match=complaint):
        make_transcript_source(named)


# --- sherpa-onnx ----------------------------------------------------------------------------------


async def test_sherpa_server_in_python() -> None:
    """Written from sherpa-onnx's python-api-examples/streaming_server.py: no word about finals."""
    recording = Recording(
        answers=[
            (300, {"text": "", "segment": 0}),
            (600, {"text": "南京", "segment": 0}),
            (900, {"text": "南京市长", "segment": 0}),
            (1_500, {"text": "", "segment": 1}),
            (1_800, {"text": "江大", "segment": 1}),
        ],
        rest=[{"text": "江大桥", "segment": 1}, "Done!"],
        is_end=lambda message: message == "Done",
        bytes_per_ms=64.0,
        closes=False,
    )
    async with listening(recording.serve_one) as (url, _):
        source = make_transcript_source(f"sherpa-server:{url},speed=1000,patience=60")
        got = await collect(source, SECONDS)
    assert [(r.utterance, r.text, r.final) for r in got] == [
        ("u1", "南京", False),
        ("u1", "南京市长", False),
        ("u1", "南京市长", True),
        ("u2", "江大", False),
        ("u2", "江大桥", False),
        ("u2", "江大桥", True),
    ]
    np.testing.assert_allclose(np.frombuffer(recording.audio, "<f4"), SECONDS, atol=1e-4)


@contextlib.asynccontextmanager
async def real_sherpa_server(folder: Path) -> AsyncIterator[str]:
    """The server that the package sherpa-onnx-bin installs, with the model of two tones."""
    program = shutil.which(
        "sherpa-onnx-online-websocket-server", path=str(Path(sys.executable).parent)
    )
    if program is None:
        pytest.skip("sherpa-onnx-bin is not installed")
    write_tone_model(folder)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = await asyncio.create_subprocess_exec(
        program, f"--port={port}", "--num-work-threads=1", f"--tokens={folder}/tokens.txt",
        f"--nemo-ctc-model={folder}/model.onnx", f"--log-file={folder}/log.txt",
        "--rule2-min-trailing-silence=0.8", "--num-threads=1",
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        for _ in range(200):
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
                break
            await asyncio.sleep(0.05)
        yield f"ws://127.0.0.1:{port}"
    finally:
        process.kill()
        await process.wait()


async def test_sherpas_real_server(tmp_path: Path) -> None:
    async with real_sherpa_server(tmp_path) as url:
        source = make_transcript_source(f"sherpa-server:{url},speed=8,patience=5")
        got = await collect(source, tones("一二一 二二"))
    assert finals(got) == ["一二一", "二二"]
    assert any(not revision.final for revision in got)
    second = got[-1]
    assert second.start_ms is not None
    assert second.end_ms is not None
    assert 2_300 <= second.start_ms <= 2_800
    assert 3_200 <= second.end_ms <= 3_900
