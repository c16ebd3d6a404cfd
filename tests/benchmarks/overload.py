"""A server that is offered more sessions than it can serve: who is taken, and what they get.

    python tests/benchmarks/overload.py --capacity 200 --times 1,3 --seconds 40

Each client streams the clips of a manifest at the pace of speech, as in ``live.py``. Whoever is
refused comes back when it was told to, until the run is over. A row for each load: clients, those
that were taken, refusals, how long a final answer took those inside (p50, p95, p99 in ms, of the
whole run and of its last third), and what was left of their finals. After each run the clients
leave and one comes alone: how long until it was taken, and its p95.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer
from live import (
    DEMO,
    Clip,
    Cnerta,
    Measured,
    Sender,
    Session,
    Step,
    endless,
    percentiles,
    read_clips,
    start_server,
    steps_of,
)
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, WebSocketException

BOUND_MS = 500.0


@dataclass(slots=True)
class Seen:
    """What the clients of one run saw.

    Attributes:
        final_ms: Moment (s from the run's beginning) and time of each final answer.
        taken: Clients that got in.
        refusals: By name of the error.
        owed: Finals that were not answered when their client was done.
        ended: Sessions that ended otherwise than by their own finish.
    """

    final_ms: list[tuple[float, float]] = field(default_factory=list)
    taken: int = 0
    refusals: dict[str, int] = field(default_factory=dict)
    owed: int = 0
    ended: list[str] = field(default_factory=list)


async def client(
    url: str,
    number: int,
    prepared: Sequence[tuple[Clip, list[Step]]],
    began: float,
    ends: float,
    seen: Seen,
) -> None:
    """One client: knocks until it is taken, then streams until the end."""
    dice = random.Random(number)
    await asyncio.sleep(dice.uniform(0.0, 1.0))
    while (left := ends - time.monotonic()) > 5:
        try:
            async with connect(url, max_size=None, compression=None, open_timeout=60) as socket:
                delay_s = await _stream(socket, number, prepared, began, left, seen)
        except (OSError, WebSocketException) as error:
            delay_s = 1.0
            seen.ended.append(type(error).__name__)
        if delay_s is None:
            return
        await asyncio.sleep(delay_s)


async def _stream(
    socket: ClientConnection,
    number: int,
    prepared: Sequence[tuple[Clip, list[Step]]],
    began: float,
    seconds: float,
    seen: Seen,
) -> float | None:
    """Stream over an open connection. Returns when to come back, in seconds, if not taken."""
    dialect, session, into = Cnerta(), Session(), Measured()
    with contextlib.suppress(ConnectionClosed):  # refused and closed already: it says so
        await socket.send(dialect.start())
    first = json.loads(await socket.recv())
    if first["type"] == "error":
        name = first["name"]
        seen.refusals[name] = seen.refusals.get(name, 0) + 1
        return float(first.get("retry_after_ms", 1_000)) / 1000
    seen.taken += 1
    sender = Sender(
        socket,
        dialect,
        endless(prepared, number),
        max(0.0, seconds - 5),
        f"u{number}",
        session,
        into,
    )

    async def read() -> str:
        async for frame in socket:
            event = json.loads(frame)
            if event["type"] == "utterance.final":
                now = time.monotonic()
                sent = session.sent[event["utterance"], event["revision"]]
                seen.final_ms.append((now - began, 1000 * (now - sent)))
                into.finals_received += 1
            elif event["type"] == "error":
                return f"{event['code']} {event['name']}"
            elif event["type"] == "session.summary":
                return ""
        return f"{socket.close_code} without a word"

    reading = asyncio.create_task(read())
    sender.start(0.0)
    await sender.done
    with contextlib.suppress(ConnectionClosed):
        await socket.send(dialect.finish())
    try:
        ended = await asyncio.wait_for(reading, 60)
    except TimeoutError:
        ended = "no summary in 60 s"
    if ended:
        seen.ended.append(ended)
    seen.owed += into.finals_sent - into.finals_received
    return None


async def run(
    url: str, clients: int, seconds: float, prepared: Sequence[tuple[Clip, list[Step]]]
) -> Seen:
    """So many clients at once."""
    seen, began = Seen(), time.monotonic()
    await asyncio.gather(
        *(client(url, n, prepared, began, began + seconds, seen) for n in range(clients))
    )
    return seen


async def recover(url: str, prepared: Sequence[tuple[Clip, list[Step]]]) -> dict[str, Any]:
    """One client after all others have left."""
    began, seen = time.monotonic(), Seen()
    while not seen.taken:
        async with connect(url, max_size=None, compression=None, open_timeout=60) as socket:
            delay_s = await _stream(socket, 0, prepared, began, 12, seen)
        if delay_s is not None:
            await asyncio.sleep(min(delay_s, 0.5))
    waited = sum(seen.refusals.values())
    final = percentiles([ms for _, ms in seen.final_ms])
    return {"refused_before": waited, "final_p95_ms": final.get("p95")}


def row(clients: int, seconds: float, seen: Seen, after: dict[str, Any]) -> dict[str, Any]:
    """One line of the table."""
    late = [ms for at, ms in seen.final_ms if at > seconds * 2 / 3]
    return {
        "offered": clients,
        "admitted": seen.taken,
        "refusals": seen.refusals,
        "final_ms": percentiles([ms for _, ms in seen.final_ms]),
        "final_ms_last_third": percentiles(late),
        "finals": len(seen.final_ms),
        "owed": seen.owed,
        "ended": sorted(set(seen.ended)),
        "recovery": after,
    }


def main(
    capacity: Annotated[int, typer.Option(help="Sessions that the server can serve.")] = 200,
    times: Annotated[str, typer.Option(help="Loads, in multiples of it.")] = "0.5,1,3",
    seconds: Annotated[float, typer.Option(help="Of each run.")] = 40.0,
    manifest: Annotated[Path, typer.Option(help="Clips: JSON lines, or the demo's.")] = DEMO,
    limit: Annotated[int, typer.Option(help="Use the first so many clips.")] = 40,
    server: Annotated[str, typer.Option(help="Options for the server.")] = "",
    out: Annotated[Path | None, typer.Option("--json", help="Write the rows.")] = None,
) -> None:
    """Measure; the exit status is 1 if those inside do not get their answers within the bound."""
    prepared = [(clip, steps_of(clip, Cnerta())) for clip in read_clips(manifest, limit)]
    process, port, _ = start_server(["--max-sessions", "100000", *server.split()])
    url = f"ws://127.0.0.1:{port}/v1/stream"
    rows = []
    try:
        asyncio.run(run(url, 2, 8, prepared))  # warm up
        print("offered  admitted  refusals  final p50     p95     p99  last third p95  owed  after")
        for multiple in map(float, times.split(",")):
            clients = round(capacity * multiple)
            seen = asyncio.run(run(url, clients, seconds, prepared))
            rows.append(row(clients, seconds, seen, asyncio.run(recover(url, prepared))))
            r, nothing = rows[-1], float("nan")
            final, late = r["final_ms"], r["final_ms_last_third"]
            print(
                f"{clients:7d}  {seen.taken:8d}  {sum(seen.refusals.values()):8d}  "
                f"{final.get('p50', nothing):9.1f} {final.get('p95', nothing):7.1f} "
                f"{final.get('p99', nothing):7.1f}  {late.get('p95', nothing):14.1f}  "
                f"{seen.owed:4d}  {r['recovery']} {r['ended'] or ''}",
                flush=True,
            )
    finally:
        os.kill(process.pid, signal.SIGTERM)
        process.wait(60)
    if out is not None:
        out.write_text(json.dumps(rows, indent=1) + "\n")
    kept = all(r["final_ms"].get("p95", 0.0) <= BOUND_MS and not r["owed"] for r in rows)
    raise typer.Exit(0 if kept else 1)


if __name__ == "__main__":
    typer.run(main)
