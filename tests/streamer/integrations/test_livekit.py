"""The LiveKit plugin, on LiveKit's own classes: streams, adapters and a whole AgentSession."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("livekit.agents", reason="make test-integrations installs LiveKit Agents")

from livekit import rtc
from livekit.agents import AgentSession, stt
from livekit.agents.voice.io import AudioInput

from cnerta.streamer.client.connection import Connection
from cnerta.streamer.client.local import LocalConnection
from cnerta.streamer.errors import ServerUnreachableError
from cnerta.streamer.integrations.livekit import EntitySTT

from ...docs.pages import ROOT, Page

RATE = 16_000
FRAME_SAMPLES = 160
Kind = stt.SpeechEventType
TEXT = "他在北京"


class Recogniser(stt.STT):
    """Knows what is said; answers with it when so many milliseconds were heard.

    Args:
        script: From when on which event is given out, or is waited for.
        whole: What `recognize` answers.
    """

    def __init__(
        self, *script: tuple[int, stt.SpeechEvent | asyncio.Event], whole: str = TEXT
    ) -> None:
        super().__init__(capabilities=stt.STTCapabilities(streaming=True, interim_results=True))
        self.script = script
        self.whole = whole
        self.heard_ms = 0.0
        self.flushes = 0
        self.prewarmed = False
        self.streams: list[stt.RecognizeStream] = []
        self.failure: Exception | None = None

    @property
    def model(self) -> str:
        return "scripted"

    def prewarm(self) -> None:
        self.prewarmed = True

    async def _recognize_impl(self, buffer: Any, **named: Any) -> stt.SpeechEvent:
        return said(Kind.FINAL_TRANSCRIPT, self.whole)

    def stream(self, **named: Any) -> stt.RecognizeStream:
        stream = RecogniserStream(stt=self, conn_options=named["conn_options"])
        self.streams.append(stream)
        return stream


class RecogniserStream(stt.RecognizeStream):
    async def _run(self) -> None:
        recogniser = self._stt
        assert isinstance(recogniser, Recogniser)
        waiting = list(recogniser.script)
        async for given in self._input_ch:
            if isinstance(given, rtc.AudioFrame):
                recogniser.heard_ms += 1_000 * given.samples_per_channel / given.sample_rate
            else:
                recogniser.flushes += 1
            while waiting and waiting[0][0] <= recogniser.heard_ms:
                _, event = waiting.pop(0)
                if isinstance(event, asyncio.Event):
                    await event.wait()
                else:
                    self._event_ch.send_nowait(event)
            if recogniser.failure is not None:
                raise recogniser.failure


def said(kind: Kind, text: str, **more: Any) -> stt.SpeechEvent:
    data = stt.SpeechData(language="zh", text=text, **more)  # type: ignore[arg-type]
    return stt.SpeechEvent(type=kind, request_id="r1", alternatives=[data])


def frames(speech: bytes) -> list[rtc.AudioFrame]:
    step = 2 * FRAME_SAMPLES
    return [
        rtc.AudioFrame(speech[at : at + step], RATE, 1, len(speech[at : at + step]) // 2)
        for at in range(0, len(speech), step)
    ]


def found(event: stt.SpeechEvent) -> list[tuple[str, str]]:
    metadata = event.alternatives[0].metadata
    assert metadata is not None
    return [(entity["label"], entity["text"]) for entity in metadata["entities"]]


def once_found(event: asyncio.Event) -> Callable[[stt.SpeechEvent], None]:
    """Sets an event when entities were seen."""

    def watch(seen: stt.SpeechEvent) -> None:
        if seen.alternatives and (seen.alternatives[0].metadata or {}).get("entities"):
            event.set()

    return watch


@pytest.fixture
def connect(model: Any) -> Callable[[], Awaitable[Connection]]:
    async def connected() -> Connection:
        return LocalConnection(model)

    return connected


@pytest.fixture
def speech(kit: SimpleNamespace) -> bytes:
    spoken: bytes = kit.speak(TEXT)
    return spoken


async def events_of(
    plugin: stt.STT,
    speech: bytes,
    offset_s: float = 0.0,
    watch: Callable[[stt.SpeechEvent], None] = lambda _: None,
) -> list[Any]:
    events: list[stt.SpeechEvent] = []
    async with asyncio.timeout(60), plugin.stream() as stream:
        stream.start_time_offset = offset_s
        for frame in frames(speech):
            stream.push_frame(frame)
            await asyncio.sleep(0.001)
        stream.end_input()
        async for event in stream:
            events.append(event)
            watch(event)
    return events


async def test_interim_and_final_transcripts_get_entities(connect: Any, speech: bytes) -> None:
    answered = asyncio.Event()
    recogniser = Recogniser(
        (0, stt.SpeechEvent(type=Kind.START_OF_SPEECH)),
        (500, said(Kind.INTERIM_TRANSCRIPT, TEXT)),
        (500, answered),
        (640, said(Kind.FINAL_TRANSCRIPT, TEXT, metadata={"speaker": "S1"})),
        (640, stt.SpeechEvent(type=Kind.END_OF_SPEECH)),
    )
    plugin = EntitySTT(recogniser, connect, patience_s=10.0)
    events = await events_of(plugin, speech, watch=once_found(answered))
    kinds = [event.type for event in events]
    assert kinds[0] == Kind.START_OF_SPEECH
    assert kinds[-2:] == [Kind.FINAL_TRANSCRIPT, Kind.END_OF_SPEECH]
    assert kinds[1] == Kind.INTERIM_TRANSCRIPT
    assert found(events[1]) == [], "not held up for its answer"
    assert found(events[-3]) == [("LOC", "北京")], "told once more when there was one"
    assert events[-3].type == Kind.INTERIM_TRANSCRIPT
    final = events[-2].alternatives[0]
    assert final.text == TEXT
    assert final.metadata["speaker"] == "S1", "what the recogniser says of it stays"
    (entity,) = final.metadata["entities"]
    assert (entity["label"], entity["start"], entity["end"]) == ("LOC", 2, 4)
    assert entity["status"] == "final"
    assert entity["start_time"] == pytest.approx(0.298, abs=0.01)
    assert entity["end_time"] == pytest.approx(0.6, abs=0.01)
    assert recogniser.heard_ms == 640
    assert recogniser.flushes >= 1


async def test_times_are_on_the_clock_of_the_stream(connect: Any, kit: SimpleNamespace) -> None:
    # The framework lets streams begin later than its own clock; the recogniser's times follow.
    recogniser = Recogniser(
        (1_640, said(Kind.FINAL_TRANSCRIPT, TEXT, start_time=11.0, end_time=11.64))
    )
    speech = kit.silence(1_000) + kit.speak(TEXT)
    plugin = EntitySTT(recogniser, connect, patience_s=10.0)
    (final,) = await events_of(plugin, speech, offset_s=10.0)
    (entity,) = final.alternatives[0].metadata["entities"]
    assert entity["start_time"] == pytest.approx(11.298, abs=0.02)
    assert recogniser.streams[0].start_time_offset == pytest.approx(10.0, abs=0.5)


async def test_a_preflight_transcript_is_not_sent_twice(connect: Any, speech: bytes) -> None:
    answered = asyncio.Event()
    recogniser = Recogniser(
        (320, said(Kind.PREFLIGHT_TRANSCRIPT, TEXT)),
        (320, answered),
        (640, said(Kind.FINAL_TRANSCRIPT, TEXT)),
    )
    plugin = EntitySTT(recogniser, connect, patience_s=10.0)
    events = await events_of(plugin, speech, watch=once_found(answered))
    kinds = [event.type for event in events]
    assert kinds.count(Kind.PREFLIGHT_TRANSCRIPT) == 1
    assert Kind.INTERIM_TRANSCRIPT in kinds[1:]


async def test_a_whole_recording(connect: Any, speech: bytes) -> None:
    plugin = EntitySTT(Recogniser(), connect)
    event = await plugin.recognize(frames(speech))
    (entity,) = event.alternatives[0].metadata["entities"]
    assert (entity["text"], entity["start_time"]) == ("北京", 0.298)


async def test_without_a_server_the_agent_hears_as_before(
    speech: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async def nobody() -> Connection:
        raise ServerUnreachableError("expected a server, got none")

    recogniser = Recogniser((640, said(Kind.FINAL_TRANSCRIPT, TEXT)))
    (final,) = await events_of(EntitySTT(recogniser, nobody), speech)
    assert final == recogniser.script[0][1]
    assert "transcripts go on without entities" in caplog.text


async def test_a_server_that_does_not_answer_in_time(speech: bytes) -> None:
    async def never() -> Connection:
        await asyncio.Event().wait()
        raise AssertionError

    recogniser = Recogniser((640, said(Kind.FINAL_TRANSCRIPT, TEXT)))
    plugin = EntitySTT(recogniser, never, patience_s=0.05)
    assert await events_of(plugin, speech) == [recogniser.script[0][1]]


async def test_the_recogniser_shows_through(connect: Any) -> None:
    recogniser = Recogniser()
    plugin = EntitySTT(recogniser, connect)
    measured: list[Any] = []
    plugin.on("metrics_collected", measured.append)
    recogniser.emit("metrics_collected", "measured")
    await plugin.aclose()
    recogniser.emit("metrics_collected", "no more")
    assert measured == ["measured"]
    plugin.prewarm()
    assert recogniser.prewarmed
    assert (plugin.model, plugin.provider) == ("scripted", "unknown")
    assert plugin.capabilities == recogniser.capabilities
    assert plugin.wrapped_stt is recogniser


async def test_a_recogniser_that_fails_fails_the_stream(connect: Any, speech: bytes) -> None:
    recogniser = Recogniser()
    recogniser.failure = ValueError("broken")
    async with asyncio.timeout(60), EntitySTT(recogniser, connect).stream() as stream:
        with contextlib.suppress(RuntimeError):  # Until it is closed.
            while True:
                stream.push_frame(frames(speech)[0])
                await asyncio.sleep(0)
        with pytest.raises(ValueError, match="broken"):
            await anext(stream)


async def test_in_the_fallback_adapter(connect: Any, speech: bytes) -> None:
    recogniser = Recogniser((640, said(Kind.FINAL_TRANSCRIPT, TEXT)))
    adapter = stt.FallbackAdapter([EntitySTT(recogniser, connect, patience_s=10.0)])
    events = await events_of(adapter, speech)
    assert [found(event) for event in events if event.type == Kind.FINAL_TRANSCRIPT] == [
        [("LOC", "北京")]
    ]


class Heard(AudioInput):
    """What an agent hears."""

    def __init__(self, speech: bytes) -> None:
        super().__init__(label="heard")
        self._frames = frames(speech)

    async def __anext__(self) -> rtc.AudioFrame:
        await asyncio.sleep(0.002)
        if self._frames:
            return self._frames.pop(0)
        await asyncio.Event().wait()
        raise StopAsyncIteration


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The program of docs/how-to/agents.md, whose recogniser is not installed here."""
    monkeypatch.setitem(sys.modules, "livekit.plugins", SimpleNamespace(deepgram=None))
    blocks = Page(ROOT / "docs/how-to/agents.md").blocks
    (code,) = [block.code for block in blocks if "from livekit" in block.code]
    names: dict[str, Any] = {"__name__": "example"}
    exec(code, names)
    return names


async def test_in_an_agent_session(
    connect: Any,
    speech: bytes,
    example: dict[str, Any],
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.ERROR)
    recogniser = Recogniser(
        (320, said(Kind.INTERIM_TRANSCRIPT, "他在")), (640, said(Kind.FINAL_TRANSCRIPT, TEXT))
    )
    session: AgentSession[None] = AgentSession(
        stt=EntitySTT(recogniser, connect, patience_s=10.0), turn_detection="manual", vad=None
    )
    heard: asyncio.Queue[str] = asyncio.Queue()
    session.on(
        "user_input_transcribed",
        lambda event: heard.put_nowait(event.transcript) if event.is_final else None,
    )
    session.input.audio = Heard(speech)
    async with asyncio.timeout(60):
        await session.start(example["Listener"](instructions=""))
        assert await heard.get() == TEXT
        await session.aclose()
    assert "final_transcript LOC 北京" in capsys.readouterr().out
    assert not caplog.records
