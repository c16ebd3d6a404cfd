"""Captions as HLS subtitles: a playlist of WebVTT segments in a folder, for a web server to serve.

RFC 8216, section 3.5: a segment has every cue that is shown during it, and ``X-TIMESTAMP-MAP`` says
which MPEG time its zero is, so that players can place the cues in the video. A segment that a
playlist names never changes. So one is written only when its utterances are answered; what is
answered later still is shown from the next segment on.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from cnerta.models.files import write_atomically
from cnerta.streamer.errors import OutputError
from cnerta.streamer.outputs.caption_formats import WebVtt
from cnerta.streamer.outputs.captioner import Captioner
from cnerta.streamer.outputs.highlighting import Highlighter
from cnerta.streamer.outputs.presenter import PresenterBase
from cnerta.streamer.sources import Revision
from cnerta.streamer.wire.messages import (
    ServerMessage,
    SessionSummary,
    UtteranceFinal,
)

__all__ = ["PLAYLIST_NAME", "HlsCaptions", "HlsOptions"]

PLAYLIST_NAME: Final = "captions.m3u8"
_VTT_FIRST_LINE: Final = "WEBVTT\n"
_PLAYLIST_HEAD: Final = """\
#EXTM3U
#EXT-X-VERSION:3
#EXT-X-TARGETDURATION:{target}
#EXT-X-MEDIA-SEQUENCE:0
#EXT-X-PLAYLIST-TYPE:EVENT
"""


@dataclass(frozen=True, slots=True)
class HlsOptions:
    """How the segments are made.

    Attributes:
        segment_ms: Length of a segment; whole seconds.
        delay_ms: Audio after a segment's end before it is written, for what has no interims.
        longest_wait_ms: Audio after its end for which a segment waits for what is still spoken.
        mpeg_time: Presentation time of the video, in 1/90,000 s, at which the audio begins.
        is_paced: Whether the audio comes at the pace of speech. If not, it says nothing of how far
            the answers are, and segments are written at the end.
    """

    segment_ms: int = 6_000
    delay_ms: int = 4_000
    longest_wait_ms: int = 20_000
    mpeg_time: int = 0
    is_paced: bool = True


DEFAULT_OPTIONS: Final = HlsOptions()


@dataclass(frozen=True, slots=True)
class _WrittenCue:
    start_ms: int
    end_ms: int
    text: str


class HlsCaptions(PresenterBase):
    """A `Presenter` that writes HLS subtitles.

    Args:
        folder: Gets ``captions.m3u8`` and the segments; made if it is not there. What an earlier
            session has left there is replaced.
        highlighter: Chooses what is highlighted.
        options: How the segments are made.
        name_speakers: See `Captioner`.
    """

    def __init__(
        self,
        folder: Path,
        highlighter: Highlighter,
        options: HlsOptions = DEFAULT_OPTIONS,
        *,
        name_speakers: bool = False,
    ) -> None:
        self._folder = folder
        self._captioner = Captioner(highlighter, name_speakers=name_speakers)
        self._options = options
        self._format = WebVtt()
        self._cues: list[_WrittenCue] = []
        self._playlist = _PLAYLIST_HEAD.format(target=-(-options.segment_ms // 1_000))
        self._segments = 0
        self._has_ended = False

    @property
    def _written_ms(self) -> int:
        """Up to where there are segments."""
        return self._segments * self._options.segment_ms

    def on_audio(self, block: bytes, audio_ms: float) -> None:
        """Write the segments whose time has come.

        Raises:
            OutputError: One cannot be written.
        """
        self._captioner.heard(audio_ms)
        self._write_due()

    def on_revision(self, revision: Revision) -> None:
        """Note when the utterance was spoken."""
        self._captioner.sent(revision)

    def on_message(self, message: ServerMessage) -> None:
        """Take what is final; write the rest at the end.

        Raises:
            OutputError: It cannot be written.
        """
        match message:
            case UtteranceFinal():
                self._add(message)
                self._write_due()
            case SessionSummary():
                self._end()
            case _:
                pass

    def _add(self, final: UtteranceFinal) -> None:
        told = self._captioner.captioned(final, not_before_ms=self._written_ms)
        self._cues += [
            _WrittenCue(cue.start_ms, cue.end_ms, self._format.block(replace(told, cues=(cue,))))
            for cue in told.cues
        ]

    def _write_due(self) -> None:
        while self._options.is_paced and self._is_due():
            self._write_segment(self._options.segment_ms)

    def _is_due(self) -> bool:
        end_ms = self._written_ms + self._options.segment_ms
        past_ms = self._captioner.audio_ms - end_ms
        open_since_ms = self._captioner.open_since_ms
        if open_since_ms is not None and open_since_ms < end_ms:
            return past_ms >= self._options.longest_wait_ms
        return past_ms >= self._options.delay_ms

    def _end(self) -> None:
        """Write what is left, and say that nothing follows; done once."""
        if self._has_ended:
            return
        self._has_ended = True
        last_ms = max([self._captioner.audio_ms, *(cue.end_ms for cue in self._cues)])
        while self._written_ms < last_ms:
            self._write_segment(min(self._options.segment_ms, last_ms - self._written_ms))
        self._playlist += "#EXT-X-ENDLIST\n"
        self._write(PLAYLIST_NAME, self._playlist)

    def _write_segment(self, duration_ms: float) -> None:
        start_ms, end_ms = self._written_ms, self._written_ms + self._options.segment_ms
        name = f"captions-{self._segments:05d}.vtt"
        head = self._format.head(()).removeprefix(_VTT_FIRST_LINE)
        mapping = f"X-TIMESTAMP-MAP=LOCAL:00:00:00.000,MPEGTS:{self._options.mpeg_time}\n"
        shown = [cue.text for cue in self._cues if cue.start_ms < end_ms and start_ms < cue.end_ms]
        self._write(name, "".join([_VTT_FIRST_LINE, mapping, head, *shown]))
        # Named only when it is there.
        self._playlist += f"#EXTINF:{duration_ms / 1_000:.3f},\n{name}\n"
        self._write(PLAYLIST_NAME, self._playlist)
        self._cues = [cue for cue in self._cues if cue.end_ms > end_ms]
        self._segments += 1

    def _write(self, name: str, content: str) -> None:
        path = self._folder / name
        try:
            write_atomically(path, content.encode())
        except OSError as error:
            self._has_ended = True  # Nothing more is tried.
            raise OutputError(
                f"expected to write {path}, got: {error.strerror or error}"
            ) from error

    def __enter__(self) -> Self:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            for left in self._folder.glob("captions-[0-9]*.vtt"):
                left.unlink()
        except OSError as error:
            raise OutputError(
                f"expected a folder for captions at {self._folder}, got: {error.strerror or error}"
            ) from error
        self._write(PLAYLIST_NAME, self._playlist)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end()
