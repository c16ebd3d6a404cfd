"""How many workers ``auto`` is."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cnerta.streamer.workers.cores import usable_cores, workers_for


@pytest.mark.parametrize(
    ("written", "expected"),
    [("max 100000", 8), ("200000 100000", 2), ("150000 100000", 2), ("5000 100000", 1),
     ("6400000 100000", 8), ("", 8), ("x y", 8)],
)  # fmt: skip
def test_a_container_uses_what_it_pays_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: str, expected: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    quota = tmp_path / "cpu.max"
    quota.write_text(written)
    assert usable_cores(quota) == expected
    assert usable_cores(tmp_path / "nothing") == 8


def test_a_worker_for_each_core_or_for_several() -> None:
    assert [workers_for(8, threads) for threads in (1, 2, 3, 16)] == [8, 4, 2, 1]
    assert usable_cores() >= 1
