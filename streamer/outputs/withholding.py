"""What outputs are told of a session whose text is held back, and whose names may be hidden.

Everything that shows, writes or sends a session stands behind this, so nothing of a transcript gets
out before the server has released it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from cnerta.streamer.outputs.masking import NameMask
from cnerta.streamer.sources import Revision
from cnerta.streamer.wire.messages import (
    CaptionUpdate,
    EntityRetract,
    EntityUpsert,
    RecognisedTranscript,
    ServerMessage,
    SessionReady,
    UtteranceFinal,
)

__all__ = ["Withholding"]

_UTTERANCES_KEPT: Final = 256


class Withholding:
    """Stands between a session with ``hold_ms`` and what it is shown on.

    Args:
        mask: Hides names; None: they are shown.
    """

    def __init__(self, mask: NameMask | None = None) -> None:
        self._mask = mask
        self._released: dict[str, str] = {}
        """What may be shown of each utterance that is not final."""

    def revision(self, revision: Revision) -> Revision:
        """What outputs are told of a transcript that was sent: of its text, what is released."""
        released = replace(revision, text=self._released.get(revision.utterance, ""))
        if self._mask is None or released.speaker is None:
            return released
        return replace(released, speaker=self._mask.speaker(released.speaker))

    def message(self, message: ServerMessage) -> ServerMessage | None:
        """What outputs are told of a message; None: nothing.

        Raises:
            OutputError: The model does not know what is to be hidden.
        """
        match message:
            case SessionReady():
                if self._mask is not None:
                    self._mask.check(message.model.labels)
                return message
            case RecognisedTranscript():
                return None
            case EntityUpsert() | EntityRetract() if self._mask is not None:
                return None  # They name what is hidden, or may have to be; the caption has all.
            case CaptionUpdate():
                told = message if self._mask is None else self._mask.caption(message)
                self._released[told.utterance] = told.text
                while len(self._released) > _UTTERANCES_KEPT:
                    del self._released[next(iter(self._released))]
                return told
            case UtteranceFinal():
                self._released.pop(message.utterance, None)
                return message if self._mask is None else self._mask.final(message)
            case _:
                return message
