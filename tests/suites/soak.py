"""A day of audio through one server process, in sessions that come and go, as fast as it takes it.

    python -m tests.suites.soak --hours 24

Sessions of one to nine utterances follow one another, eight at a time; one in ten hangs up in the
middle. Each sends an utterance's audio with two interim revisions and its final transcript, and
goes on when that is answered. Again and again the server's resident memory, descriptors and threads
are read. After the first tenth they must not rise, nor must the 95th percentile of the time to a
final answer: the 95 % interval of each slope must not lie above zero (see slope.py).
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from math import inf
from pathlib import Path
from typing import Annotated, Final

import numpy as np
import soundfile
import typer
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, WebSocketException

from cnerta.models.runtime.geometry import SAMPLE_RATE
from cnerta.streamer.wire.codec import decode_server, encode
from cnerta.streamer.wire.messages import (
    SessionFinish,
    SessionStart,
    Transcript,
    UtteranceFinal,
)
from cnerta.streamer.wire.parts import AudioFormat, GlossaryEntry

from .protocol_rules import ProtocolRules, RuleBrokenError
from .report import progress, run, table
from .server_process import ServerProcess, Usage
from .slope import STRETCHES, Slope, slope_of

__all__ = ["SERVER_OPTIONS", "Clip", "Soaked", "demo_clips", "main", "soak"]

_DEMO: Final = Path(__file__).parents[2] / "streamer" / "demo" / "demo.json"
_PAUSE_MS: Final = 1_000
_MOST_UTTERANCES: Final = 9
"""Of one session: under a minute of audio, which may run ahead of real time."""
_BLOCK_BYTES: Final = 2 * SAMPLE_RATE // 10
_HANG_UPS: Final = 0.1
_ANSWER_S: Final = 60.0
SERVER_OPTIONS: Final = ("--resume-s", "5")
"""A session that was cut off waits for a minute of the clock, which here is hours of audio: those
that wait would become more all through the first tenth and beyond."""


@dataclass(frozen=True, slots=True)
class Clip:
    """A recording with a pause after it.

    Attributes:
        pcm: pcm_s16le at 16 kHz.
        text: What is said.
    """

    pcm: bytes
    text: str

    @property
    def hours(self) -> float:
        return len(self.pcm) / 2 / SAMPLE_RATE / 3600


def demo_clips() -> list[Clip]:
    """The recordings that come along."""
    clips = []
    for row in json.loads(_DEMO.read_text(encoding="utf-8"))["recordings"]:
        samples, _ = soundfile.read(_DEMO.parent / row["audio"], dtype="int16")
        pause = bytes(2 * SAMPLE_RATE * _PAUSE_MS // 1000)
        clips.append(Clip(samples.astype("<i2").tobytes() + pause, row["text"]))
    return clips


@dataclass(frozen=True, slots=True)
class Reading:
    """What the server held when so much audio had gone through it."""

    hours: float
    usage: Usage


@dataclass(slots=True)
class Soaked:
    """What came of it.

    Attributes:
        hours: Audio sent.
        sessions: Begun.
        sent: Final transcripts that were to be answered.
        answered: Those that were.
        wrong: Rules that were broken, and ends that nothing explained.
        readings: Of the server, in order.
        delays: For each answered final, hours of audio by then and ms from transcript to answer.
    """

    hours: float = 0.0
    sessions: int = 0
    sent: int = 0
    answered: int = 0
    wrong: list[str] = field(default_factory=list)
    readings: list[Reading] = field(default_factory=list)
    delays: list[tuple[float, float]] = field(default_factory=list)

    def slope(self, what: str) -> Slope:
        """Of one attribute of the usage after the first tenth, for an hour of audio."""
        after = [r for r in self.readings if r.hours >= self.hours / 10]
        return slope_of([r.hours for r in after], [getattr(r.usage, what) for r in after])

    @property
    def delay_slope(self) -> Slope:
        """Of the 95th percentile of the time to a final answer, ms for an hour of audio."""
        after = [delay for delay in self.delays if delay[0] >= self.hours / 10]
        hours, ms = zip(*after, strict=True)
        return slope_of(hours, ms, partial(np.percentile, q=95))

    def p95(self, first: float, last: float) -> float:
        """Of the finals between two shares of the run, in ms."""
        chosen = [ms for at, ms in self.delays if first <= at / self.hours <= last]
        return float(np.percentile(chosen, 95)) if chosen else float("nan")


class _Session:
    """One session of the soak."""

    def __init__(self, socket: ClientConnection, draw: random.Random, into: Soaked) -> None:
        self._socket = socket
        self._draw = draw
        self._into = into
        self._rules = ProtocolRules()
        self._answers: dict[str, asyncio.Future[None]] = {}

    async def run(self, clips: Sequence[Clip]) -> None:
        """From the start to the summary, or until it hangs up.

        Raises:
            RuleBrokenError: The server breaks a rule.
            TimeoutError: An answer does not come.
        """
        count = self._draw.randrange(1, _MOST_UTTERANCES + 1)
        last = self._draw.randrange(count) if self._draw.random() < _HANG_UPS else None
        glossary = [GlossaryEntry(text="江大桥", label="PER")] * (self._draw.random() < 0.2)
        start = SessionStart(audio=AudioFormat(sample_rate=SAMPLE_RATE), glossary=glossary)
        await self._socket.send(encode(start), text=True)
        reading = asyncio.create_task(self._read())
        try:
            for number in range(count):
                async with asyncio.timeout(_ANSWER_S):
                    await self._speak(self._draw.choice(clips), f"u{number}", number == last)
                if number == last:
                    return
            await self._socket.send(encode(SessionFinish()), text=True)
            async with asyncio.timeout(_ANSWER_S):
                await reading
            self._rules.on_close(self._socket.close_code or 1006)
        finally:
            self._socket.transport.abort()
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)

    async def _speak(self, clip: Clip, name: str, hangs_up: bool) -> None:
        """Send one utterance and wait for its answer, or hang up in the middle of it."""
        size = len(clip.pcm)
        middle = _BLOCK_BYTES * (size // _BLOCK_BYTES // 2)
        for at in range(0, size, _BLOCK_BYTES):
            await self._socket.send(clip.pcm[at : at + _BLOCK_BYTES])
            if at == middle:
                await self._revise(name, 1, clip.text[: len(clip.text) // 2])
                if hangs_up:
                    return
        self._into.hours += clip.hours
        await self._revise(name, 2, clip.text)
        answer = self._answers[name] = asyncio.get_running_loop().create_future()
        began = time.monotonic()
        self._into.sent += 1
        await self._revise(name, 3, clip.text, final=True)
        await answer
        self._into.answered += 1
        self._into.delays.append((self._into.hours, 1000 * (time.monotonic() - began)))

    async def _revise(self, name: str, number: int, text: str, *, final: bool = False) -> None:
        transcript = Transcript(utterance=name, revision=number, text=text, final=final)
        self._rules.on_sent(transcript)
        await self._socket.send(encode(transcript), text=True)

    async def _read(self) -> None:
        try:
            async for frame in self._socket:
                message = decode_server(frame)
                self._rules.on_message(message)
                if isinstance(message, UtteranceFinal):
                    self._answers[message.utterance].set_result(None)
            failure: Exception = ConnectionError("expected an answer, got a close")
        except (ConnectionClosed, RuleBrokenError) as error:
            failure = error
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(failure)
        if isinstance(failure, RuleBrokenError):
            raise failure


async def soak(
    server: ServerProcess,
    clips: Sequence[Clip],
    hours: float,
    *,
    parallel: int = 8,
    reading_s: float = 0.2,
    most_s: float = inf,
    seed: int = 0,
) -> Soaked:
    """Send so much audio, or as much as goes in so many seconds."""
    into = Soaked()
    ends_at = time.monotonic() + most_s

    async def churn(number: int) -> None:
        draw = random.Random(f"{seed}-{number}")
        while into.hours < hours and time.monotonic() < ends_at:
            into.sessions += 1
            try:
                socket = await connect(
                    server.url, proxy=None, compression=None, max_size=None, open_timeout=60
                )
                await _Session(socket, draw, into).run(clips)
            except (RuleBrokenError, OSError, TimeoutError, WebSocketException) as error:
                into.wrong.append(f"{type(error).__name__}: {error}")
                await asyncio.sleep(0.1)

    with progress("soak, minutes of audio", 60 * hours) as move:
        tasks = [asyncio.create_task(churn(n)) for n in range(parallel)]
        shown = 0.0
        while not all(task.done() for task in tasks):
            await asyncio.sleep(reading_s)
            usage = server.usage()
            into.readings.append(Reading(into.hours, usage))
            move(60 * (into.hours - shown), f"{usage.resident_mb:.0f} MB, {len(into.wrong)} wrong")
            shown = into.hours
        await asyncio.gather(*tasks)
    return into


def report(found: Soaked, seconds: float) -> str:
    """What came of it."""
    early, late = found.p95(0.1, 0.2), found.p95(0.9, 1.0)
    last = found.readings[-1].usage
    rows = [
        ["hours of audio", f"{found.hours:.2f}"],
        ["times real time", f"{3600 * found.hours / seconds:.0f}"],
        ["sessions", f"{found.sessions:,}"],
        ["finals sent, answered", f"{found.sent:,}, {found.answered:,}"],
        ["broken rules, unexplained ends", len(found.wrong)],
        ["resident MB at the end", f"{last.resident_mb:.0f}"],
        ["slope of resident memory, MB an hour of audio", found.slope("resident_mb").shown()],
        ["slope of descriptors, an hour of audio", found.slope("descriptors").shown()],
        ["slope of threads, an hour of audio", found.slope("threads").shown()],
        ["p95 of finals in the second tenth, the last, ms", f"{early:.0f}, {late:.0f}"],
        ["slope of the p95 of finals, ms an hour of audio", found.delay_slope.shown()],
    ]
    return table(["soak", "found"], rows)


def main(
    hours: Annotated[float, typer.Option(help="Of audio.")] = 24.0,
    most_minutes: Annotated[
        float, typer.Option(help="End after so many minutes, however much has been sent.")
    ] = inf,
    parallel: Annotated[int, typer.Option(help="Sessions at once.")] = 8,
    seed: Annotated[int, typer.Option(help="Of all that is drawn.")] = 0,
    bundle: Annotated[str, typer.Option(help="Model of the server.")] = "fast",
    plot: Annotated[Path | None, typer.Option(help="Draw memory over hours.")] = None,
) -> None:
    """Soak a server."""
    with ServerProcess([*SERVER_OPTIONS, "--bundle", bundle]) as server:
        began = time.monotonic()
        found = asyncio.run(
            soak(
                server,
                demo_clips(),
                hours,
                parallel=parallel,
                most_s=60 * most_minutes,
                seed=seed,
            )
        )
        seconds = time.monotonic() - began
        log = server.log()
    if len(found.readings) < 2 * STRETCHES:
        raise typer.BadParameter(f"expected enough --hours for {2 * STRETCHES} readings")
    print(report(found, seconds))
    for text in found.wrong[:20]:
        print(f"wrong: {text}")
    if plot is not None:
        draw_memory(found.readings, plot)
    slopes = [found.slope(what) for what in ("resident_mb", "descriptors", "threads")]
    slopes.append(found.delay_slope)
    if found.wrong or found.sent != found.answered or any(s.low > 0 for s in slopes):
        print(log[-4_000:])
        raise typer.Exit(1)


def draw_memory(readings: Sequence[Reading], path: Path) -> None:
    """Resident memory over hours of audio."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 3.5))
    axes.plot([r.hours for r in readings], [r.usage.resident_mb for r in readings])
    axes.set(xlabel="hours of audio", ylabel="resident MB", ylim=(0, None))
    figure.tight_layout()
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    run(main)
