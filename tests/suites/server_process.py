"""A server in a process of its own: started, killed, started anew, and its use of the machine."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

__all__ = ["ServerProcess", "Usage", "free_port"]

_START_S: Final = 300.0
_STOP_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class Usage:
    """What a process holds at one moment.

    Attributes:
        cpu_seconds: Used since its start.
        resident_mb: Resident memory.
        descriptors: Open files and sockets.
        threads: Its threads.
    """

    cpu_seconds: float
    resident_mb: float
    descriptors: int
    threads: int

    @classmethod
    def of(cls, pid: int) -> Usage:
        """Read it from /proc."""
        process = Path(f"/proc/{pid}")
        fields = (process / "stat").read_text().rpartition(")")[2].split()
        status = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
        return cls(
            cpu_seconds=(int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"),
            resident_mb=int(status["VmRSS"].split()[0]) / 1024,
            descriptors=len(os.listdir(process / "fd")),
            threads=int(status["Threads"]),
        )


class ServerProcess:
    """``cnerta-serve`` on loopback. Use as a context manager, which ends it.

    Attributes:
        port: Where it listens; stays over a restart.
        exit_codes: Of those that have ended, in order.
    """

    def __init__(self, arguments: Sequence[str] = (), *, port: int = 0) -> None:
        """Prepare to start.

        Args:
            arguments: Options for ``cnerta-serve``.
            port: Where to listen; 0: where it is free.
        """
        self.port = port or free_port()
        self.exit_codes: list[int] = []
        self._arguments = list(arguments)
        self._log = tempfile.TemporaryFile("a+", encoding="utf-8", errors="replace")  # noqa: SIM115
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Of its stream."""
        return f"ws://127.0.0.1:{self.port}/v1/stream"

    @property
    def pid(self) -> int:
        """Of the running process."""
        assert self._process is not None, "expected a server that was started"
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether it has not ended by itself."""
        return self._process is not None and self._process.poll() is None

    def usage(self) -> Usage:
        """What it holds now."""
        return Usage.of(self.pid)

    def start(self) -> None:
        """Start it and wait until it listens.

        Raises:
            RuntimeError: It does not start.
        """
        command = [sys.executable, "-m", "cnerta.streamer.commands.serve"]
        options = ["--port", str(self.port), "--log-level", "warning", *self._arguments]
        self._process = subprocess.Popen(
            [*command, *options], stdout=self._log, stderr=subprocess.STDOUT
        )
        began = time.monotonic()
        while time.monotonic() - began < _START_S and self.is_running:
            with socket.socket() as probe:
                probe.settimeout(1)
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.02)
        self.kill()
        raise RuntimeError(f"expected a server that listens, got:\n{self.log()}")

    def kill(self) -> None:
        """End it at once, as a crash would."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Ask it to end, and wait."""
        self._end(signal.SIGTERM)

    def _end(self, number: signal.Signals) -> None:
        if self._process is None:
            return
        if self._process.poll() is None:
            self._process.send_signal(number)
        try:
            self.exit_codes.append(self._process.wait(_STOP_S))
        except subprocess.TimeoutExpired:
            self._process.kill()
            self.exit_codes.append(self._process.wait())
        self._process = None

    def log(self) -> str:
        """What it has written so far, warnings and errors."""
        self._log.flush()
        position = self._log.tell()
        self._log.seek(0)
        text = self._log.read()
        self._log.seek(position)
        return text

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
        self._log.close()


def free_port() -> int:
    """A port of this machine where nobody listens now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
