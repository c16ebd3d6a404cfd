"""What one offender costs everybody else: final latency of well-behaved sessions beside it.

    python tests/benchmarks/isolation.py --seconds 20 --offences long-interims,glossary

A server process, well-behaved sessions in this process and the offender in a third, which comes
from another address (127.0.0.2). The sessions send audio at the pace of speech and a final
transcript twice a second. They run alone and beside each offender in turn, so the machine is as
busy before as after. One line for each, and a table at the end: p50 and p95 of a final (ms), their
ratio to the runs alone just before and after, and what became of the offender.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import multiprocessing
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Annotated, Any

import numpy as np
import typer
from live import start_server
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, WebSocketException

RATE = 16_000
FRAME_MS = 40
EVERY_MS = 480
TEXT = "他昨天在北京大学见到了江大桥"
LONG = "南京市长江大桥北大学的一是在不了" * 256
FROM = ("127.0.0.2", 0)
"""Where offenders connect from: another address of this machine, as limits may be by address."""
START = {"type": "session.start", "audio": {"encoding": "pcm_s16le", "sample_rate": RATE}}


# --- those who behave -----------------------------------------------------------------------------


@dataclass(slots=True)
class Seen:
    """Times from a final transcript to its answer, in ms, and what went wrong."""

    final_ms: list[float] = field(default_factory=list)
    sent: int = 0
    errors: list[str] = field(default_factory=list)


async def behave(url: str, seconds: float, offset_s: float, seen: Seen) -> None:
    """One well-behaved session."""
    await asyncio.sleep(offset_s)
    waiting: dict[str, float] = {}
    noise = np.random.default_rng(0).normal(0, 300, RATE * FRAME_MS // 1000).astype("<i2").tobytes()
    async with connect(url, proxy=None, compression=None, open_timeout=60) as socket:
        await socket.send(json.dumps(START))

        async def read() -> None:
            async for frame in socket:
                event = json.loads(frame)
                if event["type"] == "utterance.final":
                    seen.final_ms.append(
                        1000 * (time.monotonic() - waiting.pop(event["utterance"]))
                    )
                elif event["type"] == "error":
                    seen.errors.append(event["name"])

        reading = asyncio.create_task(read())
        began = time.monotonic()
        for n in range(round(1000 * seconds / FRAME_MS)):
            await asyncio.sleep(max(0.0, began + n * FRAME_MS / 1000 - time.monotonic()))
            await socket.send(noise)
            if n % (EVERY_MS // FRAME_MS) == 0:
                name = f"u{n}"
                waiting[name] = time.monotonic()
                seen.sent += 1
                message = {"utterance": name, "revision": 1, "final": True, "text": TEXT}
                await socket.send(json.dumps({"type": "transcript", **message}))
        await socket.send('{"type": "session.finish"}')
        async with asyncio.timeout(60):
            await reading


# --- those who do not -----------------------------------------------------------------------------


def transcript(n: int, text: str, *, final: bool = False, utterance: str = "x") -> str:
    message = {"utterance": utterance, "revision": n, "final": final, "text": text}
    return json.dumps({"type": "transcript", **message}, ensure_ascii=False)


def names() -> list[dict[str, str]]:
    figures = str.maketrans("0123456789", "零一二三四五六七八九")
    ends = (f"{n:03d}".translate(figures) for n in range(500))
    return [{"text": LONG[:61] + end, "label": "PER"} for end in ends]


async def long_interims(socket: ClientConnection) -> None:
    """Interims of 4,096 characters, as fast as they go."""
    for n in range(10**9):
        await socket.send(transcript(n, LONG[n % 16 : 4_096]))


async def long_finals(socket: ClientConnection) -> None:
    """Finals of 4,096 characters, 32 at once and then one for each answer."""
    for n in range(32):
        await socket.send(transcript(1, LONG[:4_096], final=True, utterance=f"f{n}"))
    n = 32
    async for frame in socket:
        if '"utterance.final"' in str(frame)[:40]:
            n += 1
            await socket.send(transcript(1, LONG[:4_096], final=True, utterance=f"f{n}"))


async def glossary(socket: ClientConnection) -> None:
    """500 names of 64 characters that begin alike, and texts of 4,096 that have their beginning."""
    await socket.send(json.dumps({"type": "session.update", "glossary": names()}))
    text = (LONG[:61] * 80)[:4_096]
    for n in range(10**9):
        await socket.send(transcript(n, text))


async def glossary_updates(socket: ClientConnection) -> None:
    """The same names again and again."""
    update = json.dumps({"type": "session.update", "glossary": names()})
    while True:
        await socket.send(update)


async def keepalives(socket: ClientConnection) -> None:
    """Keepalives, as fast as they go."""
    while True:
        await socket.send('{"type": "keepalive"}')


async def tiny_frames(socket: ClientConnection) -> None:
    """Audio frames of one sample, as fast as they go."""
    frames = b"\x82\x82\0\0\0\0\0\0" * 1_000
    while True:
        socket.transport.write(frames)
        while socket.transport.get_write_buffer_size() > 2**16:
            await asyncio.sleep(0.001)


async def pings(socket: ClientConnection) -> None:
    """Pings, as fast as they go."""
    frames = b"\x89\x80\0\0\0\0" * 1_000
    while True:
        socket.transport.write(frames)
        while socket.transport.get_write_buffer_size() > 2**16:
            await asyncio.sleep(0.001)


async def hang_ups(url: str) -> None:
    """Connections that are opened and dropped at once, as fast as they go."""
    while True:
        with contextlib.suppress(OSError, InvalidHandshake, TimeoutError):
            socket = await connect(url, proxy=None, compression=None, local_addr=FROM)
            socket.transport.abort()


async def silent_connections(url: str) -> None:
    """600 connections without a word, each replaced when it is closed."""

    async def hold() -> None:
        while True:
            with contextlib.suppress(OSError, WebSocketException, TimeoutError):
                async with connect(url, proxy=None, compression=None, local_addr=FROM) as socket:
                    await _read_all(socket)
            await asyncio.sleep(0.1)

    await asyncio.gather(*(hold() for _ in range(600)))


FLOODS: dict[str, Callable[[str], Coroutine[Any, Any, None]]] = {
    "hang-ups": hang_ups,
    "silent-connections": silent_connections,
}
OFFENCES: dict[str, Callable[[ClientConnection], Coroutine[Any, Any, None]]] = {
    "long-interims": long_interims,
    "long-finals": long_finals,
    "glossary": glossary,
    "glossary-updates": glossary_updates,
    "keepalives": keepalives,
    "tiny-frames": tiny_frames,
    "pings": pings,
}


def offend(url: str, name: str, told: Any) -> None:
    """One offender, in a process of its own, until it is closed or killed."""

    async def run() -> None:
        if name in FLOODS:
            await FLOODS[name](url)
        try:
            async with connect(
                url, proxy=None, compression=None, max_queue=4, local_addr=FROM
            ) as socket:
                await socket.send(json.dumps({**START, "interim": True}))
                if name == "long-finals":
                    await long_finals(socket)
                reading = asyncio.create_task(_read_all(socket))
                try:
                    await OFFENCES[name](socket)
                finally:
                    reading.cancel()
        except ConnectionClosed as closed:
            told.send(f"closed {closed.code} {closed.reason}")

    asyncio.run(run())


async def _read_all(socket: ClientConnection) -> None:
    with contextlib.suppress(ConnectionClosed):
        async for _ in socket:
            pass


@contextlib.asynccontextmanager
async def offender(url: str, name: str | None) -> AsyncIterator[list[str]]:
    """An offender beside what happens inside; tells afterwards what became of it."""
    fate: list[str] = []
    if name is None:
        yield fate
        return
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=offend, args=(url, name, theirs))
    process.start()
    await asyncio.sleep(2)
    yield fate
    fate.append(ours.recv() if ours.poll() else "slowed down")
    process.kill()
    process.join()


async def measure(url: str, seconds: float, sessions: int, name: str | None) -> tuple[Seen, str]:
    """Well-behaved sessions, alone or beside an offender."""
    seen = Seen()
    async with offender(url, name) as fate:
        behaving = [
            behave(url, seconds, n * EVERY_MS / 1000 / sessions, seen) for n in range(sessions)
        ]
        for outcome in await asyncio.gather(*behaving, return_exceptions=True):
            if isinstance(outcome, BaseException):
                seen.errors.append(type(outcome).__name__)
    return seen, fate[0] if fate else ""


def percentile(values: list[float], q: int) -> float:
    return float(np.percentile(values, q)) if values else float("nan")


def main(
    seconds: Annotated[float, typer.Option(help="Of each run.")] = 20.0,
    sessions: Annotated[int, typer.Option(help="Well-behaved sessions.")] = 4,
    offences: Annotated[str, typer.Option(help="Which, parted by commas.")] = ",".join(
        [*OFFENCES, *FLOODS]
    ),
    server: Annotated[str, typer.Option(help="Options for the server.")] = "",
) -> None:
    """Measure."""
    rows = [
        "| offender | p50 | p95 | p95 without it | ratio | answered | errors | what became of it |",
        "|---|---|---|---|---|---|---|---|",
    ]
    process, port, _ = start_server(server.split())
    url = f"ws://127.0.0.1:{port}/v1/stream"
    try:
        asyncio.run(measure(url, 5, sessions, None))  # warm up
        alone, _ = asyncio.run(measure(url, seconds, sessions, None))
        for name in offences.split(","):
            beside, fate = asyncio.run(measure(url, seconds, sessions, name))
            after, _ = asyncio.run(measure(url, seconds, sessions, None))
            quiet = alone.final_ms + after.final_ms
            p50, p95 = percentile(beside.final_ms, 50), percentile(beside.final_ms, 95)
            quiet95 = percentile(quiet, 95)
            print(
                f"{name:18} final p50 {p50:7.1f} p95 {p95:8.1f} ms  alone p95 {quiet95:6.1f}  "
                f"ratio {p95 / quiet95:6.2f}  answered {len(beside.final_ms)}/{beside.sent}  "
                f"errors {sorted(set(beside.errors))}  offender: {fate}",
                flush=True,
            )
            rows.append(
                f"| {name} | {p50:.1f} | {p95:.1f} | {quiet95:.1f} | {p95 / quiet95:.2f} | "
                f"{len(beside.final_ms)} of {beside.sent} | "
                f"{', '.join(sorted(set(beside.errors))) or 'none'} | {fate} |"
            )
            alone = after
    finally:
        os.kill(process.pid, signal.SIGTERM)
        try:
            process.wait(20)
        except Exception:
            process.kill()
    print("\n".join(rows))


if __name__ == "__main__":
    typer.run(main)
