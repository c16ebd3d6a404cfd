"""The server's own recogniser, for clients that send nothing but audio.

One source writes the transcripts of all such sessions. It runs in an event loop of its own, in a
thread of its own, so whatever it takes there keeps no session waiting that brings its text. Audio
goes to it and revisions come back through the two loops; what waits for it is bounded, and so is
the number of sessions.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable
from typing import Final, Protocol

from cnerta.models.errors import CnertaError
from cnerta.streamer.serving.engine import describe_failure
from cnerta.streamer.sources.base import LiveAudio, Revision, TranscriptSource
from cnerta.streamer.wire.parts import AudioFormat

__all__ = ["Recogniser", "Recognition", "RecognitionListener"]

logger = logging.getLogger(__name__)

_MOST_WAITING_MS: Final = 30_000
_FLUSH_S: Final = 30.0


class RecognitionListener(Protocol):
    """Who wants to know what is recognised; called in the event loop that began it."""

    def on_revision(self, revision: Revision) -> None:
        """The transcript of an utterance has changed."""
        ...

    def on_recognition_over(self, is_complete: bool) -> None:
        """There will be no more; not complete: something failed."""
        ...


class Recogniser:
    """Writes the transcripts of many sessions with one source."""

    def __init__(self, source: TranscriptSource, most: int) -> None:
        """Start its thread.

        Args:
            source: What recognises; asked once for each session.
            most: Sessions at once.
        """
        self.most = most
        self._source = source
        self._running: set[Recognition] = set()
        self._succeeded: set[Recognition] = set()  # by another one for the same session
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="cnerta-recogniser", daemon=True)
        self._thread.start()

    def __len__(self) -> int:
        """How many sessions it writes for."""
        return len(self._running - self._succeeded)

    def begin(
        self,
        audio_format: AudioFormat,
        listener: RecognitionListener,
        *,
        after: Recognition | None = None,
        paced: bool = True,
    ) -> Recognition | None:
        """Begin with a session; None if there are as many as may be.

        Args:
            audio_format: Of its audio, which does not change.
            listener: Whom to tell.
            after: What was done for the same session before, and still comes to its end; then there
                is room.
            paced: Whether the audio comes at the pace of speech.
        """
        if after is not None:
            self._succeeded.add(after)
        elif len(self) >= self.most:
            return None
        live = LiveAudio(audio_format, paced=paced)
        recognition = Recognition(self._source, live, listener, self._loop, self._discard)
        self._running.add(recognition)
        return recognition

    def close(self, timeout_s: float = 5.0) -> None:
        """Leave all sessions and end the thread; blocks until it has ended, or for so long."""
        for recognition in tuple(self._running):
            recognition.cancel()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout_s)

    def _discard(self, recognition: Recognition) -> None:
        self._running.discard(recognition)
        self._succeeded.discard(recognition)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
        finally:
            with contextlib.suppress(Exception):
                for task in asyncio.all_tasks(self._loop):
                    task.cancel()
                self._loop.run_until_complete(asyncio.sleep(0))
                self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.close()


class Recognition:
    """What a recogniser does for one session. All methods are for the event loop that began it."""

    def __init__(
        self,
        source: TranscriptSource,
        live: LiveAudio,
        listener: RecognitionListener,
        loop: asyncio.AbstractEventLoop,
        on_over: Callable[[Recognition], None],
    ) -> None:
        """Begin; see :meth:`Recogniser.begin`."""
        self._source = source
        self._listener = listener
        self._home = asyncio.get_running_loop()
        self._loop = loop
        self._on_over = on_over
        self._live = live
        audio_format = live.format
        self._frame_bytes = audio_format.frame_bytes
        self._bytes_per_ms = audio_format.sample_rate * audio_format.frame_bytes / 1000
        self._blocks: asyncio.Queue[bytes | None] = asyncio.Queue()
        # Each is written by one thread only.
        self._pushed = self._taken = 0
        self._has_ended = self._is_over = False
        self._deadline: asyncio.TimerHandle | None = None
        self._running = asyncio.run_coroutine_threadsafe(self._recognise(), loop)

    @property
    def pushed_bytes(self) -> int:
        """Audio that it was given."""
        return self._pushed

    @property
    def waiting_ms(self) -> float:
        """Audio that the recogniser has not taken yet."""
        return (self._pushed - self._taken) / self._bytes_per_ms

    @property
    def is_too_slow(self) -> bool:
        """Whether more audio waits than may."""
        return self.waiting_ms > _MOST_WAITING_MS

    def push(self, block: bytes) -> None:
        """More audio."""
        if not self._is_over:
            self._pushed += len(block)
            self._loop.call_soon_threadsafe(self._blocks.put_nowait, block)

    def complete_sample(self) -> int:
        """The audio goes on with a whole sample, wherever it broke off.

        Returns:
            How many bytes were missing from the last one.
        """
        missing = -self._pushed % self._frame_bytes
        if missing:
            self.push(bytes(missing))
        return missing

    def end(self) -> None:
        """There is no more audio: what is said is to be written to its end."""
        if self._has_ended or self._is_over:
            return
        self._has_ended = True
        self._loop.call_soon_threadsafe(self._blocks.put_nowait, None)
        late = TimeoutError(f"expected the rest of the transcript within {_FLUSH_S:g} s")
        self._deadline = self._home.call_later(_FLUSH_S, self._give_up, late)

    def cancel(self) -> None:
        """Nobody wants to know any more."""
        self._leave()
        self._running.cancel()

    # --- in the recogniser's loop -----------------------------------------------------------------

    async def _recognise(self) -> None:
        feeding = asyncio.create_task(self._feed())
        error: Exception | None = None
        try:
            revisions = self._source.revisions(self._live)
            try:
                async for revision in revisions:
                    self._at_home(self._tell, revision)
            finally:
                close = getattr(revisions, "aclose", None)
                if close is not None:
                    await close()
        except Exception as caught:  # a source's failures are of many kinds
            error = caught
        finally:
            self._live.detach()
            feeding.cancel()
        self._at_home(self._finish, error)

    def _at_home(self, call: Callable[..., None], *arguments: object) -> None:
        with contextlib.suppress(RuntimeError):  # the server has stopped, and its loop with it
            self._home.call_soon_threadsafe(call, *arguments)

    async def _feed(self) -> None:
        while (block := await self._blocks.get()) is not None:
            await self._live.push(block)
            self._taken += len(block)
        await self._live.end()

    # --- back home --------------------------------------------------------------------------------

    def _tell(self, revision: Revision) -> None:
        if not self._is_over:
            self._listener.on_revision(revision)

    def _finish(self, error: Exception | None) -> None:
        """The source has ended, or takes too long for that."""
        if self._is_over:
            return
        if isinstance(error, CnertaError):
            logger.error("the recogniser failed: %s", error)
        elif error is not None:
            logger.error("the recogniser failed: %s", describe_failure(error))
        self._leave()
        self._listener.on_recognition_over(error is None and self._has_ended)

    def _give_up(self, error: Exception) -> None:
        self._finish(error)
        self._running.cancel()

    def _leave(self) -> None:
        self._is_over = True
        if self._deadline is not None:
            self._deadline.cancel()
        self._on_over(self)
