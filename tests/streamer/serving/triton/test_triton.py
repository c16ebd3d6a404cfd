"""The engine on Triton against a server that speaks its protocol and computes for real."""

from __future__ import annotations

import asyncio
import gc
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tritonclient.grpc", reason="make test-integrations installs tritonclient")
pytest.importorskip("onnx", reason="make test-integrations installs onnx")

from cnerta.export.triton_config import TritonOptions
from cnerta.export.triton_repository import write_model_repository
from cnerta.models.errors import BundleError, ConfigError, InferenceError
from cnerta.models.runtime.bundle import find_bundle, load_bundle
from cnerta.models.runtime.inference import AcousticState, Model
from cnerta.models.runtime.model_repository import model_name
from cnerta.streamer.client.connection import WebSocketConnection
from cnerta.streamer.client.local import LocalConnection
from cnerta.streamer.client.tagger import Tagger
from cnerta.streamer.serving.engine import Engine
from cnerta.streamer.serving.triton.loading import load_from_triton
from cnerta.streamer.serving.triton.server import TritonAddress, TritonServer
from cnerta.streamer.session.work import EncodedAudio, EncodeWork, TaggedText, TagWork
from cnerta.streamer.wire.messages import (
    EntityUpsert,
    ErrorMessage,
    SessionFinish,
    SessionStart,
    SessionSummary,
    Transcript,
    UtteranceFinal,
    WarningMessage,
)

from .stub import Triton, read_config, serving

BUNDLE = find_bundle(None)
DEMO = Path(__file__).parents[4] / "streamer" / "demo"
TEXT = "各位观众今天我们来认识一下南京市长江大桥"


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("repository")
    write_model_repository(BUNDLE, out)
    return out


@pytest.fixture(scope="module")
def local() -> Model:
    return Model.load(BUNDLE, device="cpu")


@pytest.fixture
def triton(repository: Path) -> Triton:
    return Triton(repository)


@pytest.fixture
def address(triton: Triton) -> Iterator[TritonAddress]:
    with serving(triton) as port:
        yield TritonAddress("127.0.0.1", port)


@pytest.fixture
def remote(address: TritonAddress) -> Model:
    return load_from_triton(BUNDLE, address)


def noise(model: Model, frames: int, seed: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    size = frames * model.bundle.geometry.hop_samples
    return generator.normal(size=size, scale=0.1).astype(np.float32)


class Stream:
    """A stream's audio, encoded chunk by chunk."""

    def __init__(self, model: Model, samples: np.ndarray) -> None:
        self.model = model
        self.samples = samples
        self.state = AcousticState.initial(model.bundle.geometry)
        self.at = 0
        self.frames: list[np.ndarray] = []

    def chunk(self, frames: int) -> np.ndarray:
        hop = self.model.bundle.geometry.hop_samples
        return self.samples[self.at : self.at + frames * hop]

    def take(self, frames: np.ndarray, state: AcousticState) -> None:
        self.at += len(frames) * self.model.bundle.geometry.hop_samples
        self.frames.append(frames)
        self.state = state

    def go(self, frames: int) -> None:
        ((found, state),) = self.model.encode(self.chunk(frames)[None], [self.state])
        self.take(found, state)

    @property
    def all(self) -> np.ndarray:
        return np.concatenate(self.frames)


# --- the repository -------------------------------------------------------------------------------


@pytest.mark.parametrize("bundle", ["fast", "accurate"])
def test_configurations_fit_the_published_schema(tmp_path: Path, bundle: str) -> None:
    path = find_bundle(Path(bundle))
    options = TritonOptions(instances=2, max_streams=100, idle_s=60, queue_us=500)
    folders = write_model_repository(path, tmp_path, options)
    configs = {f.name.rpartition("-")[2]: read_config(f) for f in folders}
    acoustic, tagger = configs["acoustic"], configs["tagger"]
    assert acoustic.sequence_batching.oldest.max_candidate_sequences == 100
    assert acoustic.sequence_batching.max_sequence_idle_microseconds == 60_000_000
    (state,) = acoustic.sequence_batching.state
    assert (state.input_name, state.output_name) == ("cache", "next_cache")
    assert tagger.dynamic_batching.max_queue_delay_microseconds == 500
    assert list(tagger.dynamic_batching.preferred_batch_size) == [4, 8, 16, 32, 64]
    assert [w.batch_size for w in tagger.model_warmup] == [1, 2, 4, 8, 16, 32, 64]
    for config in configs.values():
        (group,) = config.instance_group
        assert (group.count, group.kind) == (2, group.KIND_AUTO)
    # Triton's own rules for what the schema leaves open are the stub's assertions.
    Triton(tmp_path)


def test_what_it_is_warmed_up_with_can_be_run(triton: Triton) -> None:
    model = triton.models["cnerta-fast-tagger"]
    for warm in model.config.model_warmup:
        kinds = {"TYPE_FP32": np.float32, "TYPE_INT64": np.int64}
        feed = {
            name: np.zeros(
                (warm.batch_size, *tensor.dims),
                kinds[
                    type(warm)
                    .DESCRIPTOR.file.enum_types_by_name["DataType"]
                    .values_by_number[tensor.data_type]
                    .name
                ],
            )
            for name, tensor in warm.inputs.items()
        }
        assert set(feed) == {i.name for i in model.config.input}
        assert len(model.run(feed, ["emissions"], None)[0]) == warm.batch_size


# --- the same answers -----------------------------------------------------------------------------


def test_interleaved_streams_are_encoded_as_here(local: Model, remote: Model) -> None:
    generator = np.random.default_rng(7)
    sizes = [[int(n) for n in generator.integers(1, 9, 25)] for _ in range(3)]
    sounds = [noise(local, sum(s), i) for i, s in enumerate(sizes)]
    here = [Stream(local, s) for s in sounds]
    there = [Stream(remote, s) for s in sounds]
    for chunks in zip(*sizes, strict=True):
        for a, b, n in zip(here, there, chunks, strict=True):
            a.go(n)
            b.go(n)
    for a, b in zip(here, there, strict=True):
        np.testing.assert_allclose(b.all, a.all, atol=1e-5)
        np.testing.assert_array_equal(b.state.carry, a.state.carry)
        assert b.state.position == a.state.position


def test_a_batch_of_streams_keeps_them_apart(local: Model, remote: Model) -> None:
    sounds = [noise(local, 32, i) for i in range(5)]
    streams = [Stream(remote, s) for s in sounds]
    for _ in range(4):
        samples = np.stack([s.chunk(8) for s in streams])
        for stream, encoded in zip(
            streams, remote.encode(samples, [s.state for s in streams]), strict=True
        ):
            stream.take(*encoded)
    for stream, sound in zip(streams, sounds, strict=True):
        alone = Stream(local, sound)
        for _ in range(4):
            alone.go(8)
        np.testing.assert_allclose(stream.all, alone.all, atol=1e-5)


@pytest.mark.parametrize("recording", ["mayor.flac", "bridge.flac", None])
def test_answers_are_those_of_the_engine_here(
    local: Model, remote: Model, recording: str | None
) -> None:
    audio = None if recording is None else DEMO / recording
    here = Tagger(local).tag(TEXT, audio, readings=True)
    there = Tagger(remote).tag(TEXT, audio, readings=True)
    assert [(e.label, e.start, e.end) for e in there] == [(e.label, e.start, e.end) for e in here]
    for a, b in zip(here, there, strict=True):
        assert b.confidence == pytest.approx(a.confidence, abs=0.02)
    assert there.characters == here.characters
    assert here.audio_used == there.audio_used == (audio is not None)


def test_shapes_are_filled_up_so_that_triton_can_put_requests_together(
    remote: Model, triton: Triton
) -> None:
    triton.shapes.clear()
    for length in (3, 9, 15):
        remote.tag([TEXT[:length]], [np.zeros((7 * length, 144), np.float32)])
    name = model_name(remote.bundle, "tagger")
    assert triton.shapes[name, "characters"] == {(1, 16)}
    assert triton.shapes[name, "frames"] == {(1, 64, 144), (1, 128, 144)}


async def test_a_whole_session_and_its_sequence_ends_with_it(
    remote: Model, triton: Triton, local: Model
) -> None:
    there = await session(remote)
    assert triton.sequences >= 1
    here = await session(local)
    assert [m for m in there if isinstance(m, UtteranceFinal)]
    assert finals(there) == finals(here)
    gc.collect()
    # The next stream's chunk tells Triton of those that have ended.
    stream = Stream(remote, noise(remote, 8, 1))
    stream.go(8)
    for _ in range(100):
        if triton.sequences == 1:
            break
        time.sleep(0.05)
    assert triton.sequences == 1


async def session(model: Model) -> list[Any]:
    import soundfile

    samples, rate = soundfile.read(DEMO / "mayor.flac", dtype="int16")
    assert rate == 16_000
    messages: list[Any] = []
    async with asyncio.timeout(60), LocalConnection(model) as connection:
        await connection.send(SessionStart())
        await connection.send_audio(samples.tobytes())
        await connection.send(
            Transcript(utterance="u1", revision=1, final=True, text=TEXT, start_ms=0, end_ms=4_800)
        )
        await connection.send(SessionFinish())
        while not (messages and isinstance(messages[-1], SessionSummary | ErrorMessage)):
            messages.append(await connection.receive())
    return messages


def finals(messages: list[Any]) -> list[Any]:
    told = {m.entity.id: m.entity for m in messages if isinstance(m, EntityUpsert)}
    return [
        (m.utterance, m.audio_used, [(e.label, e.start, e.end, e.start_ms) for e in told.values()])
        for m in messages
        if isinstance(m, UtteranceFinal)
    ]


# --- faults ---------------------------------------------------------------------------------------


def test_a_lost_answer_is_asked_for_again_and_changes_nothing(
    local: Model, remote: Model, triton: Triton
) -> None:
    sound = noise(local, 160, 3)
    alone, stream = Stream(local, sound), Stream(remote, sound)
    for number in range(20):
        alone.go(8)
        if number % 3 == 2:
            # Triton has done it, and nobody has heard of it.
            triton.losing = 1
            with pytest.raises(InferenceError, match="UNAVAILABLE: Socket closed"):
                stream.go(8)
        stream.go(8)
    np.testing.assert_allclose(stream.all, alone.all, atol=1e-5)


def test_the_engine_tries_again_by_itself(remote: Model, triton: Triton) -> None:
    work = [
        EncodeWork(noise(remote, 8, i), AcousticState.initial(remote.bundle.geometry))
        for i in range(3)
    ]
    triton.losing = 1
    results = Engine(remote).encode(work)
    assert all(isinstance(r, EncodedAudio) for r in results)


def test_a_triton_that_was_restarted_costs_what_was_said_before(
    local: Model, remote: Model, triton: Triton, caplog: pytest.LogCaptureFixture
) -> None:
    sound = noise(local, 48, 4)
    stream = Stream(remote, sound)
    for _ in range(3):
        stream.go(8)
    triton.forget_sequences()
    for _ in range(3):
        stream.go(8)
    assert "goes on without what was said before" in caplog.text
    assert remote.device_faults == 1
    # As a stream that begins there, with the last samples of before.
    again = Stream(local, sound)
    again.at = 24 * 640
    again.state = AcousticState(
        sound[again.at - 720 : again.at], again.state.cache, again.state.position
    )
    for _ in range(3):
        again.go(8)
    np.testing.assert_allclose(stream.all[24:], again.all, atol=1e-5)


def test_a_triton_that_is_away_fails_the_work_and_is_found_again(
    repository: Path, caplog: pytest.LogCaptureFixture
) -> None:
    triton = Triton(repository)
    with serving(triton) as port:
        model = load_from_triton(BUNDLE, TritonAddress("127.0.0.1", port))
    text = TagWork(TEXT, np.zeros((0, 144), np.float32), 0)
    chunk = EncodeWork(noise(model, 8, 0), AcousticState.initial(model.bundle.geometry))
    engine = Engine(model)
    (tagged,), (encoded,) = engine.tag([text]), engine.encode([chunk])
    assert isinstance(tagged, InferenceError)
    assert isinstance(encoded, InferenceError)
    assert "UNAVAILABLE" in str(tagged)
    assert TEXT not in caplog.text
    with serving(triton, port):
        for _ in range(100):
            (tagged,) = engine.tag([text])
            if isinstance(tagged, TaggedText):
                break
            time.sleep(0.1)
        assert isinstance(tagged, TaggedText)


def test_a_triton_that_is_too_slow_fails_the_work(address: TritonAddress, triton: Triton) -> None:
    model = load_from_triton(BUNDLE, address, timeout_s=0.3, check=False)
    triton.delay_s = 1.0
    with pytest.raises(InferenceError, match="DEADLINE_EXCEEDED"):
        model.tag([TEXT], [np.zeros((0, 144), np.float32)])
    with pytest.raises(InferenceError, match="DEADLINE_EXCEEDED"):
        Stream(model, noise(model, 8, 0)).go(8)


async def test_a_session_whose_triton_fails_says_so_and_goes_on(
    remote: Model, triton: Triton
) -> None:
    # The chunk fails with others, and once more alone: that audio is missing, the session is not.
    triton.losing = 2
    messages = await session(remote)
    (final,) = [m for m in messages if isinstance(m, UtteranceFinal)]
    warnings = [m.name for m in messages if isinstance(m, WarningMessage)]
    assert "audio_lost" in warnings
    assert isinstance(messages[-1], SessionSummary)
    assert final.utterance == "u1"


def test_answers_of_other_shapes_are_refused(remote: Model, triton: Triton) -> None:
    triton.crop = True
    with pytest.raises(InferenceError, match=r"expected frames of shape \(1, 8, 144\) from Triton"):
        Stream(remote, noise(remote, 8, 0)).go(8)
    with pytest.raises(InferenceError, match="expected emissions of at least"):
        remote.tag([TEXT], [np.zeros((0, 144), np.float32)])


def test_what_triton_refuses_is_told_in_its_words(address: TritonAddress, local: Model) -> None:
    server = TritonServer(address)
    name = model_name(local.bundle, "acoustic")
    odd = {"samples": np.zeros((1, 640), np.float32), "carry": np.zeros((1, 3), np.float32)}
    odd["first_frame"] = np.zeros((1, 1), np.int64)
    with pytest.raises(InferenceError, match=r"INVALID_ARGUMENT.*unexpected shape for"):
        server.infer(name, odd, ["frames"]).result()
    server.close()


def test_more_frames_than_the_cache_has_room_for_are_refused(remote: Model) -> None:
    with pytest.raises(
        InferenceError, match="expected at most 8 frames of a stream at once, got 9"
    ):
        Stream(remote, noise(remote, 9, 0)).go(9)


# --- at the start ---------------------------------------------------------------------------------


def test_no_triton_at_the_start_is_an_error() -> None:
    with pytest.raises(InferenceError, match=r"expected Triton at \S+:1 to run .*UNAVAILABLE"):
        load_from_triton(BUNDLE, TritonAddress("127.0.0.1", 1))


def test_a_model_that_is_missing_is_named(address: TritonAddress, triton: Triton) -> None:
    del triton.models["cnerta-fast-acoustic"]
    with pytest.raises(InferenceError, match="to have the model cnerta-fast-acoustic ready"):
        load_from_triton(BUNDLE, address)


def test_models_of_another_bundle_are_refused(address: TritonAddress, triton: Triton) -> None:
    config = triton.models["cnerta-fast-tagger"].config
    config.parameters["cnerta_graph_sha256"].string_value = "0123456789abcdef"
    with pytest.raises(BundleError, match="got another \\(0123456789ab…\\)"):
        load_from_triton(BUNDLE, address)


def test_a_bundle_without_streaming_has_no_sequences(tmp_path: Path) -> None:
    # No such bundle comes along; its configuration is known without one.
    from dataclasses import replace

    from cnerta.export.triton_config import model_config

    bundle = load_bundle(BUNDLE)
    whole = replace(bundle, geometry=replace(bundle.geometry, streaming=False))
    (tmp_path / "config.pbtxt").write_text(model_config(whole, "acoustic", TritonOptions()))
    config = read_config(tmp_path)
    assert not config.HasField("sequence_batching")
    assert [i.name for i in config.input] == ["samples", "frame_count"]


@pytest.mark.parametrize(
    "text", ["triton:8001", "http://a:8001", "triton://a", "triton://a:0", "triton://a:99999"]
)
def test_other_addresses_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="expected triton://HOST:PORT, got"):
        TritonAddress.parse(text)


def test_addresses_of_version_6() -> None:
    assert TritonAddress.parse("triton://[::1]:8001") == TritonAddress("[::1]", 8001)


def test_the_server_runs_on_it(address: TritonAddress, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "cnerta.streamer.commands.serve", "--port", "0"]
    with subprocess.Popen(
        [*command, "--engine", f"triton://{address}"], stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        try:
            port = 0
            for line in process.stderr:
                found = re.search(r"listening on \S+ port (\d+), bundle \S+ on (\w+)", line)
                if found:
                    assert found[2] == "Triton"
                    port = int(found[1])
                    break
            assert port
            entities = asyncio.run(ask(port))
            assert ("ORG", "北京大学") in entities
        finally:
            process.kill()


async def ask(port: int) -> set[tuple[str, str]]:
    found = set()
    async with asyncio.timeout(30):
        async with await WebSocketConnection.open(f"ws://127.0.0.1:{port}/v1/stream") as connection:
            await connection.send(SessionStart())
            await connection.send(
                Transcript(utterance="u1", revision=1, final=True, text="他在北京大学")
            )
            while True:
                message = await connection.receive()
                if isinstance(message, EntityUpsert):
                    found.add((message.entity.label, message.entity.text))
                if isinstance(message, UtteranceFinal):
                    return found


def test_the_server_says_that_there_is_none() -> None:
    command = [sys.executable, "-m", "cnerta.streamer.commands.serve", "--port", "0"]
    ended = subprocess.run(
        [*command, "--engine", "triton://127.0.0.1:1"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 9
    assert "expected Triton at 127.0.0.1:1" in ended.stderr
