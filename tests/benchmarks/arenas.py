"""What the runtime's memory costs: each way to allocate, in latency and in memory.

    python tests/benchmarks/arenas.py [--bundle accurate]

The graphs are loaded once for each way and take turns, so that all see the same machine. One line
for each way: median ms of a call, for one and for 16 chunks, texts and whole minutes, its ratio to
the runtime's own way in the same turn, and MB: at most in the largest call, and kept after it.
Linux only.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any
from unittest import mock

import numpy as np
import onnxruntime as ort
import typer

from cnerta.models.runtime.bundle import find_bundle
from cnerta.models.runtime.inference import AcousticState, Model
from cnerta.models.runtime.memory import give_back

TEXT = "各位观众今天我们来认识一下南京市长江大桥"
WAYS = ("arena", "same-as-requested", "shrinking", "none")


class Shrinking:
    """A session that gives its arena back after every run."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self._options = ort.RunOptions()
        self._options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")

    def run(self, names: list[str], feed: Any) -> Any:
        return self._session.run(names, feed, self._options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)


def load(bundle: Path, way: str) -> Model:
    """The model, its graphs opened in one of the ways."""
    plain = ort.InferenceSession

    def open_session(path: str, options: Any, providers: Any) -> Any:
        options.enable_cpu_mem_arena = way != "none"
        if way == "same-as-requested":
            providers = [(p, {"arena_extend_strategy": "kSameAsRequested"}) for p in providers]
        session = plain(path, options, providers=providers)
        return Shrinking(session) if way == "shrinking" else session

    with mock.patch.object(ort, "InferenceSession", open_session):
        return Model.load(bundle, device="cpu")


def status_mb(field: str) -> float:
    """A value of the process' status."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    (line,) = (line for line in lines if line.startswith(field + ":"))
    return int(line.split()[1]) * 1024 / 1e6


def calls(model: Model) -> dict[str, Callable[[], object]]:
    """What is timed."""
    g, generator = model.bundle.geometry, np.random.default_rng(0)
    made: dict[str, Callable[[], object]] = {}
    for batch in (1, 16):
        samples = generator.normal(size=(batch, g.chunk_samples), scale=0.1).astype(np.float32)
        states = [AcousticState.initial(g)] * batch
        made[f"encode {batch}"] = partial(model.encode, samples, states)
        frames = [generator.normal(size=(120, g.width)).astype(np.float32)] * batch
        made[f"tag {batch}"] = partial(model.tag, [TEXT] * batch, frames)
    frames = [generator.normal(size=(1500, g.width)).astype(np.float32)]
    made["tag a minute"] = partial(model.tag, [(TEXT * 25)[:500]], frames)
    return made


def main(
    bundle: Annotated[Path | None, typer.Option(help="[default: the built-in one]")] = None,
    turns: Annotated[int, typer.Option(help="Turns.")] = 60,
) -> None:
    """Measure."""
    path = find_bundle(bundle)
    memory = {}
    timed = {}
    for way in WAYS:
        model = load(path, way)
        timed[way] = calls(model)
        for name, call in timed[way].items():
            if name != "tag a minute":
                call()
        give_back()
        before = status_mb("VmRSS")
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        timed[way]["tag a minute"]()
        most = status_mb("VmHWM")
        give_back()
        memory[way] = (round(most - before), round(status_mb("VmRSS") - before))
    spent: dict[str, dict[str, list[float]]] = {w: {c: [] for c in timed[w]} for w in WAYS}
    for turn in range(turns):
        for name in timed[WAYS[0]]:
            if name == "tag a minute" and turn % 10:
                continue
            for way in WAYS:
                began = time.perf_counter()
                timed[way][name]()
                spent[way][name].append(1000 * (time.perf_counter() - began))
    for way in WAYS:
        row: dict[str, Any] = {"way": way, "most_mb": memory[way][0], "kept_mb": memory[way][1]}
        for name, values in spent[way].items():
            ratios = np.array(values) / np.array(spent[WAYS[0]][name])
            row[name] = [round(float(np.median(values)), 2), round(float(np.median(ratios)), 2)]
        typer.echo(json.dumps(row))


if __name__ == "__main__":
    typer.run(main)
