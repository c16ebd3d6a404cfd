"""Prosody marks: how strong a boundary a speaker made after each character.

Mandarin speech corpora mark boundaries in the text itself, as 课程#2，就#1大班: `#1` ends a
prosodic word, `#2` a prosodic phrase, `#3` an intonation phrase, `#4` the utterance (the break
indices of C-ToBI; Li 2002).
"""

from __future__ import annotations

import re

from cnerta.models.errors import DataError

__all__ = ["break_levels"]

_MARK_OR_CHARACTER = re.compile(r"#(?P<level>[0-4])|(?P<character>.)", re.DOTALL)


def break_levels(text: str, marked: str) -> tuple[int, ...]:
    """The boundary after each character of a text.

    Args:
        text: As it is transcribed.
        marked: The same with marks; spaces and punctuation that the text has not are passed over.

    Returns:
        0 (none) to 4 for each character.

    Raises:
        DataError: The marked text has other characters.
    """
    levels: list[int] = []
    for match in _MARK_OR_CHARACTER.finditer(marked):
        if match["level"]:
            if levels:
                levels[-1] = int(match["level"])
            continue
        character = match["character"]
        if len(levels) < len(text) and character == text[len(levels)]:
            levels.append(0)
        elif character.isalnum():
            raise DataError(f"expected prosody marks of {text!r}, got {marked!r}")
    if len(levels) != len(text):
        raise DataError(f"expected prosody marks of {text!r}, got {marked!r}")
    return tuple(levels)
