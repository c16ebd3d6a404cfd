"""Names in text that has no colours: what stands around them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from cnerta.streamer.errors import OutputError
from cnerta.streamer.outputs.caption_formats import marked_up
from cnerta.streamer.outputs.cues import CaptionLine

__all__ = ["DEFAULT_MARKS", "PlainMarks"]

DEFAULT_MARKS: Final = "【】"


@dataclass(frozen=True, slots=True)
class PlainMarks:
    """What opens and what closes a name."""

    opening: str
    closing: str

    @classmethod
    def parse(cls, marks: str) -> PlainMarks:
        """Take two characters, or none at all.

        Raises:
            OutputError: It is something else.
        """
        if len(marks) not in (0, 2):
            raise OutputError(f"expected two characters around a name, or none, got {marks!r}")
        return cls(marks[:1], marks[1:])

    def write(self, line: CaptionLine, escape: Callable[[str], str] = str) -> str:
        """Write a line with its names marked, but not those inside others."""
        outer = CaptionLine(line.text, tuple(mark for mark in line.marks if not mark.inner))
        return marked_up(outer, escape, lambda _: self.opening, lambda _: self.closing)
