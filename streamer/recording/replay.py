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
from cnerta.streamer.errors import RecordingError
from cnerta.streamer.recording import file as recording
from cnerta.streamer.recording.file import AnsweredText, Header, Record, RecordingReader
from cnerta.streamer.recording.recorder import model_answer
from cnerta.streamer.serving.engine import Engine, describe_failure, prepare
from cnerta.streamer.session.connection import ServedModel, ServerProtocol
from cnerta.streamer.session.outgoing.resumption import ResumeTerms
from cnerta.streamer.session.work import (
    EncodedAudio,
    EncodeWork,
    Lane,
    Result,
    TaggedText,
    TagWork,
    Work,
)
from cnerta.streamer.wire.codec import decode_client, decode_server, encode
from cnerta.streamer.wire.errors import ErrorName, ProtocolError
from cnerta.streamer.wire.messages import ServerMessage, Transcript

__all__ = ["AskAgain", "Difference", "EngineSubstitute", "Recall", "Replay", "Replayed"]

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


class EngineSubstitute(Protocol):
    """Who does the engine's work in a replay."""

    def run(self, work: Work, recorded: AnsweredText | None) -> Result | Exception:
        """Do a piece of work; if it is a text to tag, this is what the model said of it then."""
        ...


class AskAgain:
    """Has the model do it again."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def run(self, work: Work, recorded: AnsweredText | None) -> Result | Exception:
        """Do a piece of work."""
        return self._engine.run(work)


class Recall:
    """Takes what the model said from the recording; nothing has to be computed."""

    def __init__(self, bundle: Bundle) -> None:
        self._geometry = bundle.geometry

    def run(self, work: Work, recorded: AnsweredText | None) -> Result | Exception:
        """What was said then; what needs no model is done again."""
        if isinstance(work, EncodeWork):
            return self._frames_of(work)
        if not isinstance(work, TagWork):
            return prepare(work)
        if recorded is None:
            return RecordingError("expected what the model said of a text, got none")
        names = () if work.glossary is None else work.glossary.find(work.text)
        return TaggedText(len(work.text), model_answer(recorded), names)

    def _frames_of(self, work: EncodeWork) -> EncodedAudio:
        """Frames of the right number and without content: nobody looks at them."""
        count = len(work.samples) // self._geometry.hop_samples
        frames = np.zeros((count, self._geometry.width), np.float32)
        before = work.state
        if before is None:
            return EncodedAudio(frames, None)
        return EncodedAudio(frames, replace(before, position=before.position + count))


class Replay:
    """One run of a recording.

    Attributes:
        reader: The recording.
        differences: Where it went another way, so far.
        messages: Messages compared so far.
    """

    def __init__(self, path: Path, bundle: Bundle, engine: EngineSubstitute) -> None:
        """Open a recording.

        Raises:
            RecordingError: It cannot be read.
        """
        self.reader = RecordingReader(path)
        self.differences: list[Difference] = []
        self.messages = 0
        self._engine = engine
        header = self.reader.header
        model = ServedModel(bundle, header.device)
        self._began = self._now = header.now
        self._protocol = ServerProtocol(
            model, header.limits, header.session, header.now, is_recorded=True
        )
        self._away: dict[Lane, Work] = {}

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
            case recording.ReleasedMemory():
                protocol.release_memory(record.wanted_bytes, now)
            case recording.Disconnected():
                waiting = protocol.waiting_messages
                if waiting != record.waiting:
                    self._differ(f"{record.waiting} unsent messages", f"{waiting}")
                protocol.disconnect()
            case recording.ResumeOffered():
                protocol.offer_resume(ResumeTerms("", record.ttl_s, record.epoch))
            case recording.RecognitionOffered():
                protocol.offer_recognition()
            case recording.Recognised():
                message = decode_client(record.data)
                assert isinstance(message, Transcript), "expected what a recogniser wrote"
                protocol.recognised(message, now)
            case recording.RecognitionEnded():
                protocol.recognition_over()
            case recording.Parked():
                protocol.park()
            case recording.Resumed():
                protocol.resume(record.last_seq, now)
            case recording.StartedAnew():
                protocol.start_anew(record.lost)
            case recording.WorkTaken():
                work = protocol.next_work(record.lane, now)
                if work is None:
                    self._differ(f"work for the lane {record.lane}", "none")
                else:
                    self._away[record.lane] = work
            case recording.WorkDone():
                self._bring_back(record)
            case _:
                assert isinstance(record, Header), "every record is known"

    def _bring_back(self, record: recording.WorkDone) -> None:
        work = self._away.pop(record.lane, None)
        if work is None:
            return
        result = (
            RecordingError("expected a result, got what failed then as well")
            if record.failed
            else self._engine.run(work, record.answer)
        )
        if isinstance(result, Exception) and not (
            record.failed or isinstance(result, ProtocolError)
        ):
            self._differ(f"work of the lane {record.lane}", describe_failure(result))
        self._protocol.work_done(work, result, self._now)

    def _differ(self, expected: str, got: str) -> None:
        self.differences.append(Difference(self._now - self._began, expected, got))


def _quote(message: bytes) -> str:
    text = message.decode()
    return text if len(text) <= _QUOTED else text[: _QUOTED - 1] + "…"
