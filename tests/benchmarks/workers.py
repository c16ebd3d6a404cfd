"""One process against several that share a port: latency, what a stream costs, and memory.

    python tests/benchmarks/workers.py --sessions 100,200,280 --workers 1,2 --turns 2 --seconds 25

For each count of sessions the servers take turns, each started anew, so that all see the same
machine. One line for each run: ms of finals and of first tentative entities, entity events, CPU
milliseconds that a second of one stream costs in all processes together, and megabytes at rest and
at most: the sum of what each process has for itself and of its share of what several have (PSS); at
rest beside the sum of resident memory. ``--cores 0`` pins the server to cores, which the load
generator does not use then, if there are others. Linux only.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shlex
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import httpx2
import typer
from live import DEMO, Cnerta, measure, percentiles, read_clips, start_server


@dataclass(frozen=True, slots=True)
class Family:
    """A process and all that come of it.

    Attributes:
        cpu_s: CPU time so far, of those that live.
        own_mb: Memory: what each has alone, and its share of what several have.
        resident_mb: The same with what several have counted for each.
        processes: How many there are.
    """

    cpu_s: float
    own_mb: float
    resident_mb: float
    processes: int

    @classmethod
    def of(cls, pid: int) -> Family:
        """Look at it."""
        cpu_s = own = resident = 0.0
        members = list(_with_children(pid))
        for member in members:
            fields = Path(f"/proc/{member}/stat").read_text().rpartition(")")[2].split()
            cpu_s += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
            rollup = Path(f"/proc/{member}/smaps_rollup").read_text().splitlines()[1:]
            sizes = {line.split(":")[0]: int(line.split()[1]) * 1024 / 1e6 for line in rollup}
            own += sizes["Pss"]
            resident += sizes["Rss"]
        return cls(cpu_s, own, resident, len(members))


def _with_children(pid: int) -> Iterator[int]:
    yield pid
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            yield from _with_children(int(child))


@contextlib.contextmanager
def pinned(cores: str) -> Iterator[None]:
    """Whatever is started meanwhile uses these cores only; then this process the others."""
    usable = os.sched_getaffinity(0)
    if not cores:
        yield
        return
    wanted = {int(core) for core in cores.split("+")}
    os.sched_setaffinity(0, wanted)
    try:
        yield
    finally:
        os.sched_setaffinity(0, usable - wanted or usable)


class Peak:
    """The most memory of a family, looked at once a second."""

    def __init__(self, pid: int) -> None:
        self.most_mb = 0.0
        self._pid = pid
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def _watch(self) -> None:
        while not self._is_over.wait(1.0):
            with contextlib.suppress(OSError):
                self.most_mb = max(self.most_mb, Family.of(self._pid).own_mb)

    def end(self) -> float:
        self._is_over.set()
        self._thread.join()
        return self.most_mb


def wait_until_ready(port: int) -> None:
    """A front listens before its workers are there."""
    with httpx2.Client(trust_env=False, timeout=60) as caller:
        while caller.get(f"http://127.0.0.1:{port}/readyz").text != "ready\n":
            time.sleep(0.1)


def run(
    workers: int, sessions: int, seconds: float, manifest: Path, cores: str, options: str
) -> dict[str, Any]:
    """One run with a server of its own."""
    dialect = Cnerta()
    clips = read_clips(manifest, 40)
    arguments = ["--max-final-wait-ms", "0", "--workers", str(workers), *shlex.split(options)]
    with pinned(cores):
        process, port, _ = start_server(arguments)
    try:
        wait_until_ready(port)
        time.sleep(2)
        rest = Family.of(process.pid)
        peak = Peak(process.pid)
        url = f"ws://127.0.0.1:{port}{dialect.path}"
        measured = asyncio.run(measure(url, dialect, clips, sessions, seconds))
        after, most_mb = Family.of(process.pid), peak.end()
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
    cost = (after.cpu_s - rest.cpu_s) / max(measured.streamed_seconds, 1e-9)
    return {
        "workers": workers,
        "sessions": sessions,
        "cores": cores or "all",
        "final_ms": percentiles(measured.final),
        "first_tentative_ms": percentiles(measured.first_tentative),
        "finals": [measured.finals_received, measured.finals_sent],
        "upserts": measured.upserts,
        "cpu_ms_a_stream_second": round(1000 * cost, 2),
        "client_cpu_ms": round(
            1000 * measured.client_cpu_seconds / max(measured.streamed_seconds, 1e-9), 2
        ),
        "late_frames": measured.late_frames,
        "processes": rest.processes,
        "rest_mb": [round(rest.own_mb), round(rest.resident_mb)],
        "most_mb": round(most_mb),
        "errors": measured.errors[:2],
    }


def main(
    sessions: Annotated[str, typer.Option(help="Session counts.")] = "200",
    workers: Annotated[str, typer.Option(help="Counts of workers that take turns.")] = "1,2",
    turns: Annotated[int, typer.Option(help="How often each has its turn.")] = 2,
    seconds: Annotated[float, typer.Option(help="Length of each run.")] = 25.0,
    manifest: Annotated[Path, typer.Option(help="Clips, as for live.py.")] = DEMO,
    cores: Annotated[str, typer.Option(help="Of the server, such as 0 or 0+1.")] = "",
    server: Annotated[str, typer.Option(help="More options of cnerta-serve.")] = "",
) -> None:
    """Measure."""
    for count in map(int, sessions.split(",")):
        for _ in range(turns):
            for each in map(int, workers.split(",")):
                row = run(each, count, seconds, manifest, cores, server)
                typer.echo(json.dumps(row))


if __name__ == "__main__":
    typer.run(main)
