"""Resident memory of a server process: at rest, while it is strained, and given back.

    python tests/benchmarks/memory.py [--cases live,texts,audio] [-- --bundle accurate]

A server process for each case, what follows ``--`` are its options:

    live     sessions at the pace of speech, a final of 14 characters twice a second
    texts    one client's finals of 4,096 characters, one for each answer
    audio    16 clients with 58 s of audio each, sent at once, then 500 characters without times

One line for each: MB at rest, the most while it ran, per session above rest, and after ten seconds
without work; then CPU seconds, and how long finals took (ms, p50 and p95). Linux only.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from live import percentiles, start_server
from websockets.asyncio.client import ClientConnection, connect

RATE = 16_000
FRAME_MS = 40
SENTENCE = "他昨天在北京大学见到了江大桥"
LONG = "南京市长江大桥北大学的一是在不了" * 256
START = {"type": "session.start", "audio": {"encoding": "pcm_s16le", "sample_rate": RATE}}


class Resident:
    """The resident memory of a process, looked at twenty times a second."""

    def __init__(self, process_id: int) -> None:
        self._status = Path(f"/proc/{process_id}/statm")
        self._stat = Path(f"/proc/{process_id}/stat")
        self.most_mb = 0.0

    def now_mb(self) -> float:
        """Megabytes (of 10^6 bytes) now."""
        return int(self._status.read_text().split()[1]) * 4096 / 1e6

    def cpu_s(self) -> float:
        """CPU time so far."""
        values = self._stat.read_text().rpartition(")")[2].split()
        return (int(values[11]) + int(values[12])) / 100

    async def watch(self) -> None:
        """Keep the most."""
        while True:
            self.most_mb = max(self.most_mb, self.now_mb())
            await asyncio.sleep(0.05)


@contextlib.asynccontextmanager
async def session(url: str, **options: Any) -> Any:
    """A session that has started; what it says is kept from growing."""
    async with connect(url, proxy=None, compression=None, open_timeout=60, max_size=None) as socket:
        await socket.send(json.dumps({**START, **options}))
        yield socket
        await socket.send('{"type": "session.finish"}')
        async with asyncio.timeout(120):
            async for _ in socket:
                pass


async def answered(socket: ClientConnection, name: str, text: str) -> float:
    """Send a final and wait for its answer. Returns ms."""
    message = {"utterance": name, "revision": 1, "final": True, "text": text}
    began = time.monotonic()
    await socket.send(json.dumps({"type": "transcript", **message}))
    while True:
        event = json.loads(await socket.recv())
        if event["type"] == "error":
            raise RuntimeError(str(event))
        if event["type"] == "utterance.final":
            return 1000 * (time.monotonic() - began)


def noise(milliseconds: int) -> bytes:
    """Audio that has no pauses."""
    samples = np.random.default_rng(0).normal(0, 3000, RATE * milliseconds // 1000)
    return samples.astype("<i2").tobytes()


async def live(url: str, number: int, seconds: float) -> list[float]:
    """A session at the pace of speech."""
    frame, every, found = noise(FRAME_MS), 12, []
    await asyncio.sleep(0.03 * number)
    async with session(url) as socket:
        began = time.monotonic()
        for n in range(round(1000 * seconds / FRAME_MS)):
            await asyncio.sleep(max(0.0, began + n * FRAME_MS / 1000 - time.monotonic()))
            await socket.send(frame)
            if n % every == 0:
                found.append(await answered(socket, f"u{n}", SENTENCE))
    return found


async def texts(url: str, number: int, seconds: float) -> list[float]:
    """Long finals, one after the other."""
    found: list[float] = []
    async with session(url, interim=False) as socket:
        began = time.monotonic()
        while time.monotonic() - began < seconds:
            found.append(await answered(socket, f"u{len(found)}", LONG[:4_096]))
    return found


async def audio(url: str, number: int, seconds: float) -> list[float]:
    """Much audio at once, then a long text without times; again when that is answered."""
    second = noise(1_000)
    found = []
    async with session(url, interim=False) as socket:
        for _ in range(58):
            await socket.send(second)
        found.append(await answered(socket, "u", LONG[:500]))
    return found


CASES: dict[str, tuple[int, Callable[[str, int, float], Coroutine[Any, Any, list[float]]]]] = {
    "live": (16, live),
    "texts": (1, texts),
    "audio": (16, audio),
}


async def measure(case: str, seconds: float, arguments: list[str]) -> dict[str, Any]:
    """Play one case."""
    sessions, play = CASES[case]
    process, port, _ = start_server(["--idle-timeout-s", "600", *arguments])
    try:
        resident = Resident(process.pid)
        url = f"ws://127.0.0.1:{port}/v1/stream"
        await asyncio.sleep(1)
        rest_mb, began_cpu = resident.now_mb(), resident.cpu_s()
        watching = asyncio.create_task(resident.watch())
        played = await asyncio.gather(*(play(url, n, seconds) for n in range(sessions)))
        cpu_s = resident.cpu_s() - began_cpu
        watching.cancel()
        await asyncio.sleep(10)
        finals = percentiles([ms for found in played for ms in found])
        return {
            "case": case,
            "sessions": sessions,
            "rest_mb": round(rest_mb),
            "most_mb": round(resident.most_mb),
            "mb_a_session": round((resident.most_mb - rest_mb) / sessions, 1),
            "after_10_s_mb": round(resident.now_mb()),
            "cpu_s": round(cpu_s, 1),
            "final_ms": {k: finals[k] for k in ("p50", "p95")},
        }
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def main(
    arguments: Annotated[list[str] | None, typer.Argument(help="Options of the server.")] = None,
    cases: Annotated[str, typer.Option(help="Which.")] = ",".join(CASES),
    seconds: Annotated[float, typer.Option(help="Of live and texts.")] = 15,
) -> None:
    """Measure."""
    for case in cases.split(","):
        typer.echo(json.dumps(asyncio.run(measure(case, seconds, arguments or []))))


if __name__ == "__main__":
    typer.run(main)
