"""Models that hear an utterance as a whole: what they encode when, and what comes of it."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from cnerta.models.runtime.bundle import load_bundle
from cnerta.models.runtime.geometry import FrameGeometry
from cnerta.models.runtime.inference import Model
from cnerta.models.text.normalisation import normalise
from cnerta.streamer.errors import RecogniserMissingError
from cnerta.streamer.serving.engine import Engine
from cnerta.streamer.serving.server import Server, ServerOptions
from cnerta.streamer.session.encoder_buffer import Sought, UtteranceBuffer
from cnerta.streamer.session.limits import ConnectionLimits, SessionLimits
from cnerta.streamer.session.work import EncodedAudio, EncodeWork
from cnerta.streamer.sources.rough import RoughTranscript
from cnerta.streamer.wire.codec import decode_server, encode
from cnerta.streamer.wire.messages import (
    EntityUpsert,
    ServerMessage,
    SessionFinish,
    SessionStart,
    Transcript,
    UtteranceFinal,
)

TEXT = "今天在南京市长江大桥上看到了"


@pytest.fixture
def driver(kit: SimpleNamespace) -> Any:
    driver = kit.Driver(kit.FakeModel(streaming=False), SessionStart())
    driver.drain()
    driver.seen.clear()
    return driver


def test_finals_hear_what_a_streaming_model_would_hear(driver: Any, kit: SimpleNamespace) -> None:
    streaming = kit.Driver(kit.FakeModel(), SessionStart())
    for each in (driver, streaming):
        for i, text in enumerate(["他在北京大学", "张三去上海", "李四说"]):
            each.audio(kit.speak(text) + kit.silence(400))
            each.transcript(text, 1, utterance=f"u{i}", final=True).run()
    assert len(driver.finals) == 3
    for name, answer in streaming.finals.items():
        found = driver.finals[name]
        assert found.audio_used
        assert found.characters == answer.characters
        assert [(e.text, e.start_ms, e.end_ms) for e in found.entities] == [
            (e.text, e.start_ms, e.end_ms) for e in answer.entities
        ]
    # Each final had its own audio encoded once, nothing else.
    assert len(driver.model.utterances) == 3
    assert driver.model.encode_batches == []


def test_interims_come_and_encode_at_a_bounded_rate(driver: Any, kit: SimpleNamespace) -> None:
    text = "他在北京大学说张三去上海" * 4
    for n in range(1, len(text) + 1):
        driver.audio(kit.speak(text[n - 1]))  # 160 ms
        driver.transcript(text[:n], n).run()
    seconds = len(text) * kit.CHARACTER_MS / 1000
    assert 0.8 * seconds <= len(driver.model.utterances) <= seconds + 1
    shown = [m for m in driver.events if isinstance(m, EntityUpsert)]
    assert {m.entity.text for m in shown} >= {"北京大学", "张三", "上海"}
    assert any(m.entity.audio_used for m in shown)
    # All revisions were answered, those between two encodes as well.
    assert len({revision for revision, _ in driver.model.tag_calls}) == len(text)
    driver.transcript(text, len(text) + 1, final=True).run()
    assert driver.finals["u1"].audio_used
    assert driver.model.utterances[-1] in (4 * len(text) - 1, 4 * len(text))


def test_a_final_waits_for_its_own_audio(driver: Any, kit: SimpleNamespace) -> None:
    driver.audio(kit.speak("他在北京"))
    driver.transcript("他在北京", 1, final=True)
    assert not driver.take("text")  # asks for the audio
    assert driver.take("audio")
    driver.audio(kit.speak("上海"), pace=False)  # comes while it is away
    driver.give("audio")
    driver.run()
    assert driver.finals["u1"].audio_used
    assert driver.model.utterances == [16]


def test_what_is_kept_is_bounded(kit: SimpleNamespace) -> None:
    limits = ConnectionLimits(session=SessionLimits(retained_ms=4_000))
    driver = kit.Driver(kit.FakeModel(streaming=False), SessionStart(), limits)
    sizes = set()
    for n in range(30):
        driver.audio(kit.silence(1_000)).drain()
        driver.transcript("他" * (n + 1), n + 1).run()
        kept = driver.protocol.session._audio
        sizes.add(kept.end - kept.first)
    assert max(sizes) == 100
    assert max(driver.model.utterances) <= 100


def buffer_of(seconds: float) -> UtteranceBuffer:
    buffer = UtteranceBuffer(FrameGeometry(1, 1, 2, 4, 8, streaming=False))
    samples = np.arange(round(seconds * 16_000), dtype=np.float32)
    for piece in np.array_split(samples, 7):  # not in whole frames
        buffer.add(piece)
    return buffer


def encode_for(buffer: UtteranceBuffer, due: Sought) -> EncodeWork:
    work = buffer.take(due)
    assert work is not None
    assert work.state is None
    buffer.give(EncodedAudio(np.ones((len(work.samples) // 640, 2), np.float32), None))
    return work


def test_the_samples_asked_for_are_those_of_the_frames() -> None:
    buffer, due = buffer_of(2), Sought("u1", True, 0, 10, 20)
    assert buffer.end == 50
    assert buffer.window(due) is None
    work = encode_for(buffer, due)
    np.testing.assert_array_equal(work.samples, np.arange(6400, 12800))
    window = buffer.window(due)
    assert window is not None
    assert (window.first, window.end) == (10, 20)
    assert not buffer.is_busy


def test_to_ask_for_a_window_changes_nothing() -> None:
    buffer, due = buffer_of(2), Sought("u1", True, 0, 10, 20)
    for _ in range(3):
        assert buffer.window(due) is None
        assert not buffer.is_busy
    assert buffer.take(None) is None
    assert buffer.take(due) is not None
    assert buffer.take(due) is None, "the last is not back yet"


def test_interims_between_two_encodes_get_the_last_one_or_nothing() -> None:
    buffer, due = buffer_of(2), Sought("u1", False, 0, 0, 50)
    assert buffer.window(due) is None
    assert buffer.take(due) is not None
    assert buffer.window(due) is None, "it is under way"
    buffer.give(EncodedAudio(np.ones((50, 2), np.float32), None))
    buffer.add(np.zeros(24 * 640, np.float32))
    last = buffer.window(Sought("u1", False, 0, 0, 74))
    assert last is not None
    assert (last.first, last.end) == (0, 50)
    other = buffer.window(Sought("u2", False, 0, 0, 74))
    assert other is not None
    assert len(other.frames) == 0
    assigned = buffer.window(Sought("u1", False, 5, 5, 74))
    assert assigned is not None
    assert len(assigned.frames) == 0
    buffer.add(np.zeros(640, np.float32))
    assert buffer.window(Sought("u1", False, 0, 0, 75)) is None


def test_audio_forgotten_before_it_is_encoded_is_left_out() -> None:
    buffer, due = buffer_of(2), Sought("u1", True, 0, 10, 20)
    buffer.drop_before(15)
    assert len(encode_for(buffer, due).samples) == 5 * 640
    assert buffer.window(Sought("u1", True, 0, 15, 20)) is not None
    assert buffer.window(Sought("u1", True, 0, 15, 18)) is None
    buffer.drop_before(30)
    assert buffer.take(due) is None
    assert not buffer.is_busy


def test_audio_forgotten_while_it_is_encoded_is_not_encoded_again() -> None:
    buffer, due = buffer_of(2), Sought("u1", True, 0, 10, 20)
    assert buffer.take(due) is not None
    buffer.drop_before(14)
    frames = np.arange(20, dtype=np.float32).reshape(10, 2)
    buffer.give(EncodedAudio(frames, None))
    window = buffer.window(Sought("u1", True, 14, 14, 20))
    assert window is not None
    assert window.first == 14
    np.testing.assert_array_equal(window.frames, frames[4:])
    assert buffer.window(Sought("u2", True, 14, 14, 20)) is None, "another utterance's"


def test_a_final_longer_than_what_is_kept_is_answered_while_audio_goes_on(
    kit: SimpleNamespace,
) -> None:
    limits = ConnectionLimits(session=SessionLimits(retained_ms=4_000))
    driver = kit.Driver(kit.FakeModel(streaming=False), SessionStart(), limits)
    driver.audio(kit.silence(6_000))
    driver.transcript("他在北京", 1, final=True, start_ms=0, end_ms=6_000)
    for _ in range(3):
        driver.take("audio")
        driver.protocol.receive(kit.silence(200), driver.now)
        driver.give("audio")
        driver.take("text")
        driver.give("text")
    driver.drain()
    assert "u1" in driver.finals
    assert len(driver.model.utterances) == 1, "its audio is encoded once"


def test_utterances_go_together_only_if_they_are_alike(kit: SimpleNamespace) -> None:
    model = kit.FakeModel(streaming=False)
    calls: list[list[int]] = []
    inner = model.encode_utterances

    def watch(utterances: list[Any]) -> list[Any]:
        calls.append([len(u) // 640 for u in utterances])
        return list(inner(utterances))

    model.encode_utterances = watch
    lengths = [40, 400, 45, 30, 50, 20, 410]
    work = [EncodeWork(np.zeros(n * 640, np.float32), None) for n in lengths]
    results = Engine(model).encode(work)
    assert [len(r.frames) for r in results if not isinstance(r, Exception)] == lengths
    assert sorted(map(sorted, calls)) == [[20, 30, 40, 45, 50], [400, 410]]


# --- a real bundle --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bundle(tiny_model: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with full context, exported; its random weights fit any audio."""
    pytest.importorskip("torch")
    from cnerta.export.write import export_bundle
    from cnerta.models.networks.checkpoint import Checkpoint
    from cnerta.models.networks.tagger import SpeechTagger

    acoustic = msgspec.structs.replace(tiny_model.config.acoustic, streaming=False)
    config = msgspec.structs.replace(tiny_model.config, acoustic=acoustic)
    model = SpeechTagger(config, tiny_model.vocabulary, tiny_model.scheme).eval()
    model.load_state_dict(tiny_model.state_dict())
    out = tmp_path_factory.mktemp("bundle") / "whole"
    export_bundle(Checkpoint("whole", model, {}, {}), out, audio_fit_bound=-1e9)
    return out


def test_the_bundle_says_so_and_computes_what_torch_computes(
    tiny_model: Any, bundle: Path, tiny_bundle: Path
) -> None:
    import torch

    assert not load_bundle(bundle).geometry.streaming
    assert load_bundle(tiny_bundle).geometry.streaming
    model = Model.load(bundle, device="cpu")
    generator = np.random.default_rng(0)
    samples = [0.1 * generator.normal(size=640 * n).astype(np.float32) for n in (30, 12, 1)]
    for own, found in zip(samples, model.encode_utterances(samples), strict=True):
        with torch.no_grad():
            expected, _ = tiny_model.acoustic(
                torch.from_numpy(own)[None], torch.tensor([len(own)]), None
            )
        np.testing.assert_allclose(found, expected[0].numpy(), atol=1e-4)
    np.testing.assert_allclose(
        model.encode_recording(samples[0][:-100]),
        model.encode_utterances([np.pad(samples[0][:-100], (0, 100))])[0],
    )
    assert model.encode_recording(samples[0][:0]).shape == (0, 16)


def test_it_gives_no_rough_transcript(bundle: Path) -> None:
    with pytest.raises(RecogniserMissingError, match="only as a whole"):
        RoughTranscript(str(bundle))


async def test_the_server_says_what_the_model_says_offline(bundle: Path) -> None:
    model = Model.load(bundle, device="cpu")
    pcm = np.random.default_rng(1).normal(scale=3000, size=3 * 16_000).astype("<i2")
    frames = model.encode_recording(pcm.astype(np.float32) / 32768)
    (expected,) = model.tag([normalise(TEXT).text], [frames])
    assert expected.spans

    messages = await answers(model, pcm)
    finals = [m for m in messages if isinstance(m, UtteranceFinal)]
    assert len(finals) == 1
    assert finals[0].audio_used
    found = {(e.start, e.end, e.label, round(e.confidence, 4)) for e in finals[0].entities}
    assert found == {(s.start, s.end, s.label, round(s.confidence, 4)) for s in expected.spans}
    assert expected.alignment is not None
    heard = [start for start, _ in finals[0].characters or ()]
    frame = np.array(heard) / model.bundle.geometry.frame_ms
    # On the stream's clock, where the alignment has them or finer.
    assert np.abs(frame - expected.alignment.starts).max() < 3
    assert any(isinstance(m, EntityUpsert) for m in messages)


async def answers(model: Model, pcm: np.ndarray) -> list[ServerMessage]:
    """What a server says of a recording with interims on the way and a final at the end."""
    messages: list[ServerMessage] = []
    async with Server(model, ServerOptions()) as server:
        await server.start()
        url = f"ws://127.0.0.1:{server.port}/v1/stream"
        async with connect(url, proxy=None) as socket, asyncio.timeout(60):
            await socket.send(encode(SessionStart(max_delay_ms=0)).decode())
            for i in range(6):
                await socket.send(pcm[8_000 * i : 8_000 * (i + 1)].tobytes())
                part = TEXT[: 2 * (i + 1)]
                interim = Transcript(
                    utterance="u1", revision=i + 1, final=False, text=part, start_ms=0, end_ms=3_000
                )
                await socket.send(encode(interim).decode())
            final = Transcript(
                utterance="u1", revision=9, final=True, text=TEXT, start_ms=0, end_ms=3_000
            )
            await socket.send(encode(final).decode())
            await socket.send(encode(SessionFinish()).decode())
            with contextlib.suppress(ConnectionClosed):
                while True:
                    messages.append(decode_server(await socket.recv()))
    return messages
