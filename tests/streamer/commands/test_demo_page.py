"""The demo in a browser, without one."""

from __future__ import annotations

import asyncio
import io
import os
import signal
import urllib.request
from pathlib import Path

from rich.console import Console
from typer.testing import CliRunner

from cnerta.models.runtime.inference import Model
from cnerta.streamer.commands.demo_page import app, show_page
from cnerta.streamer.serving.server import Server


def fetched(address: str) -> bytes:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(address, timeout=10) as answer:
        return bytes(answer.read())


async def test_the_page_is_served_and_opened_until_a_signal_comes(tiny_bundle: Path) -> None:
    opened: list[tuple[str, bytes]] = []
    told = io.StringIO()

    def open_page(address: str) -> None:
        opened.append((address, fetched(address)))
        os.kill(os.getpid(), signal.SIGINT)

    model = Model.load(tiny_bundle)
    async with Server(model) as other:  # its port is taken
        await other.start()
        console = Console(file=told, width=100)
        async with asyncio.timeout(60):
            await show_page(Server(model), other.port, console, open_page)
        assert not opened[0][0].endswith(f":{other.port}/")
    address, page = opened[0]
    assert page.startswith(b"<!doctype html>")
    assert address in told.getvalue()


def test_a_model_that_is_not_there_is_named() -> None:
    result = CliRunner().invoke(app, ["--bundle", "/nowhere", "--no-browser"])
    assert result.exit_code == 1
    assert "/nowhere" in result.output
