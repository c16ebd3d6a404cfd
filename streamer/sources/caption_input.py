"""Caption files as transcripts: SRT, WebVTT and what else pysubs2 reads."""

from __future__ import annotations

import html
import re
from pathlib import PurePath
from typing import IO, Final

import pysubs2

from cnerta.streamer.errors import TranscriptError
from cnerta.streamer.sources.mono_audio import without_gaps
from cnerta.streamer.sources.timed import TimedLine
from cnerta.streamer.wire.parts import MAX_SPEAKER_CHARACTERS

__all__ = ["CAPTION_SUFFIXES", "read_captions"]

CAPTION_SUFFIXES: Final = {
    ".srt": "srt",
    ".vtt": "vtt",
    ".ass": "ass",
    ".ssa": "ssa",
    ".ttml": "ttml",
}
"""Endings of the files that are read as captions, and pysubs2's names of their formats."""

_TAG = re.compile(r"<[^>]*>")  # times within a cue and voices
_VOICE = re.compile(r"<v(?:\.[^\s>]*)*[ \t]+([^>]*)>")
"""WebVTT's ``<v NAME>``, also with classes: https://www.w3.org/TR/webvtt1/#webvtt-voice-span"""


def read_captions(stream: IO[bytes], name: str) -> list[TimedLine]:
    """Read a caption file: every cue is an utterance, with its times, without its styles.

    The speaker is the one voice of a WebVTT cue, or the name of an ASS event. A cue of several
    voices has none.

    Args:
        stream: The file, opened for bytes; UTF-8, with or without a byte order mark.
        name: Its name, whose ending tells the format.

    Raises:
        TranscriptError: It is not of that format, has no cue with text, or one with impossible
            times.
    """
    kind = CAPTION_SUFFIXES[PurePath(name).suffix.lower()]
    try:
        captions = pysubs2.SSAFile.from_string(
            stream.read().decode("utf-8-sig"), format_=kind, keep_unknown_html_tags=True
        )
    except Exception as error:  # besides its own, whatever its parsers stumble over
        raise TranscriptError(f"{name}: expected captions ({kind}), got: {error}") from error
    lines: list[TimedLine] = []
    for number, cue in enumerate(captions, 1):
        text = html.unescape(_TAG.sub("", cue.plaintext))
        text = without_gaps(" ".join(text.split()))
        if cue.is_comment or not text:
            continue
        line = TimedLine(
            text=text,
            start_ms=float(cue.start),
            end_ms=float(cue.end),
            speaker=_speaker(cue),
        )
        problem = line.problem()
        if problem:
            raise TranscriptError(f"{name}, cue {number}: {problem}")
        lines.append(line)
    if not lines:
        raise TranscriptError(f"{name}: expected captions ({kind}), got none")
    return lines


def _speaker(cue: pysubs2.SSAEvent) -> str | None:
    voices = {html.unescape(name).strip() for name in _VOICE.findall(cue.plaintext)}
    name = voices.pop() if len(voices) == 1 else cue.name.strip()
    return name[:MAX_SPEAKER_CHARACTERS] or None
