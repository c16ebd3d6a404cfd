"""How the commands of this package fail: with a sentence, not with a traceback."""

from __future__ import annotations

from typing import NoReturn

import typer
from rich.console import Console

__all__ = ["fail"]


def fail(error: Exception) -> NoReturn:
    """Print what went wrong and end the command with status 1."""
    message = f"{type(error).__name__}: {error}"
    Console(stderr=True).print(message, style="red", markup=False, soft_wrap=True)
    raise typer.Exit(1) from error
