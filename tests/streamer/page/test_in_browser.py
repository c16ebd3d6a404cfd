"""The page in real browsers, against a real server with the model that comes along.

A short visit is part of all tests. ``make page-test`` installs what is needed and runs the rest.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from msgspec.json import encode

from cnerta.streamer.wire.asyncapi import asyncapi_document

from .paths import DEMO, DRIVER, HERE, OLDEST_NODE, chromium, firefox, node

WANTS_ALL = os.environ.get("CNERTA_PAGE_TESTS") == "all"
SHORT = ["visit"]
LONG = ["page", "faults", "firefox", "audio_only", "overlay"]


def missing(name: str) -> str | None:
    """What there is not, of what a test needs."""
    if node() is None:
        return f"Node {OLDEST_NODE} or newer"
    if not DRIVER.is_dir():
        return "puppeteer-core (make page-test installs it)"
    if name == "audio_only" and b"transcript.update" not in encode(asyncapi_document()):
        return "a server that writes transcripts itself"
    if name == "firefox":
        return None if firefox() else "Firefox"
    return None if chromium() else "Chromium"


@pytest.fixture(scope="module")
def microphone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the fake microphone hears: the mayor, then silence."""
    samples, rate = soundfile.read(DEMO / "mayor.flac", dtype="int16")
    quiet = np.zeros(rate, np.int16)
    path = tmp_path_factory.mktemp("microphone") / "mayor.wav"
    soundfile.write(path, np.concatenate([quiet[: rate // 2], samples, *[quiet] * 20]), rate)
    return path


@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", [*SHORT, *(LONG if WANTS_ALL else [])])
def test_in_a_browser(name: str, microphone: Path, tmp_path: Path) -> None:
    needed = missing(name)
    if needed is not None:
        pytest.skip(f"needs {needed}")
    shots = Path(os.environ.get("CNERTA_PAGE_SHOTS", tmp_path))
    shots.mkdir(parents=True, exist_ok=True)
    environment = {
        **os.environ,
        "PAGE_PYTHON": sys.executable,
        "PAGE_CHROMIUM": chromium() or "",
        "PAGE_FIREFOX": firefox() or "",
        "PAGE_MICROPHONE": str(microphone),
        "PAGE_SHOTS": str(shots),
    }
    test = HERE / "browser" / f"{name}.test.mjs"
    done = subprocess.run(
        [node() or "node", "--test", "--test-reporter=spec", str(test)],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert done.returncode == 0, done.stdout + done.stderr
