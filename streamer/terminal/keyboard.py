"""Single keys of whoever watches the live view.

They are read from the terminal that shows the view, not from standard input, which may be the
transcript. Where there is no terminal, or one without single keys (Windows), there are none.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import IO

__all__ = ["Key", "pressed_keys"]

log = logging.getLogger(__name__)

try:
    import termios
    import tty
except ImportError:  # Windows
    HAVE_KEYS = False
else:
    HAVE_KEYS = True


@dataclass(frozen=True, slots=True)
class Key:
    """A key and what it does.

    Attributes:
        name: The character it sends.
        does: What that is good for, in a few words.
        press: Called when it is pressed.
    """

    name: str
    does: str
    press: Callable[[], None]


@contextlib.contextmanager
def pressed_keys(keys: Sequence[Key], terminal: IO[str] | None) -> Iterator[bool]:
    """Call what belongs to each key that is pressed, until left.

    Args:
        keys: The keys.
        terminal: What the terminal is written to, such as standard output.

    Yields:
        Whether there are keys at all.
    """
    descriptor = _open(terminal)
    if descriptor is None:
        yield False
        return
    loop = asyncio.get_running_loop()
    before = termios.tcgetattr(descriptor)
    actions = {key.name: key.press for key in keys}

    def read() -> None:
        try:
            typed = os.read(descriptor, 64).decode(errors="replace")
        except OSError:
            typed = ""
        if not typed:  # The terminal is gone.
            loop.remove_reader(descriptor)
        for character in typed:
            actions.get(character, _nothing)()

    def take() -> None:
        # Single keys without an echo; Ctrl-C stays what it is.
        tty.setcbreak(descriptor, termios.TCSANOW)

    try:
        take()
        loop.add_reader(descriptor, read)
        # A shell gives its own settings to a job that goes on after Ctrl-Z.
        loop.add_signal_handler(signal.SIGCONT, take)
        yield True
    finally:
        loop.remove_signal_handler(signal.SIGCONT)
        loop.remove_reader(descriptor)
        with contextlib.suppress(termios.error):
            termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
        os.close(descriptor)


def _nothing() -> None:
    """What a key does that has no meaning."""


def _open(terminal: IO[str] | None) -> int | None:
    """Open the terminal for reading; None if there is none, or it is not ours to read."""
    if not HAVE_KEYS or terminal is None:
        return None
    try:
        # By its own name: macOS cannot wait for /dev/tty.
        descriptor = os.open(os.ttyname(terminal.fileno()), os.O_RDONLY | os.O_NOCTTY)
    except (OSError, ValueError) as error:
        log.debug("no keys: %s", error)
        return None
    try:
        if os.tcgetpgrp(descriptor) == os.getpgrp():
            return descriptor
    except OSError as error:
        log.debug("no keys: %s", error)
    os.close(descriptor)  # In the background; whoever changes its settings there is stopped.
    return None
