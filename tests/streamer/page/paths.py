"""Where the page is, and what its tests need beside Python."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
PAGE = ROOT / "streamer" / "page"
DEMO = ROOT / "streamer" / "demo"
DRIVER = HERE / "node_modules" / "puppeteer-core"
OLDEST_NODE = 20


def node() -> str | None:
    """Node that runs the tests, if there is one."""
    found = shutil.which("node")
    if found is None:
        return None
    told = subprocess.run([found, "--version"], capture_output=True, text=True, check=False).stdout
    major = told.removeprefix("v").partition(".")[0]
    return found if major.isdigit() and int(major) >= OLDEST_NODE else None


def first_of(*names: str) -> str | None:
    """The first program of these that there is."""
    return next(filter(None, map(shutil.which, names)), None)


def chromium() -> str | None:
    """Chromium or one of its kind, if there is one."""
    return first_of("chromium", "chromium-browser", "google-chrome")


def firefox() -> str | None:
    """Firefox, if there is one."""
    return first_of("firefox", "firefox-esr")
