"""Predicts what finals wait from what work costs, and holds it against a measurement.

    python tests/benchmarks/workers.py --sessions 100,200,280 --workers 1,2 > workers.jsonl
    python tests/benchmarks/simulate.py --measured workers.jsonl --plot simulation.png
    python tests/benchmarks/simulate.py --measured workers.jsonl --plan

What is measured here, in this process: batches of chunks and of texts of 1 to 16, the share of
them that holds the GIL, what a session does for a frame and a revision, and how much slower work is
while the other core is busy. All of it is CPU time, so that others on the machine disturb it less.
What sockets and the event loop cost cannot be measured alone: it is what is left of the CPU time of
a stream in the measurement's lightest row with one worker. No latency is fitted to anything.
``serving_simulation.py`` has the rules, ``shared_cores.py`` the machine. ``--before`` is for
measurements of servers that let interims wait without a bound.

``--plan`` asks further: how many streams two cores serve when nobody else is on them and people do
not all end their sentences in the same second, and what the loss of one of several machines costs.
"""

from __future__ import annotations

import json
import multiprocessing
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from live import DEMO, RATE, read_clips, steps_of
from live import Clip as Recording
from live import Cnerta as Dialect
from serving_simulation import (
    MAX_BATCH,
    Batch,
    Clip,
    Costs,
    Load,
    Outcome,
    Said,
    Site,
    percentile,
    simulate,
)

from cnerta.models.runtime.bundle import find_bundle
from cnerta.models.runtime.graph_session import GraphSession
from cnerta.models.runtime.inference import AcousticState, Model
from cnerta.streamer.serving.engine import Engine
from cnerta.streamer.session.limits import SessionLimits
from cnerta.streamer.session.outgoing.outbox import Outbox
from cnerta.streamer.session.session import Session
from cnerta.streamer.session.work import LANES, EncodeWork, Result, TagWork, Work
from cnerta.streamer.wire.codec import encode
from cnerta.streamer.wire.messages import SessionStart, Transcript
from cnerta.streamer.wire.parts import AudioFormat

SIZES = (1, 2, 4, 8, 16)
FRAMES_A_SECOND = 25
BOUND_MS = 150.0

# --- what work costs ------------------------------------------------------------------------------


class Stopwatch:
    """Counts what graphs take, all of them: the runtime lets go of the GIL meanwhile.

    Attributes:
        seconds: So far.
        calls: How many there were.
    """

    def __init__(self) -> None:
        self.seconds, self.calls = 0.0, 0
        plain = GraphSession.run

        def run(graph: GraphSession, *arguments: Any, **options: Any) -> Any:
            began = time.thread_time()
            try:
                return plain(graph, *arguments, **options)
            finally:
                self.seconds += time.thread_time() - began
                self.calls += 1

        GraphSession.run = run  # type: ignore[method-assign]


@dataclass(frozen=True, slots=True)
class SessionCosts:
    """What a session takes without sockets, in seconds, and the texts that it had tagged."""

    frame_s: float
    revision_s: float
    encoded_s: float
    answer_s: float
    texts: tuple[TagWork, ...]


def measure_session(engine: Engine, recordings: Sequence[Recording], turns: int) -> SessionCosts:
    """Stream recordings to a session, and time what the event loop does for it."""
    spent: dict[str, list[float]] = {"frame": [], "revision": [], "encoded": [], "answer": []}
    texts: list[TagWork] = []

    def timed(what: str, run: Callable[[], object]) -> None:
        began = time.thread_time()
        run()
        spent[what].append(time.thread_time() - began)

    for _ in range(turns):
        for recording in recordings:
            outbox = Outbox(1 << 22)
            start = SessionStart(
                audio=AudioFormat(encoding="pcm_s16le", sample_rate=RATE, channels=1)
            )
            session = Session(engine.model.bundle, start, SessionLimits(), outbox)
            size = 2 * RATE // FRAMES_A_SECOND
            pcm = recording.pcm + bytes(4 * RATE)
            for number, step in enumerate(steps_of(recording, Dialect())):
                now = step.at_ms / 1000
                block = pcm[number * size : (number + 1) * size]
                timed("frame", partial(session.add_audio, block))
                if step.text is not None:
                    message = Transcript(
                        utterance="u", revision=step.revision, text=step.text, final=step.final
                    )
                    timed("revision", partial(session.add_transcript, message, now))
                while work := next_work(session, now):
                    back = partial(take_back, session, outbox, work, engine.run(work), now)
                    timed("answer" if isinstance(work, TagWork) else "encoded", back)
                    texts += [work] if isinstance(work, TagWork) else []
                if step.final:
                    break
    return SessionCosts(*(float(np.median(spent[what])) for what in spent), tuple(texts))


def next_work(session: Session, now: float) -> Work | None:
    """Whatever there is to do, in any lane."""
    return next((work for lane in LANES if (work := session.next_work(lane, now))), None)


def take_back(
    session: Session, outbox: Outbox, work: Work, result: Result | Exception, now: float
) -> None:
    """What the event loop does with a result, the writing of messages included."""
    session.work_done(work, result, now)
    while (message := outbox.pop()) is not None:
        encode(message)


def fit(seconds: dict[int, float]) -> tuple[float, float]:
    """The fixed part and that of an item, by least squares."""
    sizes = np.array(list(seconds))
    slope, fixed = np.polyfit(sizes, np.array(list(seconds.values())), 1)
    return max(0.0, float(fixed)), float(slope)


def measure_batch(graphs: Stopwatch, run: Callable[[int, int], object], repeats: int) -> Batch:
    """Time batches of several sizes.

    Args:
        graphs: Counts the time without the GIL.
        run: Does a batch of a size, in its so-and-so-manieth repetition.
        repeats: How often; the quickest counts, which had its core for itself.
    """
    quickest, whole = {}, 0.0
    for size in SIZES:
        run(size, 0)
    graphs.seconds = 0.0
    for size in SIZES:
        graphs.calls = 0
        took = []
        for turn in range(repeats):
            began = time.thread_time()
            run(size, turn)
            took.append(time.thread_time() - began)
        quickest[size] = min(took)
        whole += sum(took)
    fixed_s, item_s = fit(quickest)
    # Of the largest batches, which were the last.
    return Batch(fixed_s, item_s, round(1 - graphs.seconds / whole, 3), graphs.calls / repeats)


def load_model(bundle: str) -> Model:
    """As the server loads it, on one thread."""
    return Model.load(find_bundle(Path(bundle)), device="cpu", threads=1)


def _encode_for(bundle: str, seconds: float, ready: Any, result: Any) -> None:
    """What a batch of chunks takes a process: the mean of many."""
    engine = Engine(load_model(bundle))
    work = chunks(engine.model, MAX_BATCH)
    engine.encode(work)
    ready.wait()
    began, done = time.thread_time(), 0
    while time.thread_time() - began < seconds:
        engine.encode(work)
        done += 1
    result.put((time.thread_time() - began) / done)


def measure_slowdown(bundle: str, seconds: float) -> float:
    """How many times longer a batch takes while another process does the same."""
    context = multiprocessing.get_context("spawn")
    took = {}
    for count in (1, 2):
        ready, result = context.Barrier(count), context.Queue()
        processes = [
            context.Process(target=_encode_for, args=(bundle, seconds, ready, result))
            for _ in range(count)
        ]
        for process in processes:
            process.start()
        took[count] = float(np.mean([result.get(timeout=120) for _ in processes]))
        for process in processes:
            process.join()
    return max(1.0, took[2] / took[1])


def chunks(model: Model, count: int) -> list[EncodeWork]:
    """Chunks of noise, each of a stream that has just begun."""
    geometry = model.bundle.geometry
    samples = np.random.default_rng(0).normal(0, 0.1, geometry.chunk_frames * geometry.hop_samples)
    state = AcousticState.initial(geometry)
    return [EncodeWork(samples.astype(np.float32), state) for _ in range(count)]


def measure_costs(bundle: str, recordings: Sequence[Recording], repeats: int) -> Costs:
    """All of them, but for what sockets take."""
    model = load_model(bundle)
    engine, graphs = Engine(model), Stopwatch()
    session = measure_session(engine, recordings, turns=1 + repeats // 10)
    work, draw = chunks(model, MAX_BATCH), np.random.default_rng(0)
    texts = [
        [session.texts[i] for i in draw.integers(len(session.texts), size=MAX_BATCH)]
        for _ in range(repeats)
    ]
    encoding = measure_batch(graphs, lambda size, turn: engine.encode(work[:size]), repeats)
    tagging = measure_batch(graphs, lambda size, turn: engine.tag(texts[turn][:size]), repeats)
    return Costs(
        encode=encoding,
        tag=tagging,
        frame_s=session.frame_s,
        revision_s=session.revision_s,
        encoded_s=session.encoded_s,
        answer_s=session.answer_s,
        client_frame_s=0.0,
        slowdown=measure_slowdown(bundle, 0.05 * repeats),
    )


def with_sockets(costs: Costs, row: dict[str, Any], clips: tuple[Clip, ...]) -> Costs:
    """Add what is left of a measured row's CPU time: to frames, which are most of what comes.

    Args:
        costs: Without sockets.
        row: Of ``workers.py``.
        clips: What was streamed.
    """
    client_s = row["client_cpu_ms"] / 1000 / FRAMES_A_SECOND
    costs = replace(costs, client_frame_s=client_s)
    wanted = row["cpu_ms_a_stream_second"] / 1000
    for _ in range(4):
        found = cost_of(simulate(load_of(row, clips), Site(workers=row["workers"]), costs))
        missing = (wanted - found) / FRAMES_A_SECOND
        costs = replace(costs, frame_s=max(1e-6, costs.frame_s + missing))
    return costs


def cost_of(outcome: Outcome) -> float:
    """CPU seconds that a second of a stream costs."""
    return outcome.cpu_s / outcome.audio_s


# --- what is said ---------------------------------------------------------------------------------


def plan_of(recording: Recording, ends: Sequence[int]) -> Clip:
    """A recording as the simulation knows it.

    Args:
        recording: As it is streamed.
        ends: Where its entities end, in characters.
    """
    said = [
        Said(step.at_ms / 1000, step.final, sum(end <= len(step.text) for end in ends))
        for step in steps_of(recording, Dialect())
        if step.text is not None
    ]
    length_s = len(steps_of(recording, Dialect())) / FRAMES_A_SECOND
    return Clip(length_s, tuple(said))


def demo_clips() -> tuple[list[Recording], tuple[Clip, ...]]:
    """The demo's recordings, which are what ``workers.py`` streams."""
    recordings = read_clips(DEMO, 40)
    rows = json.loads(DEMO.read_text(encoding="utf-8"))["recordings"]
    ends = [[entity[1] for entity in row["entities"]] for row in rows]
    return recordings, tuple(map(plan_of, recordings, ends))


def load_of(row: dict[str, Any], clips: tuple[Clip, ...], seconds: float = 25.0) -> Load:
    """What a row of ``workers.py`` was measured with."""
    return Load(row["sessions"], seconds, clips)


# --- what is told ---------------------------------------------------------------------------------


def milliseconds(values: Sequence[float]) -> dict[str, float]:
    """p50 and p95."""
    return {f"p{p}": round(1000 * percentile(values, p / 100), 1) for p in (50, 95)}


def compare(
    rows: Sequence[dict[str, Any]], costs: Costs, clips: tuple[Clip, ...], overdue_s: float | None
) -> list[dict[str, Any]]:
    """For each configuration that was measured: what was, and what is predicted."""
    told = []
    for workers, sessions in sorted({(row["workers"], row["sessions"]) for row in rows}):
        mine = [r for r in rows if (r["workers"], r["sessions"]) == (workers, sessions)]
        outcome = simulate(
            load_of(mine[0], clips), Site(workers=workers, overdue_s=overdue_s), costs
        )
        final, first = milliseconds(outcome.finals), milliseconds(outcome.first_entities)
        measured = [row["final_ms"]["p95"] for row in mine]
        error = final["p95"] / float(np.mean(measured)) - 1
        told.append(
            {
                "workers": workers,
                "sessions": sessions,
                "final_p95_ms": {"measured": measured, "predicted": final["p95"]},
                "final_p50_ms": {
                    "measured": [row["final_ms"]["p50"] for row in mine],
                    "predicted": final["p50"],
                },
                "first_p95_ms": {
                    "measured": [row["first_tentative_ms"]["p95"] for row in mine],
                    "predicted": first["p95"],
                },
                "cpu_ms": {
                    "measured": [row["cpu_ms_a_stream_second"] for row in mine],
                    "predicted": round(1000 * cost_of(outcome), 2),
                },
                "error": round(error, 2),
                "is_within_20_percent": abs(error) <= 0.2,
            }
        )
    return told


def plan(costs: Costs, clips: tuple[Clip, ...]) -> list[dict[str, Any]]:
    """What is not measured here: a generator elsewhere, people's own pace, several machines."""
    told: list[dict[str, Any]] = []
    for workers in (1, 2):
        for streams in (100, 150, 200, 250, 300, 350):
            load = Load(streams, 20.0, clips, spread_s=6.0)
            outcome = simulate(load, Site(workers=workers, generator_beside=False), costs)
            told.append(
                {
                    "cores": 2,
                    "workers": workers,
                    "streams": streams,
                    "final_ms": milliseconds(outcome.finals),
                    "first_ms": milliseconds(outcome.first_entities),
                    "cpu_ms": round(1000 * cost_of(outcome), 2),
                }
            )
            if told[-1]["final_ms"]["p95"] > 2 * BOUND_MS:
                break
    for share in (0.5, 0.6, 0.7, 0.8):
        most = max(
            (
                row["streams"]
                for row in told
                if row.get("workers") == 2
                and "hosts" not in row
                and row["final_ms"]["p95"] <= BOUND_MS
            ),
            default=100,
        )
        hosts = 4
        load = Load(round(share * most * hosts), 20.0, clips, spread_s=6.0)
        site = Site(hosts=hosts, workers=2, generator_beside=False, fails_at_s=12.0)
        outcome = simulate(load, site, costs)
        told.append(
            {
                "hosts": hosts,
                "share_of_most": share,
                "streams": load.streams,
                "final_ms_before_and_after": milliseconds(outcome.finals),
                "final_ms_after_a_loss": milliseconds(outcome.finals_after),
                "finals": [len(outcome.finals), outcome.sent],
            }
        )
    return told


def draw(told: Sequence[dict[str, Any]], path: Path) -> None:
    """Measured and predicted, over streams."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4))
    for workers, colour in ((1, "tab:red"), (2, "tab:blue")):
        mine = [row for row in told if row["workers"] == workers]
        counts = [row["sessions"] for row in mine]
        word = "worker" if workers == 1 else "workers"
        for key, style in (("final_p95_ms", "-"), ("final_p50_ms", ":")):
            predicted = [row[key]["predicted"] for row in mine]
            label = f"{workers} {word}, {key[6:9]}, predicted"
            axes.plot(counts, predicted, style, color=colour, label=label)
            for row in mine:
                for value in row[key]["measured"]:
                    mark = "o" if key == "final_p95_ms" else "x"
                    axes.plot(row["sessions"], value, mark, color=colour, markersize=5)
    axes.plot([], [], "ko", markersize=5, label="p95, measured")
    axes.plot([], [], "kx", markersize=5, label="p50, measured")
    axes.axhline(BOUND_MS, color="grey", linewidth=0.8)
    axes.set(xlabel="concurrent streams on two cores", ylabel="final answer, ms", yscale="log")
    axes.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def main(
    measured: Annotated[Path, typer.Option(help="Lines of workers.py.")],
    bundle: Annotated[str, typer.Option(help="The bundle that was measured.")] = "fast",
    costs: Annotated[
        Path | None, typer.Option(help="Costs: read if it is there, else measured and written.")
    ] = None,
    repeats: Annotated[int, typer.Option(help="How often each batch is timed.")] = 40,
    plan_further: Annotated[bool, typer.Option("--plan", help="What was not measured.")] = False,
    before: Annotated[bool, typer.Option(help="Interims had no bound.")] = False,
    picture: Annotated[Path | None, typer.Option("--plot", help="Draw them.")] = None,
) -> None:
    """Predict and compare."""
    lines = measured.read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines if line.startswith("{")]
    recordings, clips = demo_clips()
    if costs is not None and costs.exists():
        found = read_costs(costs)
    else:
        found = measure_costs(bundle, recordings, repeats)
        lightest = min((row for row in rows if row["workers"] == 1), key=lambda r: r["sessions"])
        found = with_sockets(found, lightest, clips)
        if costs is not None:
            costs.write_text(json.dumps(asdict(found), indent=1) + "\n", encoding="utf-8")
    typer.echo(json.dumps(asdict(found)))
    told = compare(rows, found, clips, None if before else Site().overdue_s)
    for row in told:
        typer.echo(json.dumps(row))
    if picture is not None:
        draw(told, picture)
    for row in plan(found, clips) if plan_further else ():
        typer.echo(json.dumps(row))


def read_costs(path: Path) -> Costs:
    """What an earlier run has written."""
    read = json.loads(path.read_text(encoding="utf-8"))
    return Costs(**{**read, "encode": Batch(**read["encode"]), "tag": Batch(**read["tag"])})


if __name__ == "__main__":
    typer.run(main)
