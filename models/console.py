"""What the commands of training and exporting print on the terminal while they work."""

from __future__ import annotations

import logging

from rich.console import Console
from rich.logging import RichHandler

__all__ = ["log_to"]


def log_to(console: Console, level: int = logging.WARNING) -> None:
    """Print the log on a console, so that progress bars there stay whole.

    Args:
        console: Where to.
        level: Least level of this project's messages; of other libraries only warnings are printed.
    """
    logging.getLogger("cnerta").setLevel(level)
    logging.basicConfig(
        level=logging.WARNING,
        format="%(message)s",
        handlers=[RichHandler(console=console, show_path=False)],
    )
