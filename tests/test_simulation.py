"""The simulation of a server against formulas of queueing theory, and its rules one by one."""

from __future__ import annotations

import importlib
import random
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parent / "benchmarks"


@pytest.fixture(scope="module")
def cores() -> Iterator[Any]:
    sys.path.insert(0, str(BENCHMARKS))
    try:
        yield importlib.import_module("shared_cores")
    finally:
        sys.path.remove(str(BENCHMARKS))


@pytest.fixture(scope="module")
def serving(cores: Any) -> Any:
    return importlib.import_module("serving_simulation")


# --- the machine ----------------------------------------------------------------------------------


def sojourns(cores: Any, arrivals_s: float, job_s: float, *, shared: bool, count: int) -> float:
    """The mean time that jobs of exponential length take, which come at random."""
    clock, chance = cores.Clock(), random.Random(7)
    host = cores.Host(clock, 1)
    thread, took = host.thread("one"), []

    def arrive(left: int) -> None:
        began = clock.now
        # Without the GIL, each in a thread of its own: all get the same share of the core.
        own = host.thread("one") if shared else thread
        segment = cores.Segment(chance.expovariate(1 / job_s), has_gil=False)
        own.do((segment,), lambda: took.append(clock.now - began))
        if left > 1:
            clock.after(chance.expovariate(1 / arrivals_s), lambda: arrive(left - 1))

    arrive(count)
    clock.run()
    assert len(took) == count
    return statistics.mean(took)


@pytest.mark.parametrize("load", [0.3, 0.7])
@pytest.mark.parametrize("shared", [False, True], ids=["in turn", "shared"])
def test_waits_are_those_of_the_formula(cores: Any, load: float, shared: bool) -> None:
    # M/M/1: first come first served and shared processors have the same mean, 1 / (mu - lambda).
    found = sojourns(cores, arrivals_s=1 / load, job_s=1.0, shared=shared, count=30_000)
    assert found == pytest.approx(1 / (1 - load), rel=0.08)


def finished_at(
    module: Any, count: int, *, segments: Any, processes: int, **host: Any
) -> list[Any]:
    clock = module.Clock()
    machine, ends = module.Host(clock, **host), []
    for number in range(count):
        thread = machine.thread(number % processes)
        thread.do(segments, lambda: ends.append(clock.now))
    clock.run()
    return [ends, machine.cpu_s]


def test_threads_of_a_process_share_the_gil_and_others_do_not(cores: Any) -> None:
    python, native = (cores.Segment(1.0),), (cores.Segment(1.0, has_gil=False),)
    assert finished_at(cores, 2, segments=python, processes=1, cores=2)[0] == [2.0, 2.0]
    assert finished_at(cores, 2, segments=python, processes=2, cores=2)[0] == [1.0, 1.0]
    assert finished_at(cores, 2, segments=native, processes=1, cores=2)[0] == [1.0, 1.0]
    assert finished_at(cores, 3, segments=native, processes=1, cores=2)[0] == [1.5, 1.5, 1.5]
    mixed = python + native
    assert finished_at(cores, 1, segments=mixed, processes=1, cores=2)[0] == [2.0]


def test_a_core_that_is_busy_slows_the_other_one(cores: Any) -> None:
    native = (cores.Segment(1.0, has_gil=False),)
    ends, cpu_s = finished_at(cores, 2, segments=native, processes=2, cores=2, slowdown=1.5)
    assert ends == [1.5, 1.5]
    assert cpu_s == {0: 1.5, 1: 1.5}, "as an operating system counts it"
    ends, cpu_s = finished_at(cores, 1, segments=native, processes=1, cores=2, slowdown=1.5)
    assert (ends, cpu_s) == ([1.0], {0: 1.0})


# --- the server -----------------------------------------------------------------------------------

CHEAP = {"frame_s": 1e-5, "revision_s": 1e-5, "encoded_s": 1e-5, "answer_s": 1e-5}


def costs_of(serving: Any, encode_s: float, tag_s: float, **more: float) -> Any:
    def batch(item_s: float) -> Any:
        return serving.Batch(0.0, item_s, 0.0)

    return serving.Costs(
        encode=batch(encode_s), tag=batch(tag_s), client_frame_s=1e-5, **{**CHEAP, **more}
    )


def clip_of(serving: Any) -> Any:
    interims = [serving.Said(0.333 * n, False, n // 6) for n in range(1, 12)]
    return serving.Clip(5.0, (*interims, serving.Said(4.0, True, 2)))


def run(serving: Any, costs: Any, streams: int, seconds: float = 10.0, **site: Any) -> Any:
    load = serving.Load(streams, seconds, (clip_of(serving),))
    return serving.simulate(load, serving.Site(**site), costs)


def test_a_stream_alone_waits_for_its_own_work_only(serving: Any) -> None:
    found = run(serving, costs_of(serving, encode_s=0.02, tag_s=0.01), streams=1)
    assert len(found.finals) == found.sent == 2
    assert found.answered_interims == 22
    # What is left of the audio is encoded as a chunk of its own, then the text is tagged.
    assert all(0.01 <= each <= 0.055 for each in found.finals)
    # Two in each clip: one is in an interim first, one in the final only; each is counted once.
    assert len(found.first_entities) == 4
    assert sorted(found.first_entities)[2:] == sorted(found.finals)


def test_the_same_seed_is_the_same_run(serving: Any) -> None:
    costs = costs_of(serving, encode_s=0.002, tag_s=0.002)
    assert run(serving, costs, 20).finals == run(serving, costs, 20).finals


def test_what_is_too_much_is_taken_from_interims(serving: Any) -> None:
    costs = costs_of(serving, encode_s=1e-4, tag_s=0.01)
    # 60 streams offer 132 interims a second and 12 finals: 1.44 seconds of work in each.
    found = run(serving, costs, streams=60)
    assert len(found.finals) == found.sent == 120
    assert found.answered_interims < 0.9 * 60 * 22
    # The batch before it and its own, where two of the session's finals never wait.
    assert serving.percentile(found.finals, 0.95) < 0.16 * 4


def test_two_workers_have_two_event_loops(serving: Any) -> None:
    # 25 frames a second of 100 streams take 0.75 of one core, and of one GIL.
    costs = costs_of(serving, encode_s=1e-4, tag_s=1e-3, frame_s=3e-4)
    one, two = (run(serving, costs, 100, workers=count, cores=4) for count in (1, 2))
    assert serving.percentile(two.finals, 0.95) < 0.8 * serving.percentile(one.finals, 0.95)
    assert one.cpu_s == pytest.approx(two.cpu_s, rel=0.05)


def test_a_machine_that_is_lost_costs_time_and_no_final(serving: Any) -> None:
    costs = costs_of(serving, encode_s=0.002, tag_s=0.002)
    site = {"hosts": 3, "workers": 2, "generator_beside": False}
    calm = run(serving, costs, 90, 15.0, **site)
    lost = run(serving, costs, 90, 15.0, **site, fails_at_s=8.0)
    assert len(lost.finals) == lost.sent == calm.sent == 270
    assert 0 < len(lost.finals_after) < lost.sent
    assert max(lost.finals) > max(calm.finals)
    with pytest.raises(ValueError, match="expected another machine"):
        run(serving, costs, 10, fails_at_s=1.0)
