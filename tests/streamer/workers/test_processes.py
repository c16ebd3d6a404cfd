"""``cnerta-serve --workers``: real processes on this machine, streamed to, killed, and reloaded."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from websockets.asyncio.client import connect

from cnerta.streamer.client.reconnecting import ReconnectingConnection, ReconnectOptions
from cnerta.streamer.wire.messages import (
    ErrorMessage,
    SessionFinish,
    SessionGoingAway,
    SessionReady,
    SessionStart,
    SessionSummary,
    Transcript,
    UtteranceFinal,
)
from cnerta.streamer.wire.parts import ResumeRequest

from ..certificates import write_certificate
from ..speaking_client import Client, client

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="workers need Linux")

SECONDS = 60
MODULE = [sys.executable, "-m", "cnerta.streamer.commands.serve"]


class ServerOfWorkers:
    """A front and its workers."""

    def __init__(self, arguments: list[str], command: list[str] = MODULE) -> None:
        self.process = subprocess.Popen(
            [*command, "--port", "0", "--device", "cpu", *arguments],
            stderr=subprocess.PIPE,
            text=True,
        )
        self.log: list[str] = []
        self._reading = threading.Thread(target=self._read, daemon=True)
        self._reading.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        self.log += [""]
        for line in self.process.stderr:
            self.log.append(line)

    def wait_for(self, pattern: str) -> re.Match[str]:
        """Something is in the log."""
        until = time.monotonic() + SECONDS
        while time.monotonic() < until:
            for line in tuple(self.log):
                if found := re.search(pattern, line):
                    return found
            if self.process.poll() is not None and not self._reading.is_alive():
                break
            time.sleep(0.02)
        raise AssertionError(f"expected {pattern}, got {''.join(self.log)}")

    @property
    def port(self) -> int:
        return int(self.wait_for(r"listening on \S+ port (\d+).* \d workers")[1])

    def ended(self) -> int:
        code = self.process.wait(SECONDS)
        self._reading.join(SECONDS)
        return code

    def figures(self) -> dict[str, float]:
        text = self.get("/metrics").text
        rows = [line.rsplit(" ", 1) for line in text.splitlines() if line[:1] != "#"]
        return {name: float(value) for name, value in rows}

    def get(self, path: str, **options: Any) -> httpx2.Response:
        with httpx2.Client(trust_env=False, timeout=SECONDS) as caller:
            return caller.get(f"http://127.0.0.1:{self.port}{path}", **options)

    def workers(self) -> list[int]:
        """The processes that serve: children of those that fork them."""
        return [pid for nursery in children(self.process.pid) for pid in children(nursery)]


def children(pid: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found += [int(each) for each in task.read_text().split()]
    return found


@contextlib.contextmanager
def serving(*arguments: str, command: list[str] = MODULE) -> Iterator[ServerOfWorkers]:
    server = ServerOfWorkers(list(arguments), command)
    try:
        yield server
    finally:
        # In order if it can be: it leaves nothing behind then.
        server.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.process.wait(20)
        for pid in [*server.workers(), *children(server.process.pid), server.process.pid]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        server.ended()
        assert server.process.stderr is not None
        server.process.stderr.close()


@pytest.fixture
def two() -> Iterator[ServerOfWorkers]:
    with serving("--workers", "2") as server:
        yield server


def final(text: str, utterance: str) -> Transcript:
    return Transcript(utterance=utterance, revision=1, final=True, text=text)


def worker_of(ready: SessionReady) -> str:
    assert ready.resume is not None
    return ready.resume.token.partition(".")[0]


async def started(stream: Client) -> SessionReady:
    await stream.send(SessionStart())
    ready: SessionReady = await stream.until(SessionReady)
    return ready


async def eventually(condition: Any) -> None:
    async with asyncio.timeout(SECONDS):
        while not await asyncio.to_thread(condition):
            await asyncio.sleep(0.05)


async def test_sessions_are_spread_counted_and_resumed_wherever_their_client_lands(
    two: ServerOfWorkers,
) -> None:
    port = two.port
    async with contextlib.AsyncExitStack() as stack:
        streams = [await stack.enter_async_context(client(port)) for _ in range(8)]
        readies = [await started(stream) for stream in streams]
        assert Counter(map(worker_of, readies)) == {"1": 4, "2": 4}
        for stream in streams:
            await stream.send(final("他在北京", "u1"))
            await stream.until(UtteranceFinal)
        await eventually(lambda: two.figures()["cnerta_sessions"] == 8)
        found = two.figures()
        assert found["cnerta_admitted_total"] == found["cnerta_opened_total"] == 8
        assert found['cnerta_sent_total{type="utterance.final"}'] == 8
        await eventually(lambda: two.figures()["cnerta_workers"] == 2)
        assert found['cnerta_model_info{device="CPUExecutionProvider",name="cnerta-fast"}'] == 1
        assert found["process_open_fds"] > 30
        assert found["process_resident_memory_bytes"] > 100e6
        assert (two.get("/readyz").text, two.get("/healthz").text) == ("ready\n", "ok\n")
        # Each comes back twice, on a connection to either worker: its session is where it was.
        for stream, ready in zip(streams[:2], readies, strict=False):
            # Workers say within a second what they have: until then those that are gone count, and
            # both connections could land on one worker.
            await asyncio.sleep(1.5)
            one = await stack.enter_async_context(client(port))
            other = await stack.enter_async_context(client(port))
            stream.vanish()
            resume = ResumeRequest(token=ready.resume.token, last_seq=stream.last_seq)
            for number, again in enumerate((one, other)):
                await again.send(SessionStart(resume=resume), final("她去上海", f"again {number}"))
                back = await again.until(SessionReady)
                assert (back.recovered, back.session) == (True, ready.session)
                while (await again.until(UtteranceFinal)).utterance != f"again {number}":
                    pass
            assert one.socket.close_code is None or one.socket.close_code == 4409
            await other.send(SessionFinish())
            assert isinstance((await other.rest())[-1], SessionSummary)
        await eventually(lambda: two.figures()["cnerta_sessions"] == 6)
        found = two.figures()
        assert found['cnerta_resumes_total{result="recovered"}'] == 4
        assert found["cnerta_handed_over_total"] == 2
        assert found["cnerta_lost_total"] == 2, "those handed over are not lost"
        # A session that nobody knows is a new one.
        token = readies[0].resume.token if readies[0].resume else ""
        async with client(port) as stranger:
            await stranger.send(SessionStart(resume=ResumeRequest(token=token, last_seq=0)))
            assert not (await stranger.until(SessionReady)).recovered
        # In the end all are sent away, and what is owed is given.
        rest = streams[2:]
        for stream in rest:
            await stream.send(final("张三", "u3"))
        two.process.send_signal(signal.SIGTERM)
        for stream in rest:
            kinds = [type(m) for m in await stream.rest()]
            assert UtteranceFinal in kinds
            assert SessionGoingAway in kinds
            assert stream.socket.close_code == 1001
    assert await asyncio.to_thread(two.ended) == 0
    text = "".join(two.log)
    assert "Traceback" not in text
    assert "北京" not in text


async def test_a_worker_that_is_killed_costs_no_final(two: ServerOfWorkers) -> None:
    port = two.port
    before = set(two.workers())
    assert len(before) == 2
    answered: list[Counter[str]] = []
    finals = 60

    async def stream(number: int) -> None:
        counts: Counter[str] = Counter()
        answered.append(counts)
        connection = await ReconnectingConnection.open(
            [f"ws://127.0.0.1:{port}"], options=ReconnectOptions(silence_s=3.0)
        )
        async with connection:
            await connection.send(SessionStart())

            async def speak() -> None:
                for n in range(finals):
                    await connection.send_audio(bytes(1_280))
                    await connection.send(final("今天在北京大学", f"u{n}"))
                    await asyncio.sleep(0.05)
                await connection.send(SessionFinish())

            speaking = asyncio.create_task(speak())
            while not isinstance(message := await connection.receive(), SessionSummary):
                if isinstance(message, UtteranceFinal):
                    counts[message.utterance] += 1
            await speaking

    async with asyncio.timeout(SECONDS):
        streams = [asyncio.create_task(stream(number)) for number in range(6)]
        for _ in range(2):
            await asyncio.sleep(1.0)
            victim = two.workers()[0]
            os.kill(victim, signal.SIGKILL)
            await eventually(lambda: len(two.workers()) == 2 and victim not in two.workers())  # noqa: B023
        await asyncio.gather(*streams)
    assert len(answered) == 6
    for counts in answered:
        assert counts == {f"u{n}": 1 for n in range(finals)}
    two.wait_for(r"worker \d has ended with signal 9")
    await eventually(lambda: two.figures()["cnerta_replaced_workers_total"] == 2)
    # What the dead had is forgotten, and the port goes on being served by two.
    await eventually(lambda: two.figures()["cnerta_sessions"] == 0)
    assert two.figures()['cnerta_sent_total{type="session.summary"}'] == 6
    assert set(two.workers()) != before


async def test_a_reload_takes_new_files_and_cuts_nobody_off(tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text("the-first-token-of-ours\n")
    certificate, key = write_certificate(tmp_path, "ours")
    trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE

    @contextlib.asynccontextmanager
    async def dialling(port: int, token: str) -> Any:
        url = f"wss://127.0.0.1:{port}/v1/stream?token={token}"
        async with connect(url, proxy=None, compression=None, ssl=trusting) as made:
            yield Client(made)

    with serving(
        "--workers", "2", "--token-file", str(tokens),
        "--tls-cert", str(certificate), "--tls-key", str(key), "--idle-timeout-s", "600",
    ) as server:  # fmt: skip
        port = server.port
        old = set(server.workers())
        async with (
            dialling(port, "the-first-token-of-ours") as one,
            dialling(port, "the-first-token-of-ours") as other,
        ):
            ready, kept = await started(one), await started(other)
            # A file that cannot be read changes nothing.
            tokens.write_text("short\n")
            server.process.send_signal(signal.SIGHUP)
            await asyncio.to_thread(server.wait_for, "reload failed with status 2")
            tokens.write_text("a-second-token-of-ours\n")
            server.process.send_signal(signal.SIGHUP)
            await asyncio.to_thread(server.wait_for, "new workers take the sessions")
            async with dialling(port, "a-second-token-of-ours") as late:
                assert worker_of(await started(late)) not in {worker_of(ready), worker_of(kept)}
                await late.send(SessionFinish())
                await late.rest()
            async with dialling(port, "the-first-token-of-ours") as stale:
                error = await stale.receive()
                assert isinstance(error, ErrorMessage)
                assert error.name == "not_authorised"
            # Who was there goes on, on a new connection as well: encrypted, it is carried there.
            await one.send(final("他在北京", "u1"))
            await one.until(UtteranceFinal)
            one.vanish()
            async with dialling(port, "a-second-token-of-ours") as thief:
                resume = ResumeRequest(token=ready.resume.token, last_seq=one.last_seq)  # type: ignore[union-attr]
                await thief.send(SessionStart(resume=resume))
                assert not (await thief.until(SessionReady)).recovered, "of another user"
            await other.send(final("他在北京", "u1"), SessionFinish())
            messages = await other.rest()
            assert isinstance(messages[-1], SessionSummary)
        await eventually(lambda: len(set(server.workers()) & old) <= 1)
        server.process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(server.ended) == 0
        assert "Traceback" not in "".join(server.log)


async def test_limits_hold_for_all_workers_together(tmp_path: Path) -> None:
    tokens = tmp_path / "tokens.toml"
    tokens.write_text(
        '[narrow]\ntoken = "the-narrow-token-of-ours"\nsessions = 1\n'
        '[wide]\ntoken = "the-wide-token-of-ours"\n'
    )
    with serving(
        "--workers", "2", "--token-file", str(tokens),
        "--max-sessions", "4",
    ) as server:  # fmt: skip
        port = server.port
        async with contextlib.AsyncExitStack() as stack:

            async def open_one(token: str) -> Client:
                return await stack.enter_async_context(client(port, token))

            narrow = await open_one("the-narrow-token-of-ours")
            await started(narrow)
            for _ in range(2):  # at either worker
                error = await (await open_one("the-narrow-token-of-ours")).receive()
                assert isinstance(error, ErrorMessage)
                assert error.name == "over_quota"
            made = await asyncio.to_thread(
                httpx2.post,
                f"http://127.0.0.1:{port}/v1/sessions",
                headers={"Authorization": "Bearer the-wide-token-of-ours"},
            )
            token = made.json()["token"]
            guest = await open_one(token)
            ready = await started(guest)
            for _ in range(2):
                thief = await open_one(token)
                await thief.send(SessionStart())
                error = (await thief.rest())[-1]
                assert isinstance(error, ErrorMessage)
                assert error.name == "not_authorised", "it was used, wherever that was"
            for _ in range(2):
                guest.vanish()
                guest = await open_one(token)
                assert ready.resume is not None
                resume = ResumeRequest(token=ready.resume.token, last_seq=0)
                await guest.send(SessionStart(resume=resume))
                assert (await guest.until(SessionReady)).recovered, "wherever it is"
            wide = {"Authorization": "Bearer the-wide-token-of-ours"}
            await eventually(
                lambda: "cnerta_sessions 2.0" in server.get("/metrics", headers=wide).text
            )
            for _ in range(2):
                await started(await open_one("the-wide-token-of-ours"))
            assert await asyncio.to_thread(lambda: server.get("/readyz").text) == "full\n"
            for _ in range(2):
                error = await (await open_one("the-wide-token-of-ours")).receive()
                assert isinstance(error, ErrorMessage)
                assert (error.code, "at most 4 sessions" in error.detail) == (1013, True)
            # What a worker held is free once it is dead.
            worker = server.workers()[0]
            os.kill(worker, signal.SIGKILL)
            await eventually(lambda: server.get("/readyz").text == "ready\n")


_SLOW = """
import time
from cnerta.models.runtime.inference import Model
from cnerta.streamer.commands import serve
tag = Model.tag
def slow(model, texts, *rest):
    if any("慢" in text for text in texts):
        time.sleep(5)
    return tag(model, texts, *rest)
Model.tag = slow
serve.main()
"""


async def test_what_a_stop_leaves_behind_is_added_up() -> None:
    with serving(
        "--workers", "2", "--drain-s", "0.5",
        command=[sys.executable, "-c", _SLOW],
    ) as server:  # fmt: skip
        port = server.port
        async with client(port) as one, client(port) as other:
            assert worker_of(await started(one)) != worker_of(await started(other))
            for stream in (one, other):
                await stream.send(final("慢", "u1"))
            await asyncio.sleep(0.5)
            server.process.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(server.ended) == 12
        assert "2 final answers were left behind by all workers" in "".join(server.log)


async def test_workers_do_not_outlive_the_front(two: ServerOfWorkers) -> None:
    async with client(two.port) as stream:
        await started(stream)
        nurseries, workers = children(two.process.pid), two.workers()
        files = [os.readlink(each) for each in Path(f"/proc/{two.process.pid}/fd").iterdir()]
        (folder,) = {Path(name).parent for name in files if name.endswith("/ledger")}
        assert folder.is_dir()
        two.process.kill()
        assert isinstance((await stream.rest())[0], SessionGoingAway)

    def are_gone() -> bool:
        return not any(is_alive(pid) for pid in (*nurseries, *workers))

    await eventually(are_gone)
    assert not folder.exists(), "what they shared is gone with them"


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def test_what_cannot_be_started_is_said_once(tmp_path: Path) -> None:
    with serving("--workers", "2", "--bundle", str(tmp_path / "nothing")) as server:
        assert server.ended() == 8
        text = "".join(server.log)
        assert text.count("cnerta-serve: expected") == 1
        assert "Traceback" not in text
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        with serving("--workers", "2", "--port", port) as server:
            assert server.ended() == 3
            assert f"port {port} to be free" in "".join(server.log)


@pytest.mark.parametrize("workers", ["0", "-1", "many", "257", "1.5"])
def test_workers_that_cannot_be(workers: str) -> None:
    from typer.testing import CliRunner

    from cnerta.streamer.commands.serve import app

    result = CliRunner().invoke(app, ["--workers", workers])
    assert result.exit_code == 2
    assert "--workers auto" in re.sub(r"[│╭╮╰╯─\s]+", " ", result.stderr)
