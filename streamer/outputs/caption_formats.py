"""The formats of caption files, as text: WebVTT, SRT, TTML, a metadata track, a list of entities.

A `CaptionFormat` says what a file begins with, what each utterance adds and what stands at its end;
`cnerta.streamer.outputs.caption_files` writes them to disk. None of them keeps anything back: what
has been added is complete.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import msgspec
from msgspec import UNSET, UnsetType

from cnerta.models.label_colours import label_colour
from cnerta.streamer.outputs.cues import CaptionLine, Cue, Mark, clean
from cnerta.streamer.wire.messages import UtteranceFinal
from cnerta.streamer.wire.parts import Entity

__all__ = [
    "FORMATS",
    "CaptionFormat",
    "CaptionedUtterance",
    "EntityList",
    "MetadataTrack",
    "SubRip",
    "TimedText",
    "WebVtt",
]


_MILLISECONDS_PER_HOUR: Final = 3_600_000
_NOT_KNOWN: Final = "<NA>"
_VTT_FIRST_LINE: Final = "WEBVTT\n\n"
_TTML_BEGINNING: Final = """\
<?xml version="1.0" encoding="UTF-8"?>
<tt xmlns="http://www.w3.org/ns/ttml" xmlns:tts="http://www.w3.org/ns/ttml#styling" xml:lang="zh">
<head>
<styling>
"""
_TTML_LAYOUT: Final = """\
<style xml:id="inner" tts:textDecoration="underline"/>
<style xml:id="mended" tts:fontStyle="italic"/>
</styling>
<layout>
<region xml:id="bottom" tts:origin="10% 80%" tts:extent="80% 15%" tts:displayAlign="after" \
tts:textAlign="center"/>
</layout>
</head>
<body region="bottom">
<div>
"""


@dataclass(frozen=True, slots=True)
class CaptionedUtterance:
    """A final answer as the formats need it: nothing in it that no file can hold (see `clean`).

    Attributes:
        utterance: Its name.
        text: What was said.
        entities: Everything found in it.
        marked: Ids of those that are highlighted.
        cues: What is shown when.
        speaker: Who speaks; unset if unknown.
        channel: In which channel, from 0; unset if unknown.
    """

    utterance: str
    text: str
    entities: tuple[Entity, ...]
    marked: frozenset[str]
    cues: tuple[Cue, ...]
    speaker: str | UnsetType = UNSET
    channel: int | UnsetType = UNSET

    @classmethod
    def of(
        cls, final: UtteranceFinal, marked: frozenset[str], cues: Sequence[Cue]
    ) -> CaptionedUtterance:
        """Make one of an answer, the ids of what is highlighted in it, and its cues."""
        entities = tuple(
            msgspec.structs.replace(entity, text=clean(entity.text), label=clean(entity.label))
            for entity in final.entities
        )
        return cls(
            clean(final.utterance),
            clean(final.text),
            entities,
            marked,
            tuple(cues),
            speaker=UNSET if final.speaker is UNSET else clean(final.speaker),
            channel=final.channel,
        )


class CaptionFormat(Protocol):
    """How one kind of caption file is written."""

    def head(self, labels: Sequence[str]) -> str:
        """What the file begins with.

        Asked twice before any utterance: first without types, then with those of the model. The
        second answer begins with the first, unless there is a `tail`.
        """
        ...

    def block(self, told: CaptionedUtterance) -> str:
        """What an utterance adds."""
        ...

    def tail(self) -> str:
        """What has to stand at the end of the file at any time."""
        ...


def clock_time(at_ms: int, decimal: str) -> str:
    """Write a time as ``hours:minutes:seconds`` with milliseconds after `decimal`."""
    hours, rest = divmod(at_ms, _MILLISECONDS_PER_HOUR)
    minutes, rest = divmod(rest, 60_000)
    seconds, milliseconds = divmod(rest, 1_000)
    return f"{hours:02d}:{minutes:02d}:{seconds:02d}{decimal}{milliseconds:03d}"


def class_name(label: str) -> str:
    """Make a name out of an entity type that WebVTT, CSS and XML take."""
    name = re.sub(r"[^\w-]+", "_", clean(label))
    return name if name[:1].isalpha() else f"_{name}"


def colour(label: str) -> str:
    """The colour of an entity type."""
    return label_colour(label).on_dark


def marked_up(
    line: CaptionLine,
    escape: Callable[[str], str],
    opening: Callable[[Mark], str],
    closing: Callable[[Mark], str],
) -> str:
    """Write a line with a tag around each of its marks."""
    parts: list[str] = []
    opened: list[Mark] = []
    at = 0

    def text_until(place: int) -> None:
        nonlocal at
        parts.append(escape(line.text[at:place]))
        at = place

    def close_until(place: int) -> None:
        while opened and opened[-1].end <= place:
            text_until(opened[-1].end)
            parts.append(closing(opened.pop()))

    for mark in line.marks:
        close_until(mark.start)
        text_until(mark.start)
        parts.append(opening(mark))
        opened.append(mark)
    close_until(len(line.text))
    text_until(len(line.text))
    return "".join(parts)


class WebVtt:
    """WebVTT: a class for each entity type, as in ``<c.PER>…</c>``, and cues that are numbered.

    An entity inside another has the class ``inner`` too, and one that is written otherwise than in
    the transcript ``mended``. A cue of a known speaker is a voice span,
    as in ``<v NAME>…</v>``. https://www.w3.org/TR/webvtt1/

    Args:
        styled: Whether a style block says the colour of each type. Browsers take it; FFmpeg up to 5
            and several libraries find no cue behind it.
    """

    def __init__(self, *, styled: bool = False) -> None:
        self._styled = styled
        self._number = 0

    def head(self, labels: Sequence[str]) -> str:
        """Its first line, and the style block: inner entities are underlined, mended in italics."""
        if not labels or not self._styled:
            return _VTT_FIRST_LINE
        rules = [f"::cue(.{class_name(label)}) {{ color: {colour(label)} }}\n" for label in labels]
        inner = "::cue(.inner) { text-decoration: underline }\n"
        mended = "::cue(.mended) { font-style: italic }\n"
        return "".join([_VTT_FIRST_LINE, "STYLE\n", *rules, inner, mended, "\n"])

    def block(self, told: CaptionedUtterance) -> str:
        """The utterance's cues."""
        return "".join(map(self._cue, told.cues))

    def _cue(self, cue: Cue) -> str:
        self._number += 1
        lines = [marked_up(line, _escaped, _vtt_tag, lambda mark: "</c>") for line in cue.lines]
        payload = "\n".join(lines)
        if cue.voice:
            payload = f"<v {_escaped(cue.voice)}>{payload}</v>"
        return _vtt_cue(self._number, cue, payload)

    def tail(self) -> str:
        """Nothing."""
        return ""


def _vtt_tag(mark: Mark) -> str:
    inner, mended = ".inner" if mark.inner else "", ".mended" if mark.mended else ""
    return f"<c.{class_name(mark.label)}{inner}{mended}>"


def _escaped(text: str) -> str:
    """Escape for WebVTT and XML. With ``>`` gone there is no ``-->`` either."""
    return html.escape(text, quote=False)


def _vtt_cue(number: int, cue: Cue, payload: str) -> str:
    times = f"{clock_time(cue.start_ms, '.')} --> {clock_time(cue.end_ms, '.')}"
    return f"{number}\n{times}\n{payload}\n\n"


class _ToldEntity(msgspec.Struct, frozen=True):
    """One entity of the metadata track; offsets count characters of the utterance."""

    id: str
    label: str
    text: str
    start: int
    end: int
    parent: str | None
    start_ms: int | None
    end_ms: int | None
    confidence: float
    highlighted: bool
    suggested_text: str | UnsetType = UNSET
    original_text: str | UnsetType = UNSET


class _Metadata(msgspec.Struct, frozen=True):
    """Payload of one cue of the metadata track."""

    utterance: str
    text: str
    start: int
    end: int
    entities: list[_ToldEntity]
    speaker: str | UnsetType = UNSET
    channel: int | UnsetType = UNSET


class MetadataTrack:
    """A WebVTT metadata track: the cues of the captions, each with a line of JSON.

    It names the characters of the utterance that the cue shows (``start``, ``end``, ``text``) and
    the entities that are in them wholly or in part. Cues have the numbers of the captions'.
    """

    def __init__(self) -> None:
        self._number = 0

    def head(self, labels: Sequence[str]) -> str:
        """The line that makes it WebVTT; no styles, as nothing of it is shown."""
        return _VTT_FIRST_LINE

    def block(self, told: CaptionedUtterance) -> str:
        """The utterance's cues."""
        first = self._number + 1
        self._number += len(told.cues)
        return "".join(
            _vtt_cue(number, cue, _metadata(told, cue))
            for number, cue in enumerate(told.cues, first)
        )

    def tail(self) -> str:
        """Nothing."""
        return ""


def _metadata(told: CaptionedUtterance, cue: Cue) -> str:
    entities = [
        _ToldEntity(
            id=entity.id,
            label=entity.label,
            text=entity.text,
            start=entity.start,
            end=entity.end,
            parent=entity.parent,
            start_ms=entity.start_ms,
            end_ms=entity.end_ms,
            confidence=entity.confidence,
            highlighted=entity.id in told.marked,
            suggested_text=entity.suggested_text,
            original_text=entity.original_text,
        )
        for entity in told.entities
        if entity.start < cue.end and entity.end > cue.start
    ]
    text = told.text[cue.start : cue.end]
    payload = _Metadata(
        told.utterance, text, cue.start, cue.end, entities, told.speaker, told.channel
    )
    written = msgspec.json.encode(payload).decode()
    # As JSON escapes, so that no reader takes them for a tag, an escape or the arrow of a new cue.
    # Line separators do not end a line in WebVTT, but they do for some who read it.
    for character in "<>&\u2028\u2029\u0085":
        written = written.replace(character, f"\\u{ord(character):04x}")
    return written


class SubRip:
    r"""SRT, with ``<font color>``, which most players know, and everything else as it is.

    What is written otherwise than in the transcript is in italics.

    SRT has no escapes. A character of the text that a player would take for markup is replaced by
    its full-width twin: ``<``, ``{``, ``\`` and the ``>`` of ``-->``.
    """

    def __init__(self) -> None:
        self._number = 0

    def head(self, labels: Sequence[str]) -> str:
        """Nothing."""
        return ""

    def block(self, told: CaptionedUtterance) -> str:
        """The utterance's cues."""
        return "".join(map(self._cue, told.cues))

    def _cue(self, cue: Cue) -> str:
        self._number += 1
        times = f"{clock_time(cue.start_ms, ',')} --> {clock_time(cue.end_ms, ',')}"
        lines = [marked_up(line, _srt_text, _srt_tag, _srt_end) for line in cue.lines]
        return "\n".join([str(self._number), times, *lines, "", ""])

    def tail(self) -> str:
        """Nothing."""
        return ""


def _srt_text(text: str) -> str:
    return text.replace("-->", "--＞").translate({ord("<"): "＜", ord("{"): "｛", ord("\\"): "＼"})


def _srt_tag(mark: Mark) -> str:
    # A font inside a font is not known everywhere: the outer colour ends where the inner one does.
    return f'<font color="{colour(mark.label)}">' + ("<i>" if mark.mended else "")


def _srt_end(mark: Mark) -> str:
    return ("</i>" if mark.mended else "") + "</font>"


class TimedText:
    """TTML 1, with a style for each entity type.

    https://www.w3.org/TR/ttml1/
    """

    def __init__(self) -> None:
        self._number = 0

    def head(self, labels: Sequence[str]) -> str:
        """The styles, and the elements that stay open."""
        colours = {class_name(label): colour(label) for label in labels}
        styles = [
            f'<style xml:id="of-{name}" tts:color="{value}"/>\n' for name, value in colours.items()
        ]
        return "".join([_TTML_BEGINNING, *styles, _TTML_LAYOUT])

    def block(self, told: CaptionedUtterance) -> str:
        """A paragraph for each of the utterance's cues."""
        return "".join(map(self._paragraph, told.cues))

    def _paragraph(self, cue: Cue) -> str:
        self._number += 1
        begin, end = clock_time(cue.start_ms, "."), clock_time(cue.end_ms, ".")
        lines = "<br/>".join(
            marked_up(line, _escaped, _ttml_tag, lambda mark: "</span>") for line in cue.lines
        )
        return f'<p xml:id="cue-{self._number}" begin="{begin}" end="{end}">{lines}</p>\n'

    def tail(self) -> str:
        """What closes the elements."""
        return "</div>\n</body>\n</tt>\n"


def _ttml_tag(mark: Mark) -> str:
    inner, mended = " inner" if mark.inner else "", " mended" if mark.mended else ""
    return f'<span style="of-{class_name(mark.label)}{inner}{mended}">'


class EntityList:
    """One line for each entity, in the ten columns of NIST's RTTM; channels count from 1 there.

    Args:
        recording: What the second column calls the audio.
    """

    def __init__(self, recording: str) -> None:
        self._recording = _column(recording)

    def head(self, labels: Sequence[str]) -> str:
        """A comment that names the columns."""
        return ";; type file channel onset_s duration_s text label id confidence parent\n"

    def block(self, told: CaptionedUtterance) -> str:
        """The utterance's entities, in its order, outer ones first."""
        ordered = sorted(told.entities, key=lambda entity: (entity.start, -entity.end))
        channel = 1 if told.channel is UNSET else told.channel + 1
        return "".join(self._line(entity, channel) for entity in ordered)

    def _line(self, entity: Entity, channel: int) -> str:
        onset = duration = _NOT_KNOWN
        if entity.start_ms is not None and entity.end_ms is not None:
            onset = f"{entity.start_ms / 1_000:.3f}"
            duration = f"{(entity.end_ms - entity.start_ms) / 1_000:.3f}"
        columns = (
            "ENTITY",
            self._recording,
            str(channel),
            onset,
            duration,
            _column(entity.text),
            _column(entity.label),
            _column(entity.id),
            f"{entity.confidence:.3f}",
            _NOT_KNOWN if entity.parent is None else _column(entity.parent),
        )
        return " ".join(columns) + "\n"

    def tail(self) -> str:
        """Nothing."""
        return ""


def _column(text: str) -> str:
    """Write a text without white space, which separates the columns."""
    return clean(text).replace(" ", "_") or _NOT_KNOWN


FORMATS: Final[Mapping[str, Callable[[str], CaptionFormat]]] = {
    ".vtt": lambda recording: WebVtt(),
    ".styled.vtt": lambda recording: WebVtt(styled=True),
    ".metadata.vtt": lambda recording: MetadataTrack(),
    ".srt": lambda recording: SubRip(),
    ".ttml": lambda recording: TimedText(),
    ".rttm": EntityList,
}
"""For the end of a file's name what makes its format, given a name for the recording."""
