"""``cnerta-serve`` in a process of its own, with the small deterministic model of these tests.

For tests that stop and kill servers::

    async with FakeModelServer("--drain-s", "1") as serving:
        url = f"ws://127.0.0.1:{serving.port}"
        serving.kill()              # SIGKILL: without a word
        serving.freeze()            # SIGSTOP: it hangs
        status = await serving.stop()  # SIGTERM: in order
        serving.log                 # what it has written, once it has ended
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import re
import signal
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

__all__ = ["FakeModelServer"]

_SLOW: str = "FAKE_MODEL_TAGS_FOR_S"


class FakeModelServer:
    """A server process; use as a context manager, which ends it.

    Attributes:
        port: What it listens on.
        log: What it has written to standard error, once it has ended.
    """

    def __init__(self, *options: str, tags_for_s: float = 0.0) -> None:
        """Prepare a server.

        Args:
            options: Of ``cnerta-serve``; ``--port`` is given already.
            tags_for_s: How long every batch of texts takes.
        """
        self.port = 0
        self.log = ""
        self._options = options
        self._environment = {**os.environ, _SLOW: str(tags_for_s)}
        self._process: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None
        self._lines: list[str] = []

    async def __aenter__(self) -> Self:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, __file__, "--port", "0", *self._options,
            stderr=asyncio.subprocess.PIPE, env=self._environment,
        )  # fmt: skip
        assert self._process.stderr is not None
        while not self.port:
            line = (await asyncio.wait_for(self._process.stderr.readline(), 60)).decode()
            self._lines.append(line)
            assert line, f"the server ended: {self._lines}"
            found = re.search(r"listening on \S+ port (\d+)", line)
            self.port = int(found[1]) if found else 0
        self._reading = asyncio.create_task(self._read())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.kill()
        await self.ended()

    def kill(self) -> None:
        """End it without a word."""
        assert self._process is not None
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    def freeze(self) -> None:
        """It hangs, and its connections stay."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    async def stop(self) -> int:
        """Ask it to stop; its exit status."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        return await self.ended()

    async def ended(self) -> int:
        """Wait for its end; its exit status."""
        assert self._process is not None
        status = await asyncio.wait_for(self._process.wait(), 60)
        if self._reading is not None:
            await self._reading
        self.log = "".join(self._lines)
        return status

    async def _read(self) -> None:
        assert self._process is not None
        assert self._process.stderr is not None
        async for line in self._process.stderr:
            self._lines.append(line.decode())


def _serve() -> None:
    """What runs in the process."""
    from cnerta.streamer.commands import serve, serve_workers

    spec = importlib.util.spec_from_file_location(
        "helpers", Path(__file__).with_name("conftest.py")
    )
    assert spec is not None
    assert spec.loader is not None
    helpers = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(helpers)
    model = helpers.FakeModel()
    tag, tags_for_s = model.tag, float(os.environ[_SLOW])

    def slow(*arguments: Any) -> Any:
        time.sleep(tags_for_s)
        return tag(*arguments)

    model.tag = slow

    class Loader:
        @staticmethod
        def load(*_arguments: Any, **_options: Any) -> Any:
            return model

    serve_workers.Model = Loader  # type: ignore[misc, assignment]
    serve_workers.find_bundle = lambda bundle: bundle  # type: ignore[assignment, return-value]
    serve.main()


if __name__ == "__main__":
    _serve()
