"""What ``cnerta-serve`` logs, for a person or for a program; never a user's words."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import jwt
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

MODULE = [sys.executable, "-m", "cnerta.streamer.commands.serve"]
TOKEN = "a-token-of-the-captions"
WRONG = "wrong-token-of-a-stranger"
SECRET = "a-secret-of-32-bytes-and-then-more"
TEXT = "他在北京大学"
NAME = "任萍"
NOISE = "secret-noise"


class Log:
    """A server that runs, and the lines that it writes."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.lines: list[str] = []

    def wait_for(self, pattern: str) -> re.Match[str]:
        assert self.process.stderr is not None
        while line := self.process.stderr.readline():
            self.lines.append(line)
            if found := re.search(pattern, line):
                return found
        raise AssertionError(f"the server ended: {self.lines}")

    def rest(self) -> list[str]:
        self.process.send_signal(signal.SIGTERM)
        assert self.process.stderr is not None
        self.lines += self.process.stderr.readlines()
        # 12: somebody who has broken off is owed an answer.
        assert self.process.wait(20) in (0, 12)
        return self.lines


@contextmanager
def serving(folder: Path, log_format: str) -> Iterator[tuple[Log, int]]:
    tokens, key = folder / "tokens.toml", folder / "key"
    tokens.write_text(f'[captions]\ntoken = "{TOKEN}"\n', encoding="utf-8")
    key.write_text(SECRET, encoding="utf-8")
    command = [*MODULE, "--port", "0", "--device", "cpu"]
    command += ["--token-file", str(tokens), "--jwt-secret-file", str(key), "--log-level", "debug"]
    with subprocess.Popen(
        [*command, "--log-format", log_format], stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            log = Log(process)
            yield log, int(log.wait_for(r"listening on \S+ port (\d+)")[1])
        finally:
            process.kill()


def dial(port: int, token: str | None = None, query: str = "", **options: Any) -> ClientConnection:
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    url = f"ws://127.0.0.1:{port}/v1/stream{query}"
    return connect(url, proxy=None, additional_headers=headers, **options)


def say(stream: ClientConnection, *messages: dict[str, Any]) -> None:
    for message in messages:
        stream.send(json.dumps(message))


def start(**others: Any) -> dict[str, Any]:
    return {"type": "session.start", "version": 1, **others}


def final(text: str) -> dict[str, Any]:
    return {"type": "transcript", "utterance": "u", "revision": 1, "final": True, "text": text}


def rest(stream: ClientConnection) -> list[dict[str, Any]]:
    found = []
    with suppress(ConnectionClosed):
        found += [json.loads(frame) for frame in stream]
    return found


def use_in_every_way(port: int) -> list[str]:
    """Tell the server secrets and texts wherever it takes some. Returns those it made itself."""
    made = []
    with dial(port, TOKEN) as stream:
        say(stream, start(glossary=[{"text": NAME, "label": "PER"}]), final(TEXT))
        say(stream, {"type": "session.finish"})
        stream.send(bytes(3_200))
        ready, *others = rest(stream)
        made.append(ready["resume"]["token"])
        assert others[-1]["type"] == "session.summary"
    with dial(port, WRONG) as stream:
        rest(stream)
    with dial(port, query=f"?token={WRONG}&x={NOISE}") as stream:
        rest(stream)
    signed = jwt.encode({"sub": "somebody", "exp": 4_000_000_000}, SECRET, "HS256")
    made.append(signed)
    protocols: Any = ["cnerta.v1", f"bearer.{signed}"]
    # Wrong messages, each with text in it, end sessions in different ways.
    for wrong in (
        f'{{"type":"{NOISE}","text":"{TEXT}"}}',
        f'{TEXT}{{"type"',
        json.dumps(start(glossary=[{"text": TEXT, "label": NOISE}])),
        json.dumps(start(glossary=[{"text": TEXT, "label": "PER", "pronunciation": NOISE}])),
        json.dumps(start(resume={"token": NOISE * 3, "last_seq": 1})),
        json.dumps({**final(TEXT), NOISE: TEXT}),
    ):
        with dial(port, subprotocols=protocols) as stream:
            say(stream, start())
            stream.send(wrong)
            say(stream, {"type": "session.finish"})
            rest(stream)
    with dial(port, TOKEN) as stream:  # It breaks off, with an answer that is owed.
        say(stream, start(), final(TEXT))
        stream.recv()
        stream.socket.close()
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    asked = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/sessions",
        method="POST",
        headers={"Authorization": f"Bearer {TOKEN}"},
    )
    with opener.open(asked, timeout=10) as response:
        made.append(json.loads(response.read())["token"])
    with dial(port, query=f"?token={made[-1]}") as stream:
        say(stream, start(), {"type": "session.finish"})
        rest(stream)
    for path in (f"/{NOISE}?token={TOKEN}", f"/metrics?token={WRONG}"):
        with pytest.raises(urllib.error.HTTPError):
            opener.open(f"http://127.0.0.1:{port}{path}", timeout=10)
    return made


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_no_text_and_no_token_is_logged(tmp_path: Path, log_format: str) -> None:
    with serving(tmp_path, log_format) as (log, port):
        made = use_in_every_way(port)
        log.wait_for("disconnected")
        lines = log.rest()
    everything = "".join(lines)
    assert everything.count("opened") >= 8
    escaped = json.dumps(TEXT)[1:-1]
    for secret in (TOKEN, WRONG, SECRET, NOISE, escaped, *made):
        assert secret not in everything
        assert base64.b64encode(secret.encode()).decode() not in everything
        # A digest tells callers apart, but not by the whole of it.
        assert hashlib.sha256(secret.encode()).hexdigest() not in everything
    assert not set(TEXT + NAME) & set(everything)


def test_each_line_is_an_object_with_what_happened(tmp_path: Path) -> None:
    with serving(tmp_path, "json") as (log, port):
        with dial(port, TOKEN) as stream:
            say(stream, start())
            stream.send(bytes(32_000))
            say(stream, final(TEXT), {"type": "session.finish"})
            summary = rest(stream)[-1]
        log.wait_for(r'"session\.closed"')
        lines = [json.loads(line) for line in log.rest()]
    for line in lines:
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["time"])
        assert line["level"] in ("debug", "info", "warning", "error")
        assert {"logger", "message"} <= line.keys()
    events = {line["event"]: line for line in lines if "event" in line}
    assert list(events) == [
        "server.listening", "session.opened", "session.closed", "server.stopping", "server.stopped",
    ]  # fmt: skip
    listening, opened, closed, *_ = events.values()
    assert (listening["port"], listening["tls"], listening["bundle"]) == (
        port,
        False,
        "cnerta-fast",
    )
    assert (opened["peer"], opened["caller"]) == ("127.0.0.1", "captions")
    assert 0 < closed.pop("duration_s") < 60
    for part in ("time", "level", "logger", "message"):
        del closed[part]
    assert closed == {
        "event": "session.closed",
        "session": opened["session"],
        "peer": "127.0.0.1",
        "caller": "captions",
        "code": 1000,
        "reason": "finished",
        "audio_s": summary["audio_ms"] / 1000,
        "utterances": 1,
        "entities": summary["entities"],
        "dropped_interims": 0,
    }
    assert closed["audio_s"] == 1.0
