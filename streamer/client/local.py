"""The engine in this process, behind the same interface as a connection to a server."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from cnerta.models.runtime.bundle import find_bundle
from cnerta.models.runtime.inference import Device, Model
from cnerta.streamer.apis.tongue import Aside
from cnerta.streamer.errors import (
    ClientError,
    RecordingError,
    ServerUnreachableError,
    SessionFailedError,
)
from cnerta.streamer.recording.recorder import RecordedProtocol, record_one
from cnerta.streamer.recording.writer import RecordingOptions
from cnerta.streamer.serving.batcher import Batcher
from cnerta.streamer.serving.engine import Engine, Inference
from cnerta.streamer.serving.hosted_session import HostedSession
from cnerta.streamer.session.connection import ServedModel, ServerProtocol
from cnerta.streamer.session.limits import ConnectionLimits, SessionLimits
from cnerta.streamer.wire.messages import ClientMessage, ServerMessage

__all__ = ["LocalConnection"]

_TICK_S: Final = 0.1
# Nobody to protect from whoever streams to himself: audio may come as fast as the engine takes it.
_LIMITS: Final = ConnectionLimits(
    start_timeout_s=None,
    idle_timeout_s=None,
    max_audio_ahead_ms=None,
    session=SessionLimits(characters_per_s=None),
)
_BACKLOG_MS: Final = 2_000


class LocalConnection:
    """A session in this process. Use :meth:`open` to make one."""

    def __init__(self, model: Inference, record: RecordingOptions | None = None) -> None:
        """Start the engine; needs a running event loop.

        Raises:
            RecordingError: The recording cannot be written.
        """
        served = ServedModel(model.bundle, model.device)
        now = asyncio.get_running_loop().time()
        self._protocol = (
            ServerProtocol(served, _LIMITS, "local", now)
            if record is None
            else record_one(served, _LIMITS, "local", now, record)
        )
        self._batcher = Batcher(Engine(model))
        self._session = HostedSession(self._protocol, self._batcher)
        self._failure: Exception | None = None
        self._ticking = asyncio.create_task(self._tick())

    @classmethod
    async def open(
        cls,
        bundle: Path | None = None,
        *,
        device: Device = "auto",
        threads: int = 1,
        record: RecordingOptions | None = None,
    ) -> LocalConnection:
        """Load a bundle (None: the default; see :func:`cnerta.models.runtime.bundle.find_bundle`).

        Raises:
            BundleError: The bundle cannot be used.
            InferenceError: onnxruntime is missing or refuses the graphs.
            RecordingError: The recording cannot be written.
        """
        path = find_bundle(bundle)
        model = await asyncio.to_thread(Model.load, path, device=device, threads=threads)
        return cls(model, record)

    async def send(self, message: ClientMessage) -> None:
        """Send one message."""
        self._check_open()
        self._session.receive_message(message)

    async def send_audio(self, block: bytes) -> None:
        """Send raw samples; waits while the engine does not keep up."""
        self._check_open()
        self._session.receive(block)
        while self._protocol.backlog_ms > _BACKLOG_MS and not self._protocol.is_closed:
            await asyncio.sleep(0.005)

    async def receive(self) -> ServerMessage:
        """Wait for the next message.

        Raises:
            ServerUnreachableError: The session has ended.
            SessionFailedError: It has failed.
        """
        message = await self._session.next_message()
        if message is None:
            raise self._end()
        assert not isinstance(message, Aside), "expected none without a tongue"
        return message

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # Each step whatever became of the one before: threads that go on would keep the process.
        try:
            self._ticking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._ticking
            self._session.disconnect()
        finally:
            try:
                await self._batcher.close()
            finally:
                if isinstance(self._protocol, RecordedProtocol):
                    try:
                        await asyncio.to_thread(self._protocol.close_recording)
                    except RecordingError:
                        if error is None:  # What ended the session says more.
                            raise

    def _check_open(self) -> None:
        if self._protocol.is_closed:
            raise self._end()

    def _end(self) -> ClientError:
        """Why there is no session any more."""
        if self._failure is None:
            return ServerUnreachableError("expected a session, got one that has ended")
        failed = SessionFailedError(
            f"expected the session in this process to go on, got: {self._failure!r}"
        )
        failed.__cause__ = self._failure
        return failed

    async def _tick(self) -> None:
        """Let time pass until that fails; then whoever waits for the session is told."""
        try:
            while True:
                await asyncio.sleep(_TICK_S)
                self._session.tick()
        except Exception as error:
            self._failure = error
            self._session.disconnect()
