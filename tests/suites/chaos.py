"""Streams over a network that fails, with a server that is restarted, as an application sees them.

    python -m tests.suites.chaos --streams 500

Every stream goes through the client library and a proxy that refuses, delays, cuts in the middle of
a frame or stalls one direction, drawn anew for each connection, reconnections too. In the
middle the server is once killed and once stopped in order, and started again each time. What counts
is what the application got of the client: every final transcript answered exactly once.

That has to hold whatever else the machine does. So clients look for a way back for minutes, and
streams may be slower (``--speed``).
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Final, get_args
from weakref import WeakSet

import typer

from cnerta.models.runtime.geometry import SAMPLE_RATE
from cnerta.streamer.client.connection_change import ConnectionChange
from cnerta.streamer.client.reconnecting import ReconnectingConnection, ReconnectOptions
from cnerta.streamer.client.stream import stream
from cnerta.streamer.errors import ClientError, ServerUnreachableError
from cnerta.streamer.sources import TimedTranscript
from cnerta.streamer.sources.timed import TimedLine
from cnerta.streamer.wire.messages import UtteranceFinal
from cnerta.streamer.wire.parts import AudioFormat

from ..streamer.fault_proxy import Direction, FaultProxy, Link
from .report import progress, run, table
from .server_process import ServerProcess
from .soak import Clip, demo_clips

__all__ = ["SERVER_OPTIONS", "Chaos", "Gremlin", "main", "run_streams"]

DIRECTIONS: Final[tuple[Direction, ...]] = get_args(Direction)
_BLOCK_MS: Final = 40
_LONGEST_S: Final = 36.0
"""Six utterances, as they are spoken."""
_GIVE_UP_S: Final = 300.0
"""For so long a client looks for a server that takes it."""
_PATIENCE_S: Final = 2 * _GIVE_UP_S
"""A stream that takes so much longer than it is spoken is lost."""
SERVER_OPTIONS: Final = ("--max-ahead-s", "300")


class Gremlin:
    """Gives each connection of a proxy its fault as soon as it is there; half are left alone.

    Attributes:
        happened: How often each kind came about.
    """

    def __init__(self, proxy: FaultProxy, draw: random.Random) -> None:
        self.happened: Counter[str] = Counter()
        self._proxy = proxy
        self._draw = draw
        self._seen: WeakSet[Link] = WeakSet()
        self._meddling: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Meddle until cancelled."""
        try:
            while True:
                for link in list(self._proxy.links):
                    if link not in self._seen:
                        self._seen.add(link)
                        self._meddle(link)
                # Now and then nobody gets through for a moment.
                if self._draw.random() < 0.001:
                    self.happened["refused"] += 1
                    self._proxy.refuses = True
                    await asyncio.sleep(self._draw.uniform(0, 0.3))
                    self._proxy.refuses = False
                await asyncio.sleep(0.005)
        finally:
            for task in self._meddling:
                task.cancel()

    def _meddle(self, link: Link) -> None:
        direction = self._draw.choice(DIRECTIONS)
        way = link.ways[direction]
        match self._draw.randrange(10):
            case 0:
                self.happened["delayed"] += 1
                way.delay_s = self._draw.uniform(0, 0.05)
            case 1 | 2 | 3:
                # In the middle of a frame as a rule, since only bytes are counted.
                most = 400_000 if direction == "up" else 10_000
                way.left = 1 + int(self._draw.expovariate(3 / most))
                self.happened["cut"] += 1
            case 4:
                task = asyncio.create_task(self._stall(link, direction))
                self._meddling.add(task)
                task.add_done_callback(self._meddling.discard)
            case _:
                pass

    async def _stall(self, link: Link, direction: Direction) -> None:
        """One direction is silent for a while, or for good; nobody is told."""
        await asyncio.sleep(self._draw.uniform(0, 2))
        if link.is_cut:
            return
        self.happened["stalled"] += 1
        link.ways[direction].goes.clear()
        await asyncio.sleep(self._draw.choice([0.5, 3.0, 600.0]))
        link.ways[direction].goes.set()


class _Speech:
    """Clips one after the other, several times faster than they are spoken."""

    format = AudioFormat(sample_rate=SAMPLE_RATE)
    paced = True
    endless = False

    def __init__(self, clips: Sequence[Clip], speed: float) -> None:
        self._pcm = b"".join(clip.pcm for clip in clips)
        self._speed = speed

    async def blocks(self) -> AsyncIterator[bytes]:
        size = 2 * SAMPLE_RATE * _BLOCK_MS // 1000
        began = time.monotonic()
        for at in range(0, len(self._pcm), size):
            due = began + at / 2 / SAMPLE_RATE / self._speed
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            yield self._pcm[at : at + size]


def _lines(clips: Sequence[Clip]) -> list[TimedLine]:
    """The transcript of clips that are spoken one after the other."""
    lines, at = [], 0.0
    for clip in clips:
        length = 1000 * len(clip.pcm) / 2 / SAMPLE_RATE
        lines.append(TimedLine(text=clip.text, start_ms=at, end_ms=at + length - 1_000))
        at += length
    return lines


@dataclass(slots=True)
class Chaos:
    """What the applications saw.

    Attributes:
        streams: Begun.
        sent: Final transcripts of all streams.
        answered: Those that were answered once or more.
        named: Those without an answer in streams that ended with an error that says so.
        doubled: Answers beyond the first.
        foreign: Answers with another text than was said.
        failures: What streams ended with that did not end in order.
        faults: How often each kind came about.
        changes: What the clients said of their connections.
        seconds: It took.
    """

    streams: int = 0
    sent: int = 0
    answered: int = 0
    named: int = 0
    doubled: int = 0
    foreign: int = 0
    failures: list[str] = field(default_factory=list)
    faults: Counter[str] = field(default_factory=Counter)
    changes: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0

    @property
    def lost(self) -> int:
        """Without an answer, and without a word."""
        return self.sent - self.answered - self.named


class _Counts:
    """Counts what the client says of its connection."""

    def __init__(self, changes: Counter[str]) -> None:
        self._changes = changes

    def on_connection(self, change: ConnectionChange) -> None:
        self._changes[change.state] += 1


async def _open(url: str, into: Chaos) -> ReconnectingConnection:
    """A connection, as soon as there is a server: before there is one, nothing is to be lost."""
    while True:
        try:
            return await ReconnectingConnection.open(
                [url],
                options=ReconnectOptions(give_up_s=_GIVE_UP_S),
                watcher=_Counts(into.changes),
            )
        except ServerUnreachableError:
            await asyncio.sleep(0.2)


async def _stream_once(url: str, clips: Sequence[Clip], into: Chaos, speed: float) -> None:
    """One stream, as an application would run it."""
    lines = _lines(clips)
    into.streams += 1
    into.sent += len(lines)
    seen: Counter[str] = Counter()
    texts = {f"u{number}": line.text for number, line in enumerate(lines, 1)}
    try:
        async with asyncio.timeout(_PATIENCE_S + _LONGEST_S / speed):
            async with await _open(url, into) as connection:
                transcript = TimedTranscript(lines, send_times=False)
                async for message in stream(connection, _Speech(clips, speed), transcript):
                    if isinstance(message, UtteranceFinal):
                        seen[message.utterance] += 1
                        into.foreign += message.text != texts[message.utterance]
    except TimeoutError:
        into.failures.append("TimeoutError: no end")
    except ClientError as error:
        into.failures.append(f"{type(error).__name__}: {error}")
        into.named += len(lines) - len(seen)
    into.answered += len(seen)
    into.doubled += seen.total() - len(seen)


async def run_streams(
    server: ServerProcess,
    streams: int,
    *,
    parallel: int = 16,
    restarts: int = 2,
    speed: float = 8.0,
    seed: int = 0,
) -> Chaos:
    """Run so many streams, and restart the server meanwhile, killed and stopped in turn.

    Args:
        server: Runs.
        streams: How many.
        parallel: At once.
        restarts: Of the server.
        speed: How much faster than speech they are.
        seed: Of all that is drawn.
    """
    into = Chaos()
    clips = demo_clips()
    began = time.monotonic()
    async with FaultProxy("127.0.0.1", server.port) as proxy:
        gremlin = Gremlin(proxy, random.Random(f"{seed}-faults"))
        meddling = asyncio.create_task(gremlin.run())
        url = f"ws://127.0.0.1:{proxy.port}"

        async def churn(number: int) -> None:
            draw = random.Random(f"{seed}-{number}")
            while into.streams < streams:
                await _stream_once(url, draw.choices(clips, k=draw.randrange(1, 7)), into, speed)
                move(1, f"{into.lost} not answered, {into.doubled} doubled")

        with progress("chaos", streams) as move:
            tasks = [asyncio.create_task(churn(n)) for n in range(parallel)]
            for number in range(restarts):
                while into.streams < streams * (number + 1) // (restarts + 1):
                    await asyncio.sleep(0.05)
                await asyncio.to_thread(server.stop if number % 2 else server.kill)
                await asyncio.to_thread(server.start)
            await asyncio.gather(*tasks)
        meddling.cancel()
        await asyncio.gather(meddling, return_exceptions=True)
        into.faults.update(gremlin.happened)
    into.seconds = time.monotonic() - began
    return into


def report(found: Chaos, restarts: int) -> str:
    """What came of it."""
    rows = [
        ["streams", f"{found.streams:,}"],
        ["connections delayed, cut, stalled; times that none got through",
         ", ".join(str(found.faults[kind]) for kind in ("delayed", "cut", "stalled", "refused"))],
        ["restarts of the server, killed and stopped in turn", restarts],
        ["sessions resumed; begun anew, with what was not answered",
         f"{found.changes['resumed']}; {found.changes['restarted']}"],
        ["final transcripts", f"{found.sent:,}"],
        ["lost finals", found.lost],
        ["finals without an answer of streams that failed with an error", found.named],
        ["doubled finals", found.doubled],
        ["answers to another text", found.foreign],
        ["streams that failed", len(found.failures)],
        ["seconds", f"{found.seconds:.0f}"],
    ]  # fmt: skip
    return table(["chaos", "found"], rows)


def main(
    streams: Annotated[int, typer.Option(help="How many.")] = 500,
    parallel: Annotated[int, typer.Option(help="At once.")] = 16,
    restarts: Annotated[int, typer.Option(help="Of the server.")] = 2,
    speed: Annotated[float, typer.Option(help="How much faster than speech streams are.")] = 8.0,
    seed: Annotated[int, typer.Option(help="Of all that is drawn.")] = 0,
) -> None:
    """Stream through chaos."""
    with ServerProcess(SERVER_OPTIONS) as server:
        found = asyncio.run(
            run_streams(
                server, streams, parallel=parallel, restarts=restarts, speed=speed, seed=seed
            )
        )
        log = server.log()
    print(report(found, restarts))
    for text, count in Counter(found.failures).most_common(20):
        print(f"failed, {count} times: {text}")
    if found.lost or found.doubled or found.foreign or found.failures:
        print(log[-4_000:])
        raise typer.Exit(1)


if __name__ == "__main__":
    run(main)
