"""How well the graphs use the machine: share of its matrix-product peak, and cost a stream.

    python tests/benchmarks/engine.py [--bundle DIR] [--threads 1] [--busy]

With ``--busy`` another thread keeps the GIL, as a server's event loop does with
many sessions, and the mean counts, not the best: what is lost then is lost in waiting for it.

The peak is what numpy's single-precision matrix product reaches in the same process on the same
number of threads, so the share holds on any machine.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from cnerta.models.runtime.bundle import find_bundle
from cnerta.models.runtime.geometry import FrameGeometry
from cnerta.models.runtime.inference import AcousticState, Model
from cnerta.streamer.commands.serve_process import TURN_S

_TEXT = "各位观众今天我们来认识一下南京市长江大桥"


def seconds_of(run: Callable[[], object], least: float = 1.0, *, mean: bool = False) -> float:
    """Best of repeated runs, or their mean, in seconds."""
    run()
    spent, began = [], time.perf_counter()
    while time.perf_counter() - began < least:
        start = time.perf_counter()
        run()
        spent.append(time.perf_counter() - start)
    return sum(spent) / len(spent) if mean else min(spent)


@contextlib.contextmanager
def busy_interpreter() -> Iterator[None]:
    """A thread that never lets go of the GIL by itself."""
    stop = threading.Event()

    def spin() -> None:
        while not stop.is_set():
            sum(range(100))

    thread = threading.Thread(target=spin)
    turn = sys.getswitchinterval()
    sys.setswitchinterval(TURN_S)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        sys.setswitchinterval(turn)


def matrix_peak() -> float:
    """Floating-point operations a second of a large matrix product."""
    a = np.random.default_rng(0).normal(size=(1024, 1024)).astype(np.float32)
    return 2 * 1024**3 / seconds_of(lambda: a @ a)


def acoustic_operations(model: Model) -> float:
    """Multiplications and additions a frame, from the graph's weights.

    Every weight of a product is used once a frame, except the filter bank's (four windows a frame,
    three more a chunk) and the convolutions' (once for every output position). Attention itself,
    less than a twentieth, is not counted.
    """
    import onnx

    graph = onnx.load(model.bundle.path / "acoustic.onnx").graph
    g: FrameGeometry = model.bundle.geometry
    windows = (4 * g.chunk_frames + 3) / g.chunk_frames
    positions = iter(((39, 2), (19, 1)))  # bands and moments of the two convolutions, 80 filters
    total = 0.0
    for weight in graph.initializer:
        shape = tuple(weight.dims)
        if len(shape) == 4:
            bands, moments = next(positions)
            total += 2 * moments * bands * float(np.prod(shape))
        elif len(shape) == 2 and min(shape) > 1:
            is_filter_bank = shape in ((199, 256), (256, 80))
            total += 2 * (windows if is_filter_bank else 1) * float(np.prod(shape))
    return total


def main(
    bundle: Annotated[Path | None, typer.Option(help="[default: the built-in one]")] = None,
    threads: Annotated[int, typer.Option(help="Threads of a call.")] = 1,
    busy: Annotated[bool, typer.Option("--busy", help="Beside a busy thread.")] = False,
) -> None:
    """Measure the engine."""
    model = Model.load(find_bundle(bundle), device="cpu", threads=threads)
    peak = matrix_peak()
    operations = acoustic_operations(model)
    typer.echo(
        json.dumps(
            {
                "peak_gflops": round(peak / 1e9, 1),
                "blas_threads": os.environ.get("OPENBLAS_NUM_THREADS", "all"),
                "acoustic_mflop_per_frame": round(operations / 1e6, 2),
            }
        )
    )
    with busy_interpreter() if busy else contextlib.nullcontext():
        measure(model, operations, peak, threads, mean=busy)


def measure(model: Model, operations: float, peak: float, threads: int, *, mean: bool) -> None:
    """Print what chunks and texts cost in batches.

    Args:
        model: The model.
        operations: Of the acoustic graph, a frame.
        peak: The machine's operations a second.
        threads: Of a call.
        mean: Of all runs; else the best.
    """
    g = model.bundle.geometry
    generator = np.random.default_rng(0)
    for batch in (1, 8, 16, 32):
        samples = generator.normal(size=(batch, g.chunk_samples), scale=0.1).astype(np.float32)
        states = [AcousticState.initial(g)] * batch
        spent = seconds_of(partial(model.encode, samples, states), mean=mean)
        audio = batch * g.chunk_frames * g.frame_ms / 1000
        typer.echo(
            json.dumps(
                {
                    "encode_batch": batch,
                    "ms_per_chunk": round(1000 * spent / batch, 3),
                    "share_of_peak": round(batch * g.chunk_frames * operations / spent / peak, 3),
                    "streams_per_core": round(audio / spent / threads),
                }
            )
        )
    for batch in (1, 8, 32):
        frames = [generator.normal(size=(120, g.width)).astype(np.float32)] * batch
        texts = [_TEXT] * batch
        spent = seconds_of(partial(model.tag, texts, frames), mean=mean)
        typer.echo(json.dumps({"tag_batch": batch, "ms_per_text": round(1000 * spent / batch, 3)}))


if __name__ == "__main__":
    typer.run(main)
