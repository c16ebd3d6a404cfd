"""Captions of a Zoom meeting, to the address that its host copies as the caption API token.

https://support.zoom.com/hc/en/article?id=zm_kb&sysparm_article=KB0060368: each POST is text and has
``seq`` in its query, which rises by one with new text and not when a POST is repeated. All refusals
are to be tried again, also 400: the meeting has not started.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from cnerta.streamer.outputs.caption_outlet import CONTENT_TYPE, CaptionOutlet, is_refusal
from cnerta.streamer.outputs.captioner import Captioner
from cnerta.streamer.outputs.cues import Cue
from cnerta.streamer.outputs.highlighting import Highlighter
from cnerta.streamer.outputs.http_receiver import DEFAULT_POLICY, HttpReceiver, RetryPolicy
from cnerta.streamer.outputs.plain_marks import DEFAULT_MARKS, PlainMarks

__all__ = ["ZoomCaptions"]

_LANGUAGE: Final = "zh-CN"


class ZoomCaptions(CaptionOutlet):
    """A `Presenter` that captions a Zoom meeting.

    Args:
        url: The caption API token of the meeting, which is an address.
        highlighter: Chooses which names are marked.
        marks: What opens and what closes a name: two characters, or none at all.
        name_speakers: See `Captioner`.
        policy: How long to wait and how often to try.

    Raises:
        OutputError: The URL is none or would cross the network in clear text; or wrong marks.
    """

    def __init__(
        self,
        url: str,
        highlighter: Highlighter,
        *,
        marks: str = DEFAULT_MARKS,
        name_speakers: bool = False,
        policy: RetryPolicy = DEFAULT_POLICY,
    ) -> None:
        receiver = HttpReceiver(
            url,
            name="a caption address of Zoom",
            content_type=CONTENT_TYPE,
            is_secret=True,
            policy=policy,
            is_retryable=is_refusal,
        )
        captioner = Captioner(highlighter, name_speakers=name_speakers)
        super().__init__(receiver, captioner, PlainMarks.parse(marks))

    def written(self, cue: Cue, lines: Sequence[str]) -> str:
        """The lines; each ends with a line break, so that the next delivery begins a new one."""
        return "".join(f"{line}\n" for line in lines)

    def parameters(self, number: int) -> dict[str, str]:
        """Number and language."""
        return {**super().parameters(number), "lang": _LANGUAGE}

    def last_number(self) -> int:
        """What Zoom says that it has taken last; 0 if it does not say.

        A meeting counts on where another session has captioned it before.
        """
        answer = (self._receiver.ask("/seq") or "").strip()
        return int(answer) if answer.isascii() and answer.isdecimal() else 0
