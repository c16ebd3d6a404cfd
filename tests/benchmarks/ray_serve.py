"""What Ray costs: one server by itself, behind Ray's proxy, and behind Ray's HAProxy.

    python tests/benchmarks/ray_serve.py --sessions 10,40 --seconds 20

One replica, so that all three do the same work. One line for each run: ms of finals and of first
tentative entities, and CPU milliseconds that a second of one stream costs, by kind of process.
CPU time is what is to be compared: a busy machine makes latencies longer, and CPU time hardly.
Linux, with the extra ray.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from live import DEMO, Cnerta, measure, percentiles, read_clips
from workers import wait_until_ready

FRONTS = ("none", "proxy", "haproxy")


def processes_of(pid: int) -> Iterator[int]:
    """A process and all that come of it."""
    yield pid
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            yield from processes_of(int(child))


def kind_of(pid: int) -> str:
    """What a process is, in a word."""
    words = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    for kind in ("ServeReplica", "ProxyActor", "HAProxy", "haproxy"):
        if kind in words:
            return {"ServeReplica": "server", "ProxyActor": "proxy"}.get(kind, "haproxy")
    return "ray"


def cpu_s(pid: int, *, is_ray: bool) -> Counter[str]:
    """CPU time so far, by kind of process."""
    spent: Counter[str] = Counter()
    for member in processes_of(pid):
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{member}/stat").read_text().rpartition(")")[2].split()
            kind = kind_of(member) if is_ray else "server"
            spent[kind] += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return spent


def free_port() -> int:
    """A port that nobody has at the moment."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
    return port


def run(front: str, sessions: int, seconds: float) -> dict[str, Any]:
    """One run with a server of its own."""
    port, dialect = free_port(), Cnerta()
    clips = read_clips(DEMO, 40)
    command = [sys.executable, "-m", "cnerta.streamer.commands.serve", "--port", str(port)]
    command += ["--max-final-wait-ms", "0", "--insecure", *(["--ray"] if front != "none" else [])]
    environment = {**os.environ, "RAY_SERVE_ENABLE_HA_PROXY": str(int(front == "haproxy"))}
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    try:
        while "listening on" not in (line := process.stderr.readline()):
            assert line, f"expected a server, got status {process.wait()}"
        # Nobody reads what it says from now on; a pipe that is full would hold it up.
        reading = subprocess.Popen(["cat"], stdin=process.stderr, stdout=subprocess.DEVNULL)
        wait_until_ready(port)
        time.sleep(5)
        before = cpu_s(process.pid, is_ray=front != "none")
        url = f"ws://127.0.0.1:{port}{dialect.path}"
        measured = asyncio.run(measure(url, dialect, clips, sessions, seconds))
        after = cpu_s(process.pid, is_ray=front != "none")
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(120)
    reading.wait(10)
    streamed_s = max(measured.streamed_seconds, 1e-9)
    cost = {kind: round(1000 * (after[kind] - before[kind]) / streamed_s, 2) for kind in after}
    return {
        "front": front,
        "sessions": sessions,
        "final_ms": percentiles(measured.final),
        "first_tentative_ms": percentiles(measured.first_tentative),
        "finals": [measured.finals_received, measured.finals_sent],
        "upserts": measured.upserts,
        "cpu_ms_a_stream_second": cost,
        "errors": measured.errors[:2],
    }


def main(
    sessions: Annotated[str, typer.Option(help="Session counts.")] = "10,40",
    fronts: Annotated[str, typer.Option(help="Some of none, proxy, haproxy.")] = ",".join(FRONTS),
    seconds: Annotated[float, typer.Option(help="Length of each run.")] = 20.0,
) -> None:
    """Measure."""
    for count in map(int, sessions.split(",")):
        for front in fronts.split(","):
            typer.echo(json.dumps(run(front, count, seconds)))


if __name__ == "__main__":
    typer.run(main)
