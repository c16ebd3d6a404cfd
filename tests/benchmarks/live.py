"""Live latency at a number of concurrent streams, paced in real time, against a server process.

    python tests/benchmarks/live.py --sessions 1,10,25 --seconds 30 \
        --manifest recordings/manifest.jsonl --json live.json --plot live.png

Every session loops the clips of a manifest with a second of silence between them: audio in 40 ms
frames, the transcript growing as it is spoken, three revisions a second, the final one 200 ms after
the clip's last character. Times are taken in this process, the client's; the server is another.
What is sent is put together beforehand, so that little but the sending itself takes time here; the
result has the client's share of a core beside the server's.

Another server is measured by a small file that speaks its protocol (see :class:`Dialect`)::

    python tests/benchmarks/live.py --url ws://127.0.0.1:9000 --dialect other.py:Other
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Protocol, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt
import soundfile
import soxr
import typer
from websockets.asyncio.client import ClientConnection, connect
from websockets.frames import Frame, Opcode

RATE = 16_000
FRAME_MS = 40
REVISION_MS = 333
ASR_DELAY_MS = 200
SILENCE_MS = 1_000
_T = TypeVar("_T")
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


@dataclass(frozen=True, slots=True)
class Step:
    """What one client sends at one moment.

    Attributes:
        at_ms: When, from the start of the clip.
        audio: A frame of audio, as it goes over the wire.
        text: The transcript so far, if a revision of it is due.
        revision: Its number.
        final: Whether it is the final one.
    """

    at_ms: float
    audio: bytes
    text: str | None
    revision: int
    final: bool


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
    client_cpu_seconds: float = 0.0
    with_audio: int = 0
    falling_times: int = 0
    outside_clip: list[tuple[int, int]] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


class Dialect(Protocol):
    """How to talk to a server. Write another, without arguments, to measure another server.

    A message to send is text or bytes. A message that came is turned into events like those of this
    project's protocol, as far as there are such:

    * ``{"type": "entity.upsert", "utterance", "revision", "entity": {"id", "label"}}``, and
      ``behind_live_ms`` if the server says so;
    * ``{"type": "entity.retract"}``;
    * ``{"type": "utterance.final", "utterance", "revision", "entities": […]}``, and ``characters``
      (start and end in ms of each) with ``audio_used`` if their times are to be checked;
    * ``{"type": "error", "name", "detail"}``.

    ``utterance`` and ``revision`` are those of the transcript that is answered.
    """

    path: str

    def start(self) -> str | bytes: ...
    def audio(self, pcm: bytes) -> str | bytes: ...
    def transcript(self, utterance: str, revision: int, text: str, final: bool) -> str | bytes: ...
    def finish(self) -> str | bytes: ...
    def events(self, message: str | bytes) -> list[dict[str, Any]]: ...


class Cnerta:
    """This project's protocol, version 1."""

    path = "/v1/stream"

    def start(self) -> str:
        audio = {"encoding": "pcm_s16le", "sample_rate": RATE, "channels": 1}
        return json.dumps({"type": "session.start", "version": 1, "audio": audio})

    def audio(self, pcm: bytes) -> bytes:
        return pcm

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


def load_dialect(name: str) -> Dialect:
    """The dialect ``path/to/file.py:Name``; this project's if the name is empty."""
    if not name:
        return Cnerta()
    path, _, attribute = name.rpartition(":")
    specification = importlib.util.spec_from_file_location("dialect", path)
    if specification is None or specification.loader is None:
        raise typer.BadParameter(f"expected path/to/file.py:Name, got {name!r}")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    dialect: Dialect = getattr(module, attribute)()
    return dialect


def wire(message: str | bytes) -> bytes:
    """A message as a client's WebSocket frame."""
    if isinstance(message, str):
        return Frame(Opcode.TEXT, message.encode()).serialize(mask=True)
    return Frame(Opcode.BINARY, message).serialize(mask=True)


def steps_of(clip: Clip, dialect: Dialect) -> list[Step]:
    """All that is sent for a clip and the silence after it."""
    pcm = clip.pcm + bytes(2 * RATE * SILENCE_MS // 1000)
    size = 2 * RATE * FRAME_MS // 1000
    final_ms = clip.spoken_ms[-1] + ASR_DELAY_MS
    next_ms, revision, last, done = float(REVISION_MS), 0, "", False
    steps = []
    for position in range(0, len(pcm), size):
        now_ms = 1000 * (position + size) / 2 / RATE
        text = clip.text[: sum(t + ASR_DELAY_MS <= now_ms for t in clip.spoken_ms)]
        finish = not done and now_ms >= final_ms
        due = finish or (now_ms >= next_ms and text != last and not done)
        if due:
            revision += 1
            last, done = text, finish
        if now_ms >= next_ms:
            next_ms += REVISION_MS
        audio = wire(dialect.audio(pcm[position : position + size]))
        steps.append(Step(now_ms, audio, text if due else None, revision, finish))
    return steps


def endless(clips: Sequence[_T], seed: int) -> Iterator[_T]:
    """Clips in random order, again and again."""
    order = random.Random(seed)
    while True:
        yield order.choice(clips)


class Sender:
    """Streams clips over one connection at the pace of speech.

    It is driven by the event loop's timers and writes frames that are ready to the transport, past
    the library's own sending: a task and a mask for each frame cost more than the server's work.

    Attributes:
        done: Done when the last clip has been sent.
    """

    def __init__(
        self,
        connection: ClientConnection,
        dialect: Dialect,
        clips: Iterable[tuple[Clip, list[Step]]],
        seconds: float,
        name: str,
        session: Session,
        into: Measured,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self.done: asyncio.Future[None] = self._loop.create_future()
        self._transport = connection.transport
        self._dialect = dialect
        self._clips = enumerate(clips)
        self._seconds = seconds
        self._name = name
        self._session = session
        self._into = into
        self._steps: Iterator[Step] = iter(())
        self._utterance = ""
        self._clip_at = 0.0  # on the loop's clock
        self._clip_length = 0.0
        self._began = 0.0

    def start(self, delay: float) -> None:
        """Begin after so many seconds."""
        self._clip_at = self._began = self._loop.time() + delay
        self._next()

    def _next(self) -> None:
        """Wait for the next step, of the next clip if this one is over."""
        step = next(self._steps, None)
        if step is None:
            self._clip_at += self._clip_length
            step = self._next_clip()
        if step is None or self._transport.is_closing():
            if not self.done.done():
                self.done.set_result(None)
            return
        self._loop.call_at(self._clip_at + step.at_ms / 1000, self._send, step)

    def _next_clip(self) -> Step | None:
        if self._clip_at - self._began >= self._seconds:
            return None
        number, (clip, steps) = next(self._clips, (0, (None, [])))
        if clip is None:
            return None
        session, length_ms = self._session, clip.milliseconds + SILENCE_MS
        self._utterance = f"{self._name}-{number}"
        self._clip_length = length_ms / 1000
        began_ms = session.position_ms
        session.clips[self._utterance] = (began_ms, began_ms + clip.milliseconds)
        session.position_ms += length_ms
        self._into.streamed_seconds += length_ms / 1000
        self._steps = iter(steps)
        return next(self._steps)

    def _send(self, step: Step) -> None:
        late = self._loop.time() - self._clip_at - step.at_ms / 1000
        self._into.late_frames += late > 0.1
        self._transport.write(step.audio)
        if step.text is not None:
            # The clock starts before sending: a server that does not read delays its answer.
            self._session.sent[self._utterance, step.revision] = self._loop.time()
            message = self._dialect.transcript(
                self._utterance, step.revision, step.text, step.final
            )
            self._transport.write(wire(message))
            self._into.finals_sent += step.final
        self._next()


async def run_session(
    url: str,
    dialect: Dialect,
    clips: Iterable[tuple[Clip, list[Step]]],
    seconds: float,
    seed: int,
    into: Measured,
) -> None:
    """One client: streams for ``seconds`` or to the last clip, then waits for what is owed."""
    session = Session()
    try:
        async with connect(url, max_size=None, open_timeout=30, compression=None) as connection:
            await connection.send(dialect.start())
            reader = asyncio.create_task(_read(connection, dialect, session, into))
            sender = Sender(connection, dialect, clips, seconds, f"u{seed}", session, into)
            # Not all sessions on the same beat.
            sender.start(random.Random(seed).uniform(0, 1.0))
            await sender.done
            await connection.send(dialect.finish())
            await asyncio.wait_for(reader, 30)
    except Exception as error:
        into.errors.append(f"{type(error).__name__}: {error}")


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
                if "behind_live_ms" in event:
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
    if not event.get("audio_used") or not event.get("characters"):
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
    command = [sys.executable, "-m", "cnerta.streamer.commands.serve", "--port", str(port)]
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
    prepared = [(clip, steps_of(clip, dialect)) for clip in clips]
    shared = iter(prepared)
    began = time.process_time()
    tasks = [
        run_session(
            url, dialect, endless(prepared, i) if seconds else shared, seconds or np.inf, i, into
        )
        for i in range(sessions)
    ]
    await asyncio.gather(*tasks)
    into.client_cpu_seconds = time.process_time() - began
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
        "retractions": m.retractions,
        "relabels": m.relabels,
        "final_entities": m.final_entities,
        "upserts": m.upserts,
        "with_audio": m.with_audio,
        "falling_times": m.falling_times,
        "outside_clip": m.outside_clip[:5],
        "late_frames": m.late_frames,
        "errors": m.errors[:3],
    }
    row["client_cpu_seconds_per_stream_second"] = round(
        m.client_cpu_seconds / max(m.streamed_seconds, 1e-9), 5
    )
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
    names = ("final_ms", "first_tentative_ms", "behind_live_ms")
    for name, label in zip(names, ("final", "first tentative", "behind live"), strict=True):
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
    dialect: Annotated[
        str, typer.Option(help="Another protocol, path/to/file.py:Name. [default: this project's]")
    ] = "",
    bound_ms: Annotated[float, typer.Option(help="Stop when the final p95 is above.")] = 150.0,
    out: Annotated[Path | None, typer.Option("--json", help="Write the rows.")] = None,
    picture: Annotated[Path | None, typer.Option("--plot", help="Draw them.")] = None,
) -> None:
    """Measure live latency."""
    clips = read_clips(manifest, limit)
    spoken = load_dialect(dialect)
    process, pid = None, None
    if not url:
        # All sessions begin at once, and it is to be seen what becomes of them.
        process, port, started = start_server(["--max-final-wait-ms", "0", *server.split()])
        url, pid = f"ws://127.0.0.1:{port}", process.pid
        typer.echo(f"server started in {started:.2f} s, {Usage.of(pid).resident_mb:.0f} MB")
    rows = []
    try:
        for count in map(int, sessions.split(",")):
            before = Usage.of(pid) if pid else None
            measured = asyncio.run(measure(url + spoken.path, spoken, clips, count, seconds))
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
