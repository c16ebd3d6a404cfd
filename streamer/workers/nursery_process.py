"""A nursery as the front sees it: a process of its own, started with this process' command."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Final

from cnerta.streamer.workers.channel import Channel
from cnerta.streamer.workers.messages import Fork, Setup
from cnerta.streamer.workers.nursery import NURSERY_VARIABLE

__all__ = ["NurseryProcess", "own_command"]

_KILL_AFTER_S: Final = 5.0


def own_command() -> list[str]:
    """What this process was started with, to be run again."""
    return [sys.executable, *sys.orig_argv[1:]]


class NurseryProcess:
    """One that runs, or has ended.

    Attributes:
        generation: Its number.
        channel: To it.
        is_loaded: Whether it can fork.
        is_gone: Whether it has ended.
    """

    def __init__(self, generation: int, command: Sequence[str], setup: Setup) -> None:
        """Start it.

        Args:
            generation: Its number.
            command: What to run; see :func:`own_command`.
            setup: What all workers share.
        """
        self.generation = generation
        self.is_loaded = self.is_gone = False
        self.channel, other = Channel.pair()
        with other:
            os.set_inheritable(other.fileno(), True)
            self._process = subprocess.Popen(
                command,
                env={**os.environ, NURSERY_VARIABLE: str(other.fileno())},
                pass_fds=[other.fileno()],
                stdin=subprocess.DEVNULL,
            )
        self.channel.send(setup)

    def fork(self, name: str, place: int) -> Channel:
        """Ask for a worker. Returns the channel to it, which ends at once if there is none."""
        channel, other = Channel.pair()
        with other:
            self.channel.send(Fork(name, place), [other.fileno()])
        return channel

    def leave(self) -> None:
        """Let it end; its workers go on. Of the event loop's thread."""
        if not self.is_gone:
            self.is_gone = True
            self.channel.close()

    def wait(self) -> int:
        """Wait for its end; not of the event loop's thread. Returns its exit status."""
        try:
            return self._process.wait(_KILL_AFTER_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()
