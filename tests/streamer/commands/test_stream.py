from __future__ import annotations

import asyncio
import contextlib
import importlib
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from msgspec import UNSET
from typer.testing import CliRunner, Result
from websockets.asyncio.server import ServerConnection

from cnerta.streamer.commands.stream import app
from cnerta.streamer.sources.sherpa import DEFAULT_MODEL
from cnerta.streamer.wire.codec import decode_server, encode
from cnerta.streamer.wire.messages import ErrorMessage, SessionSummary, UtteranceFinal

from ..fake_server import answering, server
from ..fake_sounddevice import FakeSounddevice
from ..outputs.caption_receivers import YouTube, Zoom
from ..server_messages import ready
from ..sources.tone_recogniser import tones, write_tone_model

COMMAND = [sys.executable, "-c", "from cnerta.streamer.commands.stream import main; main()"]
SENTENCE = "南京市长江大桥"


@pytest.fixture(autouse=True)
def plain_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the width nor the colours of whoever runs the tests."""
    monkeypatch.setenv("COLUMNS", "200")
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def talk(tmp_path: Path) -> Path:
    path = tmp_path / "talk.wav"
    soundfile.write(path, np.zeros(16_000), 16_000)
    return path


@pytest.fixture
def sounddevice(monkeypatch: pytest.MonkeyPatch) -> FakeSounddevice:
    fake = FakeSounddevice()
    monkeypatch.setitem(sys.modules, "sounddevice", fake)  # type: ignore[arg-type]
    return fake


def call(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


async def spawn(*arguments: str | Path, stdin: bytes = b"") -> tuple[int, str, str]:
    """Run the command as a process; return its status and what it wrote."""
    process = await asyncio.create_subprocess_exec(
        *COMMAND,
        *map(str, arguments),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, complaints = await asyncio.wait_for(process.communicate(stdin), 60)
    assert process.returncode is not None
    return process.returncode, out.decode(), complaints.decode()


# --- options --------------------------------------------------------------------------------------


def test_help_says_what_a_stranger_needs() -> None:
    shown = call("--help")
    assert shown.exit_code == 0
    for part in (
        "cnerta-stream --file talk.wav --transcript",
        "start<TAB>end<TAB>text",
        '"characters": [[start_ms, end_ms], …]',
        "6 server unreachable",
    ):
        assert part in shown.stdout


def test_help_lists_what_can_be_done_with_recordings() -> None:
    commands = call("--help").stdout.partition("Commands")[2]
    assert "replay   Run a recorded session again" in commands
    assert "inspect  Say what happened in a recorded session" in commands


def test_help_shows_only_options_with_a_value_as_such() -> None:
    rows = [line.split()[1:] for line in call("--help").stdout.splitlines()]
    described = {row[0]: row[1:4] for row in rows if row and row[0].startswith("--")}
    assert described["--mic"] == ["-m", "Stream", "the"]
    assert described["--captions"] == ["FILE", "Write", "captions"]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ((), "expected one of --file and --mic, got neither"),
        (("--json", "inspect", "a.cns"), "expected no options before inspect, got some"),
        (("inspekt", "a.cns"), "No such command 'inspekt'"),
        (("--mic", "--source", "server"), "expected --connect with --source server"),
        (("--mic", "--file", "a.wav"), "expected one of --file and --mic, got both"),
        (("--mic", "--transcript", "x"), "got them with --mic"),
        (("--mic", "--transcript-file", "x"), "got them with --mic"),
        (("--file", "a", "--transcript", "x", "--source", "y"), "got several"),
        (("--mic", "--connect", "ws://x", "--bundle", "y"), "a server has its own model"),
        (("--file", "a", "--device", "x"), "expected --device with --mic"),
        (("--file", "a", "--hls-mpeg-time", "5"), "expected --hls-mpeg-time with --hls"),
        (("--unheard-of",), "No such option"),
    ],
)
def test_options_that_contradict_each_other(arguments: tuple[str, ...], complaint: str) -> None:
    refused = call(*arguments)
    assert refused.exit_code == 2
    assert complaint in refused.stderr


# --- what goes wrong, each with its status --------------------------------------------------------


def test_missing_audio_file(tmp_path: Path) -> None:
    refused = call("--file", tmp_path / "none.wav", "--transcript", "好")
    assert refused.exit_code == 3
    assert "none.wav, got no such file" in refused.stderr
    assert refused.stdout == ""


def test_file_that_is_not_audio(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("not audio")
    refused = call("--file", tmp_path / "a.txt", "--transcript", "好")
    assert refused.exit_code == 3
    assert "expected audio that FFmpeg or libsndfile reads" in refused.stderr


def test_missing_portaudio(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.import_module

    def refuse(name: str, package: str | None = None) -> object:
        if name == "sounddevice":
            raise OSError("PortAudio library not found")
        return real(name, package)

    monkeypatch.setattr(importlib, "import_module", refuse)
    for arguments in (["--list-devices"], ["--mic"]):
        refused = call(*arguments)
        assert refused.exit_code == 4
        assert "apt-get install libportaudio2" in refused.stderr


def test_machine_without_microphone(sounddevice: FakeSounddevice) -> None:
    sounddevice.devices = []
    for arguments in (["--list-devices"], ["--mic"]):
        refused = call(*arguments)
        assert refused.exit_code == 4
        assert "got no audio input device at all" in refused.stderr


def test_unknown_microphone(sounddevice: FakeSounddevice) -> None:
    refused = call("--mic", "--device", "radio")
    assert refused.exit_code == 4
    assert "expected an input device called 'radio'" in refused.stderr


def test_devices_are_listed(sounddevice: FakeSounddevice) -> None:
    listed = call("--list-devices")
    assert listed.exit_code == 0
    rows = listed.stdout.splitlines()
    assert len(rows) == 5
    assert rows[1].split() == [
        "*",
        "1",
        "HDA",
        "Intel:",
        "Built-in",
        "Microphone",
        "2",
        "44100",
        "Hz",
    ]


def test_no_transcript(talk: Path) -> None:
    refused = call("--file", talk)
    assert refused.exit_code == 5
    assert "expected the transcript of the file from --transcript TEXT" in refused.stderr


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--transcript", " "), "expected a transcript, got an empty one"),
        (("--transcript-file", "none.tsv"), "expected a transcript file at none.tsv"),
        (("--source", "unheard-of"), "expected a transcript source, got 'unheard-of'"),
    ],
)
def test_transcript_that_is_none(talk: Path, arguments: tuple[str, ...], complaint: str) -> None:
    refused = call("--file", talk, *arguments)
    assert refused.exit_code == 5
    assert complaint in refused.stderr


def test_bad_transcript_file(talk: Path, tmp_path: Path) -> None:
    (tmp_path / "lines.tsv").write_text("0\t1\t好\nbad\n")
    refused = call("--file", talk, "--transcript-file", tmp_path / "lines.tsv")
    assert refused.exit_code == 5
    assert "lines.tsv, line 2: expected start<TAB>end<TAB>text" in refused.stderr


async def test_lines_after_the_end_of_the_file_are_warned_of(talk: Path, tmp_path: Path) -> None:
    lines = tmp_path / "lines.tsv"
    lines.write_text("0\t0.5\t好\n70\t71\t你们\n80\t81\t好\n", encoding="utf-8")
    async with server(answering) as url:
        arguments = ("--file", talk, "--connect", url, "--transcript-file", lines)
        status, _, complaints = await spawn(*arguments)
        assert status == 0
        assert "got 2 of 3 after it, from 70.0 s on" in complaints
        assert not set("好你们") & set(complaints)
        lines.write_text("0\t0.1\t好\n", encoding="utf-8")
        status, _, complaints = await spawn(*arguments)
        assert (status, complaints) == (0, "")


def test_unreachable_server(talk: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"ws://127.0.0.1:{unused.getsockname()[1]}"
        refused = call("--file", talk, "--transcript", "好", "--connect", url)
    assert refused.exit_code == 6
    assert f"expected a server at {url}/v1/stream, got: " in refused.stderr


@pytest.mark.parametrize("reconnect_s", ["0", "0.5"])
async def test_refusing_server(talk: Path, reconnect_s: str) -> None:
    async def refuse(connection: ServerConnection) -> None:
        await connection.recv()
        error = ErrorMessage(code=1013, name="try_again_later", retryable=True, detail="full")
        await connection.send(encode(error), text=True)
        await connection.close(1013)

    async with server(refuse) as url:
        status, out, complaints = await spawn(
            "--file", talk, "--transcript", "好", "--connect", url, "--json",
            "--reconnect-s", reconnect_s,
        )  # fmt: skip
    assert status == 7
    assert "error 1013 try_again_later: full" in complaints
    assert json.loads(out)["name"] == "try_again_later", "the event is printed too"


def test_missing_bundle(talk: Path, tmp_path: Path) -> None:
    refused = call("--file", talk, "--transcript", "好", "--bundle", tmp_path / "none")
    assert refused.exit_code == 8
    assert "expected" in refused.stderr
    assert "Traceback" not in refused.stderr


async def test_missing_onnx_runtime(talk: Path, tiny_bundle: Path) -> None:
    script = (
        "import sys; sys.modules['onnxruntime'] = None\n"
        "from cnerta.streamer.commands.stream import main; main()"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, "--file", talk, "-t", "好", "--bundle", tiny_bundle,
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    _, complaints = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 9
    assert "onnxruntime" in complaints.decode()
    assert "Traceback" not in complaints.decode()


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("talk.doc", "expected a caption file that ends with one of .vtt, "),
        ("none/talk.vtt", "talk.vtt, got: No such file or directory"),
        ("http://x", "expected a caption file that ends with"),
    ],
)
async def test_captions_that_cannot_be_written(
    talk: Path, tmp_path: Path, name: str, complaint: str
) -> None:
    async with server(answering) as url:
        status, out, complaints = await spawn(
            "--file", talk, "-t", "好", "--connect", url, "--captions", tmp_path / name
        )
    assert (status, out) == (10, "")
    assert complaint in complaints
    assert "Traceback" not in complaints


# --- what goes right ------------------------------------------------------------------------------


async def test_json_is_events_and_nothing_else(talk: Path) -> None:
    async with server(answering) as url:
        status, out, complaints = await spawn(
            "--file", talk, "--transcript", SENTENCE, "--connect", url, "--json"
        )
    assert (status, complaints) == (0, "")
    messages = [decode_server(line) for line in out.splitlines()]
    (final,) = [message for message in messages if isinstance(message, UtteranceFinal)]
    assert (final.text, final.entities[0].text) == (SENTENCE, "江大桥")
    assert isinstance(messages[-1], SessionSummary)
    assert messages[-1].audio_ms == 1_000


async def test_a_server_that_dies_is_replaced_and_it_is_said(talk: Path, tmp_path: Path) -> None:
    async def dying(connection: ServerConnection) -> None:
        await connection.recv()
        await connection.send(encode(ready()), text=True)
        await connection.recv()
        connection.transport.abort()

    captions = tmp_path / "talk.jsonl"
    async with server(dying) as first, server(answering) as second:
        status, out, complaints = await spawn(
            "--file", talk, "--transcript", SENTENCE, "--connect", f"{first},{second}",
            "--captions", captions,
        )  # fmt: skip
        assert (status, complaints) == (0, "")
        assert "connection lost: expected" in out
        assert "a new session at" in out
        assert out.count(SENTENCE[:2]) == 1
        finals = [line for line in captions.read_text().splitlines() if "utterance.final" in line]
        assert len(finals) == 1
        status, out, complaints = await spawn(
            "--file", talk, "--transcript", SENTENCE, "--connect", first, "--reconnect-s", "0"
        )
    assert status == 6
    assert "to stay until the summary" in complaints


async def test_without_a_terminal_there_are_plain_lines(talk: Path, tmp_path: Path) -> None:
    lines = tmp_path / "lines.tsv"
    lines.write_text(f"0\t0.5\t{SENTENCE}\n0.5\t1.0\t没有\n", encoding="utf-8")
    async with server(answering) as url:
        status, out, _ = await spawn("--file", talk, "--transcript-file", lines, "--connect", url)
    assert status == 0
    assert [line.split("  ")[0] for line in out.splitlines()] == [
        "南京市长[PER 江大桥]",
        "",
        "没有",
        "2 utterances, 0 entities in 0:01.00 of audio; 0 interims dropped",
    ]
    assert "\x1b" not in out


async def test_timed_lines_on_standard_input(talk: Path) -> None:
    async with server(answering) as url:
        status, out, _ = await spawn(
            "--file", talk, "--transcript-file", "-", "--connect", url,
            stdin=f"0\t1\t{SENTENCE}\n".encode(),
        )  # fmt: skip
    assert status == 0
    assert out.startswith("南京市长[PER 江大桥]")


async def test_captions_beside_the_plain_lines(talk: Path, tmp_path: Path) -> None:
    names = [tmp_path / "talk.vtt", tmp_path / "talk.rttm"]
    options = [part for name in names for part in ("--captions", name)]
    async with server(answering) as url:
        status, out, complaints = await spawn(
            "--file", talk, "--transcript", SENTENCE, "--connect", url, *options
        )
    assert (status, complaints) == (0, "")
    assert out.startswith("南京市长[PER 江大桥]")
    vtt = names[0].read_text(encoding="utf-8")
    assert "\n南京市长<c.PER>江大桥</c>\n" in vtt
    assert "\n00:00:00." in vtt, "the fake server gives no times, so the client's own are taken"
    assert names[1].read_text(encoding="utf-8").splitlines()[1].split()[1:3] == ["talk", "1"]


async def test_captions_for_zoom_youtube_and_hls(talk: Path, tmp_path: Path) -> None:
    zoom, youtube = Zoom(), YouTube()
    async with server(answering) as url:
        status, _, complaints = await spawn(
            "--file", talk, "--transcript", SENTENCE, "--connect", url, "--marks", "<>",
            "--zoom", zoom.url, "--youtube", youtube.url,
            "--hls", tmp_path / "hls", "--hls-mpeg-time", "126000",
        )  # fmt: skip
    zoom.close()
    youtube.close()
    assert (status, complaints) == (0, "")
    assert zoom.shown == ["南京市长<江大桥>\n"]
    assert [body.splitlines()[1] for body in youtube.shown] == ["南京市长<江大桥>"]
    assert not zoom.refusals + youtube.refusals
    segment = (tmp_path / "hls" / "captions-00000.vtt").read_text("utf-8")
    assert "MPEGTS:126000\n" in segment
    assert "南京市长<c.PER>江大桥</c>" in segment


async def test_text_for_obs_while_it_is_said(talk: Path, tmp_path: Path) -> None:
    path = tmp_path / "live.txt"
    seen = set()
    async with server(answering) as url:
        process = await asyncio.create_subprocess_exec(
            *COMMAND, "--file", talk, "--transcript", SENTENCE, "--connect", url,
            "--realtime", "--json", "--obs-text", path, stdout=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        while process.returncode is None:
            await asyncio.sleep(0.01)
            if path.exists():
                seen.add(path.read_text(encoding="utf-8"))
    assert process.returncode == 0
    assert any(seen)
    assert all(SENTENCE.startswith(text) or text == "南京市长【江大桥】" for text in seen)
    assert path.read_text() == ""


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--obs", "127.0.0.1"), "expected the address of OBS such as ws://127.0.0.1:4455"),
        (("--webhook", "ws://x"), "expected a webhook such as https://host/path"),
        (("--obs-text", "x", "--obs-marks", "a"), "expected two characters around a name"),
        (("--zoom", "https://u:p@x"), "expected a caption address of Zoom without a password"),
        (("--youtube", "http://x/?cid=1"), "expected https:// for a caption address of YouTube"),
    ],
)
def test_outputs_that_are_described_wrongly(
    talk: Path, arguments: tuple[str, ...], complaint: str
) -> None:
    refused = call("--file", talk, "-t", "好", "--connect", "ws://127.0.0.1:1", *arguments)
    assert refused.exit_code == 10
    assert complaint in refused.stderr


async def test_nothing_is_highlighted_where_no_share_is_left(talk: Path, tmp_path: Path) -> None:
    async with server(answering) as url:
        status, out, _ = await spawn(
            "--file", talk, "--transcript", SENTENCE, "--connect", url,
            "--highlight-share", "0.1", "--captions", tmp_path / "talk.vtt",
        )  # fmt: skip
    assert status == 0
    assert out.splitlines()[0] == SENTENCE
    assert "  PER  江大桥" in out, "still listed"
    assert f"\n{SENTENCE}\n" in (tmp_path / "talk.vtt").read_text(encoding="utf-8")


async def test_realtime_takes_as_long_as_the_file(talk: Path) -> None:
    loop = asyncio.get_running_loop()
    async with server(answering) as url:
        started = loop.time()
        status, _, _ = await spawn(
            "--file", talk, "--transcript", "好", "--connect", url, "--realtime"
        )
    assert status == 0
    assert loop.time() - started >= 1.3, "the file and what a recogniser needs after its end"


@contextlib.asynccontextmanager
async def microphone_session(**environment: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """The command with a microphone of silence and a pipe as its standard input."""
    script = Path(__file__).parents[1] / "fake_microphone_command.py"
    async with server(answering) as url:
        yield await asyncio.create_subprocess_exec(
            sys.executable, script, "--mic", "--device", "built-in", "--connect", url,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE, env={**os.environ, **environment},
        )  # fmt: skip


async def first_answer(process: asyncio.subprocess.Process) -> bytes:
    """Type a line and wait for what is found in it."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"{SENTENCE}\n".encode())
    return await asyncio.wait_for(process.stdout.readline(), 60)


async def test_microphone_with_piped_lines() -> None:
    async with microphone_session() as process:
        assert await first_answer(process) == "南京市长[PER 江大桥]\n".encode()
        out, complaints = await asyncio.wait_for(process.communicate("没有".encode()), 60)
    assert (process.returncode, complaints) == (0, b"")
    lines = out.decode().splitlines()
    assert lines[1] == "没有", "the last line counts without its end"
    assert lines[2].startswith("2 utterances")
    assert "0:00.00 of audio" not in lines[2]


async def test_unplugging_ends_it_while_standard_input_is_still_open() -> None:
    async with microphone_session(UNPLUG_AFTER_MS="400", GONE="1") as process:
        await first_answer(process)
        status = await asyncio.wait_for(process.wait(), 60)
        assert process.stderr is not None
        complaints = await process.stderr.read()
    assert status == 4, "in particular not an abort of the interpreter over a busy standard input"
    assert b"got the end of it: was it unplugged? Waiting for it to return" in complaints
    assert b"to return within 0.5 s, got nothing" in complaints


async def test_a_microphone_that_was_unplugged_returns() -> None:
    async with microphone_session(UNPLUG_AFTER_MS="100") as process:
        assert process.stderr is not None
        await asyncio.wait_for(process.stderr.readuntil(b"is back"), 60)
        assert await first_answer(process) == "南京市长[PER 江大桥]\n".encode()
        await asyncio.wait_for(process.communicate(b""), 60)
    assert process.returncode == 0


async def test_control_c_at_the_microphone_while_standard_input_is_still_open() -> None:
    async with microphone_session() as process:
        await first_answer(process)
        process.send_signal(signal.SIGINT)
        status = await asyncio.wait_for(process.wait(), 60)
        assert process.stdout is not None
        out = (await process.stdout.read()).decode()
    assert status == 0
    assert "1 utterance, " in out


async def test_closed_standard_input_is_no_transcript() -> None:
    script = Path(__file__).parents[1] / "fake_microphone_command.py"
    process = await asyncio.create_subprocess_exec(
        "sh", "-c", 'exec "$@" <&-', "sh", sys.executable, script, "--mic", "--source", "lines",
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    _, complaints = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 5
    assert b"expected lines on standard input, got a closed one" in complaints


# --- recognisers ----------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def microphone_alone(
    *arguments: str, stdin: int = asyncio.subprocess.DEVNULL, **environment: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    """The command with a microphone, and nobody who types or pipes lines."""
    script = Path(__file__).parents[1] / "fake_microphone_command.py"
    async with server(answering) as url:
        yield await asyncio.create_subprocess_exec(
            sys.executable, script, "--mic", "--connect", url, *arguments,
            stdin=stdin, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            env={**os.environ, **environment},
        )  # fmt: skip


async def test_microphone_alone_recognises_here_with_a_model_from_the_cache(
    tmp_path: Path,
) -> None:
    snapshots = tmp_path / ("models--" + DEFAULT_MODEL.replace("/", "--")) / "snapshots" / "abc"
    snapshots.mkdir(parents=True)
    (snapshots.parents[1] / "refs").mkdir()
    (snapshots.parents[1] / "refs" / "main").write_text("abc")
    write_tone_model(snapshots)
    (snapshots / "model.onnx").rename(snapshots / "model.int8.onnx")
    async with microphone_alone(HF_HUB_CACHE=str(tmp_path), HF_HUB_OFFLINE="1") as process:
        _, complaints = await asyncio.wait_for(process.communicate(), 60)
    # It is found and loaded, and is not what the default model is.
    said = complaints.decode()
    assert "Speech is recognised in this process by sherpa-onnx" in said
    assert "fetching" not in said
    assert process.returncode != 0


async def test_microphone_alone_without_internet_says_what_to_do(tmp_path: Path) -> None:
    async with microphone_alone(HF_HUB_CACHE=str(tmp_path), HF_HUB_OFFLINE="1") as process:
        out, complaints = await asyncio.wait_for(process.communicate(), 60)
    assert (process.returncode, out) == (5, b"")
    said = complaints.decode()
    assert "expected to fetch the model k2-fsa/" in said
    assert "--source sherpa-onnx:FOLDER" in said
    assert "Traceback" not in said


async def test_microphone_with_a_recogniser_in_this_process(tmp_path: Path) -> None:
    write_tone_model(tmp_path)
    np.save(tmp_path / "said.npy", tones("一二  "))
    source = f"sherpa-onnx:{tmp_path},kind=nemo-ctc"
    async with microphone_alone(
        "--source", source, "--json", SAYS=str(tmp_path / "said.npy")
    ) as process:
        assert process.stdout is not None
        texts = set()
        while "一二" not in texts:
            line = await asyncio.wait_for(process.stdout.readline(), 60)
            assert line, "the session goes on"
            message = decode_server(line)
            texts |= {message.text} if isinstance(message, UtteranceFinal) else set()
        process.send_signal(signal.SIGINT)
        await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0


async def test_captions_as_the_transcript(talk: Path, tmp_path: Path) -> None:
    captions = tmp_path / "talk.srt"
    captions.write_text(f"1\n00:00:00,000 --> 00:00:00,900\n{SENTENCE}\n", encoding="utf-8")
    async with server(answering) as url:
        status, out, _ = await spawn(
            "--file", talk, "--transcript-file", captions, "--connect", url
        )
    assert status == 0
    assert out.startswith("南京市长[PER 江大桥]")


# --- ends -----------------------------------------------------------------------------------------


async def test_control_c_finishes_the_session(tmp_path: Path) -> None:
    long = tmp_path / "long.wav"
    soundfile.write(long, np.zeros(60 * 8_000), 8_000)
    lines = tmp_path / "lines.tsv"
    lines.write_text("0\t0.1\t江大桥\n50\t60\t好\n", encoding="utf-8")
    async with server(answering) as url:
        process = await asyncio.create_subprocess_exec(
            *COMMAND, "--file", long, "--transcript-file", lines, "--connect", url,
            "--realtime", "--json",
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert process.stdout is not None
        messages = [decode_server(await asyncio.wait_for(process.stdout.readline(), 60))]
        messages.append(decode_server(await asyncio.wait_for(process.stdout.readline(), 60)))
        process.send_signal(signal.SIGINT)
        out, complaints = await asyncio.wait_for(process.communicate(), 60)
    messages += [decode_server(line) for line in out.splitlines()]
    assert process.returncode == 0
    assert isinstance(messages[1], UtteranceFinal)
    assert isinstance(messages[-1], SessionSummary)
    assert messages[-1].audio_ms < 30_000
    assert "finishing the session" in complaints.decode()
    assert "Traceback" not in complaints.decode()


async def test_second_control_c_leaves_at_once(talk: Path) -> None:
    async def mute(connection: ServerConnection) -> None:
        async for _ in connection:
            pass

    async with server(mute) as url:
        process = await asyncio.create_subprocess_exec(
            *COMMAND, "--file", talk, "--transcript", "好", "--connect", url, "--verbose",
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert process.stderr is not None
        await asyncio.wait_for(process.stderr.readuntil(b"connected"), 60)
        await asyncio.sleep(0.1)
        process.send_signal(signal.SIGINT)
        await asyncio.wait_for(process.stderr.readuntil(b"finishing"), 5)
        process.send_signal(signal.SIGINT)
        _, complaints = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 130
    assert b"Traceback" not in complaints


@pytest.mark.parametrize("form", [["--json"], [], ["--help"]])
async def test_reader_that_leaves_ends_it_quietly(talk: Path, form: list[str]) -> None:
    async with server(answering) as url:
        reading, writing = os.pipe()
        os.close(reading)
        process = await asyncio.create_subprocess_exec(
            *COMMAND, "--file", talk, "--transcript", "好", "--connect", url, *form,
            stdout=writing, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        os.close(writing)
        _, complaints = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 141
    assert complaints == b""


@pytest.mark.skipif(os.name != "posix", reason="needs a shell that can close descriptors")
@pytest.mark.parametrize("arguments", [["--json"], [], ["--list-devices"]])
async def test_closed_output_ends_it_quietly(talk: Path, arguments: list[str]) -> None:
    process = await asyncio.create_subprocess_exec(
        "sh", "-c", 'exec "$@" >&-', "sh",
        *COMMAND, "--file", talk, "--transcript", "好", "--connect", "ws://127.0.0.1:1", *arguments,
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    _, complaints = await asyncio.wait_for(process.communicate(), 60)
    assert (process.returncode, complaints) == (141, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
@pytest.mark.parametrize("form", [["--json"], []])
async def test_output_that_cannot_be_written_is_said(talk: Path, form: list[str]) -> None:
    async with server(answering) as url:
        with open("/dev/full", "wb") as full:
            process = await asyncio.create_subprocess_exec(
                *COMMAND, "--file", talk, "--transcript", "好", "--connect", url, *form,
                stdout=full, stderr=asyncio.subprocess.PIPE,
            )  # fmt: skip
            _, complaints = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 1
    (line,) = complaints.decode().splitlines()
    assert line.startswith("cnerta-stream: expected to write the answers, got: ")


async def test_output_without_the_characters_is_not_cut_off(talk: Path) -> None:
    async with server(answering) as url:
        process = await asyncio.create_subprocess_exec(
            *COMMAND, "--file", talk, "--transcript", SENTENCE, "--connect", url,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            env={**os.environ, "PYTHONIOENCODING": "ascii"},
        )  # fmt: skip
        out, complaints = await asyncio.wait_for(process.communicate(), 60)
    assert (process.returncode, complaints) == (0, b"")
    assert out.startswith(b"????[PER ???]\n")


IN_A_TERMINAL = "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))"


@pytest.mark.skipif(os.name != "posix", reason="needs a terminal of its own")
async def test_keys_in_a_terminal(tmp_path: Path) -> None:
    long = tmp_path / "long.wav"
    soundfile.write(long, np.zeros(60 * 8_000), 8_000)
    lines = tmp_path / "lines.tsv"
    lines.write_text(f"0\t0.1\t{SENTENCE}\n50\t60\t好\n", encoding="utf-8")
    async with server(answering) as url:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", IN_A_TERMINAL, *COMMAND, "--file", long, "--connect", url,
            "--transcript-file", lines, "--realtime",
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "COLUMNS": "80", "LINES": "24", "TERM": "xterm-256color"},
        )  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        seen = b""

        async def until(part: str) -> None:
            nonlocal seen
            while part.encode() not in seen:
                seen += await asyncio.wait_for(process.stdout.read(4_096), 60)

        await until("q finish")
        await until("江大桥")
        process.stdin.write(b"x?")
        await until("an entity and its type")
        process.stdin.write(b"q")
        out, _ = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0
    assert "1 utterance" in (seen + out).decode()


# --- the model in this process --------------------------------------------------------------------


def test_in_process(talk: Path, tiny_bundle: Path) -> None:
    done = call("--file", talk, "--transcript", SENTENCE, "--bundle", tiny_bundle, "--json")
    assert done.exit_code == 0, done.stderr
    messages = [decode_server(line) for line in done.stdout.splitlines()]
    finals = [message for message in messages if isinstance(message, UtteranceFinal)]
    assert [(final.utterance, final.text) for final in finals] == [("u1", SENTENCE)]
    assert isinstance(messages[-1], SessionSummary)
    assert messages[-1].audio_ms == 1_000


def test_labels_that_the_model_does_not_know(talk: Path, tiny_bundle: Path) -> None:
    refused = call("--file", talk, "-t", "好", "--bundle", tiny_bundle, "--labels", "PER,CITY")
    assert refused.exit_code == 7
    assert "unknown_label" in refused.stderr
    assert "'CITY'" in refused.stderr


def test_readings_in_process(talk: Path, tiny_bundle: Path) -> None:
    for asked in (False, True):
        options = ["--readings"] if asked else []
        done = call("-f", talk, "-t", "长江", "--bundle", tiny_bundle, "--json", *options)
        assert done.exit_code == 0, done.stderr
        messages = [decode_server(line) for line in done.stdout.splitlines()]
        (final,) = [message for message in messages if isinstance(message, UtteranceFinal)]
        assert (final.readings is not UNSET) is asked
