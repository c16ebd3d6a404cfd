"""What is shown of answers: where the server has mended names, the mended text."""

from __future__ import annotations

from msgspec import UNSET, structs

from cnerta.streamer.wire.messages import CaptionUpdate, ServerMessage, UtteranceFinal

__all__ = ["as_shown", "final_as_shown"]


def final_as_shown(final: UtteranceFinal) -> UtteranceFinal:
    """A final answer with its mended text in the place of the transcript's, where there is one.

    Entities that were mended have `original_text`. Readings are told of the transcript's text only.
    """
    mended = final.mended
    if mended is UNSET:
        return final
    return structs.replace(
        final, text=mended.text, entities=mended.entities, characters=mended.characters
    )


def as_shown(message: ServerMessage) -> ServerMessage:
    """A message with the mended text in the place of the transcript's, where there is one."""
    match message:
        case UtteranceFinal():
            return final_as_shown(message)
        case CaptionUpdate(mended=mended) if mended is not UNSET:
            return structs.replace(message, text=mended.text, entities=mended.entities)
        case _:
            return message
