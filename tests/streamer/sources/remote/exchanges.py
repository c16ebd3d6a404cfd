"""What recognition services say of two seconds of audio, written down from their documents.

The sources are held against these exchanges, and so are the services' own SDKs: a fake that their
SDK understands speaks as they do.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from collections.abc import Iterator
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection

from ....http_server import HttpServer, QuietHandler
from .recorded_server import Recording

SECOND_BYTES = 2 * 16_000
"""A second of audio as all of them but OpenAI's are sent it: 16 kHz of 16 bits."""

# --- Soniox ---------------------------------------------------------------------------------------


def soniox_token(text: str, start: int, *, final: bool, speaker: str = "1") -> dict[str, Any]:
    return {
        "text": text,
        "start_ms": start,
        "end_ms": start + 200,
        "confidence": 0.9,
        "is_final": final,
        "speaker": speaker,
    }


def soniox() -> Recording:
    """From Soniox's reference of its WebSocket."""

    def tokens(*spoken: dict[str, Any], **more: Any) -> dict[str, Any]:
        return {"tokens": list(spoken), "final_audio_proc_ms": 0, "total_audio_proc_ms": 0, **more}

    token = soniox_token
    end = {"text": "<end>", "is_final": True, "confidence": 1.0}
    return Recording(
        answers=[
            (300, tokens()),
            (600, tokens(token("南京", 100, final=False), token("是", 300, final=False))),
            (900, tokens(token("南京", 100, final=True), token("市长", 300, final=False))),
            (1_000, tokens(token("市长", 300, final=True), end)),
            (1_200, tokens(token("你好", 900, final=True), token("谢谢", 1_200, final=True,
                           speaker="2"))),
            (1_400, tokens({"text": "thanks", "is_final": True, "translation_status":
                            "translation"})),
        ],
        rest=[tokens(token("再见", 1_500, final=True, speaker="2")), tokens(finished=True)],
        is_end=lambda message: message == "",
    )  # fmt: skip


# --- AssemblyAI -----------------------------------------------------------------------------------


def assemblyai() -> Recording:
    """From AssemblyAI's message sequence."""

    def turn(number: int, *words: tuple[str, bool], ends: bool = False) -> dict[str, Any]:
        return {
            "type": "Turn",
            "turn_order": number,
            "turn_is_formatted": False,
            "end_of_turn": ends,
            "transcript": " ".join(text for text, final in words if final),
            "end_of_turn_confidence": 0.5,
            "words": [
                {
                    "start": 1_000 * number + 200 * i,
                    "end": 1_000 * number + 200 * i + 180,
                    "text": text,
                    "confidence": 0.9,
                    "word_is_final": final,
                }
                for i, (text, final) in enumerate(words)
            ],
            "speaker_label": "AB"[number],
        }

    turns = [
        turn(0, ("南京", False)),
        turn(0, ("南京", True), ("是长", False)),
        turn(0, ("南京", True), ("市长", True), ends=True),
        turn(1, ("江大", False)),
    ]
    ended = {"type": "Termination", "audio_duration_seconds": 2, "session_duration_seconds": 2}
    return Recording(
        on_connect=[{"type": "Begin", "id": "x", "expires_at": 1_759_796_682}],
        answers=[(300 * (i + 1), each) for i, each in enumerate(turns)],
        rest=[turn(1, ("江大桥", True), ends=True), ended],
        is_end=lambda message: json.loads(message) == {"type": "Terminate"},
    )


# --- Speechmatics ---------------------------------------------------------------------------------


def speechmatics() -> Recording:
    """From Speechmatics' reference; see `serve_speechmatics`."""

    def transcript(kind: str, text: str, start: float, end: float, who: str) -> dict[str, Any]:
        word = {"content": text, "confidence": 0.9, "language": "cmn", "speaker": who}
        return {
            "message": kind,
            "format": "2.9",
            "metadata": {"transcript": text, "start_time": start, "end_time": end},
            "results": [
                {"type": "word", "start_time": start, "end_time": end, "alternatives": [word]}
            ],
        }

    return Recording(
        answers=[
            (100, {"message": "AudioAdded", "seq_no": 1}),
            (400, transcript("AddPartialTranscript", "南京", 0.1, 0.4, "UU")),
            (700, transcript("AddTranscript", "南京", 0.1, 0.4, "S1")),
            (800, transcript("AddPartialTranscript", "市长", 0.4, 0.7, "S1")),
            (900, transcript("AddTranscript", "市长", 0.4, 0.8, "S1")),
            (950, transcript("AddPartialTranscript", "", 0.8, 0.9, "S1")),
            (1_000, {"message": "EndOfUtterance", "metadata": {"start_time": 1, "end_time": 1}}),
            (1_300, {"message": "EndOfUtterance", "metadata": {"start_time": 1, "end_time": 1}}),
        ],
        rest=[
            transcript("AddTranscript", "江大桥", 1.2, 1.9, "S2"),
            {"message": "EndOfTranscript"},
        ],
        is_end=lambda message: json.loads(message)["message"] == "EndOfStream",
    )


async def serve_speechmatics(recording: Recording, connection: ServerConnection) -> None:
    """Take audio only after RecognitionStarted, as the service does."""
    recording.texts.append(await connection.recv())
    # Whoever sends audio now has not waited: none must come for a while.
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(connection.recv(), 0.3)
    await connection.send('{"message": "RecognitionStarted", "id": "x"}')
    await recording.serve_one(connection)


# --- Gladia ---------------------------------------------------------------------------------------


def gladia() -> Recording:
    """From Gladia's AsyncAPI document; the address of the connection is `GladiaService`'s."""

    def said(kind: str, **more: Any) -> dict[str, Any]:
        return {"session_id": "s", "created_at": "2026-01-01T00:00:00Z", "type": kind, **more}

    def transcript(key: str, text: str, start: float, *, final: bool) -> dict[str, Any]:
        utterance = {
            "text": text,
            "start": start,
            "end": start + 0.5,
            "language": "zh",
            "confidence": 0.9,
            "channel": 0,
            "words": [],
        }
        return said("transcript", data={"id": key, "is_final": final, "utterance": utterance})

    return Recording(
        on_connect=[said("start_session")],
        answers=[
            (300, said("speech_start", data={"time": 0.1, "channel": 0})),
            (600, transcript("00_00000000", "南京", 0.1, final=False)),
            (900, transcript("00_00000000", "南京市长", 0.1, final=True)),
        ],
        rest=[
            transcript("00_00000001", "江大桥", 1.2, final=True),
            said("end_recording", data={"recording_duration": 2.0}),
            said("end_session"),
        ],
        is_end=lambda message: json.loads(message) == {"type": "stop_recording"},
    )


class GladiaService:
    """What answers POST /v2/live.

    Attributes:
        asked: What was asked for.
        keys: With which keys.
        status: Of the answers.
        session: What they name; nothing: no address.
    """

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.status = 201
        self.session = ""

    @contextlib.contextmanager
    def serving(self) -> Iterator[str]:
        """Serve; the address without its path."""
        service = self

        class Handler(QuietHandler):
            def post(self, body: bytes) -> None:
                service.asked.append(json.loads(body))
                service.keys.append(self.headers["x-gladia-key"])
                answer = {"id": "1", "created_at": "2026-01-01T00:00:00Z", "url": service.session}
                status = service.status if self.path == "/v2/live" else 404
                self.answer(status, json.dumps(answer).encode())

        with contextlib.closing(HttpServer(Handler)) as server:
            yield server.url


# --- OpenAI ---------------------------------------------------------------------------------------

_TRANSCRIPTION = "conversation.item.input_audio_transcription."


def openai_audio(message: str | bytes) -> bytes | None:
    """The audio in a message of OpenAI's kind."""
    audio = json.loads(message).get("audio")
    return None if audio is None else base64.b64decode(audio)


def _event(kind: str, **more: Any) -> dict[str, Any]:
    return {"event_id": "e", "type": kind, **more}


def _delta(item: str, text: str) -> dict[str, Any]:
    return _event(f"{_TRANSCRIPTION}delta", item_id=item, content_index=0, delta=text)


def _completed(item: str, text: str) -> dict[str, Any]:
    usage = {"type": "duration", "seconds": 1}
    return _event(
        f"{_TRANSCRIPTION}completed", item_id=item, content_index=0, transcript=text, usage=usage
    )


def openai_server_turns() -> Recording:
    """From OpenAI's reference of the Realtime API's transcription events."""
    session = {"type": "transcription"}
    return Recording(
        on_connect=[_event("session.created", session=session)],
        answers=[
            (100, _event("session.updated", session=session)),
            (300, _event("input_audio_buffer.speech_started", audio_start_ms=120, item_id="i1")),
            (900, _event("input_audio_buffer.speech_stopped", audio_end_ms=880, item_id="i1")),
            (900, _event("input_audio_buffer.committed", item_id="i1")),
            (1_000, _delta("i1", "南京市")),
            (1_100, _delta("i1", "长")),
            (1_200, _event("input_audio_buffer.speech_started", audio_start_ms=1_100,
                           item_id="i2")),
            (1_300, _completed("i1", "南京市长。")),
        ],
        rest=[
            _event("input_audio_buffer.committed", item_id="i2"),
            _delta("i2", "江大桥"),
            _completed("i2", "江大桥。"),
        ],
        is_end=lambda message: json.loads(message)["type"] == "input_audio_buffer.commit",
        audio_of=openai_audio,
        bytes_per_ms=48.0,
        closes=False,
    )  # fmt: skip


def openai_client_turns() -> Recording:
    """From OpenAI's guide: without turn detection the client commits each turn.

    It is of a second of speech, half a second of quiet and a second of speech.
    """
    recording = Recording(
        answers=[
            (400, _delta("i1", "南京")),
            (1_450, _event("input_audio_buffer.committed", item_id="i1")),
            (1_500, _completed("i1", "南京市长")),
        ],
        rest=[
            _event("input_audio_buffer.committed", item_id="i2"),
            _delta("i2", "江大"),
            _completed("i2", "江大桥"),
        ],
        is_end=lambda message: (
            json.loads(message)["type"] == "input_audio_buffer.commit"
            and len(recording.audio) >= 2 * 24_000 * 2.4
        ),
        audio_of=openai_audio,
        bytes_per_ms=48.0,
        closes=False,
    )
    return recording


def openai_nothing_to_commit() -> Recording:
    """From the same reference: an empty buffer cannot be committed."""
    error = {
        "type": "invalid_request_error",
        "code": "input_audio_buffer_commit_empty",
        "message": "Error committing input audio buffer: buffer too small.",
    }
    return Recording(
        answers=[],
        rest=[_event("error", error=error)],
        is_end=lambda message: "commit" in str(message),
        audio_of=lambda message: b"x" if "append" in str(message) else None,
        closes=False,
    )


# --- Deepgram -------------------------------------------------------------------------------------


def deepgram() -> Recording:
    """From Deepgram's reference of /v1/listen."""

    def results(text: str, start: float, length: float, final: bool, ends: bool) -> dict[str, Any]:
        return {
            "type": "Results",
            "channel_index": [0, 1],
            "start": start,
            "duration": length,
            "is_final": final,
            "speech_final": ends,
            "channel": {"alternatives": [{"transcript": text, "confidence": 0.9, "words": []}]},
            "metadata": {
                "request_id": "r",
                "model_uuid": "m",
                "model_info": {"name": "n", "version": "v", "arch": "a"},
            },
        }

    told = {
        "type": "Metadata",
        "transaction_key": "deprecated",
        "request_id": "r",
        "sha256": "0",
        "created": "2026-01-01T00:00:00Z",
        "duration": 2.0,
        "channels": 1,
    }
    return Recording(
        answers=[
            (100, {"type": "SpeechStarted", "channel": [0], "timestamp": 0.1}),
            (300, results("", 0.0, 0.3, False, False)),
            (600, results("南京 市", 0.1, 0.5, False, False)),
            (700, results("南京 市长", 0.1, 0.6, True, False)),
            (900, results("江大", 0.7, 0.2, False, False)),
            (1_000, results("江大橋", 0.7, 0.3, True, True)),
            (1_300, results("到 北京", 1.1, 0.2, True, False)),
            (1_800, {"type": "UtteranceEnd", "channel": [0, 1], "last_word_end": 1.3}),
        ],
        rest=[results("", 1.8, 0.2, True, False), told],
        is_end=lambda message: json.loads(message)["type"] == "CloseStream",
    )
