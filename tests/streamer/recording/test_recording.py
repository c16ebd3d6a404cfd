"""Recording a session and running it again."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import UNSET, structs
from typer.testing import CliRunner
from websockets.asyncio.client import connect

from cnerta.models.runtime.bundle import default_bundle_path
from cnerta.models.runtime.inference import Model
from cnerta.streamer.audio.source import AudioFile
from cnerta.streamer.client.connection import WebSocketConnection
from cnerta.streamer.client.local import LocalConnection
from cnerta.streamer.client.stream import StreamOptions, stream
from cnerta.streamer.commands.recording import EXIT_DIFFERS
from cnerta.streamer.commands.stream import app
from cnerta.streamer.errors import RecordingError
from cnerta.streamer.recording import file as recording
from cnerta.streamer.recording.file import RecordingReader
from cnerta.streamer.recording.inspection import inspect_recording, summarise
from cnerta.streamer.recording.recorder import RecordingFolder, record_one
from cnerta.streamer.recording.replay import AskAgain, Recall, Replay
from cnerta.streamer.recording.writer import RecordingOptions, RecordingWriter
from cnerta.streamer.serving.engine import Engine
from cnerta.streamer.serving.server import Server, ServerOptions
from cnerta.streamer.session.connection import ServedModel
from cnerta.streamer.session.limits import ConnectionLimits
from cnerta.streamer.sources import TimedTranscript
from cnerta.streamer.wire.codec import decode_server, encode
from cnerta.streamer.wire.messages import (
    ServerMessage,
    SessionFinish,
    SessionReady,
    SessionStart,
    SessionUpdate,
    UtteranceFinal,
)
from cnerta.streamer.wire.parts import GlossaryEntry

DEMO = Path(__file__).parents[3] / "streamer" / "demo"
BRIDGE = "各位观众今天我们来认识一下南京市长江大桥"
relaxed = settings(
    max_examples=150,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def record(kit: SimpleNamespace, path: Path, limit_bytes: int = 2**30) -> Any:
    """A driver whose session is recorded."""
    driver = kit.Driver(kit.FakeModel())
    served = ServedModel(driver.model.bundle, driver.model.device)
    options = RecordingOptions(path, limit_bytes)
    driver.protocol = record_one(served, ConnectionLimits(), "test", driver.now, options)
    return driver


def replayed(path: Path, model: Any) -> tuple[list[ServerMessage | None], Replay]:
    played = Replay(path, model.bundle, AskAgain(Engine(model)))
    return [step.message for step in played.run()], played


def converse(kit: SimpleNamespace, driver: Any) -> None:
    """A session with several revisions, silence, a changing glossary and an end."""
    driver.send(SessionStart(max_delay_ms=300))
    driver.audio(kit.speak("他在北京"))
    driver.transcript("他在北", 1).wait(0.2)
    driver.transcript("他在背景", 2).wait(0.5)
    driver.send(SessionUpdate(glossary=[GlossaryEntry(text="北京", label="LOC")]))
    driver.transcript("他在背景", 3).wait(0.1)
    driver.audio(kit.silence(400))
    driver.transcript("他在北京", 4, final=True).wait(0.1)
    driver.audio(kit.speak("上海"))
    driver.transcript("上海", 1, utterance="u2", final=True, start_ms=1000, end_ms=1700)
    driver.send(SessionFinish()).run()
    driver.protocol.disconnect()
    driver.protocol.close_recording()


def test_a_replay_gives_the_same_events(kit: SimpleNamespace, tmp_path: Path) -> None:
    driver = record(kit, tmp_path / "one.cns")
    converse(kit, driver)
    assert len(driver.finals) == 2
    messages, played = replayed(tmp_path / "one.cns", kit.FakeModel())
    assert played.differences == []
    assert list(map(encode, messages)) == list(map(encode, driver.seen))
    recalled = Replay(tmp_path / "one.cns", driver.model.bundle, Recall(driver.model.bundle))
    assert [step.message for step in recalled.run()] == driver.seen
    assert recalled.differences == []


steps = st.lists(
    st.one_of(
        st.tuples(st.just("speak"), st.text("他在北京上海", min_size=1, max_size=4)),
        st.tuples(st.just("silence"), st.integers(1, 9)),
        st.tuples(st.just("revise"), st.text("他在北京上海，2", max_size=6), st.booleans()),
        st.tuples(st.just("take"), st.sampled_from(["audio", "text"])),
        st.tuples(st.just("give"), st.sampled_from(["audio", "text"])),
        st.tuples(st.just("break"), st.sampled_from(["audio", "text"])),
        st.tuples(st.just("release"), st.sampled_from([100, 10_000, 10**9])),
        st.tuples(st.just("wait"), st.sampled_from([0.01, 0.5, 3.0])),
        st.tuples(st.just("read"), st.integers(1, 3)),
        st.tuples(st.just("bad"), st.sampled_from(["{}", '{"type": "transcript"}'])),
    ),
    max_size=25,
)


@relaxed
@given(steps, st.sampled_from(["finish", "leave", "away", "fail", "nothing"]))
def test_any_session_can_be_replayed(
    kit: SimpleNamespace, tmp_path: Path, history: list[Any], end: str
) -> None:
    path = tmp_path / "any.cns"
    driver = record(kit, path)
    driver.send(SessionStart(max_delay_ms=200))
    for revision, (what, value, *rest) in enumerate(history):
        if what == "speak":
            driver.protocol.receive(kit.speak(value), driver.now)
        elif what == "silence":
            driver.protocol.receive(kit.silence(100 * value), driver.now)
        elif what == "revise":
            driver.transcript(value, revision, utterance=f"u{len(value) % 2}", final=rest[0])
        elif what == "take":
            driver.take(value)
        elif what == "give":
            driver.give(value)
        elif what == "break":
            if (work := driver._away.pop(value, None)) is not None:
                driver.protocol.work_done(work, ValueError("a graph that fails"), driver.now)
        elif what == "release":
            driver.protocol.release_memory(value, driver.now)
        elif what == "wait":
            driver.now += value
            driver.protocol.tick(driver.now)
        elif what == "bad":
            driver.send(value)
        else:
            for _ in range(value):
                message = driver.protocol.next_message()
                driver.seen += [message] * (message is not None)
    if end == "finish":
        driver.send(SessionFinish()).run()
    elif end == "away":
        driver.protocol.go_away("shutdown")
        driver.run()
    elif end == "fail":
        driver.protocol.fail_internally()
        driver.drain()
    if end != "nothing":
        driver.protocol.disconnect()
    driver.protocol.close_recording()
    messages, played = replayed(path, kit.FakeModel())
    assert played.differences == []
    assert messages == driver.seen


def test_a_model_that_says_something_else_is_noticed(kit: SimpleNamespace, tmp_path: Path) -> None:
    path = tmp_path / "one.cns"
    converse(kit, record(kit, path))
    other = kit.FakeModel()
    other.lexicon["北京"] = "ORG"
    _, played = replayed(path, other)
    assert played.differences
    assert '"label":"LOC"' in played.differences[0].expected
    assert '"label":"ORG"' in played.differences[0].got
    assert str(played.differences[0]).startswith("at ")


def test_a_recording_is_readable_wherever_it_was_cut_off(
    kit: SimpleNamespace, tmp_path: Path
) -> None:
    path = tmp_path / "one.cns"
    converse(kit, record(kit, path))
    whole = path.read_bytes()
    records = list(RecordingReader(path))
    sizes = [len(whole)]
    generator = np.random.default_rng(0)
    cut = tmp_path / "cut.cns"
    for size in [*generator.integers(700, len(whole), 40).tolist(), *sizes]:
        cut.write_bytes(whole[:size])
        reader = RecordingReader(cut)
        read = list(reader)
        assert read == records[: len(read)]
        assert (read == records) == (size == len(whole))
        _, played = replayed(cut, kit.FakeModel())
        assert played.differences == []
    damaged = bytearray(whole)
    damaged[len(whole) // 2] ^= 1
    cut.write_bytes(damaged)
    reader = RecordingReader(cut)
    assert list(reader) != records
    assert reader.is_cut_off


def test_what_is_no_recording(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="No such file"):
        RecordingReader(tmp_path / "none.cns")
    (tmp_path / "other.cns").write_bytes(b"RIFF")
    with pytest.raises(RecordingError, match="no recording of this version"):
        RecordingReader(tmp_path / "other.cns")
    header = recording.Header("", "", "", 0.0, ConnectionLimits(), "", "", "")
    with pytest.raises(RecordingError, match="to write a recording"):
        RecordingWriter(tmp_path / "no" / "a.cns", header, limit_bytes=100)


def test_a_recording_is_bounded_and_the_session_is_not(
    kit: SimpleNamespace, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "one.cns"
    driver = record(kit, path, limit_bytes=20_000)
    converse(kit, driver)
    assert len(driver.finals) == 2
    assert path.stat().st_size < 20_100
    assert isinstance(list(RecordingReader(path))[-1], recording.Full)
    assert "is full and ends here" in caplog.text
    messages, played = replayed(path, kit.FakeModel())
    assert played.differences == []
    assert messages == driver.seen[: len(messages)]
    assert inspect_recording(path).finished == "the recording was full; the session went on"


def test_a_disk_that_is_full_ends_the_recording_and_is_said_at_the_end(
    kit: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, left = os.write, 5_000

    def write_while_there_is_room(descriptor: int, data: bytes) -> int:
        nonlocal left
        if left <= 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        left -= len(data)
        return write(descriptor, data)

    path = tmp_path / "one.cns"
    driver = record(kit, path)
    monkeypatch.setattr("cnerta.streamer.recording.writer.os.write", write_while_there_is_room)
    with pytest.raises(RecordingError, match=r"one\.cns to its end, got: No space left on device"):
        converse(kit, driver)
    assert len(driver.finals) == 2, "the session goes on"


async def test_a_local_session_fails_where_its_recording_did(
    kit: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("cnerta.streamer.recording.writer.os.write", full)
    options = RecordingOptions(tmp_path / "one.cns")
    with pytest.raises(RecordingError, match="No space left"):
        async with LocalConnection(kit.FakeModel(), options):
            pass
    with pytest.raises(ValueError, match="mine"):
        async with LocalConnection(kit.FakeModel(), options):
            raise ValueError("mine")


def test_only_its_owner_may_read_it(kit: SimpleNamespace, tmp_path: Path) -> None:
    record(kit, tmp_path / "one.cns")
    assert (tmp_path / "one.cns").stat().st_mode & 0o077 == 0


async def send_over(
    server: Server, *, realtime: bool, readings: bool = True
) -> list[ServerMessage]:
    """Stream the demo's bridge to a server, with the revisions of a live recogniser."""
    audio = AudioFile(DEMO / "bridge.flac", paced=realtime)
    words = TimedTranscript.untimed(BRIDGE, audio.duration_ms)
    url = f"ws://127.0.0.1:{server.port}"
    async with await WebSocketConnection.open(url) as connection:
        options = StreamOptions(readings=readings)
        return [m async for m in stream(connection, audio, words, options)]


async def test_a_live_session_over_a_real_server_is_replayed_byte_for_byte(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = Model.load(default_bundle_path(), device="cpu")
    with caplog.at_level(logging.WARNING), RecordingFolder(tmp_path, 2**30) as folder:
        async with Server(model, ServerOptions(), folder.open) as server:
            await server.start()
            seen = await send_over(server, realtime=True)
    assert "RECORDING" in caplog.text
    assert BRIDGE not in caplog.text
    (path,) = tmp_path.glob("*.cns")
    (final,) = (m for m in seen if isinstance(m, UtteranceFinal))
    assert final.audio_used
    assert final.readings
    assert isinstance(seen[0], SessionReady)
    assert seen[0].recorded is True
    played = Replay(path, model.bundle, AskAgain(Engine(model)))
    messages = [encode(step.message) for step in played.run() if step.message is not None]
    assert played.differences == []
    # The token that resumes a session is no part of a recording.
    assert seen[0].resume is not None
    assert seen[0].resume.token.encode() not in path.read_bytes()
    seen[0] = structs.replace(seen[0], resume=structs.replace(seen[0].resume, token=""))
    assert messages == [encode(m) for m in seen]
    found = inspect_recording(path)
    assert found.revisions[0] >= 3, "several revisions before the final one"


async def test_sessions_that_share_batches_are_replayed_from_what_the_model_said(
    tmp_path: Path,
) -> None:
    model = Model.load(default_bundle_path(), device="cpu")
    with RecordingFolder(tmp_path, 2**30) as folder:
        async with Server(model, ServerOptions(), folder.open) as server:
            await server.start()
            await asyncio.gather(*(send_over(server, realtime=False) for _ in range(3)))
    paths = list(tmp_path.glob("*.cns"))
    assert len(paths) == 3
    for path in paths:
        played = Replay(path, model.bundle, Recall(model.bundle))
        assert any(isinstance(step.message, UtteranceFinal) for step in played.run())
        assert played.differences == []


async def test_connections_that_are_refused_or_never_start_leave_no_file(
    kit: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[str] = []
    monkeypatch.setattr(
        "cnerta.streamer.recording.recorder.bundle_sha256", lambda b: hashed.append(b.name) or ""
    )
    with RecordingFolder(tmp_path, 2**30) as folder:
        options = ServerOptions(max_sessions=0)
        async with Server(kit.FakeModel(), options, folder.open) as full:
            await full.start()
            async with connect(f"ws://127.0.0.1:{full.port}/v1/stream", proxy=None) as refused:
                assert decode_server(await refused.recv()).name == "try_again_later"
            assert list(tmp_path.iterdir()) == []
            assert hashed == []
        async with Server(kit.FakeModel(), ServerOptions(), folder.open) as server:
            await server.start()
            async with connect(f"ws://127.0.0.1:{server.port}/v1/stream", proxy=None) as silent:
                await silent.send('{"type": "keepalive"}')
                await silent.send('{"type": "session.finish"}')
                assert decode_server(await silent.recv()).name == "not_started"
    assert list(tmp_path.iterdir()) == []
    assert hashed == ["fake"]


def test_what_stood_at_its_place_lends_it_neither_owner_nor_mode_nor_target(
    kit: SimpleNamespace, tmp_path: Path
) -> None:
    path, elsewhere = tmp_path / "one.cns", tmp_path / "elsewhere"
    path.write_text("public")
    path.chmod(0o644)
    converse(kit, record(kit, path))
    assert path.stat().st_mode & 0o777 == 0o600
    elsewhere.write_text("precious")
    path.unlink()
    path.symlink_to(elsewhere)
    converse(kit, record(kit, path))
    assert not path.is_symlink()
    assert elsewhere.read_text() == "precious"


def test_a_disk_that_does_not_keep_up_ends_the_recording_and_not_the_session(
    kit: SimpleNamespace,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("cnerta.streamer.recording.writer._MOST_WAITING_BYTES", 4_000)
    go_on = threading.Event()
    write = os.write

    def slow(descriptor: int, data: Any) -> int:
        go_on.wait(10)
        return write(descriptor, data)

    monkeypatch.setattr("cnerta.streamer.recording.writer.os.write", slow)
    driver = record(kit, tmp_path / "one.cns")
    driver.send(SessionStart()).audio(kit.speak("他在北京"))
    driver.transcript("他在北京", 1, final=True).run()
    go_on.set()
    driver.send(SessionFinish()).run()
    driver.protocol.disconnect()
    driver.protocol.close_recording()
    assert "u1" in driver.finals
    assert "slower to write than what comes" in caplog.text
    assert isinstance(list(RecordingReader(tmp_path / "one.cns"))[-1], recording.Full)


async def test_nothing_is_kept_unless_it_is_asked_for(
    kit: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    async with Server(kit.FakeModel()) as server:
        await server.start()
        seen = await send_over(server, realtime=False, readings=False)
    assert isinstance(seen[0], SessionReady)
    assert seen[0].recorded is UNSET
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def talk(tmp_path: Path) -> Path:
    samples, rate = soundfile.read(DEMO / "bridge.flac")
    soundfile.write(tmp_path / "talk.wav", samples, rate)
    return tmp_path / "talk.wav"


def test_from_the_command_line(talk: Path, tmp_path: Path) -> None:
    kept = tmp_path / "talk.cns"
    runner = CliRunner()
    arguments = ["--file", str(talk), "--transcript", BRIDGE, "--record", str(kept), "--json"]
    done = runner.invoke(app, arguments)
    assert done.exit_code == 0
    assert "RECORDING" in done.stderr
    again = runner.invoke(app, ["replay", str(kept), "--json"])
    assert again.exit_code == 0, again.stderr
    assert again.stdout == done.stdout
    assert "messages are the same" in again.stderr
    recalled = runner.invoke(app, ["replay", str(kept), "--answers", "recorded", "--speed", "50"])
    assert recalled.exit_code == 0, recalled.stderr
    other = runner.invoke(app, ["replay", str(kept), "--bundle", "accurate", "--quiet"])
    assert other.exit_code == EXIT_DIFFERS
    assert "expected {" in other.stderr
    assert other.stdout == ""


def test_inspection(talk: Path, tmp_path: Path) -> None:
    kept, image = tmp_path / "talk.cns", tmp_path / "talk.png"
    runner = CliRunner()
    arguments = ["--file", str(talk), "--transcript", BRIDGE, "--record", str(kept), "--json"]
    assert runner.invoke(app, arguments).exit_code == 0
    found = inspect_recording(kept)
    samples, _ = soundfile.read(talk, dtype="float32")
    assert len(found.audio) == len(samples)
    assert np.abs(found.audio - samples).max() < 1e-3
    lines = list(summarise(found))
    assert "1 final transcripts" in "\n".join(lines)
    assert lines[-1] == "end: finished in order"
    pytest.importorskip("matplotlib")
    done = runner.invoke(app, ["inspect", str(kept), "--plot", str(image)])
    assert done.exit_code == 0, done.stderr
    assert done.stdout.splitlines() == lines
    assert done.stderr == f"drawn in {image}\n"
    assert image.read_bytes().startswith(b"\x89PNG")
    assert runner.invoke(app, ["inspect", str(kept), "--plot", "no/a.png"]).exit_code == 10
    assert runner.invoke(app, ["inspect", str(tmp_path / "none.cns")]).exit_code == 11


def test_a_session_of_a_server_records_itself(talk: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(
        app,
        ["--file", str(talk), "-t", BRIDGE, "--connect", "ws://x", "--record", str(tmp_path / "a")],
    )
    assert done.exit_code == 2
    assert "the server records" in " ".join(done.stderr.replace("│", " ").split())


def test_a_process_that_is_killed_leaves_what_it_had(talk: Path, tmp_path: Path) -> None:
    kept = tmp_path / "talk.cns"
    command = [sys.executable, "-c", "from cnerta.streamer.commands.stream import main; main()"]
    command += ["--file", str(talk), "-t", BRIDGE, "--realtime", "--json", "--record", str(kept)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as running:
        assert running.stdout is not None
        for line in running.stdout:
            if b'"entity.upsert"' in line:
                break
        time.sleep(0.5)  # what came just now may be on its way to the disk
        os.kill(running.pid, signal.SIGKILL)
    found = inspect_recording(kept)
    assert found.finished == "still running when the recording ends"
    assert found.changes["entity.upsert"] >= 1
    done = CliRunner().invoke(app, ["replay", str(kept), "--quiet"])
    assert done.exit_code == 0, done.stderr


async def test_all_recordings_of_a_folder_have_a_bound_together(
    kit: SimpleNamespace, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def spoken(server: Server, seconds: int) -> bool | None:
        """One session with so much audio; whether it was told that it is recorded."""
        url = f"ws://127.0.0.1:{server.port}/v1/stream"
        async with connect(url, proxy=None) as stream:
            await stream.send(encode(SessionStart()), text=True)
            told = decode_server(await stream.recv())
            for _ in range(seconds):
                await stream.send(kit.silence(1_000))
            await stream.send('{"type":"session.finish"}')
            async for _ in stream:
                pass
        assert isinstance(told, SessionReady)
        return told.recorded is True

    old = tmp_path / "of-last-week.cns"
    old.write_bytes(bytes(10**6))
    with RecordingFolder(tmp_path, 2**30, 3 * 10**6) as folder:
        async with Server(kit.FakeModel(), ServerOptions(), folder.open) as server:
            await server.start()
            assert await spoken(server, 25)
            assert "ends here" not in caplog.text
            assert await spoken(server, 50)
            assert "is full and ends here" in caplog.text
            assert not await spoken(server, 1)
            assert "less than 3000000 of recordings" in caplog.text
            total = sum(path.stat().st_size for path in tmp_path.iterdir())
            assert 2_900_000 < total < 3_001_000
            old.unlink()
            assert not await spoken(server, 1), "too little room"
            for path in tmp_path.glob("*.cns"):
                path.unlink()
            assert await spoken(server, 1), "there is room again"
