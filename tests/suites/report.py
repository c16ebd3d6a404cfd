"""What every suite ends with: a table in Markdown, as docs/reliability.md quotes it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

__all__ = ["progress", "run", "table"]


def run(command: Callable[..., None]) -> None:
    """Make a program of a function."""
    app = typer.Typer(pretty_exceptions_enable=False, add_completion=False)
    app.command()(command)
    app()


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


@contextlib.contextmanager
def progress(what: str, total: float) -> Iterator[Callable[[float, str], None]]:
    """A bar on standard error; yields what moves it on by so much, and says beside it how it is."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=Console(stderr=True)) as bars:
        bar = bars.add_task(what, total=total, note="")
        yield lambda more, note="": bars.update(bar, advance=more, note=note)
