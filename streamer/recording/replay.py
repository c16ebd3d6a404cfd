"""Runs a recorded session again: the same calls at the same times, and the events compared.

The protocol and the session do no I/O and are told the time, so the same calls in the same order
give the same events, at any speed. What the engine did when is in the recording; what the model
said is either asked again or taken from it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Protocol

import numpy as np

from cnerta.models.runtime.bundle import Bundle
from cnerta.streamer.recording import file as recording
from cnerta.streamer.recording.file import Header, Record, RecordingReader
from cnerta.streamer.recording.recorder import model_answer
from cnerta.streamer.serving.engine import Encoded, Engine, TaggedWork, describe_failure
from cnerta.streamer.session.connection import ServedModel, ServerProtocol
from cnerta.streamer.session.work import EncodeWork, TagWork
from cnerta.streamer.wire.codec import decode_client, decode_server, encode
from cnerta.streamer.wire.errors import ErrorName, ProtocolError
from cnerta.streamer.wire.messages import ServerMessage

__all__ = ["Answers", "AskAgain", "Difference", "Recall", "Replay", "Replayed"]

logger = logging.getLogger(__name__)

_QUOTED: Final = 300


@dataclass(frozen=True, slots=True)
class Replayed:
    """A message that the session gave, now or then.

    Attributes:
        now: When, on the recording's clock, in seconds.
        message: What it gave now; None if it gave less than it did.
        recorded: What it gave then; None if it gives more than it did.
    """

    now: float
    message: ServerMessage | None
    recorded: ServerMessage | None


@dataclass(frozen=True, slots=True)
class Difference:
    """Where a replay went another way.

    Attributes:
        now: When, in seconds since the session began.
        expected: What the recording has.
        got: What happened.
    """

    now: float
    expected: str
    got: str

    def __str__(self) -> str:
        return f"at {self.now:.3f} s: expected {self.expected}, got {self.got}"


class Answers(Protocol):
    """Who does the engine's work in a replay."""

    def encode(self, work: EncodeWork) -> Encoded | Exception:
        """Encode a chunk."""
        ...

    def tag(self, work: TagWork, recorded: recording.Tagged) -> TaggedWork | Exception:
        """Tag a text, of which this was said then."""
        ...


class AskAgain:
    """Has the model do it again."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def encode(self, work: EncodeWork) -> Encoded | Exception:
        """Encode a chunk."""
        (encoded,) = self._engine.encode([work])
        return encoded

    def tag(self, work: TagWork, recorded: recording.Tagged) -> TaggedWork | Exception:
        """Tag a text."""
        (tagged,) = self._engine.tag([work])
        return tagged


class Recall:
    """Takes what the model said from the recording; nothing has to be computed."""

    def __init__(self, bundle: Bundle) -> None:
        self._geometry = bundle.geometry

    def encode(self, work: EncodeWork) -> Encoded:
        """Frames of the right number and without content: nobody looks at them."""
        count = len(work.samples) // self._geometry.hop_samples
        frames = np.zeros((count, self._geometry.width), np.float32)
        before = work.state
        if before is None:
            return Encoded(frames, None)
        return Encoded(frames, replace(before, position=before.position + count))

    def tag(self, work: TagWork, recorded: recording.Tagged) -> TaggedWork:
        """What was said then."""
        return TaggedWork(tuple(map(model_answer, recorded.answers)))


class Replay:
    """One run of a recording.

    Attributes:
        reader: The recording.
        differences: Where it went another way, so far.
        messages: Messages compared so far.
    """

    def __init__(self, path: Path, bundle: Bundle, answers: Answers) -> None:
        """Open a recording.

        Raises:
            RecordingError: It cannot be read.
        """
        self.reader = RecordingReader(path)
        self.differences: list[Difference] = []
        self.messages = 0
        self._answers = answers
        header = self.reader.header
        model = ServedModel(bundle, header.device)
        self._began = self._now = header.now
        self._protocol = ServerProtocol(
            model, header.limits, header.session, header.now, is_recorded=True
        )
        self._encode: EncodeWork | None = None
        self._tag: TagWork | None = None

    def run(self) -> Iterator[Replayed]:
        """Do again what was done; every message as it comes."""
        for record in self.reader:
            if isinstance(record, recording.Full):
                logger.warning("the recording reached its bound here; the session went on")
                return
            self._now = getattr(record, "now", self._now)
            if isinstance(record, recording.Sent):
                yield self._compare(record)
            else:
                self._repeat(record)
        if self.reader.is_cut_off:
            logger.warning("the recording is cut off; what came after is not known")

    def _compare(self, record: recording.Sent) -> Replayed:
        message = self._protocol.next_message()
        self.messages += 1
        got = b"nothing" if message is None else encode(message)
        if got != record.message:
            self._differ(_quote(record.message), _quote(got))
        return Replayed(self._now, message, decode_server(record.message))

    def _repeat(self, record: Record) -> None:
        protocol, now = self._protocol, self._now
        match record:
            case recording.ReceivedAudio() | recording.ReceivedText():
                protocol.receive(record.data, now)
            case recording.ReceivedMessage():
                protocol.receive_message(decode_client(record.data), now)
            case recording.Ticked():
                protocol.tick(now)
            case recording.WentAway():
                protocol.go_away(record.reason)
            case recording.Failed():
                protocol.fail(ProtocolError(ErrorName[record.name], record.detail))
            case recording.WorkFailed():
                protocol.work_failed()
            case recording.Disconnected():
                waiting = protocol.waiting_messages
                if waiting != record.waiting:
                    self._differ(f"{record.waiting} unsent messages", f"{waiting}")
                protocol.disconnect()
            case recording.EncodeTaken():
                chunk = protocol.take_encode()
                if chunk is not None:
                    self._encode = chunk
                self._expect("audio to encode", record.found, chunk is not None)
            case recording.TagTaken():
                work = protocol.take_tag(now)
                if work is not None:
                    self._tag = work
                self._expect("a text to tag", record.found, work is not None)
            case recording.Encoded():
                self._bring_back_audio()
            case recording.Tagged():
                self._bring_back_text(record)
            case _:
                assert isinstance(record, Header), "every record is known"

    def _bring_back_audio(self) -> None:
        work, self._encode = self._encode, None
        if work is None:
            return
        result = self._answers.encode(work)
        if isinstance(result, Exception):
            self._differ("encoded audio", describe_failure(result))
            self._protocol.work_failed()
        else:
            self._protocol.encoded(result.frames, result.state)

    def _bring_back_text(self, record: recording.Tagged) -> None:
        work, self._tag = self._tag, None
        if work is None:
            return
        result = self._answers.tag(work, record)
        if isinstance(result, Exception):
            self._differ("a tagged text", describe_failure(result))
            self._protocol.work_failed()
        elif len(result.results) != len(work.texts):
            self._differ(f"answers to {len(result.results)} texts", f"{len(work.texts)} texts")
            self._protocol.work_failed()
        else:
            self._protocol.tagged(result.results, self._now)

    def _expect(self, what: str, was_found: bool, is_found: bool) -> None:
        if was_found != is_found:
            self._differ(what if was_found else "none", what if is_found else "none")

    def _differ(self, expected: str, got: str) -> None:
        self.differences.append(Difference(self._now - self._began, expected, got))


def _quote(message: bytes) -> str:
    text = message.decode()
    return text if len(text) <= _QUOTED else text[: _QUOTED - 1] + "…"
