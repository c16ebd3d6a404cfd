"""Live latency at a number of concurrent streams, paced in real time, against a server process.

    python tests/benchmarks/live.py --sessions 1,10,25 --seconds 30 \
        --manifest recordings/manifest.jsonl --json live.json --plot live.png

Every session loops the clips of a manifest with a second of silence between them: audio in 40 ms
frames, the transcript growing as it is spoken, three revisions a second, the final one 200 ms after
the clip's last character. Times are taken in this process, the client's; the server is another.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Protocol

import msgspec
import numpy as np
import numpy.typing as npt
import soundfile
import soxr
import typer
from websockets.asyncio.client import ClientConnection, connect

RATE = 16_000
FRAME_MS = 40
REVISION_MS = 333
ASR_DELAY_MS = 200
SILENCE_MS = 1_000
DEMO = Path(__file__).parents[2] / "streamer" / "demo" / "demo.json"


@dataclass(frozen=True, slots=True)
class Clip:
    """A recording: PCM, its text, and when each character has been spoken (ms)."""

    pcm: bytes
    text: str
    spoken_ms: tuple[float, ...]

    @property
    def milliseconds(self) -> float:
        return 1000 * len(self.pcm) / 2 / RATE


@dataclass(slots=True)
class Session:
    """What one client remembers of what it sent.

    Attributes:
        sent: When each revision was sent, in seconds, by utterance and number.
        clips: Where each utterance's clip lies on the stream's clock, in ms.
        labels: Last label of each entity.
        position_ms: Audio sent so far.
    """

    sent: dict[tuple[str, int], float] = field(default_factory=dict)
    clips: dict[str, tuple[float, float]] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    position_ms: float = 0.0


@dataclass(slots=True)
class Measured:
    """What the sessions of one run saw. Times in ms.

    ``outside_clip`` has, for each utterance with times beyond its clip, how far the first character
    lies after the clip's start and the last before its end.
    """

    first_tentative: list[float] = field(default_factory=list)
    final: list[float] = field(default_factory=list)
    behind_live: list[float] = field(default_factory=list)
    upserts: int = 0
    retractions: int = 0
    relabels: int = 0
    final_entities: int = 0
    finals_sent: int = 0
    finals_received: int = 0
    late_frames: int = 0
    streamed_seconds: float = 0.0
    with_audio: int = 0
    falling_times: int = 0
    outside_clip: list[tuple[int, int]] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


class Dialect(Protocol):
    """How to talk to a server. Write another to measure another server."""

    path: str

    def start(self) -> str: ...
    def transcript(self, utterance: str, revision: int, text: str, final: bool) -> str: ...
    def finish(self) -> str: ...
    def events(self, message: str | bytes) -> list[dict[str, Any]]: ...


class Cnerta:
    """This project's protocol, version 1."""

    path = "/v1/stream"

    def start(self) -> str:
        audio = {"encoding": "pcm_s16le", "sample_rate": RATE, "channels": 1}
        return json.dumps({"type": "session.start", "version": 1, "audio": audio})

    def transcript(self, utterance: str, revision: int, text: str, final: bool) -> str:
        return json.dumps(
            {
                "type": "transcript",
                "utterance": utterance,
                "revision": revision,
                "final": final,
                "text": text,
            }
        )

    def finish(self) -> str:
        return json.dumps({"type": "session.finish"})

    def events(self, message: str | bytes) -> list[dict[str, Any]]:
        return [msgspec.json.decode(message)]


def read_clips(manifest: Path, limit: int) -> list[Clip]:
    """Clips of a manifest (JSON lines) or of the demo (``demo.json``)."""
    content = manifest.read_text(encoding="utf-8")
    if manifest.suffix == ".json":
        rows = json.loads(content)["recordings"]
    else:
        rows = [json.loads(line) for line in content.splitlines()]
    clips = []
    for row in rows[:limit]:
        samples, rate = soundfile.read(manifest.parent / row["audio"], dtype="float32")
        if rate != RATE:
            samples = soxr.resample(samples, rate, RATE)
        pcm: npt.NDArray[np.int16] = (samples * 32767).astype(np.int16)
        milliseconds = 1000 * len(pcm) / RATE
        count = len(row["text"])
        # Without character times the text is taken to be spoken evenly.
        times = row.get("characters") or [
            (0, 150 + (milliseconds - 300) * (i + 1) / count) for i in range(count)
        ]
        clips.append(Clip(pcm.tobytes(), row["text"], tuple(float(end) for _, end in times)))
    return clips


def endless(clips: Sequence[Clip], seed: int) -> Iterator[Clip]:
    """Clips in random order, again and again."""
    order = random.Random(seed)
    while True:
        yield order.choice(clips)


async def run_session(
    url: str, dialect: Dialect, clips: Iterator[Clip], seconds: float, seed: int, into: Measured
) -> None:
    """One client: streams for ``seconds`` or to the last clip, then waits for what is owed."""
    session = Session()
    try:
        async with connect(url, max_size=None, open_timeout=30) as connection:
            await connection.send(dialect.start())
            reader = asyncio.create_task(_read(connection, dialect, session, into))
            # Not all sessions on the same beat.
            await asyncio.sleep(random.Random(seed).uniform(0, 1.0))
            clock = began = time.monotonic()
            for number, clip in enumerate(clips):
                clock = await _stream_clip(
                    connection, dialect, clip, f"u{seed}-{number}", clock, session, into
                )
                if clock - began >= seconds:
                    break
            await connection.send(dialect.finish())
            await asyncio.wait_for(reader, 30)
    except Exception as error:
        into.errors.append(f"{type(error).__name__}: {error}")


async def _stream_clip(
    connection: ClientConnection,
    dialect: Dialect,
    clip: Clip,
    utterance: str,
    clock: float,
    session: Session,
    into: Measured,
) -> float:
    """Stream a clip and the silence after it. Returns the clock at its end."""
    pcm = clip.pcm + bytes(2 * RATE * SILENCE_MS // 1000)
    step = 2 * RATE * FRAME_MS // 1000
    final_ms = clip.spoken_ms[-1] + ASR_DELAY_MS
    next_ms, revision, last, done = float(REVISION_MS), 0, "", False
    session.clips[utterance] = (session.position_ms, session.position_ms + clip.milliseconds)
    session.position_ms += 1000 * len(pcm) / 2 / RATE
    into.streamed_seconds += len(pcm) / 2 / RATE
    for position in range(0, len(pcm), step):
        now_ms = 1000 * (position + step) / 2 / RATE
        target = clock + now_ms / 1000
        wait = target - time.monotonic()
        if wait > 0:
            await asyncio.sleep(wait)
        elif wait < -0.1:
            into.late_frames += 1
        await connection.send(pcm[position : position + step])
        text = clip.text[: sum(t + ASR_DELAY_MS <= now_ms for t in clip.spoken_ms)]
        finish = not done and now_ms >= final_ms
        if finish or (now_ms >= next_ms and text != last and not done):
            revision += 1
            # The clock starts before sending: a server that does not read delays its answer.
            session.sent[utterance, revision] = time.monotonic()
            await connection.send(dialect.transcript(utterance, revision, text, finish))
            into.finals_sent += finish
            last, done = text, finish
        if now_ms >= next_ms:
            next_ms += REVISION_MS
    return clock + len(pcm) / 2 / RATE


async def _read(
    connection: ClientConnection,
    dialect: Dialect,
    session: Session,
    into: Measured,
) -> None:
    async for message in connection:
        now = time.monotonic()
        for event in dialect.events(message):
            kind = event["type"]
            if kind == "entity.upsert":
                entity = event["entity"]
                into.upserts += 1
                into.behind_live.append(event["behind_live_ms"])
                known = session.labels.get(entity["id"])
                if known is None:
                    since = session.sent[event["utterance"], event["revision"]]
                    into.first_tentative.append(1000 * (now - since))
                elif known != entity["label"]:
                    into.relabels += 1
                session.labels[entity["id"]] = entity["label"]
            elif kind == "entity.retract":
                into.retractions += 1
            elif kind == "utterance.final":
                into.finals_received += 1
                into.final_entities += len(event["entities"])
                since = session.sent[event["utterance"], event["revision"]]
                into.final.append(1000 * (now - since))
                _check_times(event, session, into)
            elif kind == "error":
                into.errors.append(f"{event['name']}: {event['detail']}")


def _check_times(event: dict[str, Any], session: Session, into: Measured) -> None:
    """Do the character times rise, and lie inside the clip that was streamed?"""
    if not event["audio_used"]:
        return
    into.with_audio += 1
    times = event["characters"]
    edges = [edge for pair in times for edge in pair]
    into.falling_times += edges != sorted(edges)
    start, end = session.clips[event["utterance"]]
    if not (start <= edges[0] and edges[-1] <= end + FRAME_MS):
        into.outside_clip.append((round(edges[0] - start), round(end - edges[-1])))


@dataclass(frozen=True, slots=True)
class Usage:
    """CPU seconds and resident memory of a process."""

    cpu_seconds: float
    resident_mb: float

    @classmethod
    def of(cls, pid: int) -> Usage:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks = int(fields[11]) + int(fields[12])
        status = Path(f"/proc/{pid}/status").read_text()
        resident = next(line for line in status.splitlines() if line.startswith("VmRSS"))
        return cls(ticks / os.sysconf("SC_CLK_TCK"), int(resident.split()[1]) / 1024)


def start_server(arguments: Sequence[str]) -> tuple[subprocess.Popen[bytes], int, float]:
    """Start ``cnerta-serve`` on a free port. Returns it, the port and the seconds it took."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "cnerta.streamer.serve", "--port", str(port)]
    began = time.monotonic()
    process = subprocess.Popen([*command, "--log-level", "warning", *arguments])
    while time.monotonic() - began < 30:
        with socket.socket() as probe:
            probe.settimeout(1)
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return process, port, time.monotonic() - began
        if process.poll() is not None:
            break
        time.sleep(0.01)
    raise RuntimeError("the server did not start")


def percentiles(values: Sequence[float]) -> dict[str, float]:
    """p50, p95 and p99; empty without values."""
    if not values:
        return {}
    return {f"p{p}": round(float(np.percentile(values, p)), 1) for p in (50, 95, 99)}


async def measure(
    url: str, dialect: Dialect, clips: Sequence[Clip], sessions: int, seconds: float
) -> Measured:
    """Run so many sessions at once: for ``seconds`` each, or 0: every clip once in all."""
    into = Measured()
    shared = iter(clips)
    tasks = [
        run_session(
            url, dialect, endless(clips, i) if seconds else shared, seconds or np.inf, i, into
        )
        for i in range(sessions)
    ]
    await asyncio.gather(*tasks)
    return into


def report(sessions: int, m: Measured, before: Usage | None, after: Usage | None) -> dict[str, Any]:
    """One row of the result."""
    row: dict[str, Any] = {
        "sessions": sessions,
        "final_ms": percentiles(m.final),
        "first_tentative_ms": percentiles(m.first_tentative),
        "behind_live_ms": percentiles(m.behind_live),
        "finals": [m.finals_received, m.finals_sent],
        "flicker": round((m.retractions + m.relabels) / max(m.final_entities, 1), 3),
        "upserts": m.upserts,
        "with_audio": m.with_audio,
        "falling_times": m.falling_times,
        "outside_clip": m.outside_clip[:5],
        "late_frames": m.late_frames,
        "errors": m.errors[:3],
    }
    if before and after:
        used = after.cpu_seconds - before.cpu_seconds
        row["cpu_seconds_per_stream_second"] = round(used / m.streamed_seconds, 5)
        row["resident_mb"] = round(after.resident_mb, 1)
    return row


def plot(rows: Sequence[dict[str, Any]], bound_ms: float, path: Path) -> None:
    """Latency against sessions."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4))
    counts = [r["sessions"] for r in rows]
    for name, label in (("final_ms", "final"), ("first_tentative_ms", "first tentative")):
        for key, style in (("p50", ":"), ("p95", "-"), ("p99", "--")):
            axes.plot(counts, [r[name].get(key) for r in rows], style, label=f"{label} {key}")
    axes.axhline(bound_ms, color="grey", linewidth=0.8)
    axes.set(xlabel="concurrent sessions", ylabel="ms", yscale="log")
    axes.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def main(
    sessions: Annotated[str, typer.Option(help="Session counts, in order.")] = "1,10,25",
    seconds: Annotated[
        float, typer.Option(help="Length of each run; 0: every clip once, shared out.")
    ] = 20.0,
    manifest: Annotated[Path, typer.Option(help="Clips: JSON lines, or the demo's.")] = DEMO,
    limit: Annotated[int, typer.Option(help="Use the first so many clips.")] = 40,
    url: Annotated[str, typer.Option(help="A running server. [default: start one]")] = "",
    server: Annotated[str, typer.Option(help="Arguments for cnerta-serve.")] = "",
    bound_ms: Annotated[float, typer.Option(help="Stop when the final p95 is above.")] = 150.0,
    out: Annotated[Path | None, typer.Option("--json", help="Write the rows.")] = None,
    picture: Annotated[Path | None, typer.Option("--plot", help="Draw them.")] = None,
) -> None:
    """Measure live latency."""
    clips = read_clips(manifest, limit)
    process, pid = None, None
    if not url:
        process, port, started = start_server(server.split())
        url, pid = f"ws://127.0.0.1:{port}", process.pid
        typer.echo(f"server started in {started:.2f} s, {Usage.of(pid).resident_mb:.0f} MB")
    rows = []
    try:
        for count in map(int, sessions.split(",")):
            before = Usage.of(pid) if pid else None
            dialect = Cnerta()
            measured = asyncio.run(measure(url + dialect.path, dialect, clips, count, seconds))
            rows.append(report(count, measured, before, Usage.of(pid) if pid else None))
            typer.echo(json.dumps(rows[-1]))
            if rows[-1]["final_ms"].get("p95", np.inf) > bound_ms:
                break
    finally:
        if process:
            process.send_signal(signal.SIGTERM)
            process.wait(30)
    if out:
        out.write_text(json.dumps(rows, indent=1) + "\n")
    if picture:
        plot(rows, bound_ms, picture)


if __name__ == "__main__":
    typer.run(main)
