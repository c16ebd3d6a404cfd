"""Where the page is, and what its tests need beside Python."""

from __future__ import annotations

import shutil
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
PAGE = ROOT / "streamer" / "page"
DEMO = ROOT / "streamer" / "demo"
MODULES = HERE / "node_modules"


def node() -> str | None:
    """Node, if there is one."""
    return shutil.which("node")


def chromium() -> str | None:
    """Chromium, if there is one."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def firefox() -> str | None:
    """Firefox, if there is one."""
    return next(filter(None, map(shutil.which, ("firefox", "firefox-esr"))), None)
