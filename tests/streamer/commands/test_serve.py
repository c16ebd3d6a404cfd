"""``cnerta-serve`` as a program: it starts, stops, and says why when it cannot."""

from __future__ import annotations

import json
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner
from websockets.sync.client import ClientConnection, connect

from cnerta.streamer.commands.serve import app

from ..certificates import write_certificate

MODULE = [sys.executable, "-m", "cnerta.streamer.commands.serve"]


def run(*arguments: str | Path, code: str | None = None) -> subprocess.CompletedProcess[str]:
    command = MODULE if code is None else [sys.executable, "-c", code]
    return subprocess.run(
        [*command, *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False
    )


def listening_port(process: subprocess.Popen[str]) -> int:
    """The port of a server that starts, once it listens."""
    assert process.stderr is not None
    log = []
    while True:
        line = process.stderr.readline()
        log.append(line)
        assert line, f"the server ended: {log}"
        found = re.search(r"listening on \S+ port (\d+), bundle tiny on (\w+)", line)
        if found:
            assert found[2] == "CPUExecutionProvider"
            return int(found[1])


@pytest.fixture
def server(tiny_bundle: Path) -> Iterator[tuple[subprocess.Popen[str], int, float]]:
    """A running server, its port, and the seconds it took to listen."""
    began = time.monotonic()
    with subprocess.Popen(
        [*MODULE, "--port", "0", "--bundle", str(tiny_bundle), "--device", "cpu"],
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        port = listening_port(process)
        yield process, port, time.monotonic() - began
        process.kill()


def test_it_serves_and_stops_in_order(server: tuple[subprocess.Popen[str], int, float]) -> None:
    process, port, _ = server
    with connect(f"ws://127.0.0.1:{port}/v1/stream", proxy=None) as stream:
        stream.send('{"type":"session.start","version":1}')
        assert json.loads(stream.recv())["type"] == "session.ready"
        stream.send(
            '{"type":"transcript","utterance":"u","revision":1,"final":true,"text":"北京大学"}'
        )
        while json.loads(stream.recv())["type"] != "utterance.final":
            pass
        process.send_signal(signal.SIGTERM)
        kinds = [json.loads(message)["type"] for message in stream]
        assert kinds == ["session.going_away", "error"]
        assert stream.close_code == 1001
    assert process.wait(10) == 0
    assert process.stderr is not None
    rest = process.stderr.read()
    assert "stopping" in rest
    assert "北京" not in rest
    assert "Traceback" not in rest


_HANGING = """
import threading
from cnerta.models.runtime.inference import Model
from cnerta.streamer.commands import serve
from cnerta.streamer.serving.server import ServerOptions
load, options = Model.load.__func__, ServerOptions
def hang(*arguments):
    threading.Event().wait()
def load_hanging(*arguments, **keywords):
    model = load(Model, *arguments, **keywords)
    model.tag = hang
    return model
Model.load = load_hanging
short = {"drain_timeout_s": 0.3, "close_timeout_s": 0.3}
serve.ServerOptions = lambda **k: options(**{**k, **short})
serve.main()
"""


def test_a_graph_that_hangs_for_ever_does_not_keep_the_server_from_stopping(
    tiny_bundle: Path,
) -> None:
    command = [sys.executable, "-c", _HANGING, "--port", "0", "--bundle", str(tiny_bundle)]
    with subprocess.Popen([*command, "--device", "cpu"], stderr=subprocess.PIPE, text=True) as run:
        try:
            assert run.stderr is not None
            port = listening_port(run)
            with connect(f"ws://127.0.0.1:{port}/v1/stream", proxy=None) as stream:
                stream.send('{"type":"session.start","version":1}')
                assert json.loads(stream.recv())["type"] == "session.ready"
                stream.send(
                    '{"type":"transcript","utterance":"u","revision":1,"final":true,"text":"北"}'
                )
                time.sleep(0.3)
                run.send_signal(signal.SIGTERM)
                assert run.wait(20) == 10
            rest = run.stderr.read()
            assert "ends by force, with code 10" in rest
            assert "Traceback" not in rest
        finally:
            run.kill()


def test_it_is_light(server: tuple[subprocess.Popen[str], int, float]) -> None:
    _, port, seconds = server
    with connect(f"ws://127.0.0.1:{port}/v1/stream", proxy=None) as stream:
        stream.send('{"type":"session.start","version":1}')
        stream.send(bytes(32_000))
        stream.send('{"type":"session.finish"}')
        list(stream)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"http://127.0.0.1:{port}/metrics", timeout=10) as response:
        metrics = response.read().decode()
    resident = re.search(r"^process_resident_memory_bytes (\S+)$", metrics, re.MULTILINE)
    # Prometheus' own client reads it on Linux only.
    assert resident is not None or sys.platform != "linux"
    assert resident is None or float(resident[1]) < 250 * 2**20
    # The bound is 2 s on an idle machine; this leaves room for a busy one.
    assert seconds < 6


def test_a_taken_port(tiny_bundle: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        result = run("--port", str(port), "--bundle", tiny_bundle)
    assert result.returncode == 3
    last = result.stderr.splitlines()[-1]
    assert last.startswith(f"cnerta-serve: expected 127.0.0.1 port {port} to be free")
    assert "Traceback" not in result.stderr


def test_a_missing_bundle(tmp_path: Path) -> None:
    result = run("--bundle", tmp_path / "nothing")
    assert result.returncode == 8
    assert "cnerta-serve: expected" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("harm", ["truncated graph", "truncated manifest", "schema", "no graph"])
def test_a_damaged_bundle(tiny_bundle: Path, tmp_path: Path, harm: str) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(tiny_bundle, bundle)
    manifest, graph = bundle / "bundle.json", bundle / "tagger.onnx"
    if harm == "truncated graph":
        graph.write_bytes(graph.read_bytes()[:-100])
    elif harm == "truncated manifest":
        manifest.write_bytes(manifest.read_bytes()[:-100])
    elif harm == "schema":
        content = json.loads(manifest.read_text())
        manifest.write_text(json.dumps(content | {"schema_version": 999}))
    else:
        graph.unlink()
    result = run("--bundle", bundle)
    assert result.returncode == 8
    assert "cnerta-serve: expected" in result.stderr
    assert ", got" in result.stderr
    assert "Traceback" not in result.stderr


def test_no_onnx_runtime(tiny_bundle: Path) -> None:
    code = (
        "import sys; sys.modules['onnxruntime'] = None\n"
        "from cnerta.streamer.commands.serve import main; main()\n"
    )
    result = run("--bundle", tiny_bundle, code=code)
    assert result.returncode == 9
    assert "cnerta-stream[cpu]" in result.stderr
    assert "cnerta-stream[gpu]" in result.stderr


@pytest.mark.parametrize(("source", "complaint"), [("lines", "got lines"), ("nobody", "'nobody'")])
def test_a_recogniser_that_cannot_write_for_clients(source: str, complaint: str) -> None:
    result = run("--source", source)
    assert result.returncode == 5
    assert complaint in result.stderr
    assert "Traceback" not in result.stderr


def test_help_names_the_options_and_exit_codes() -> None:
    result = run("--help")
    assert result.returncode == 0
    for word in ("--bundle", "--device", "--threads", "--max-sessions", "Exit codes"):
        assert word in result.stdout
    assert run("--port", "70000").returncode == 2


def test_it_listens_beyond_this_machine_only_with_a_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CNERTA_TOKEN", raising=False)
    refused = run("--host", "0.0.0.0", "--port", "0")
    assert refused.returncode == 2
    assert "--token-file" in refused.stderr
    short = tmp_path / "tokens"
    short.write_text("short\n")
    refused = run("--host", "0.0.0.0", "--port", "0", "--token-file", short)
    assert refused.returncode == 2
    assert "at least 16" in " ".join(refused.stderr.split())


def test_tokens_and_certificate_are_read_anew_and_nobody_is_cut_off(tmp_path: Path) -> None:
    tokens = tmp_path / "tokens.toml"
    tokens.write_text('[first]\ntoken = "the-first-token-of-ours"\n')
    certificate, key = write_certificate(tmp_path, "first")
    command = [*MODULE, "--port", "0", "--device", "cpu", "--token-file", str(tokens)]
    with subprocess.Popen(
        [*command, "--tls-cert", str(certificate), "--tls-key", str(key)],
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        log: list[str] = []

        def wait_for(pattern: str) -> re.Match[str]:
            assert process.stderr is not None
            while line := process.stderr.readline():
                log.append(line)
                if found := re.search(pattern, line):
                    return found
            raise AssertionError(f"the server ended: {log}")

        port = int(wait_for(r"listening on \S+ port (\d+) \(TLS\)")[1])

        def dial(token: str) -> ClientConnection:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            url = f"wss://127.0.0.1:{port}/v1/stream"
            headers = {"Authorization": f"Bearer {token}"}
            return connect(url, ssl=context, proxy=None, additional_headers=headers)

        try:
            with dial("the-first-token-of-ours") as early:
                early.send('{"type":"session.start","version":1}')
                assert json.loads(early.recv())["type"] == "session.ready"
                tokens.write_text('[second]\ntoken = "a-second-token-of-ours"\n')
                write_certificate(tmp_path, "second")
                process.send_signal(signal.SIGHUP)
                wait_for("the certificate was read anew")
                wait_for("tokens were read anew")
                with dial("a-second-token-of-ours") as late:
                    late.send('{"type":"session.start","version":1}')
                    assert json.loads(late.recv())["type"] == "session.ready"
                with dial("the-first-token-of-ours") as old:
                    assert json.loads(old.recv())["name"] == "not_authorised"
                tokens.write_text("[third]\nsession = 3\n")
                process.send_signal(signal.SIGHUP)
                wait_for("the tokens stay as they were: .*unknown field `session`")
                early.send('{"type":"session.finish"}')
                assert [json.loads(frame)["type"] for frame in early] == ["session.summary"]
                assert early.close_code == 1000
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0
        finally:
            process.kill()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--tls-key", "key.pem"], "--tls-cert beside --tls-key"),
        (["--tls-cert", "nowhere.pem"], "a certificate and its key"),
        (["--metrics-address", "9100"], "--metrics-address HOST:PORT"),
        (["--metrics-address", "127.0.0.1:99999"], "--metrics-address HOST:PORT"),
        (["--trusted-proxy", "proxy.example"], "a network such as 10.0.0.0/8"),
    ],
)
def test_options_that_cannot_be_are_named(arguments: list[str], expected: str) -> None:
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert expected in " ".join(re.sub(r"[│╭╮╰╯─]", " ", result.stderr).split())
