"""How the commands of this package fail: with a sentence, not with a traceback."""

from __future__ import annotations

from typing import NoReturn

from cnerta.models import command_line

__all__ = ["fail"]


def fail(error: Exception) -> NoReturn:
    """Print what went wrong and end the command with status 1."""
    command_line.fail(type(error).__name__, error)
