"""The Pipecat processor in Pipecat's own pipeline, with its own test helper."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("pipecat", reason="make test-integrations installs Pipecat")

from pipecat.frames.frames import (
    Frame,
    InputAudioRawFrame,
    InterimTranscriptionFrame,
    InterruptionFrame,
    TextFrame,
    TranscriptionFrame,
    UserAudioRawFrame,
)
from pipecat.pipeline.pipeline import Pipeline
from pipecat.processors.frame_processor import FrameDirection
from pipecat.tests.utils import SleepFrame, run_test

from cnerta.streamer.client.connection import Connection
from cnerta.streamer.client.local import LocalConnection
from cnerta.streamer.errors import ServerUnreachableError
from cnerta.streamer.integrations.pipecat import EntitiesFrame, EntityProcessor

from ...docs.pages import ROOT, Page

RATE = 16_000
NOW = "2026-01-01T00:00:00.000+00:00"
TEXT = "他在北京"


@pytest.fixture
def connect(model: Any) -> Callable[[], Awaitable[Connection]]:
    async def connected() -> Connection:
        return LocalConnection(model)

    return connected


def audio(speech: bytes) -> list[Frame]:
    return [
        InputAudioRawFrame(audio=speech[at : at + 640], sample_rate=RATE, num_channels=1)
        for at in range(0, len(speech), 640)
    ]


def interim(text: str, user: str = "u") -> Frame:
    return InterimTranscriptionFrame(text=text, user_id=user, timestamp=NOW)


def final(text: str, user: str = "u") -> Frame:
    return TranscriptionFrame(text=text, user_id=user, timestamp=NOW)


async def passed(processor: EntityProcessor, frames: Sequence[Frame]) -> list[Frame]:
    """What came out downstream; all frames that went in are among it, in their order by kind."""
    down, _ = await run_test(processor, frames_to_send=frames, start_timeout=20.0)
    sent = [frame for frame in frames if not isinstance(frame, SleepFrame)]
    assert {frame.id for frame in sent} <= {frame.id for frame in down}
    return list(down)


def entities(frames: Sequence[Frame]) -> list[EntitiesFrame]:
    return [frame for frame in frames if isinstance(frame, EntitiesFrame)]


async def test_entities_beside_all_frames(connect: Any, kit: SimpleNamespace) -> None:
    frames = [
        *audio(kit.speak(TEXT)),
        SleepFrame(sleep=0.3),
        interim(TEXT),
        SleepFrame(sleep=0.5),
        final(TEXT),
        TextFrame("something else"),
    ]
    out = await passed(EntityProcessor(connect), frames)
    told = entities(out)
    assert [frame.final for frame in told].count(True) == 1
    growing, last = told[0], told[-1]
    assert not growing.final
    assert [(e.label, e.text) for e in growing.entities] == [("LOC", "北京")]
    assert last.final
    assert last.audio_used
    assert (last.utterance, last.text) == ("u1", TEXT)
    (entity,) = last.entities
    assert (entity.label, entity.start, entity.end, entity.start_ms) == ("LOC", 2, 4, 298)
    kinds = [type(frame) for frame in out]
    assert kinds.index(InterimTranscriptionFrame) < kinds.index(EntitiesFrame)
    assert kinds.index(TranscriptionFrame) < len(kinds) - 1


async def test_what_is_owed_comes_before_the_end(connect: Any) -> None:
    texts = ["他在北京", "张三", "李四"]
    out = await passed(EntityProcessor(connect), [final(text) for text in texts])
    assert [frame.text for frame in entities(out) if frame.final] == texts
    assert [frame.utterance for frame in entities(out) if frame.final] == ["u1", "u2", "u3"]


async def test_an_interruption_drops_no_entities(connect: Any) -> None:
    assert EntitiesFrame("u1", "", (), final=True, audio_used=False).interruptible is False
    frames = [final("张三"), InterruptionFrame(), final("李四"), SleepFrame(sleep=0.3)]
    out, _ = await run_test(EntityProcessor(connect), frames_to_send=frames, start_timeout=20.0)
    assert "李四" in [frame.text for frame in entities(out) if frame.final]


async def test_one_of_several_people(connect: Any, kit: SimpleNamespace) -> None:
    def of(user: str, speech: bytes) -> Frame:
        return UserAudioRawFrame(audio=speech, sample_rate=RATE, num_channels=1, user_id=user)

    frames = [
        of("other", kit.silence(5_000)),
        of("u", kit.speak(TEXT)),
        SleepFrame(sleep=0.3),
        final("张三", user="other"),
        final(TEXT),
    ]
    out = await passed(EntityProcessor(connect, user_id="u"), frames)
    (told,) = [frame for frame in entities(out) if frame.final]
    assert (told.text, told.entities[0].start_ms) == (TEXT, 298)


async def test_without_a_server_the_pipeline_goes_on() -> None:
    async def nobody() -> Connection:
        raise ServerUnreachableError("expected a server, got none")

    frames = [*audio(bytes(6_400)), interim(TEXT), final(TEXT)]
    assert not entities(await passed(EntityProcessor(nobody), frames))


async def test_frames_that_go_upstream_are_passed_on(connect: Any) -> None:
    down, up = await run_test(
        EntityProcessor(connect),
        frames_to_send=[TextFrame("back")],
        frames_to_send_direction=FrameDirection.UPSTREAM,
        start_timeout=20.0,
    )
    assert [type(frame) for frame in up] == [TextFrame]
    assert not entities(down)


async def test_the_example_of_the_documents(
    connect: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # What it needs beside this: a microphone's library and a recogniser's.
    recogniser = SimpleNamespace(DeepgramSTTService=None)
    monkeypatch.setitem(sys.modules, "pyaudio", SimpleNamespace(PyAudio=None))
    monkeypatch.setitem(sys.modules, "pipecat.services.deepgram.stt", recogniser)
    blocks = Page(ROOT / "docs/how-to/agents.md").blocks
    (code,) = [block.code for block in blocks if "from pipecat" in block.code]
    names: dict[str, Any] = {"__name__": "example"}
    exec(code, names)
    pipeline = Pipeline([EntityProcessor(connect), names["Printer"]()])
    await run_test(pipeline, frames_to_send=[final(TEXT)], start_timeout=20.0)
    assert "True [('LOC', '北京')]" in capsys.readouterr().out
