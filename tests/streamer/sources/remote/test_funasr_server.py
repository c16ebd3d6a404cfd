"""FunASR's own realtime server, with models that are made up: `make test-funasr`."""

from __future__ import annotations

import contextlib
import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from cnerta.streamer.sources import make_transcript_source

from ..collect import collect, finals

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("funasr") is None, reason="needs FunASR's package: make test-funasr"
)

SERVER = Path(__file__).with_name("funasr_realtime_server.py")


@contextlib.contextmanager
def serving(endpoint_mode: str) -> Iterator[str]:
    """Serve; the address."""
    command = [sys.executable, str(SERVER), endpoint_mode]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            said = iter(process.stdout.readline, "")  # its modules print things, too
            port = next(line for line in said if line.startswith("port "))
            yield f"ws://127.0.0.1:{port.split()[1]}"
        finally:
            process.terminate()


def speech() -> np.ndarray:
    """0.8 s of loud noise, 0.6 s of quiet, 1.4 s of loud noise, and quiet."""
    noise = np.random.default_rng(0).normal(0, 1, 16_000 * 3).astype(np.float32)
    loudness = np.full(len(noise), 0.0005, np.float32)
    loudness[: int(0.8 * 16_000)] = 0.1
    loudness[int(1.4 * 16_000) : int(2.8 * 16_000)] = 0.1
    return noise * loudness


@pytest.mark.parametrize("endpoints", ["server", "client"])
async def test_the_realtime_server(endpoints: str) -> None:
    with serving(endpoints) as url:
        options = (
            f"endpoints={endpoints},pause=0.3,language=中文,hotwords=江大桥,speed=4,patience=60"
        )
        source = make_transcript_source(f"funasr-realtime:{url},{options}")
        got = await collect(source, speech(), patience_s=120)
    assert finals(got) == ["南京市长", "南京市长江大桥"]
    (first, second) = (r for r in got if r.final)
    assert first.start_ms is not None
    assert second.start_ms is not None
    assert first.start_ms < 100
    assert 700 < second.start_ms < 1_450
    assert any(not r.final and r.text and r.text in "南京市长江大桥" for r in got), (
        "text that grows"
    )
