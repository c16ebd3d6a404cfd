"""What the outlets have in common that take captions by HTTP POST, one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from cnerta.streamer.outputs.captioner import Captioner
from cnerta.streamer.outputs.cues import Cue
from cnerta.streamer.outputs.delivery_queue import DeliveryQueue
from cnerta.streamer.outputs.http_receiver import HttpReceiver
from cnerta.streamer.outputs.plain_marks import PlainMarks
from cnerta.streamer.outputs.queued_output import QueuedOutput
from cnerta.streamer.sources import Revision
from cnerta.streamer.wire.messages import ServerMessage, UtteranceFinal

__all__ = ["CONTENT_TYPE", "CaptionOutlet", "is_refusal"]

CONTENT_TYPE: Final = "text/plain; charset=utf-8"
_CUES_AT_ONCE: Final = 20


def is_refusal(status: int) -> bool:
    """Whether a status is an error; the outlets ask to try again after each of them."""
    return status >= 400


class CaptionOutlet(QueuedOutput[str]):
    """A `Presenter` that sends the captions of final answers; a base for the outlets.

    What waits goes out together, and is numbered: a delivery that is repeated keeps its number,
    and the next one is higher by one.

    Args:
        receiver: Where they go.
        captioner: Makes the captions.
        marks: What stands around names.
    """

    def __init__(self, receiver: HttpReceiver, captioner: Captioner, marks: PlainMarks) -> None:
        self._receiver = receiver
        self._captioner = captioner
        self._marks = marks
        self._numbered: int | None = None
        """Of the last delivery."""
        super().__init__(DeliveryQueue(receiver, self._send, what="caption", at_once=_CUES_AT_ONCE))

    def on_audio(self, block: bytes, audio_ms: float) -> None:
        """Note the time."""
        self._captioner.heard(audio_ms)

    def on_revision(self, revision: Revision) -> None:
        """Note when the utterance was spoken."""
        self._captioner.sent(revision)

    def on_message(self, message: ServerMessage) -> None:
        """Have what is final sent."""
        if isinstance(message, UtteranceFinal):
            for cue in self._captioner.captioned(message).cues:
                self._queue.put(self.written(cue, [self._marks.write(line) for line in cue.lines]))

    def written(self, cue: Cue, lines: Sequence[str]) -> str:
        """Write a cue as the outlet wants it, with the line break at its end.

        Args:
            cue: When it is shown.
            lines: Its text, names marked.
        """
        raise NotImplementedError

    def parameters(self, number: int) -> dict[str, str]:
        """What stands in the query of a delivery."""
        return {"seq": str(number)}

    def last_number(self) -> int:
        """Number of the last delivery that was taken before this session."""
        return 0

    def _send(self, cues: Sequence[str]) -> bool:
        if self._numbered is None:
            self._numbered = self.last_number()
        self._numbered += 1
        return self._receiver.deliver("".join(cues).encode(), self.parameters(self._numbered))
