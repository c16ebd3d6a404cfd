"""The script that measures a GPU runs to its end, in small and on the CPU."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "benchmarks" / "gpu.py"


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    out = tmp_path_factory.mktemp("gpu") / "gpu.json"
    small = "--device cpu --sessions 2,4 --seconds 2 --batches 1,2 --least 0.1 --bound-ms 60000"
    ended = subprocess.run(
        [sys.executable, str(SCRIPT), *small.split(), "--beside", "accurate", "--json", str(out)],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout, out


def test_it_prints_every_table(ran: tuple[str, Path]) -> None:
    printed, _ = ran
    for name in ("device", "parity with the CPU", "ms a chunk, resident", "final p50 / p95 / p99"):
        assert name in printed
    assert "not run" not in printed


def test_answers_are_the_cpus_and_every_final_came(ran: tuple[str, Path]) -> None:
    figures = json.loads(ran[1].read_text())
    assert figures["same_entities"]
    assert all(value < 1e-4 for value in figures["parity"].values())
    rows = [(row["bundle"], row["batch"]) for row in figures["engine"]]
    assert rows == [("fast", 1), ("fast", 2), ("accurate", 1), ("accurate", 2)]
    assert [row["streams"] for row in figures["server"]] == [2, 4]
    for row in figures["server"]:
        assert row["finals"] == [row["streams"]] * 2
        assert row["errors"] == []


def test_a_wrong_device_is_refused() -> None:
    ended = subprocess.run(
        [sys.executable, str(SCRIPT), "--device", "tpu"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 2
    assert "expected --device cuda or cpu, got 'tpu'" in ended.stderr
