"""A million messages, most of them wrong in some way, against a real server process.

    python -m tests.suites.fuzz --messages 1000000

Every connection sends messages of all families (see fuzz_inputs.py) until it is closed or gives up.
Checked are the names of all closes, the protocol's rules on all that comes back, that the server is
still there and logs no error, and that its resident memory does not rise over the second half: the
95 % interval of the slope must not lie above zero (see slope.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import Counter
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import Annotated, Final

import typer
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake
from websockets.protocol import State

from cnerta.streamer.wire.codec import decode_server

from .fuzz_inputs import FAMILIES
from .protocol_rules import TRANSPORT_CODES, ProtocolRules, RuleBrokenError
from .report import progress, run, table
from .server_process import ServerProcess
from .slope import STRETCHES, Slope, slope_of

__all__ = ["SERVER_OPTIONS", "Fuzzed", "fuzz", "main"]

_MOST_MESSAGES: Final = 80
"""Of one connection."""
_READINGS: Final = 2_000
_ANSWER_S: Final = 20.0
SERVER_OPTIONS: Final = ("--max-final-wait-ms", "0", "--resume-s", "5")
"""Connections come faster here than a server takes new sessions for the sake of those it has: more
than half were refused, and what they sent reached no session. And sessions that were cut off wait:
how many do within a minute depends on how fast the machine is at that moment."""
_START: Final = '{"type":"session.start","audio":{"encoding":"pcm_s16le","sample_rate":16000}}'
_SAFE: Final = {"valid", "binary", "fragmented", "control"}


@dataclass(slots=True)
class Fuzzed:
    """What came of it.

    Attributes:
        sent: Messages by family.
        connections: Opened.
        ends: How connections ended: the name of the error, or the transport's code.
        unnamed: Ends that nothing explained, and rules that were broken: the first of each.
        memory: Messages sent and resident MB then, again and again.
    """

    sent: Counter[str] = field(default_factory=Counter)
    connections: int = 0
    ends: Counter[str] = field(default_factory=Counter)
    unnamed: list[str] = field(default_factory=list)
    memory: list[tuple[int, float]] = field(default_factory=list)

    @property
    def total(self) -> int:
        return self.sent.total()

    @property
    def slope(self) -> Slope:
        """Of resident memory over the second half, MB for 100,000 messages."""
        half = [m for m in self.memory if m[0] >= self.total / 2]
        return slope_of([n / 100_000 for n, _ in half], [mb for _, mb in half])


class _Connection:
    """One connection of the fuzzer."""

    def __init__(self, socket: ClientConnection, draw: random.Random, into: Fuzzed) -> None:
        self._socket = socket
        self._draw = draw
        self._into = into
        self._rules = ProtocolRules()
        self._last_error = ""
        self._gives_up = False

    async def run(self, most: int) -> None:
        """Send messages until something ends it."""
        reading = asyncio.create_task(self._read())
        try:
            if self._draw.random() < 0.95:
                await self._socket.send(_START)
            for _ in range(most):
                if not await self._send_one():
                    break
            if not self._gives_up and self._draw.random() < 0.7:
                await self._socket.send('{"type":"session.finish"}')
                async with asyncio.timeout(_ANSWER_S):
                    await self._socket.wait_closed()
            else:
                self._give_up()
        except ConnectionClosed:
            pass
        except TimeoutError:
            self._give_up()
        await reading
        self._judge()

    async def _send_one(self) -> bool:
        """Send one input; whether to go on."""
        families = list(FAMILIES)
        shares = [share for share, _ in FAMILIES.values()]
        (name,) = self._draw.choices(families, shares)
        item = FAMILIES[name][1](self._draw)
        if self._socket.state is not State.OPEN:
            return False
        self._socket.transport.write(item.wire)
        self._into.sent[name] += 1
        if item.is_last:
            self._give_up()
            return False
        while self._socket.transport.get_write_buffer_size() > 2**16:
            await asyncio.sleep(0.002)
        if name in _SAFE:
            if self._draw.random() < 0.2:
                await asyncio.sleep(0)
            return True
        # What may end the connection is waited for, so that little is sent after the end.
        try:
            async with asyncio.timeout(1):
                await (await self._socket.ping())
        except TimeoutError:  # it waits for the rest of a frame that never comes
            self._give_up()
            return False
        return True

    def _give_up(self) -> None:
        self._gives_up = True
        self._socket.transport.abort()

    async def _read(self) -> None:
        with contextlib.suppress(ConnectionClosed):
            async for frame in self._socket:
                message = decode_server(frame)
                try:
                    self._rules.on_message(message)
                except RuleBrokenError as broken:
                    self._into.unnamed.append(str(broken))
                    return
                self._last_error = getattr(message, "name", "")

    def _judge(self) -> None:
        closed = self._socket.protocol.close_rcvd
        if closed is None:
            if not self._gives_up:
                self._into.unnamed.append("the connection ended without a close")
            self._into.ends["given up by the client"] += 1
            return
        try:
            self._rules.on_close(closed.code)
        except RuleBrokenError as broken:
            if self._was_asked_to_close(closed.code):
                self._into.ends["closed by the client"] += 1
            else:
                self._into.unnamed.append(str(broken))
            return
        name = closed.reason if closed.code not in TRANSPORT_CODES else "by the transport"
        self._into.ends[f"{closed.code} {name}"] += 1

    def _was_asked_to_close(self, code: int) -> bool:
        return code in {1000, 1001, 1005, 1011, 3000, 4999}


async def fuzz(
    server: ServerProcess,
    messages: int,
    *,
    parallel: int = 16,
    seed: int = 0,
    most_s: float = inf,
) -> Fuzzed:
    """Send so many messages, or as many as go in so many seconds."""
    into = Fuzzed()
    every = max(1, messages // _READINGS)
    ends_at = time.monotonic() + most_s

    async def one(number: int) -> None:
        draw = random.Random(f"{seed}-{number}")
        while into.total < messages and time.monotonic() < ends_at:
            most = min(1 + int(draw.expovariate(1 / 30)), _MOST_MESSAGES)
            try:
                socket = await connect(
                    server.url, proxy=None, compression=None, max_size=None, open_timeout=30
                )
            except (OSError, InvalidHandshake, TimeoutError) as error:
                into.unnamed.append(f"no connection: {type(error).__name__}")
                return
            into.connections += 1
            await _Connection(socket, draw, into).run(most)
            socket.transport.abort()

    with progress("fuzz", messages) as move:
        tasks = [asyncio.create_task(one(n)) for n in range(parallel)]
        shown = 0
        while not all(task.done() for task in tasks):
            await asyncio.sleep(0.02)
            if into.total - shown >= every:
                resident = server.usage().resident_mb
                into.memory.append((into.total, resident))
                move(into.total - shown, f"{resident:.0f} MB, {len(into.unnamed)} unnamed")
                shown = into.total
        await asyncio.gather(*tasks)
    return into


def report(found: Fuzzed, seconds: float, log: str) -> str:
    """Two tables: what was sent, and what came of it."""
    sent = table(["family", "messages"], [[n, f"{c:,}"] for n, c in found.sent.most_common()])
    ends = table(["end of the connection", "connections"], found.ends.most_common())
    memory = dict(found.memory)
    marks = [min(memory, key=lambda n: abs(n - found.total * share)) for share in (0, 0.1, 0.5, 1)]
    rows = [
        ["messages", f"{found.total:,}"],
        ["connections", f"{found.connections:,}"],
        ["seconds", f"{seconds:.0f}"],
        ["ends without a name, rules broken", len(found.unnamed)],
        ["errors in the server's log", log.count("ERROR")],
        ["resident MB at the start, a tenth, half, the end",
         ", ".join(f"{memory[n]:.0f}" for n in marks)],
        ["slope over the second half, MB for 100,000 messages", found.slope.shown(1)],
    ]  # fmt: skip
    return "\n\n".join([sent, ends, table(["fuzz", "found"], rows)])


def main(
    messages: Annotated[int, typer.Option(help="How many.")] = 1_000_000,
    most_minutes: Annotated[
        float, typer.Option(help="End after so many minutes, however many were sent.")
    ] = inf,
    parallel: Annotated[int, typer.Option(help="Connections at once.")] = 16,
    seed: Annotated[int, typer.Option(help="Of all that is drawn.")] = 0,
    bundle: Annotated[str, typer.Option(help="Model of the server.")] = "fast",
    plot: Annotated[Path | None, typer.Option(help="Draw memory over messages.")] = None,
) -> None:
    """Fuzz a server."""
    with ServerProcess([*SERVER_OPTIONS, "--bundle", bundle]) as server:
        began = time.monotonic()
        found = asyncio.run(
            fuzz(server, messages, parallel=parallel, seed=seed, most_s=60 * most_minutes)
        )
        seconds = time.monotonic() - began
        is_running, log = server.is_running, server.log()
    if len(found.memory) < 2 * STRETCHES + 1:
        raise typer.BadParameter(f"expected enough --messages for {2 * STRETCHES + 1} readings")
    print(report(found, seconds, log))
    for text, count in Counter(found.unnamed).most_common(20):
        print(f"unnamed, {count} times: {text}")
    if plot is not None:
        draw_memory(found.memory, plot)
    if found.unnamed or not is_running or "ERROR" in log or found.slope.low > 0:
        print(log[-4_000:])
        raise typer.Exit(1)


def draw_memory(memory: list[tuple[int, float]], path: Path) -> None:
    """Resident memory over messages."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 3.5))
    axes.plot([n / 1_000 for n, _ in memory], [mb for _, mb in memory])
    axes.set(xlabel="thousand messages", ylabel="resident MB", ylim=(0, None))
    figure.tight_layout()
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    run(main)
