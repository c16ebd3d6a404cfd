"""Who speaks, as captions tell it."""

from __future__ import annotations

from typing import Final

from msgspec import UNSET, UnsetType
from rich.cells import cell_len, set_cell_size

from cnerta.streamer.outputs.cues import clean

__all__ = ["lead_of", "voice_of"]

_AFTER_NAME: Final = "："
_ELLIPSIS: Final = "…"


def voice_of(speaker: str | UnsetType | None, channel: int | UnsetType | None) -> str:
    """The name of whoever speaks: the speaker's, else that of the channel; empty if unknown."""
    if isinstance(speaker, str):
        return " ".join(clean(speaker).split())
    return "" if channel is None or channel is UNSET else f"channel {channel}"


def lead_of(voice: str, line_columns: int) -> str:
    """What stands before the words of a voice: its name and a colon; nothing of an unknown one.

    Args:
        voice: As :func:`voice_of` gives it.
        line_columns: Longest line. A name that takes more than half of it is cut.
    """
    if not voice:
        return ""
    most = line_columns // 2
    if cell_len(voice) > most:
        voice = set_cell_size(voice, most - cell_len(_ELLIPSIS)).rstrip() + _ELLIPSIS
    return voice + _AFTER_NAME
