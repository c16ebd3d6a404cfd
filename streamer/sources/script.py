"""In which script a recogniser's text is passed on.

Some recognisers of Mandarin write simplified characters one moment and traditional ones the next.
The tagger reads both alike; captions, glossaries and whoever looks an entity up do not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from cnerta.models.text.normalisation import simplified

__all__ = ["Script", "script_writer"]

Script = Literal["auto", "simplified", "as_written"]
_SIMPLIFIED = ("zh", "zh-cn", "zh-sg", "zh-hans", "zh-hans-cn", "cmn", "cmn-hans", "cmn-hans-cn")


def script_writer(script: Script, language: str | None) -> Callable[[str], str]:
    """What turns a recogniser's text into the wanted script, character for character.

    Args:
        script: ``simplified``, ``as_written``, or ``auto``: simplified where the language is
            Mandarin without a place that writes traditional characters.
        language: What the recogniser was told is spoken; None where it cannot be told.
    """
    is_mandarin = language is not None and language.lower().replace("_", "-") in _SIMPLIFIED
    if script == "simplified" or (script == "auto" and is_mandarin):
        return simplified
    return _as_written


def _as_written(text: str) -> str:
    return text
