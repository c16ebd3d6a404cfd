"""All that a GPU is to show, in one run of at most eight minutes, as tables.

    python tests/benchmarks/gpu.py --device cuda

* parity: frames, scores and entities against the CPU's;
* the engine: milliseconds a chunk and a text by batch, with each stream's cache as a value that
  goes to the device and back, and with caches that stay there; both in turn, in this process;
* a server: streams at the pace of speech, as in ``live.py``, from several client processes, with
  the server's CPU and the memory of both.

It runs on the CPU too, in small::

    python tests/benchmarks/gpu.py --device cpu --sessions 2,4 --seconds 2 --batches 1,2
"""

from __future__ import annotations

import asyncio
import json
import math
import multiprocessing
import os
import platform
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final

import numpy as np
import typer
from live import Clip, Cnerta, Measured, Usage, measure, percentiles, read_clips, start_server

from cnerta.models.runtime.bundle import find_bundle
from cnerta.models.runtime.encoding.kept_graphs import SlotShape
from cnerta.models.runtime.inference import AcousticState, Model
from cnerta.streamer.client.tagger import Tagger

DEMO = Path(__file__).parents[2] / "streamer" / "demo" / "demo.json"
TEXT = "各位观众今天我们来认识一下南京市长江大桥"
PARITY_STREAMS: Final = 4
STREAMS_A_CLIENT: Final = 250
"""What one Python process paces without being late."""
END_S: Final = 30.0
"""What a run takes beyond its seconds: clips end, and what is owed comes."""


@dataclass(frozen=True, slots=True)
class Parity:
    """How far one thing lies from the CPU's.

    Attributes:
        what: Which.
        difference: The largest, relative to numbers above 1.
    """

    what: str
    difference: float


def difference(got: np.ndarray, expected: np.ndarray) -> float:
    """The largest, relative to numbers above 1 and absolute below."""
    scale = np.maximum(1.0, np.abs(expected))
    return float(np.max(np.abs(got - expected) / scale, initial=0.0))


def encode(model: Model, sound: np.ndarray) -> np.ndarray:
    """Frames of several streams that are encoded together. shape: (streams, frames, width)."""
    g = model.bundle.geometry
    states = [AcousticState.initial(g) for _ in sound]
    pieces = []
    for start in range(0, sound.shape[1], g.chunk_samples):
        found = model.encode(sound[:, start : start + g.chunk_samples], states)
        states = [state for _, state in found]
        pieces.append(np.stack([frames for frames, _ in found]))
    return np.concatenate(pieces, axis=1)


def parity(reference: Model, values: Model, resident: Model) -> list[Parity]:
    """Of both ways of encoding, and of the tagger, with the CPU's."""
    g = reference.bundle.geometry
    generator = np.random.default_rng(0)
    # Longer than the left context, so that the ring of the caches goes round.
    chunks = 2 + 2 * g.left_frames // g.chunk_frames
    size = (PARITY_STREAMS, chunks * g.chunk_samples)
    sound = generator.normal(size=size, scale=0.1).astype(np.float32)
    frames = encode(reference, sound)
    found = [
        Parity("frames, caches as values", difference(encode(values, sound), frames)),
        Parity("frames, caches on the device", difference(encode(resident, sound), frames)),
    ]
    scores = reference.scores(TEXT, frames[0])
    found.append(Parity("scores of tags", difference(values.scores(TEXT, frames[0]), scores)))
    return found


def answers(model: Model) -> list[list[tuple[int, int, str]]]:
    """Entities of the demo's recordings, and of their text alone."""
    tagger = Tagger(model)
    audio: list[Path | None] = [DEMO.parent / f"{name}.flac" for name in ("mayor", "bridge")]
    return [[(e.start, e.end, e.label) for e in tagger.tag(TEXT, a)] for a in (*audio, None)]


@dataclass(frozen=True, slots=True)
class EngineRow:
    """What a chunk and a text cost in a batch, in ms."""

    bundle: str
    batch: int
    chunk_values: float
    chunk_resident: float
    text: float


def cost(run: Callable[[], object], least_s: float) -> float:
    """Mean of repeated runs, in seconds."""
    run()
    count, began = 0, time.perf_counter()
    while (spent := time.perf_counter() - began) < least_s:
        run()
        count += 1
    return spent / max(count, 1)


def engine_row(values: Model, resident: Model, batch: int, least_s: float) -> EngineRow:
    """Measure one size of batch; both ways of encoding in turn, with streams that go on."""
    g = values.bundle.geometry
    generator = np.random.default_rng(0)
    samples = generator.normal(size=(batch, g.chunk_samples), scale=0.1).astype(np.float32)

    def encoding(model: Model) -> Callable[[], None]:
        states = [AcousticState.initial(g) for _ in range(batch)]

        def run() -> None:
            states[:] = [state for _, state in model.encode(samples, states)]

        return run

    runs = [encoding(values), encoding(resident)]
    spent = [0.0, 0.0]
    for _ in range(3):
        for i, run in enumerate(runs):
            spent[i] += cost(run, least_s / 3) / 3
    frames = [generator.normal(size=(120, g.width)).astype(np.float32)] * batch
    text = cost(lambda: values.tag([TEXT] * batch, frames), least_s)
    return EngineRow(values.bundle.path.name, batch, *(1000 * s / batch for s in (*spent, text)))


def gpu_used_mb() -> float | None:
    """Memory in use on the first GPU; None without one."""
    command = shutil.which("nvidia-smi")
    if command is None:
        return None
    query = [command, "--query-gpu=memory.used", "--format=csv,noheader,nounits", "--id=0"]
    asked = subprocess.run(query, capture_output=True, text=True, timeout=20, check=False)
    return float(asked.stdout) if asked.returncode == 0 else None


def gpu_name() -> str:
    """Of the first GPU."""
    command = shutil.which("nvidia-smi")
    if command is None:
        return "none"
    query = [command, "--query-gpu=name,driver_version", "--format=csv,noheader", "--id=0"]
    asked = subprocess.run(query, capture_output=True, text=True, timeout=20, check=False)
    return asked.stdout.strip() or "none"


def clients(url: str, clips: Sequence[Clip], sessions: int, seconds: float) -> Measured:
    """So many streams at once, from as many processes as pace them."""
    processes = max(1, min(math.ceil(sessions / STREAMS_A_CLIENT), (os.cpu_count() or 2) // 2))
    shares = [len(range(i, sessions, processes)) for i in range(processes)]
    if processes == 1:
        return client(url, clips, seconds, sessions)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, context) as pool:
        parts = list(pool.map(partial(client, url, clips, seconds), shares))
    together = Measured()
    for part in parts:
        for field in fields(Measured):
            added = getattr(together, field.name) + getattr(part, field.name)
            setattr(together, field.name, added)
    return together


def client(url: str, clips: Sequence[Clip], seconds: float, sessions: int) -> Measured:
    """One client process."""
    return asyncio.run(measure(url, Cnerta(), clips, sessions, seconds))


def server_row(
    port: int, pid: int, clips: Sequence[Clip], sessions: int, seconds: float
) -> dict[str, Any]:
    """Measure a server with so many streams."""
    before = Usage.of(pid)
    measured = clients(f"ws://127.0.0.1:{port}/v1/stream", clips, sessions, seconds)
    after = Usage.of(pid)
    used = after.cpu_seconds - before.cpu_seconds
    return {
        "streams": sessions,
        "final_ms": percentiles(measured.final),
        "first_tentative_ms": percentiles(measured.first_tentative),
        "finals": [measured.finals_received, measured.finals_sent],
        "late_frames": measured.late_frames,
        "cpu_ms_a_stream_second": round(1000 * used / max(measured.streamed_seconds, 1e-9), 2),
        "resident_mb": round(after.resident_mb),
        "gpu_mb": gpu_used_mb(),
        "errors": measured.errors[:3],
    }


def table(names: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table in Markdown."""
    typer.echo("")
    for cells in (names, ["---"] * len(names), *rows):
        typer.echo("| " + " | ".join("–" if c is None else str(c) for c in cells) + " |")


def numbers(text: str) -> list[int]:
    """Take a list of numbers apart.

    Raises:
        typer.BadParameter: It is none.
    """
    try:
        found = [int(part) for part in text.split(",")]
    except ValueError:
        found = []
    if not found or min(found) < 1:
        raise typer.BadParameter(f"expected numbers such as 1,2,4, got {text!r}")
    return found


def main(
    device: Annotated[str, typer.Option(help="cuda, or cpu to try the script.")] = "cuda",
    bundle: Annotated[Path | None, typer.Option(help="The model's folder or name.")] = None,
    beside: Annotated[
        list[Path] | None,
        typer.Option(
            help="Another bundle whose engine is measured too, such as one that cnerta-export "
            "--half both wrote. Repeatable."
        ),
    ] = None,
    sessions: Annotated[
        str, typer.Option(help="Streams, rising.")
    ] = "100,500,1000,2000,3000,4000,5000",
    seconds: Annotated[float, typer.Option(help="Length of each run of the server.")] = 15.0,
    batches: Annotated[str, typer.Option(help="Batches of the engine.")] = "1,8,16,32,64,128",
    least: Annotated[float, typer.Option(help="Seconds for each figure of the engine.")] = 1.0,
    max_batch: Annotated[int, typer.Option(help="Most sessions in one batch.")] = 128,
    minutes: Annotated[float, typer.Option(help="What is not begun by then is not run.")] = 8.0,
    bound_ms: Annotated[float, typer.Option(help="Stop where finals' p95 is above.")] = 1000.0,
    out: Annotated[Path | None, typer.Option("--json", help="Write the figures.")] = None,
) -> None:
    """Measure a bundle on a GPU."""
    if device not in ("cpu", "cuda"):
        raise typer.BadParameter(f"expected --device cuda or cpu, got {device!r}")
    deadline = time.monotonic() + 60 * minutes
    counts, sizes = numbers(sessions), numbers(batches)
    path = find_bundle(bundle)
    import onnxruntime

    reference = Model.load(path, device="cpu")
    values = Model.load(path, device=device, resident_streams=0)
    used_before = gpu_used_mb()
    # Room for all: with 8-bit weights a batch that is parted has other scales.
    slots = max(PARITY_STREAMS, *sizes)
    resident = Model.load(path, device=device, resident_streams=slots)
    used_after = gpu_used_mb()
    slot = SlotShape.of(reference.bundle.geometry)
    table(
        ("what", ""),
        [
            ("device", f"{values.device}, GPU: {gpu_name()}"),
            ("machine", f"{platform.machine()}, {os.cpu_count()} CPU cores"),
            ("onnxruntime", onnxruntime.__version__),
            ("bundle", reference.bundle.name),
            ("cache of a stream", f"{slot.bytes / 2**10:.0f} KB"),
            (f"GPU memory with {slots} slots, MB", used_after),
            ("GPU memory without, MB", used_before),
        ],
    )
    near = parity(reference, values, resident)
    same = [answers(m) == answers(reference) for m in (values, resident)]
    table(
        ("parity with the CPU", "largest difference"),
        [(p.what, f"{p.difference:.1e}") for p in near]
        + [("entities of the demo", "the same" if all(same) else "OTHERS")],
    )
    engine = [engine_row(values, resident, size, least) for size in sizes]
    del values, resident
    for other in beside or ():
        pair = [
            Model.load(find_bundle(other), device=device, resident_streams=n) for n in (0, slots)
        ]
        engine += [engine_row(pair[0], pair[1], size, least) for size in sizes]
        del pair
    table(
        ("bundle", "batch", "ms a chunk, values", "ms a chunk, resident", "ratio", "ms a text"),
        [
            (
                r.bundle,
                r.batch,
                f"{r.chunk_values:.3f}",
                f"{r.chunk_resident:.3f}",
                f"{r.chunk_resident / r.chunk_values:.2f}",
                f"{r.text:.3f}",
            )
            for r in engine
        ],
    )
    served = serve(path, device, counts, seconds, max_batch, deadline, bound_ms)
    table(
        (
            "streams",
            "final p50 / p95 / p99 ms",
            "first tentative p95 ms",
            "finals",
            "late frames",
            "CPU ms a stream second",
            "server MB",
            "GPU MB",
        ),
        [
            (
                row["streams"],
                " / ".join(str(v) for v in row["final_ms"].values()),
                row["first_tentative_ms"].get("p95"),
                f"{row['finals'][0]} of {row['finals'][1]}",
                row["late_frames"],
                row["cpu_ms_a_stream_second"],
                row["resident_mb"],
                row["gpu_mb"],
            )
            for row in served
        ],
    )
    for row in served:
        for error in row["errors"]:
            typer.echo(f"{row['streams']} streams: {error}")
    not_run = counts[len(served) :]
    if not_run:
        typer.echo(f"not run: {', '.join(map(str, not_run))} streams")
    if out is not None:
        figures = {
            "device": device,
            "parity": {p.what: p.difference for p in near},
            "same_entities": all(same),
            "engine": [{f.name: getattr(r, f.name) for f in fields(EngineRow)} for r in engine],
            "server": served,
            "not_run": not_run,
        }
        out.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    if not all(same):
        raise typer.Exit(1)


def serve(
    bundle: Path,
    device: str,
    counts: Sequence[int],
    seconds: float,
    max_batch: int,
    deadline: float,
    bound_ms: float,
) -> list[dict[str, Any]]:
    """Measure one server with more and more streams."""
    clips = read_clips(DEMO, 40)
    most = max(counts)
    # Everybody comes at once, and it is to be seen what becomes of them.
    process, port, _ = start_server(
        [
            *("--device", device, "--bundle", str(bundle), "--max-batch", str(max_batch)),
            *("--max-sessions", str(most + 16), "--resident-streams", str(most)),
            *("--max-final-wait-ms", "0", "--max-young-sessions", str(most + 16)),
            *("--memory-mb", str(1024 + 4 * most)),
        ]
    )
    rows: list[dict[str, Any]] = []
    try:
        for count in counts:
            if time.monotonic() + seconds + END_S > deadline:
                break
            rows.append(server_row(port, process.pid, clips, count, seconds))
            if rows[-1]["final_ms"].get("p95", math.inf) > bound_ms:
                break
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
    return rows


if __name__ == "__main__":
    typer.run(main)
