"""A session at home in an event loop: the protocol, its share of the engine, and who waits for it.

The server hosts one for each connection, the local client one for itself. One that is parked has no
connection: what is owed goes on, and waits.
"""

from __future__ import annotations

import asyncio
from collections import deque

from cnerta.streamer.apis.tongue import Aside, Flushed
from cnerta.streamer.serving.batcher import Batcher
from cnerta.streamer.serving.recognition import Recogniser
from cnerta.streamer.serving.transcription import Transcription
from cnerta.streamer.session.connection import ServerProtocol
from cnerta.streamer.session.work import Lane, Result, Work
from cnerta.streamer.sources.base import Revision
from cnerta.streamer.wire.errors import ErrorName, ProtocolError
from cnerta.streamer.wire.messages import ClientMessage, ServerMessage
from cnerta.streamer.wire.parts import LostHistory

__all__ = ["HostedSession"]


class HostedSession:
    """Keeps a protocol, the batcher and the task that sends its messages informed of each other.

    It is what the batcher knows as a work source. All methods are for the event loop's thread.

    Attributes:
        protocol: The session itself.
    """

    def __init__(
        self,
        protocol: ServerProtocol,
        batcher: Batcher,
        recogniser: Recogniser | None = None,
        *,
        paced: bool = True,
    ) -> None:
        """Host a session of which nothing was received yet.

        Args:
            protocol: The session itself.
            batcher: Brings its work to the engine.
            recogniser: Writes its transcript if the client wants that.
            paced: Whether its audio comes at the pace of speech. If not, its owner has to wait
                while :attr:`behind_ms` says that much is waiting.
        """
        self.protocol = protocol
        self._batcher = batcher
        self._recogniser = recogniser
        self._paced = paced
        self._transcription: Transcription | None = None
        self._asides: deque[Aside] = deque()
        if recogniser is not None:
            protocol.offer_recognition()
        self._news = asyncio.Event()
        self._reader: object = None

    # --- for the owner ----------------------------------------------------------------------------

    def receive(self, data: str | bytes) -> None:
        """Take a frame."""
        is_heard = isinstance(data, bytes) and not self.protocol.is_input_over
        self.protocol.receive(data, _now())
        if self._transcription is not None and is_heard:
            assert isinstance(data, bytes), "expected audio"
            self._transcription.push(data)
        self._changed()

    def receive_message(self, message: ClientMessage) -> None:
        """Take a message that is decoded already."""
        self.protocol.receive_message(message, _now())
        self._changed()

    def flush(self) -> None:
        """What was said so far is to be recognised to its end: an aside tells when it is."""
        if self._transcription is None or self.protocol.is_input_over:
            self.on_flushed()
        else:
            self._transcription.flush()

    def put_aside(self, aside: Aside) -> None:
        """Tell whoever reads the messages something before the next of them."""
        self._asides.append(aside)
        self._news.set()

    def tick(self) -> None:
        """Let time pass."""
        self.protocol.tick(_now())
        self._changed()

    def go_away(self, reason: str) -> None:
        """Ask the session to come to its end."""
        self.protocol.go_away(reason)
        self._changed()

    def fail(self, error: ProtocolError) -> None:
        """End the session with an error."""
        self.protocol.fail(error)
        self._changed()

    @property
    def behind_ms(self) -> float:
        """Audio that waits for the engine, or for the recogniser."""
        recognised = self._transcription
        waiting_ms = 0.0 if recognised is None else recognised.waiting_ms
        return max(waiting_ms, self.protocol.backlog_ms)

    @property
    def held_bytes(self) -> int:
        """See :class:`cnerta.streamer.serving.memory_budget.MemoryHolder`."""
        return self.protocol.held_bytes

    def release_memory(self, wanted_bytes: int) -> None:
        """See :class:`cnerta.streamer.serving.memory_budget.MemoryHolder`."""
        self.protocol.release_memory(wanted_bytes, _now())
        self._changed()

    def disconnect(self) -> None:
        """The other side is gone."""
        self.protocol.disconnect()
        self._batcher.forget(self)
        self._changed()
        # The reader has the session: in a circle, all that it held would wait for the collector.
        self._reader = None

    def park(self) -> None:
        """The other side is gone, and may come back."""
        self.protocol.park()
        self.attach(None)
        self._changed()

    def resume(self, last_seq: int) -> None:
        """The other side is back, and has received all events up to a number."""
        self.protocol.resume(last_seq, _now())
        if self._transcription is not None:
            self._transcription.complete_sample()
        self._changed()

    def start_anew(self, lost: LostHistory) -> None:
        """Begin a session in the place of the one that was asked for."""
        self.protocol.start_anew(lost)
        self._changed()

    def attach(self, reader: object) -> None:
        """From now on only this reader gets messages; whoever waits for another gets none."""
        self._reader = reader
        # Whoever waits has this event: a new one is for those who come.
        self._news.set()
        self._news = asyncio.Event()

    async def next_message(self, reader: object = None) -> ServerMessage | Aside | None:
        """Wait for the next message; None when there will be no more on this connection.

        Args:
            reader: Who asks, see :meth:`attach`.
        """
        while self._reader is reader and self.protocol.parting is None:
            if self._asides:
                return self._asides.popleft()
            message = self.protocol.next_message()
            if message is not None:
                return message
            if self.protocol.is_closed:
                return None
            news = self._news
            news.clear()
            await news.wait()
        return None

    def _changed(self) -> None:
        if self._recogniser is not None:
            self._follow(self._recogniser)
        self._wake()
        if not self.protocol.is_closed:
            self._batcher.notify(self)

    # --- a recogniser writes the transcript -------------------------------------------------------

    def _follow(self, recogniser: Recogniser) -> None:
        """Begin recognising, or end, as the session has."""
        protocol, transcription = self.protocol, self._transcription
        if transcription is None:
            if not protocol.is_recognised:
                return
            transcription = Transcription(
                recogniser, protocol.audio_format, self, paced=self._paced
            )
            if not transcription.begin():
                most = recogniser.most
                detail = f"expected at most {most} sessions whose speech is recognised, got more"
                protocol.fail(ProtocolError(ErrorName.TRY_AGAIN_LATER, detail))
                return
            self._transcription = transcription
        if protocol.is_closed:
            transcription.cancel()
        elif protocol.is_input_over:
            transcription.end()
        elif transcription.is_too_slow:
            detail = "expected a recogniser that keeps up, got an overload"
            protocol.fail(ProtocolError(ErrorName.TRY_AGAIN_LATER, detail))
            transcription.cancel()

    def on_revision(self, revision: Revision) -> None:
        """See :class:`cnerta.streamer.serving.transcription.Transcribed`."""
        self.protocol.recognised(revision.message(), _now())
        self._changed()

    def on_flushed(self) -> None:
        """See :class:`cnerta.streamer.serving.transcription.Transcribed`."""
        self.put_aside(Flushed(tuple(self.protocol.unsent_finals)))

    def on_transcription_over(self, is_complete: bool) -> None:
        """See :class:`cnerta.streamer.serving.transcription.Transcribed`."""
        if is_complete:
            self.protocol.recognition_over()
        else:
            detail = "expected a transcript from the server's recogniser, got a failure"
            self.protocol.fail(ProtocolError(ErrorName.RECOGNISER_FAILED, detail))
        self._changed()

    # --- for the batcher --------------------------------------------------------------------------

    @property
    def is_urgent(self) -> bool:
        """See :class:`cnerta.streamer.serving.batcher.WorkSource`, as for all that follow."""
        return self.protocol.is_urgent

    def is_overdue(self, now: float) -> bool:
        """Whether an utterance has waited for its first answer for too long."""
        return self.protocol.is_overdue(now)

    def lanes(self) -> list[Lane]:
        """The lanes that may have work for it."""
        return self.protocol.lanes()

    def next_work(self, lane: Lane, now: float) -> Work | None:
        """What the lane is to do next, if anything."""
        return self.protocol.next_work(lane, now)

    def work_done(self, work: Work, result: Result | Exception, now: float) -> None:
        """Take back a result."""
        self.protocol.work_done(work, result, now)
        self._wake()

    def fail_internally(self) -> None:
        """The session itself met a fault."""
        self.protocol.fail_internally()
        self._wake()

    def _wake(self) -> None:
        # The batcher asks for more work by itself.
        protocol = self.protocol
        if protocol.has_messages or protocol.is_closed or protocol.parting is not None:
            self._news.set()


def _now() -> float:
    return asyncio.get_running_loop().time()
