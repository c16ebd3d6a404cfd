"""Captions of a YouTube live stream, to the address of its settings ("POST captions to URL").

https://support.google.com/youtube/answer/6077032: each POST has ``seq`` in its query, which rises
by one with new text and not when a POST is repeated. Its body is a line with the time, in UTC, and
a line with the text, in which ``<br>`` breaks the line, for each caption.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Final

from cnerta.streamer.outputs.caption_outlet import CONTENT_TYPE, CaptionOutlet, is_refusal
from cnerta.streamer.outputs.captioner import Captioner
from cnerta.streamer.outputs.cues import Cue
from cnerta.streamer.outputs.highlighting import Highlighter
from cnerta.streamer.outputs.http_receiver import DEFAULT_POLICY, HttpReceiver, RetryPolicy
from cnerta.streamer.outputs.plain_marks import DEFAULT_MARKS, PlainMarks

__all__ = ["YouTubeCaptions"]

_REGION: Final = "region:reg1#cue1"


class YouTubeCaptions(CaptionOutlet):
    """A `Presenter` that captions a YouTube live stream.

    A caption is dated when it was spoken: as long ago as its audio was streamed.

    Args:
        url: The stream's address for captions; ``https://`` although YouTube shows ``http://``,
            since its key is in it.
        highlighter: Chooses which names are marked.
        marks: What opens and what closes a name: two characters, or none at all.
        name_speakers: See `Captioner`.
        policy: How long to wait and how often to try.
        now_s: Seconds since 1970.

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
        now_s: Callable[[], float] = time.time,
    ) -> None:
        receiver = HttpReceiver(
            url,
            name="a caption address of YouTube",
            content_type=CONTENT_TYPE,
            is_secret=True,
            policy=policy,
            is_retryable=is_refusal,
        )
        captioner = Captioner(highlighter, name_speakers=name_speakers)
        super().__init__(receiver, captioner, PlainMarks.parse(marks))
        self._now_s = now_s
        self._audio_began_s = now_s()

    def on_audio(self, block: bytes, audio_ms: float) -> None:
        """Note when the audio would have begun, had it never stood still."""
        super().on_audio(block, audio_ms)
        self._audio_began_s = self._now_s() - audio_ms / 1_000

    def written(self, cue: Cue, lines: Sequence[str]) -> str:
        """The moment in UTC, and the lines as one."""
        spoken = datetime.fromtimestamp(self._audio_began_s + cue.start_ms / 1_000, UTC)
        moment = spoken.replace(tzinfo=None).isoformat(timespec="milliseconds")
        return f"{moment} {_REGION}\n{'<br>'.join(lines)}\n"
