"""The demo in a browser: a server on this machine, and its page.

``python -m cnerta.streamer.commands.demo_page`` is what ``make demo-page`` runs. It serves until it
is stopped.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import webbrowser
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console

from cnerta.models.command_line import VersionOption, fail, make_app
from cnerta.models.errors import CnertaError
from cnerta.models.runtime.bundle import find_bundle
from cnerta.models.runtime.inference import Model
from cnerta.streamer.serving.listening import AddressError
from cnerta.streamer.serving.server import Server

__all__ = ["app", "main", "show_page"]

HOST: Final = "127.0.0.1"

app = make_app()


async def show_page(
    server: Server, port: int, console: Console, open_page: Callable[[str], object] | None
) -> None:
    """Serve the page until a signal comes.

    Args:
        server: Not started yet.
        port: Where to listen; another one if it is taken.
        console: Where the address is printed.
        open_page: Opens an address in a browser; None: nobody does.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        # Where there are no signal handlers (Windows), Ctrl-C ends the program at once.
        with contextlib.suppress(NotImplementedError):
            loop.add_signal_handler(number, stop.set)
    try:
        await server.start(HOST, port)
    except AddressError:
        await server.start(HOST, 0)
    async with server:
        address = f"http://{HOST}:{server.port}/"
        console.print(f"The page is at {address} (Ctrl-C ends it)", highlight=False)
        if open_page is not None:
            await asyncio.to_thread(open_page, address)
        await stop.wait()


@app.command()
def demo_page(
    bundle: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder of a model, one that comes along (fast, accurate), or hf:OWNER/NAME.",
        ),
    ] = None,
    port: Annotated[
        int, typer.Option(min=0, max=65_535, help="Where to listen; another one if it is taken.")
    ] = 8765,
    browser: Annotated[bool, typer.Option(help="Open the page in a browser.")] = True,
    version: VersionOption = False,
) -> None:
    """Serve the page on this machine and open it in a browser."""
    open_page = webbrowser.open if browser else None
    try:
        model = Model.load(find_bundle(bundle))
        asyncio.run(show_page(Server(model), port, Console(), open_page))
    except CnertaError as error:
        fail("demo-page", error)


def main() -> None:
    """Run from the command line."""
    app()


if __name__ == "__main__":
    main()
